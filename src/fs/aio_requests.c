/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of asynchronous I/O that wait for files (IOCB_CMD_POLL; mm/aio_poll.c finds them): which
 * files these are, and asked for again with a request at the same address, which is what its event
 * and io_cancel() name it by. What the application has there by now stays.
 */
#include <errno.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/addresses.h"
#include "fs/aio_requests.h"
#include "fs/context.h"
#include "mm/aio.h"

/* ---- checkpoint ---- */

static int resolve(struct checkpoint *c, Reprise__Vma *v, struct error *e)
{
	struct kernel_memory *k = c->files->kernel;
	struct file_addresses all = {};
	int r;

	if (!v->aio || !v->aio->n_polls) /* refused, while checking; or there are none */
		return 0;
	r = file_addresses_list(c, k, &all, e);
	for (size_t i = 0; i < v->aio->n_polls && r >= 0; i++) {
		Reprise__AioPoll *p = v->aio->polls[i];
		uint64_t eventfd = p->eventfd;

		p->file = file_addresses_id(&all, p->file);
		p->eventfd = eventfd ? file_addresses_eventfd(&all, k, eventfd) : 0;
		if (!p->file || (eventfd && !p->eventfd))
			r = error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				      "requests of asynchronous I/O are in flight (IOCB_CMD_POLL), "
				      "one for a file that nobody has open as a descriptor");
	}
	file_addresses_free(&all);
	return r;
}

int aio_requests_resolve(struct checkpoint *c, struct error *e)
{
	struct kernel_memory *k;
	int r;

	if (!mm_has_aio(c))
		return 0;
	r = files_kernel_memory(c, &k, e);
	return r < 0 ? r : mm_for_each_vma(c, VMA_AIO, "aio", resolve, e);
}

/* ---- restart ---- */

static int exchange(const struct restart_task *t, uint64_t address, struct iocb *put,
		    struct iocb *old, struct error *e)
{
	struct iovec own = {old, sizeof(*old)}, its = {(void *)(uintptr_t)address, sizeof(*old)};
	ssize_t n = old ? process_vm_readv(t->process->pid, &own, 1, &its, 1, 0)
			: (ssize_t)sizeof(*put);

	own.iov_base = put;
	if (n == (ssize_t)sizeof(*put))
		n = process_vm_writev(t->process->pid, &own, 1, &its, 1, 0);
	if (n != (ssize_t)sizeof(*put))
		return error_errno(
			e, n < 0 ? -errno : -EFAULT, E_RESTORE,
			"cannot ask again for what was in flight (IOCB_CMD_POLL), with a "
			"request at %#lx of task %d",
			address, t->vtid);
	return 0;
}

static int submit(const struct restart_task *t, uint64_t context, uint64_t address, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	int call = batch_call(&b, SYS_io_submit, VAL(context), VAL(1),
			      DATA(batch_data(&b, &address, sizeof(address))));
	int r = agent_run(t->process->agent, t->tid, NULL, &b, e);

	if (r >= 0 && batch_result(&b, call) != 1)
		r = error_errno(e, batch_result(&b, call) < 0 ? (int)batch_result(&b, call) : -EIO,
				E_RESTORE,
				"cannot ask again for what was in flight (IOCB_CMD_POLL)");
	return r;
}

static int submit_one(struct restart *r, struct restart_task *t, uint64_t context,
		      const Reprise__AioPoll *p, struct error *e)
{
	int fds[2] = {files_restart_fd(r, p->file), -1}, there[2] = {-1, -1}, res;
	size_t n = p->eventfd ? 2 : 1;
	struct iocb put = {.aio_data = p->data,
			   .aio_lio_opcode = IOCB_CMD_POLL,
			   .aio_buf = p->events,
			   .aio_flags = p->eventfd ? IOCB_FLAG_RESFD : 0},
		    old;
	_cleanup_(batch_free) struct batch b = {};

	if (!restart_find(r, RECORD_FILE, p->file) ||
	    (p->eventfd && !restart_find(r, RECORD_FILE, p->eventfd)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a request of asynchronous I/O for a file that is not there");
	if (p->eventfd)
		fds[1] = files_restart_fd(r, p->eventfd);
	res = restart_send_fds(r, t, fds, n, there, e);
	if (res < 0)
		return res;
	put.aio_fildes = (uint32_t)there[0];
	put.aio_resfd = p->eventfd ? (uint32_t)there[1] : 0;
	res = exchange(t, p->iocb, &put, &old, e);
	if (res >= 0)
		res = submit(t, context, p->iocb, e);
	if (res >= 0)
		res = exchange(t, p->iocb, &old, NULL, e);
	for (size_t i = 0; i < n; i++)
		batch_call(&b, SYS_close, VAL(there[i]));
	return res < 0 ? res : agent_run(t->process->agent, t->tid, NULL, &b, e);
}

int aio_requests_restart(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (p, &r->processes)
		for (size_t i = 0; p->mm && p->mm_owner && i < p->mm->n_vmas; i++) {
			const Reprise__Vma *v = p->mm->vmas[i];

			for (size_t j = 0; v->aio && j < v->aio->n_polls && res >= 0; j++)
				res = submit_one(r, &p->tasks.v[0], v->start, v->aio->polls[j], e);
		}
	return res;
}
