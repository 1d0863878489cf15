/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_REFUSE_H
#define REPRISE_NS_MOUNTS_REFUSE_H

#include "ns/mount_table.h"

/* By what mountinfo tells of it. */
int mounts_check_line(const struct mount_line *m, struct error *e) must_check;
/* A terminal of the container, such as the console of whoever has made it. */
bool mounts_is_terminal(const struct mount_line *m);
/* Of a file of a file system of the container: it must be none. */
int mounts_check_terminal(const struct mount_line *m, struct error *e) must_check;
/* Is something of BPF pinned in that file system? at: its root. */
int mounts_check_pinned(int at, struct error *e) must_check;

#endif
