/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_TIMER_OVERRUN_H
#define REPRISE_KERNEL_TIMER_OVERRUN_H

#include "kernel.pb-c.h"
#include "model/checkpoint.h"

/*
 * How often POSIX timers have expired since their signal, which is pending, was sent. Known to the
 * kernel alone until the signal is taken; if its memory may not be read that stays unknown. Timers
 * have been asked for their values: that makes the kernel count.
 */
void timers_pending_overruns(const struct checkpoint *c, const struct checkpoint_process *p,
			     Reprise__Process *msg);

#endif
