/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts of message queues show those of the IPC namespace of who mounted. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "ipc/mqueue.h"
#include "ipc/sysv.h"
#include "ns/spaces.h"

/* They are mounted again by somebody who is in that one. */
static int check_mount(struct checkpoint *c, const struct mounts_survey *sv,
		       const Reprise__Mount *m, uint64_t space, struct error *e)
{
	int r;

	if (m->kind != MOUNT_FRESH || strcmp(m->type, "mqueue") != 0)
		return 0;
	r = mqueue_shows(c, mounts_device(sv, m->id), space, e);
	if (r != 0)
		return r < 0 ? r : 0;
	error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
		  "it shows the message queues of another IPC namespace than that of the first "
		  "task in its mount namespace");
	return error_object(e, -EOPNOTSUPP, "mount %s", m->point);
}

static int check_all(struct checkpoint *c, const struct mounts_survey *sv, uint64_t space,
		     struct error *e)
{
	int r = 0;

	vec_for_each (m, &sv->mounts)
		if (r >= 0)
			r = checkpoint_refuse(c, check_mount(c, sv, *m, space, e), e);
	return r;
}

int mounts_check_queues(struct checkpoint *c, const struct container *ct, struct error *e)
{
	int r = check_all(c, &ct->mounts, 0, e);

	vec_for_each (x, &c->spaces.looked->list)
		if (r >= 0)
			r = check_all(c, &(*x)->mounts, space_of_task(c, (*x)->tid, CLONE_NEWIPC),
				      e);
	return r;
}
