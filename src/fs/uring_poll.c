/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings with a thread of the kernel that submits (IORING_SETUP_SQPOLL). It belongs to the process
 * that has made the ring, and does not stand still when that does: what the application has put in
 * is taken by it before the ring is saved. When it sleeps it says so by a flag in the rings, which
 * is always set in new ones: the application then wakes it, which does no harm.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/uring_provided.h"
#include "kernel/cred.h"

#define KNOWN_IDLE_MS 1000 /* of a ring of ours, which shows how long a jiffy is */
#define PATIENCE_MS   10000
#define STEP_NS	      50000L

/* ---- checkpoint ---- */

/* From uid to cap_ambient, without counters and keys (struct cred). */
int uring_same_credentials(struct kernel_memory *k, uint64_t a, uint64_t b, bool *ret)
{
	int from = kernel_offset(k, "cred", "uid"), to = kernel_offset(k, "cred", "jit_keyring");
	uint64_t groups[2] = {}, ns[2] = {};
	uint8_t x[256], y[256];
	int r = 0;

	*ret = a == b;
	if (a == b)
		return 0;
	if (from < 0 || to < from || (size_t)(to - from) > sizeof(x))
		return -EOPNOTSUPP;
	r = kernel_read(k, a + (uint32_t)from, x, (size_t)(to - from));
	if (r >= 0)
		r = kernel_read(k, b + (uint32_t)from, y, (size_t)(to - from));
	for (int i = 0; i < 2 && r >= 0; i++) {
		r = kernel_member(k, i ? b : a, "cred", "group_info", &groups[i], 8);
		if (r >= 0)
			r = kernel_member(k, i ? b : a, "cred", "user_ns", &ns[i], 8);
	}
	*ret = r >= 0 && !memcmp(x, y, (size_t)(to - from)) && groups[0] == groups[1] &&
	       ns[0] == ns[1];
	return r;
}

static int look_at_credentials(struct kernel_memory *k, uint64_t ctx, uint64_t leader,
			       struct uring_seen *s)
{
	uint64_t of_ring = 0, of_task = 0;
	bool same = false;
	int r = kernel_member(k, ctx, "io_ring_ctx", "sq_creds", &of_ring, 8);

	if (r >= 0)
		r = kernel_member(k, leader, "task_struct", "cred", &of_task, 8);
	if (r >= 0)
		r = uring_same_credentials(k, of_ring, of_task, &same);
	if (r >= 0 && !same)
		s->obstacle = "its process had other credentials when it was made, and the thread "
			      "of the kernel that submits its requests (IORING_SETUP_SQPOLL) "
			      "still has them";
	return r;
}

int uring_poll_look(struct kernel_memory *k, uint64_t ctx, uint64_t rings, struct uring_seen *s,
		    uint64_t *ret_leader)
{
	uint64_t data = 0;
	int r = kernel_member(k, ctx, "io_ring_ctx", "sq_data", &data, 8);

	if (r >= 0)
		r = kernel_member(k, data, "io_sq_data", "thread", &s->poller, 8);
	if (r < 0)
		return r;
	if (!s->poller) {
		s->obstacle = "the thread of the kernel that submits its requests "
			      "(IORING_SETUP_SQPOLL) has ended";
		return 0;
	}
	s->poller_data = data;
	r = kernel_member(k, data, "io_sq_data", "refs", &s->poller_users, 4);
	if (r >= 0)
		r = kernel_member(k, data, "io_sq_data", "sq_cpu", &s->poller_cpu, 4);
	if (r >= 0)
		r = kernel_member(k, ctx, "io_ring_ctx", "sq_thread_idle", &s->poller_idle, 4);
	if (r >= 0)
		r = kernel_member(k, rings, "io_rings", "sq.tail", &s->sq_tail, 4);
	if (r >= 0)
		r = kernel_member(k, s->poller, "task_struct", "group_leader", ret_leader, 8);
	return r < 0 ? r : look_at_credentials(k, ctx, *ret_leader, s);
}

int uring_poll_check(struct kernel_memory *k, const struct uring_seen *s, struct error *e)
{
	uint32_t head = 0, tail = 0, timeouts = 0;
	int r;

	if (!s->poller)
		return 0;
	r = kernel_member(k, s->ctx, "io_ring_ctx", "cached_sq_head", &head, sizeof(head));
	if (r >= 0)
		r = kernel_member(k, s->ctx, "io_ring_ctx", "cached_cq_tail", &tail, sizeof(tail));
	if (r >= 0)
		r = kernel_member(k, s->ctx, "io_ring_ctx", "cq_timeouts", &timeouts,
				  sizeof(timeouts));
	/* time that has passed meanwhile passes again */
	if (r < 0 || head != s->sq_head || tail - timeouts != s->cq_tail - s->cq_timeouts)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "its thread (IORING_SETUP_SQPOLL) has ended a request while the "
				 "tasks stood still, for something that came from outside; try "
				 "again");
	return 0;
}

