/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread may know rings by numbers of its own (IORING_REGISTER_RING_FDS), and then close the
 * descriptor. Whether it does, it is asked itself: a call that does nothing tells. Which rings they
 * are is told by the kernel's memory.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_private.h"
#include "fs/send_fds.h"
#include "fs/uring.h"

/* ---- checkpoint ---- */

int uring_numbers_query(struct batch *b)
{
	int first = batch_call(b, SYS_io_uring_enter, VAL(0), VAL(0), VAL(0),
			       VAL(IORING_ENTER_REGISTERED_RING), VAL(0), VAL(0));

	for (int i = 1; i < URING_NUMBERS; i++)
		batch_call(b, SYS_io_uring_enter, VAL(i), VAL(0), VAL(0),
			   VAL(IORING_ENTER_REGISTERED_RING), VAL(0), VAL(0));
	return first;
}

int uring_numbers_collect(struct checkpoint *c, pid_t tid, const struct batch *b, int first,
			  struct error *e)
{
	for (int i = 0; i < URING_NUMBERS; i++) {
		long r = batch_result(b, first + i);
		struct ring_number *n;

		/* none of that number; no number at all; no such flag or call */
		if (r == -EBADF || r == -EINVAL || r == -ENOSYS)
			continue;
		n = vec_push(&c->files->ring_numbers);
		if (!n)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
		n->tid = tid;
		n->index = (uint32_t)i;
	}
	return 0;
}

static int no_descriptor(pid_t tid, struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "task %d has registered rings of io_uring (IORING_REGISTER_RING_FDS) that "
			 "nobody has as a descriptor",
			 tid);
}

static int add_number(struct checkpoint *c, Reprise__IoUring *m, const struct ring_number *n)
{
	struct scratch *s = &c->files->scratch;
	Reprise__IoUringNumber **more, *msg;

	for (size_t i = 0; i < m->n_numbers; i++)
		if (m->numbers[i]->task == n->tid && m->numbers[i]->index == n->index)
			return 0; /* by way of another ring */
	more = scratch_alloc(s, (m->n_numbers + 1) * sizeof(*more));
	msg = scratch_message(s, Reprise__IoUringNumber, reprise__io_uring_number__init);
	if (!more || !msg)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_numbers; i++)
		more[i] = m->numbers[i];
	msg->task = n->tid;
	msg->index = n->index;
	more[m->n_numbers++] = msg;
	m->numbers = more;
	return 0;
}

int uring_numbers_resolve(struct checkpoint *c, const struct ring_number *numbers, size_t n,
			  uint64_t (*id_of)(const void *arg, uint64_t file), const void *arg,
			  struct error *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct file_entry *f = file_entry_by_id(c, id_of(arg, numbers[i].file));

		if (!f || !f->ops || !f->msg->io_uring)
			return no_descriptor(numbers[i].tid, e);
		if (add_number(c, f->msg->io_uring, &numbers[i]) < 0)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
		vec_for_each (known, &c->files->ring_numbers)
			if (known->tid == numbers[i].tid && known->index == numbers[i].index)
				known->file = numbers[i].file;
	}
	return 0;
}

int uring_numbers_check(const struct checkpoint *c, struct error *e)
{
	vec_for_each (n, &c->files->ring_numbers)
		if (!n->file)
			return no_descriptor(n->tid, e);
	return 0;
}

/* ---- restart ---- */

static int register_one(struct restart *r, const Reprise__IoUringNumber *n, int fd, struct error *e)
{
	struct restart_task *t = restart_task_by_vtid(r, n->task);
	struct io_uring_rsrc_update update = {.offset = n->index};
	_cleanup_(batch_free) struct batch b = {};
	int ring, call, res;
	uint32_t at;

	if (!t || t->msg->is_zombie)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an io_uring of task %d, which is not there", n->task);
	res = give_fd(r, t, fd, &ring, e);
	if (res < 0)
		return res;
	update.data = (uint64_t)ring;
	at = batch_data(&b, &update, sizeof(update));
	call = batch_call(&b, SYS_io_uring_register, VAL(ring), VAL(IORING_REGISTER_RING_FDS),
			  DATA(at), VAL(1));
	batch_call(&b, SYS_close, VAL(ring));
	res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (res >= 0 && batch_result(&b, call) != 1)
		res = error_errno(e,
				  batch_result(&b, call) < 0 ? (int)batch_result(&b, call) : -EIO,
				  E_RESTORE, "cannot register an io_uring as number %u of task %d",
				  n->index, t->vtid);
	return res;
}

int uring_numbers_restart(struct restart *r, const Reprise__IoUring *m, int fd, struct error *e)
{
	int res = 0;

	for (size_t i = 0; i < m->n_numbers && res >= 0; i++)
		res = register_one(r, m->numbers[i], fd, e);
	return res;
}
