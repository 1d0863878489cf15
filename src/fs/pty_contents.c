/* SPDX-License-Identifier: Apache-2.0 */
/* What is in the pseudo-terminals of the tree, in the messages of their masters. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/pty_guard.h"
#include "fs/pty_ioctl.h"
#include "fs/pty_private.h"

struct pty_master {
	struct file_entry *entry;
	int fd;
};

struct pty_masters {
	VEC(struct pty_master) list;
	VEC(struct pty_master) exclusive; /* slaves */
};

static struct pty_masters *get_masters(struct checkpoint *c)
{
	if (!c->files->ptys)
		c->files->ptys = calloc(1, sizeof(*c->files->ptys));
	return c->files->ptys;
}

static int keep(struct pty_master *m, struct file_entry *entry, int fd, struct error *e)
{
	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pseudo-terminal");
	m->entry = entry;
	m->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (m->fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot duplicate a pseudo-terminal");
	return 0;
}

int pty_master_keep(struct checkpoint *c, struct file_entry *entry, int fd, struct error *e)
{
	struct pty_masters *ptys = get_masters(c);

	return keep(ptys ? vec_push(&ptys->list) : NULL, entry, fd, e);
}

int pty_exclusive_keep(struct checkpoint *c, struct file_entry *entry, int fd, struct error *e)
{
	struct pty_masters *ptys = get_masters(c);

	return keep(ptys ? vec_push(&ptys->exclusive) : NULL, entry, fd, e);
}

/* Those of terminals outside are none of ours. */
static int exclusive_slave(const struct pty_masters *ptys, const struct pty_master *master)
{
	vec_for_each (s, &ptys->exclusive)
		if (s->entry->msg->pty && s->entry->msg->pty->pty == master->entry->id)
			return s->fd;
	return -1;
}

void pty_masters_free(struct checkpoint *c)
{
	struct pty_masters *ptys = c->files->ptys;

	if (!ptys)
		return;
	vec_for_each (m, &ptys->list)
		close_fd(&m->fd);
	vec_for_each (m, &ptys->exclusive)
		close_fd(&m->fd);
	vec_free(&ptys->list);
	vec_free(&ptys->exclusive);
	free(ptys);
	c->files->ptys = NULL;
}

/* What the kernel would tell a master at its next read is lost when we leave packet mode. */
static int check_status(const struct pty_master *m, struct error *e)
{
	struct pollfd p = {.fd = m->fd, .events = POLLPRI};

	if (m->entry->msg->pty->packet && poll(&p, 1, 0) > 0 && p.revents & POLLPRI)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "the master has not been told yet of a change of the "
				 "pseudo-terminal (packet mode); try again");
	return 0;
}

static bool in_session(int master)
{
	int sid = 0;

	return ioctl(master, TIOCGSID, &sid) == 0 && sid > 0;
}

static int fill_lines(Reprise__PtyFile *m, const struct pty_queue *q, struct scratch *s)
{
	Reprise__PtyLine **lines = scratch_alloc(s, (q->n_lines + 1) * sizeof(*lines));

	if (!lines)
		return -ENOMEM;
	for (uint32_t i = 0; i < q->n_lines; i++) {
		lines[i] = scratch_message(s, Reprise__PtyLine, reprise__pty_line__init);
		if (!lines[i])
			return -ENOMEM;
		lines[i]->length = q->lines[i].length;
		lines[i]->end = q->lines[i].end;
	}
	m->lines = lines;
	m->n_lines = q->n_lines;
	return 0;
}

static int fill_message(Reprise__PtyFile *m, const struct pty_queue *q, struct scratch *s,
			struct error *e)
{
	m->stopped = q->stopped;
	m->output.len = q->output_length;
	m->output.data = scratch_copy(s, q->output, q->output_length);
	m->input.len = q->input_length;
	m->input.data = scratch_copy(s, q->input, q->input_length);
	if (!m->output.data || !m->input.data || fill_lines(m, q, s) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY,
				 "no memory for the contents of a pseudo-terminal");
	return 0;
}

