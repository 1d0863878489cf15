/* SPDX-License-Identifier: Apache-2.0 */
/* What an application registers with an io_uring, registered again by the task that owns it. */
#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/uring.h"

enum { SLOTS_AT_ONCE = 200 };

/* One task, and the number that the rings have in it. */
struct registering {
	struct restart *r;
	struct restart_task *t;
	int ring;
	const Reprise__IoUring *m;
};

static int ran(const struct registering *x, struct batch *b, int call, const char *what,
	       struct error *e)
{
	int r = agent_run(x->t->process->agent, x->t->tid, NULL, b, e);

	if (r >= 0 && batch_result(b, call) < 0)
		r = error_errno(e, (int)batch_result(b, call), E_RESTORE,
				"cannot register %s with an io_uring in task %d", what, x->t->vtid);
	return r;
}

static int call_with(const struct registering *x, unsigned int op, const void *arg, uint32_t size,
		     uint32_t n, const char *what, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, arg, size);
	int call = batch_call(&b, SYS_io_uring_register, VAL(x->ring), VAL(op), DATA(at), VAL(n));

	return ran(x, &b, call, what, e);
}

/* A table of so many slots, all empty. */
static int make_slots(const struct registering *x, unsigned int op, uint32_t n, const char *what,
		      struct error *e)
{
	struct io_uring_rsrc_register arg = {.nr = n, .flags = IORING_RSRC_REGISTER_SPARSE};

	return n ? call_with(x, op, &arg, sizeof(arg), sizeof(arg), what, e) : 0;
}

static int close_all(const struct registering *x, const int *fds, size_t n, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};

	for (size_t i = 0; i < n; i++)
		batch_call(&b, SYS_close, VAL(fds[i]));
	return agent_run(x->t->process->agent, x->t->tid, NULL, &b, e);
}

/* `n` from `from` on, in slots that follow each other. */
static int put_files(const struct registering *x, size_t from, size_t n, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct io_uring_rsrc_update2 arg = {.offset = x->m->files[from]->slot, .nr = (uint32_t)n};
	int fds[SLOTS_AT_ONCE], remote[SLOTS_AT_ONCE], call, r;
	uint64_t tags[SLOTS_AT_ONCE];
	uint32_t at, fds_at, tags_at;

	for (size_t i = 0; i < n; i++) {
		fds[i] = files_restart_fd(x->r, x->m->files[from + i]->file);
		tags[i] = x->m->files[from + i]->tag;
	}
	r = restart_send_fds(x->r, x->t, fds, n, remote, e);
	if (r < 0)
		return r;
	at = batch_data(&b, &arg, sizeof(arg));
	fds_at = batch_data(&b, remote, (uint32_t)(n * sizeof(remote[0])));
	tags_at = batch_data(&b, tags, (uint32_t)(n * sizeof(tags[0])));
	batch_pointer(&b, at + offsetof(struct io_uring_rsrc_update2, data), fds_at);
	batch_pointer(&b, at + offsetof(struct io_uring_rsrc_update2, tags), tags_at);
	call = batch_call(&b, SYS_io_uring_register, VAL(x->ring),
			  VAL(IORING_REGISTER_FILES_UPDATE2), DATA(at), VAL(sizeof(arg)));
	r = ran(x, &b, call, "files", e);
	return r < 0 ? r : close_all(x, remote, n, e);
}

static int register_files(const struct registering *x, struct error *e)
{
	const Reprise__IoUring *m = x->m;
	struct io_uring_file_index_range range = {.off = m->alloc_start,
						  .len = m->alloc_end - m->alloc_start};
	int r = make_slots(x, IORING_REGISTER_FILES2, m->file_slots, "files", e);

	for (size_t i = 0, n; i < m->n_files && r >= 0; i += n) {
		for (n = 1; i + n < m->n_files && n < SLOTS_AT_ONCE; n++)
			if (m->files[i + n]->slot != m->files[i]->slot + n)
				break;
		r = put_files(x, i, n, e);
	}
	if (r >= 0 && m->file_slots && (m->alloc_start || m->alloc_end != m->file_slots))
		r = call_with(x, IORING_REGISTER_FILE_ALLOC_RANGE, &range, sizeof(range), 0,
			      "a range of files", e);
	return r;
}

