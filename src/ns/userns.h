/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_USERNS_H
#define REPRISE_NS_USERNS_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/*
 * A user namespace of its own. A map of one id is that of whoever makes it, whatever he is called
 * inside; others are as they were, and take privilege.
 */
int userns_checkpoint(int proc_fd, int ns, Reprise__Container *msg, struct scratch *s,
		      struct error *e) must_check;
/* May we make it again? */
int userns_check_right(const Reprise__Container *msg, struct error *e) must_check;
/* The same, and has who is in it a name there? */
int userns_check_names(int proc_fd, pid_t pid, const Reprise__Container *msg,
		       struct error *e) must_check;
/* A descriptor of the user namespace directly below ours in which a process is, itself or in one
 * below that: sandboxes give up their power by going into another one. */
int userns_open(int proc_fd, pid_t pid, struct error *e) must_check;
#define USERNS_EXTENTS_MAX 340 /* UID_GID_MAP_MAX_EXTENTS */
/* All that is in the maps of a process; ids as we call them. */
int userns_read_maps(int proc_fd, pid_t pid, Reprise__Container *msg, struct scratch *s,
		     struct error *e) must_check;
/* The map of a process that has none yet: 0 or a negative errno. */
int userns_write_map(int proc_fd, pid_t pid, const char *file, size_t n,
		     Reprise__IdMap *const *map);
/* Are we root where nothing is hidden from root? */
bool userns_is_first(int proc_fd);
int userns_validate(const Reprise__Container *msg, struct error *e) must_check;
/* Is it one in which we have no name? */
bool userns_is_foreign(const Reprise__Container *msg);
/*
 * Who is in such a one becomes somebody there: files are made there by those only who have a name.
 * He is not dumpable then. That is root, if root has a name there: some settings are his.
 */
uint32_t userns_somebody(size_t n, Reprise__IdMap *const *map);
int userns_become(const Reprise__Container *msg, struct error *e) must_check;
/* This process enters a new one, with other new namespaces at once. */
int userns_make(int flags, const Reprise__Container *msg, struct error *e) must_check;
/* The same for a new container. as_root: the caller is root inside. */
int userns_make_new(int flags, bool as_root, struct error *e) must_check;

#endif
