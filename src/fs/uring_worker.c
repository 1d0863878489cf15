/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Since 6.16 a process has a table of its own for futexes as soon as it has a second thread
 * (futex_hash_allocate_default()), also one of the kernel that works for io_uring. A request that
 * waits for a futex before that stands in the table of the machine, where nobody looks for it
 * afterwards. So such a thread is there before requests are submitted again.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/uring.h"

struct small {
	struct io_uring_params params;
	int remote, fd; /* in the task, here */
};

static int put_request(const struct small *s, struct error *e)
{
	struct io_uring_sqe *sqes =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, IORING_OFF_SQES);
	uint8_t *rings =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, IORING_OFF_SQ_RING);
	int r = 0;

	if (sqes == MAP_FAILED || (void *)rings == MAP_FAILED) {
		r = error_errno(e, -errno, E_RESTORE, "cannot map an io_uring");
	} else {
		sqes[0] = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .flags = IOSQE_ASYNC};
		*(uint32_t *)(void *)(rings + s->params.sq_off.array) = 0;
		*(uint32_t *)(void *)(rings + s->params.sq_off.tail) = 1;
	}
	if (sqes != MAP_FAILED)
		munmap(sqes, 4096);
	if ((void *)rings != MAP_FAILED)
		munmap(rings, 4096);
	return r;
}

static int call(const struct restart_task *t, long nr, const uint64_t args[6], struct error *e)
{
	long r = agent_syscall(t->process->agent, t->tid, NULL, e, nr, args);

	return r < 0 ? error_errno(e, (int)r, E_RESTORE, "cannot make a worker of io_uring")
		     : (int)r;
}

int uring_make_worker(const struct restart_task *t, struct error *e)
{
	struct small s = {.fd = -EBADF};
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, &s.params, sizeof(s.params));
	int setup = batch_call(&b, SYS_io_uring_setup, VAL(1), DATA(at));
	int r = agent_run(t->process->agent, t->tid, NULL, &b, e);

	if (r < 0)
		return r;
	s.remote = (int)batch_result(&b, setup);
	if (s.remote < 0)
		return error_errno(e, s.remote, E_RESTORE, "cannot make an io_uring");
	s.params = *(const struct io_uring_params *)batch_at(&b, at);
	r = uring_take_over(t, s.remote, &s.fd, e);
	if (r >= 0)
		r = put_request(&s, e);
	if (r >= 0)
		r = call(t, SYS_io_uring_enter,
			 (const uint64_t[6]){(uint64_t)s.remote, 1, 1, IORING_ENTER_GETEVENTS}, e);
	if (r >= 0)
		r = call(t, SYS_close, (const uint64_t[6]){(uint64_t)s.remote}, e);
	close_fd(&s.fd);
	return r;
}
