/* SPDX-License-Identifier: Apache-2.0 */
/*
 * F_SETOWN records, next to the owner, the ids of the caller (f_modown()); a
 * signal is sent only where *they* may send one (sigio_perm()). So the ids of
 * the one who called it in the original are put on for that one call: in a thread of
 * its own, as the raw system call changes the ids of its caller only.
 */
#include "fs/setown.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

struct setown {
	int fd;
	struct f_owner_ex owner;
	uid_t uid, euid;
	int result;
};

static void *setown_as(void *arg)
{
	struct setown *s = arg;

	if (syscall(SYS_setresuid, s->uid, s->euid, -1) < 0)
		s->result = -errno;
	else
		s->result = fcntl(s->fd, F_SETOWN_EX, &s->owner) < 0 ? -errno : 0;
	return NULL;
}

static int setown(struct setown *s)
{
	pthread_t thread;
	int r;

	if (s->uid == getuid() && s->euid == geteuid())
		return fcntl(s->fd, F_SETOWN_EX, &s->owner) < 0 ? -errno : 0;
	r = pthread_create(&thread, NULL, setown_as, s);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	return s->result;
}

int file_set_owner(struct restart *r, int fd, const Reprise__File *msg, struct error *e)
{
	const Reprise__FileOwner *m = msg->owner;
	struct setown s = {.fd = fd, .owner = {.type = m->type}, .uid = m->uid, .euid = m->euid};
	int res;

	if (m->pid) {
		/* A group is named by its leader's number, which may belong to nobody any more. */
		s.owner.pid = restart_real_pid(r, m->pid);
		if (s.owner.pid) {
			res = setown(&s);
			if (res < 0)
				return error_errno(e, res, E_RESTORE, "cannot set its owner");
		} else {
			restart_trace(r, "the owner %d of a descriptor is not in the tree", m->pid);
		}
	}
	if (m->signal && fcntl(fd, F_SETSIG, m->signal) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set its signal");
	return 0;
}
