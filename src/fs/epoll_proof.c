/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the entries of a large set still are the descriptions that have their numbers.
 *
 * kcmp(2) walks through the set for each question (ep_find_tfd()), so that the cost of all entries
 * grows with the square of their number. epoll_ctl(2) finds an entry at once, by description and
 * number: adding it again fails with EEXIST and changes nothing. (Where an entry is another, it
 * is added for a moment, with no events, while the tasks stand still.)
 *
 * The descriptions have to stand on their numbers for that: in a thread with a descriptor table of
 * its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/epoll_private.h"
#include "fs/file_private.h"

struct proof {
	const struct file_entry *set;
	struct epoll_seen *seen;
};

static bool is_member(int set, int fd)
{
	struct epoll_event none = {};

	if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &none) < 0)
		return errno == EEXIST;
	epoll_ctl(set, EPOLL_CTL_DEL, fd, &none);
	return false;
}

/* Whatever stands on the number goes: it is in this table only. */
static void prove_entry(int pidfd, int set, int number, bool *ret_proven)
{
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);

	if (fd < 0)
		return;
	if (fd == number || dup3(fd, number, O_CLOEXEC) == number)
		*ret_proven = is_member(set, number);
	if (fd != number)
		close(fd);
	close(number);
}

static void *prove(void *arg)
{
	const struct proof *p = arg;
	const Reprise__Epoll *m = p->set->msg->epoll;
	int pidfd, set;

	if (unshare(CLONE_FILES) < 0)
		return NULL;
	pidfd = files_pidfd(p->set->tid);
	set = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, p->set->fd, 0);
	for (size_t i = 0; i < m->n_entries && set >= 0; i++)
		if (m->entries[i]->fd != pidfd && m->entries[i]->fd != set)
			prove_entry(pidfd, set, m->entries[i]->fd, &p->seen[i].proven);
	return NULL;
}

void epoll_prove(struct checkpoint *c, const struct file_entry *set, struct epoll_seen *seen)
{
	struct proof p = {set, seen};
	pthread_t thread;

	if (set->fd < 0)
		return;
	if (c->checking) {
		/* The tasks run: a checkpoint asks again. */
		for (size_t i = 0; i < set->msg->epoll->n_entries; i++)
			seen[i].proven = true;
		return;
	}
	/* What is not proven is asked with kcmp(2). */
	if (pthread_create(&thread, NULL, prove, &p) == 0)
		pthread_join(thread, NULL);
}
