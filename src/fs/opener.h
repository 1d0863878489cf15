/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_OPENER_H
#define REPRISE_FS_OPENER_H

#include "fs/context.h"

/*
 * Files of the kernel (proc, sysfs, cgroups ...) go on asking what who opened them may do (f_cred):
 * whether pagemap shows page frames, or whom cgroup.procs moves. Who may read the memory of the
 * kernel saves that, into msg->opener.
 */
int opener_save(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		struct scratch *s, struct error *e) must_check;
/*
 * Opens *fd, which we have opened, once more as that one; where he may not do that now, with what
 * else it takes of ours, and no more.
 */
int opener_take_over(const struct restart *r, const Reprise__File *msg, int *fd,
		     struct error *e) must_check;

/*
 * Which capabilities are in effect in the calling thread; with `set`, from now on those of `caps`
 * that it may have are, and no others.
 */
int capabilities_in_effect(uint64_t caps, bool set, uint64_t *ret) must_check;

#endif