static int save_one(struct checkpoint *c, struct pty_master *m, const struct pty_job *job,
		    struct error *e)
{
	int r = job->result;

	if (r < 0)
		r = error_errno(e, r, E_FILE_STATE,
				"cannot copy what is in the pseudo-terminal between its sides");
	else
		r = fill_message(m->entry->msg->pty, &job->queue, &c->files->scratch, e);
	return r < 0 ? file_error_object(e, r, m->entry) : 0;
}

int pty_contents_save(struct checkpoint *c, struct error *e)
{
	struct pty_masters *ptys = c->files->ptys;
	size_t n = ptys ? ptys->list.n : 0;
	struct pty_job *jobs;
	int r = 0;

	if (!n)
		return 0;
	for (size_t i = 0; i < n && r >= 0; i++) {
		r = check_status(&ptys->list.v[i], e);
		if (r < 0)
			return file_error_object(e, r, ptys->list.v[i].entry);
	}
	jobs = pty_jobs_new(n);
	if (!jobs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the pseudo-terminals");
	for (size_t i = 0; i < n; i++) {
		const struct pty_master *m = &ptys->list.v[i];
		const Reprise__PtyFile *msg = m->entry->msg->pty;

		jobs[i].sides.master = m->fd;
		jobs[i].sides.exclusive = exclusive_slave(ptys, m);
		jobs[i].sides.untouched = !msg->hung_up && !msg->slave_known && !in_session(m->fd);
	}
	r = pty_guard_run(jobs, n);
	if (r < 0)
		error_errno(e, r, E_SYSTEM, "cannot make a process to guard the terminals");
	for (size_t i = 0; i < n && r >= 0; i++)
		r = save_one(c, &ptys->list.v[i], &jobs[i], e);
	pty_jobs_free(jobs, n);
	return r;
}

/* ---- restart ---- */

int pty_contents_validate(const Reprise__PtyFile *m, struct error *e)
{
	size_t length = 0;

	if (m->output.len > PTY_QUEUE_MAX || m->input.len > PTY_QUEUE_MAX ||
	    m->n_lines > PTY_LINES_MAX || m->stopped > PTY_STOPPED_BY_CALL)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a pseudo-terminal with impossible contents");
	for (size_t i = 0; i < m->n_lines; i++) {
		const Reprise__PtyLine *l = m->lines[i];

		if (l->end > PTY_END_RAW || l->length > m->input.len - length ||
		    (l->end == PTY_END_DELIMITER && !l->length) ||
		    (l->end == PTY_END_RAW && i + 1 != m->n_lines))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a pseudo-terminal with an impossible line");
		length += l->length;
	}
	if (length != m->input.len)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a pseudo-terminal with more input than lines");
	return 0;
}

int pty_contents_put(int master, int slave, const Reprise__PtyFile *m, struct error *e)
{
	const struct pty_sides sides = {.master = master, .slave = slave, .exclusive = -1};
	_cleanup_(free_ptr) struct pty_queue *q = calloc(1, sizeof(*q));
	int flags = fcntl(master, F_GETFL), r;

	if (!q)
		return error_set(e, -ENOMEM, E_NO_MEMORY,
				 "no memory for the contents of a pseudo-terminal");
	q->stopped = m->stopped;
	q->n_lines = (uint32_t)m->n_lines;
	for (size_t i = 0; i < m->n_lines; i++)
		q->lines[i] = (struct pty_line){m->lines[i]->length, m->lines[i]->end};
	q->input_length = (uint32_t)m->input.len;
	q->output_length = (uint32_t)m->output.len;
	if (m->input.len)
		memcpy(q->input, m->input.data, m->input.len);
	if (m->output.len)
		memcpy(q->output, m->output.data, m->output.len);
	if (flags < 0 || fcntl(master, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(e, -errno, E_SYSTEM, "F_SETFL of a pseudo-terminal");
	r = pty_queue_put(&sides, q);
	if (r >= 0 && fcntl(master, F_SETFL, flags) < 0)
		r = -errno;
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot put back what was in a pseudo-terminal")
		     : 0;
}