static int put_buffers(const struct registering *x, size_t from, size_t n, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct io_uring_rsrc_update2 arg = {.offset = x->m->buffers[from]->slot, .nr = (uint32_t)n};
	struct iovec vec[SLOTS_AT_ONCE];
	uint64_t tags[SLOTS_AT_ONCE];
	uint32_t at, vec_at, tags_at;
	int call;

	for (size_t i = 0; i < n; i++) {
		const Reprise__IoUringBuffer *m = x->m->buffers[from + i];

		vec[i] = (struct iovec){(void *)(uintptr_t)m->address, m->length};
		tags[i] = m->tag;
	}
	at = batch_data(&b, &arg, sizeof(arg));
	vec_at = batch_data(&b, vec, (uint32_t)(n * sizeof(vec[0])));
	tags_at = batch_data(&b, tags, (uint32_t)(n * sizeof(tags[0])));
	batch_pointer(&b, at + offsetof(struct io_uring_rsrc_update2, data), vec_at);
	batch_pointer(&b, at + offsetof(struct io_uring_rsrc_update2, tags), tags_at);
	call = batch_call(&b, SYS_io_uring_register, VAL(x->ring),
			  VAL(IORING_REGISTER_BUFFERS_UPDATE), DATA(at), VAL(sizeof(arg)));
	return ran(x, &b, call, "buffers", e);
}

static int register_buffers(const struct registering *x, struct error *e)
{
	const Reprise__IoUring *m = x->m;
	int r = make_slots(x, IORING_REGISTER_BUFFERS2, m->buffer_slots, "buffers", e);

	for (size_t i = 0, n; i < m->n_buffers && r >= 0; i += n) {
		for (n = 1; i + n < m->n_buffers && n < SLOTS_AT_ONCE; n++)
			if (m->buffers[i + n]->slot != m->buffers[i]->slot + n)
				break;
		r = put_buffers(x, i, n, e);
	}
	return r;
}

static int register_eventfd(const struct registering *x, struct error *e)
{
	int fd = files_restart_fd(x->r, x->m->eventfd), remote, r;

	if (!x->m->eventfd)
		return 0;
	r = restart_send_fds(x->r, x->t, &fd, 1, &remote, e);
	if (r >= 0)
		r = call_with(x,
			      x->m->eventfd_async ? IORING_REGISTER_EVENTFD_ASYNC
						  : IORING_REGISTER_EVENTFD,
			      &remote, sizeof(remote), 1, "an eventfd", e);
	return r < 0 ? r : close_all(x, &remote, 1, e);
}

static int set_rest(const struct registering *x, struct error *e)
{
	uint32_t workers[2] = {x->m->bounded_workers, x->m->unbounded_workers};
	struct uring_clock_register clock = {.clock = (uint32_t)x->m->clock};
	struct uring_napi napi = {.timeout_us = x->m->napi_us, .prefer = x->m->napi_prefer};
	int r = 0;

	if (x->m->clock != CLOCK_MONOTONIC)
		r = call_with(x, IORING_REGISTER_CLOCK_NR, &clock, sizeof(clock), 0, "a clock", e);
	if (r >= 0 && x->m->napi)
		r = call_with(x, URING_REGISTER_NAPI, &napi, sizeof(napi), 1, "busy polling", e);
	if (r >= 0 && (workers[0] || workers[1]))
		r = call_with(x, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, sizeof(workers), 2,
			      "the number of workers", e);
	return r;
}

int uring_register_all(struct restart *r, struct restart_task *t, const Reprise__IoUring *m, int fd,
		       struct error *e)
{
	const struct registering x = {.r = r, .t = t, .ring = fd, .m = m};
	int res = register_files(&x, e);

	if (res >= 0)
		res = register_buffers(&x, e);
	if (res >= 0)
		res = register_eventfd(&x, e);
	return res < 0 ? res : set_rest(&x, e);
}
