/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_HIDDEN_H
#define REPRISE_NS_MOUNTS_HIDDEN_H

#include <stdbool.h>

#include "ns/mount_table.h"

/* Mounts to which no path leads, since others were mounted over them. */
struct mount_hidden {
	int id;
	int fd;	    /* a copy of it alone, attached nowhere; negative: it was not reached */
	bool loose; /* with mounts on it that are locked there, if need be; may only name it */
};
struct mounts_hidden {
	VEC(struct mount_hidden);
};
void mounts_hidden_free(struct mounts_hidden *h);

/* Does the path of one lead there? In the mount namespace of a task of that /proc. */
bool mount_is_hidden(int proc_fd, pid_t pid, const struct mount_line *m);
/*
 * Finds all that are in `ret` already. They are looked for in a copy of the mount namespace of that
 * task, where what lies over them is taken away.
 */
int mounts_hidden_find(int proc_fd, pid_t pid, const struct mount_table *t,
		       struct mounts_hidden *ret, struct error *e) must_check;
/* NULL: it is not hidden. */
const struct mount_hidden *mount_hidden_of(const struct mounts_hidden *h, int id);

#endif
