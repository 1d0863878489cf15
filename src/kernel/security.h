/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_SECURITY_H
#define REPRISE_KERNEL_SECURITY_H

#include "model/checkpoint.h"

/*
 * What keeps a task in bounds, beside credentials and seccomp, and cannot be made again: rules of
 * Landlock, the label of a security module; and keyrings of its own. It is refused.
 */

/* Processes that are looked at by tasks; see security.c. One for a checkpoint. */
struct security_probes;
void security_probes_free(struct security_probes *probes); /* accepts NULL */

/*
 * Labels of all threads (/proc/PID/attr/current) are that of reprise; NULL: no module gives labels.
 * -EPERM if not. May be called by any thread.
 */
int security_label_own(const struct checkpoint *c, char **ret);
int security_compare_labels(const struct checkpoint *c, const char *own,
			    const struct checkpoint_process *p, struct error *e) must_check;

struct security_query {
	int probe; /* -1: there was no need to ask */
	int keyrings[2];
};
/* Questions that only the thread can answer. */
int security_query(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		   struct batch *b, struct security_query *q, struct error *e) must_check;
/*
 * While checking: could it be asked? If not, because there may be no process with the ids of the
 * task, and the memory of the kernel may not be read either, it is refused, here as there.
 */
int security_check(struct checkpoint *c, const struct checkpoint_process *p,
		   struct error *e) must_check;
/* The refusals (E_TASK_SECURITY), for whoever has found the reason. */
int security_landlock(struct error *e);
int security_keyring(bool of_process, struct error *e);
/* Refuses (E_TASK_SECURITY). */
int security_collect(const struct batch *b, const struct security_query *q,
		     struct error *e) must_check;

#endif
