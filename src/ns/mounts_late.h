/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_LATE_H
#define REPRISE_NS_MOUNTS_LATE_H

#include "ns/mounts.h"

/*
 * A proc shows the pid namespace of who mounts it. That of one below the root's can be mounted when
 * the first process of it is there, which is after the mount namespace was made; and with it comes
 * what is mounted on it, or bound from it.
 */

/* Which pid namespace below the root's does it show? *ret: 0 for the root's. `at`: where it is. */
int mounts_look_proc(struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		     uint64_t *ret, struct error *e) must_check;
/*
 * Of the root's own mounts it is known only now which of the pid namespaces they show are of the
 * tree.
 */
int mounts_resolve_procs(struct checkpoint *c, struct mounts_survey *sv,
			 struct error *e) must_check;
/* Is it mounted on one that has been found to come late? */
bool mounts_is_on_late(const struct mounts_survey *sv, const struct mount_line *m);
/* All are looked at: those that come late are of kinds that can. */
int mounts_check_late(const struct mounts_survey *sv, struct error *e) must_check;

/* Does the i-th come late? Parents stand before what is mounted on them. NULL: no memory. */
bool *mounts_find_late(size_t n, Reprise__Mount *const *mounts, struct error *e);
/* Where mounts stand, by their ids, to be freed; NULL: no memory. SIZE_MAX: nowhere. */
struct mount_place {
	int id;
	size_t i;
};
struct mount_place *mounts_places(size_t n, Reprise__Mount *const *mounts);
size_t mounts_place(const struct mount_place *places, size_t n, int id);
int mounts_validate_late(const struct restart *r, const Reprise__Container *msg,
			 struct error *e) must_check;
/*
 * Mounts one, in the mount namespace `ns`; the caller is in the pid namespace that it shows, and
 * still in the mount namespace of the root, where what is bound from outside is found.
 */
int mounts_restart_late(const Reprise__Container *msg, size_t i, int ns,
			struct error *e) must_check;

#endif
