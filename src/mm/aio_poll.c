/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of asynchronous I/O that wait for a file to become ready (IOCB_CMD_POLL, 4.18): the only
 * ones that need not end. What was asked for stands in struct aio_kiocb, in the list of those that
 * can be cancelled. It is asked for again in fs/aio_requests.c.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "core/kernel_memory.h"
#include "mm/aio.h"

#define ALWAYS (POLLERR | POLLHUP) /* aio_poll() */

/* ---- checkpoint ---- */

/* Those that are about to end are left out, so that somebody waits for them. */
static int take_one(struct kernel_memory *k, uint64_t at, struct aio_polls *ret)
{
	struct aio_poll p = {};
	uint8_t ending = 0, more = 0;
	int r = kernel_member(k, at, "aio_kiocb", "poll.file", &p.file, 8);

	if (r >= 0)
		r = kernel_member(k, at, "aio_kiocb", "poll.events", &p.events, 4);
	if (r >= 0)
		r = kernel_member(k, at, "aio_kiocb", "poll.cancelled", &ending, 1);
	if (r >= 0)
		r = kernel_member(k, at, "aio_kiocb", "poll.work_scheduled", &more, 1);
	if (r >= 0)
		r = kernel_member(k, at, "aio_kiocb", "ki_res.data", &p.data, 8);
	if (r >= 0)
		r = kernel_member(k, at, "aio_kiocb", "ki_res.obj", &p.iocb, 8);
	if (r >= 0)
		r = kernel_member(k, at, "aio_kiocb", "ki_eventfd", &p.eventfd, 8);
	if (r >= 0 && !ending && !more) {
		struct aio_poll *to = vec_push(ret);

		if (!to)
			return -ENOMEM;
		*to = p;
	}
	return r;
}

int aio_polls_look(struct kernel_memory *k, uint64_t context, struct aio_polls *ret)
{
	int list = kernel_offset(k, "kioctx", "active_reqs");
	int node = kernel_offset(k, "aio_kiocb", "ki_list");
	uint64_t head = context + (uint64_t)list, at;
	int r = list < 0 ? list : node < 0 ? node : kernel_read(k, head, &at, sizeof(at));

	for (uint32_t i = 0; r >= 0 && at != head; i++) {
		r = i < AIO_POLLS_MAX ? take_one(k, at - (uint64_t)node, ret) : -EAGAIN;
		if (r >= 0)
			r = kernel_read(k, at, &at, sizeof(at));
	}
	return r;
}

int aio_polls_save(const struct aio_polls *polls, Reprise__AioRing *m, struct scratch *s)
{
	m->n_polls = 0;
	m->polls = scratch_alloc(s, (polls->n + 1) * sizeof(*m->polls));
	if (!m->polls)
		return -ENOMEM;
	vec_for_each (p, polls) {
		Reprise__AioPoll *to =
			scratch_message(s, Reprise__AioPoll, reprise__aio_poll__init);

		if (!to)
			return -ENOMEM;
		to->file = p->file; /* until all descriptions are known */
		to->eventfd = p->eventfd;
		to->events = p->events & ~(uint32_t)ALWAYS;
		to->iocb = p->iocb;
		to->data = p->data;
		m->polls[m->n_polls++] = to;
	}
	return 0;
}

/* ---- restart ---- */

bool aio_polls_fit(const Reprise__AioRing *m)
{
	for (size_t i = 0; i < m->n_polls; i++)
		if (m->polls[i]->events > UINT16_MAX || !m->polls[i]->file)
			return false;
	return m->n_polls <= m->nr;
}