/* The rings that share its thread are known by now; the first of them makes it. */
int uring_poll_share(struct checkpoint *c, const struct file_entry *ring, struct error *e)
{
	const struct uring_seen *s = (const struct uring_seen *)(uintptr_t)ring->private;
	Reprise__IoUring *m = ring->msg->io_uring;
	uint32_t users = 0;

	if (!s->poller || s->poller_users == 1)
		return 0;
	vec_for_each (f, &c->files->files) {
		const struct uring_seen *other =
			(const struct uring_seen *)(uintptr_t)(*f)->private;

		if ((*f)->ops != ring->ops)
			continue;
		if (!other && c->checking) /* in motion */
			return 0;
		if (!other || other->poller_data != s->poller_data)
			continue;
		if (!users++ && *f != ring)
			m->poller_of = (*f)->id;
	}
	if (users == s->poller_users)
		return 0;
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "it shares the thread of the kernel that submits its requests with "
			 "another ring (IORING_SETUP_ATTACH_WQ), which nobody in the tree has as a "
			 "descriptor");
}

void uring_poll_wake(int fd)
{
	ignore(syscall(SYS_io_uring_enter, fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0),
	       "it is looked whether it has come");
}

/* The kernel has the time in jiffies; how long these are is told by a ring whose time is known. */
int uring_poll_save(struct kernel_memory *k, const struct uring_seen *s, Reprise__IoUring *m,
		    struct error *e)
{
	struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL,
					 .sq_thread_idle = KNOWN_IDLE_MS};
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t file, ctx;
	uint32_t known = 0;
	int r;

	if (!(s->flags & IORING_SETUP_SQPOLL))
		return 0;
	fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make rings like it");
	r = kernel_file(k, fd, &file);
	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &ctx, sizeof(ctx));
	if (r >= 0)
		r = kernel_member(k, ctx, "io_ring_ctx", "sq_thread_idle", &known, sizeof(known));
	if (r < 0 || !known)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell how long a thread of io_uring waits");
	m->poller_idle_ms = (uint32_t)((uint64_t)s->poller_idle * KNOWN_IDLE_MS / known);
	m->poller_cpu = s->flags & IORING_SETUP_SQ_AFF ? s->poller_cpu : 0;
	return 0;
}

/* ---- restart ---- */

/* The thread gets the credentials that the task has now, before it gets its own. */
int uring_poll_may(struct restart *r, const struct restart_task *t, const char *what,
		   struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	_cleanup_(batch_free) struct batch b = {};
	_cleanup_(free_ptr) char *status = NULL;
	Reprise__Credentials now = REPRISE__CREDENTIALS__INIT, wanted = *t->msg->creds;
	int res = (int)procfs_read(r->proc_fd, &status, e, "%d/status", t->tid);

	if (res >= 0)
		res = cred_parse(status, &now, &s, e);
	if (res < 0)
		return res;
	wanted.no_new_privs = now.no_new_privs;
	cred_restart(&b, &wanted, &now);
	if (b.ncalls)
		return error_set(
			e, -EOPNOTSUPP, E_RESTORE,
			"an io_uring has %s with the credentials of task %d, which are not "
			"those of the restart",
			what, t->vtid);
	return 0;
}

static int wait_taken(const struct uring_shared *x, int fd, uint32_t count, struct error *e)
{
	const struct timespec step = {.tv_nsec = STEP_NS};

	for (long ns = 0; *uring_word(x, x->layout.sq.head) != count; ns += STEP_NS) {
		if (ns > PATIENCE_MS * 1000000L)
			return error_set(e, -EIO, E_RESTORE,
					 "the thread of an io_uring does not submit");
		uring_poll_wake(fd);
		nanosleep(&step, NULL);
	}
	return 0;
}

int uring_poll_submit(struct uring_shared *x, int fd, uint32_t count, struct error *e)
{
	__atomic_store_n(uring_word(x, x->layout.sq.tail), count, __ATOMIC_RELEASE);
	return wait_taken(x, fd, count, e);
}

/* Completions of what ends at once have been posted when the requests have been taken. */
int uring_poll_count(struct uring_counting *c, uint32_t n, struct error *e)
{
	uint32_t at = *uring_word(&c->x, c->x.layout.sq.head);
	int r = 0;

	while (n && r >= 0) {
		uint32_t part = n < c->x.m->sq_entries ? n : c->x.m->sq_entries;

		at += part;
		n -= part;
		r = uring_poll_submit(&c->x, c->fd, at, e);
		*uring_word(&c->x, c->x.layout.cq.head) = *uring_word(&c->x, c->x.layout.cq.tail);
	}
	return r;
}
