/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signalfd in an epoll set. The set waits where the signals of the process arrive that added it
 * (signalfd_poll() puts it into sighand->signalfd_wqh), whoever else has the set and the signalfd;
 * when that process ends, it waits for nothing any more (signalfd_cleanup()). Who it was is told by
 * the entry (struct epitem) in the memory of the kernel. So that very process adds it at the
 * restart, or we do, if it has ended, since we are about to.
 *
 * Where that memory cannot be read, it is taken for the first process that has both, the signalfd
 * under the number with which it was added.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/epoll_private.h"
#include "fs/file_private.h"
#include "fs/send_fds.h"

#define ENTRIES_DEEP 64 /* a tree of more levels has more entries than memory has room for */

/* ---- checkpoint ---- */

static int take(const struct file_entry *f)
{
	_cleanup_(close_fd) int pidfd = files_pidfd(f->tid);
	int fd = pidfd < 0 ? pidfd : (int)syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);

	return pidfd >= 0 && fd < 0 ? -errno : fd;
}

static int file_address(struct kernel_memory *k, const struct file_entry *f, uint64_t *ret)
{
	_cleanup_(close_fd) int fd = take(f);

	return fd < 0 ? fd : kernel_file(k, fd, ret);
}

struct item {
	uint64_t file, left, right, waits;
	int number;
};

/* In one reading: there may be many on the way to the one. */
static int read_item(struct kernel_memory *k, uint64_t node, struct item *ret)
{
	static const char type[] = "epitem";
	const int rb = kernel_offset(k, type, "rbn"), size = kernel_size(k, type);
	const struct {
		int offset;
		void *to;
		size_t size;
	} members[] = {
		{rb + kernel_offset(k, "rb_node", "rb_left"), &ret->left, sizeof(ret->left)},
		{rb + kernel_offset(k, "rb_node", "rb_right"), &ret->right, sizeof(ret->right)},
		{kernel_offset(k, type, "ffd.file"), &ret->file, sizeof(ret->file)},
		{kernel_offset(k, type, "ffd.fd"), &ret->number, sizeof(ret->number)},
		{kernel_offset(k, type, "pwqlist"), &ret->waits, sizeof(ret->waits)},
	};
	uint8_t raw[256];
	int r;

	if (rb < 0 || size < 0 || (size_t)size > sizeof(raw))
		return -EOPNOTSUPP;
	r = kernel_read(k, node - (uint64_t)rb, raw, (size_t)size);
	for (size_t i = 0; r >= 0 && i < sizeof(members) / sizeof(members[0]); i++) {
		if (members[i].offset < 0 ||
		    (size_t)members[i].offset + members[i].size > (size_t)size)
			return -EOPNOTSUPP;
		memcpy(members[i].to, raw + members[i].offset, members[i].size);
	}
	return r;
}

/* The tree is in the order of ep_cmp_ffd(). */
static int find_item(struct kernel_memory *k, uint64_t set, uint64_t file, int number,
		     struct item *ret)
{
	const int to_root[] = {kernel_offset(k, "file", "private_data"),
			       kernel_offset(k, "eventpoll", "rbr.rb_root.rb_node")};
	uint64_t node = 0;
	int r = kernel_chase(k, set, to_root, 2, &node, sizeof(node));

	for (int i = 0; r >= 0 && node && i < ENTRIES_DEEP; i++) {
		r = read_item(k, node, ret);
		if (r >= 0 && ret->file == file && ret->number == number)
			return 0;
		node = file > ret->file || (file == ret->file && number > ret->number) ? ret->right
										       : ret->left;
	}
	return r < 0 ? r : -ENOENT;
}

static int is_queue_of(struct kernel_memory *k, pid_t tid, uint64_t queue)
{
	const int offset = kernel_offset(k, "sighand_struct", "signalfd_wqh");
	uint64_t task, handlers = 0;
	int r = offset < 0 ? offset : kernel_task(k, tid, &task);

	if (r >= 0)
		r = kernel_member(k, task, "task_struct", "sighand", &handlers, sizeof(handlers));
	/* That of a zombie is gone. */
	return r < 0 ? r : handlers && handlers + (uint64_t)offset == queue;
}

