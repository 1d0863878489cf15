/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "core/scratch.h"
#include "ipc.pb-c.h"
#include "ipc/sysv.h"

static const char *const names[] = {
	"kernel/sem",
	"kernel/msgmax",
	"kernel/msgmnb",
	"kernel/msgmni",
	"kernel/shmmax",
	"kernel/shmall",
	"kernel/shmmni",
	"kernel/shm_rmid_forced",
	"fs/mqueue/msg_max",
	"fs/mqueue/msgsize_max",
	"fs/mqueue/queues_max",
	"fs/mqueue/msg_default",
	"fs/mqueue/msgsize_default",
};
#define NAMES (sizeof(names) / sizeof(names[0]))

int limits_checkpoint(struct checkpoint *c, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__IpcLimits msg = REPRISE__IPC_LIMITS__INIT;
	Reprise__IpcLimit *limits[NAMES];

	if (c->checking || !c->ipc->used || c->own_ipc)
		return 0;
	msg.limits = limits;
	for (size_t i = 0; i < NAMES; i++) {
		_cleanup_(free_ptr) char *value = NULL;
		ssize_t n = procfs_read(c->proc_fd, &value, e, "sys/%s", names[i]);
		Reprise__IpcLimit *m;

		if (n < 0 && procfs_unless_gone(n, e) < 0)
			return (int)n;
		if (n <= 0)
			continue;
		m = scratch_message(&s, Reprise__IpcLimit, reprise__ipc_limit__init);
		if (!m)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for limits");
		m->name = scratch_string(&s, names[i]);
		m->value = scratch_string(&s, value);
		if (!m->name || !m->value)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for limits");
		limits[msg.n_limits++] = m;
	}
	return checkpoint_put(c, RECORD_IPC_LIMITS, objects_fresh(c->objects), &msg.base, e);
}

/* Nothing but these is ever written. */
static bool is_known(const char *name)
{
	for (size_t i = 0; i < NAMES; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

int limits_validate(const struct restart *r, struct error *e)
{
	const Reprise__IpcLimits *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_IPC_LIMITS, i, NULL)); i++)
		for (size_t k = 0; k < m->n_limits; k++)
			if (!is_known(m->limits[k]->name) ||
			    strspn(m->limits[k]->value, "0123456789 \t\n") !=
				    strlen(m->limits[k]->value))
				return error_set(e, -EBADMSG, E_IMAGE_INVALID,
						 "an impossible limit of IPC");
	return 0;
}

void limits_restart(struct restart *r)
{
	const Reprise__IpcLimits *m = restart_nth(r, RECORD_IPC_LIMITS, 0, NULL);

	for (size_t k = 0; m && k < m->n_limits; k++) {
		const char *value = m->limits[k]->value;
		_cleanup_(free_ptr) char *now = NULL;
		_cleanup_(close_fd) int fd = -EBADF;

		if (procfs_read(r->proc_fd, &now, NULL, "sys/%s", m->limits[k]->name) <= 0 ||
		    !strcmp(now, value))
			continue;
		fd = procfs_open(r->proc_fd, O_WRONLY | O_CLOEXEC, NULL, "sys/%s",
				 m->limits[k]->name);
		if (fd >= 0)
			ignore(write(fd, value, strlen(value)), "see limits.h");
	}
}