static int find_process(const struct checkpoint *c, struct kernel_memory *k, pid_t first,
			uint64_t queue, int32_t *ret)
{
	int r = queue ? is_queue_of(k, first, queue) : 0;

	*ret = r > 0 ? first : ADDED_BY_NOBODY;
	vec_for_each (p, &c->processes) {
		if (r || !queue)
			break;
		r = is_queue_of(k, p->tid, queue);
		if (r > 0)
			*ret = p->tid;
	}
	return r < 0 ? r : 0;
}

int epoll_signals_find(struct checkpoint *c, const struct file_entry *set,
		       const struct file_entry *signals, Reprise__EpollEntry *m)
{
	struct kernel_memory *k;
	struct error ignored = {};
	struct item item = {};
	uint64_t at_set, at_signals, queue = 0;
	int r = files_kernel_memory(c, &k, &ignored);

	if (r >= 0)
		r = file_address(k, set, &at_set);
	if (r >= 0)
		r = file_address(k, signals, &at_signals);
	if (r >= 0)
		r = find_item(k, at_set, at_signals, m->fd, &item);
	if (r >= 0 && item.waits)
		r = kernel_member(k, item.waits, "eppoll_entry", "whead", &queue, sizeof(queue));
	/* Nearly always it is the one that has the set. In flight, that is us. */
	return r < 0 ? r
		     : find_process(c, k, set->in_flight ? c->processes.v[0].tid : set->tid, queue,
				    &m->adder);
}

/* ---- restart ---- */

static bool holds(const Reprise__Files *table, int fd, uint64_t file)
{
	for (size_t i = 0; i < table->n_fds; i++)
		if (fd < 0 || table->fds[i]->fd == fd)
			if (table->fds[i]->file == file)
				return true;
	return false;
}

static struct restart_task *first_with_both(struct restart *r, uint64_t set,
					    const Reprise__EpollEntry *m)
{
	vec_for_each (p, &r->processes) {
		/* a zombie has none */
		struct restart_task *t = p->tasks.n ? &p->tasks.v[0] : NULL;
		const Reprise__Files *table =
			t ? restart_find(r, RECORD_FILES, t->msg->files) : NULL;

		if (p->agent && table && holds(table, -1, set) && holds(table, m->fd, m->file))
			return t;
	}
	return NULL;
}

static int add(struct restart_task *t, int set, int signals, const Reprise__EpollEntry *m,
	       struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct epoll_event event = {.events = m->events, .data.u64 = m->data};
	uint32_t at = batch_data(&b, &event, sizeof(event));
	int call, r;

	/* None of its own stand there yet: what does is put aside. */
	const uint64_t args[6] = {(uint64_t)m->fd, F_DUPFD_CLOEXEC, 0};
	long aside = m->fd == signals
			     ? -EBADF
			     : agent_syscall(t->process->agent, t->tid, NULL, e, SYS_fcntl, args);

	if (m->fd == set)
		set = (int)aside;
	if (m->fd != signals)
		batch_call(&b, SYS_dup3, VAL(signals), VAL(m->fd), VAL(O_CLOEXEC));
	call = batch_call(&b, SYS_epoll_ctl, VAL(set), VAL(EPOLL_CTL_ADD), VAL(m->fd), DATA(at));
	if (aside >= 0)
		batch_call(&b, SYS_dup3, VAL((int)aside), VAL(m->fd), VAL(O_CLOEXEC));
	else
		batch_call(&b, SYS_close, VAL(m->fd));
	if (aside >= 0)
		batch_call(&b, SYS_close, VAL((int)aside));
	if (m->fd != signals)
		batch_call(&b, SYS_close, VAL(signals));
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r >= 0 && batch_result(&b, call) < 0)
		r = error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				"cannot add descriptor %d to an epoll set", m->fd);
	return r;
}

int epoll_signals_restart(struct restart *r, const struct file_open *f,
			  const Reprise__EpollEntry *m, struct error *e)
{
	struct restart_task *t =
		m->adder ? restart_task_by_vtid(r, m->adder) : first_with_both(r, f->id, m);
	uint64_t args[6] = {};
	int set, signals, res;

	if (!t || !t->process->agent)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an epoll set with a signalfd that nobody has added");
	res = give_fd(r, t, f->fd, &set, e);
	if (res >= 0)
		res = give_fd(r, t, files_restart_fd(r, m->file), &signals, e);
	if (res >= 0)
		res = add(t, set, signals, m, e);
	args[0] = (uint64_t)set;
	if (res >= 0)
		res = (int)agent_syscall(t->process->agent, t->tid, NULL, e, SYS_close, args);
	return res < 0 ? res : 0;
}
