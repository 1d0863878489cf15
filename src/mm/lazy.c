/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/userfaultfd.h"
#include "mm/calls.h"
#include "mm/layout.h"
#include "mm/mm.h"
#include "mm/pagemap.h"

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of pages");
}

/* ---- dividing ---- */

/*
 * Stacks are in use, and mlock() has promised that pages are there. A child of fork() would be
 * given the pages of a mapping that it is to find empty.
 */
static bool vma_waits(const Reprise__Vma *v)
{
	return v && v->kind == VMA_ANON &&
	       !(v->flags & (VMA_LOCKED | VMA_WIPEONFORK | VMA_GROWSDOWN));
}

/*
 * A sealed mapping makes munmap() fail of which we have been told already; and two userfaultfds do
 * not go together. Into a 32-bit program UFFDIO_COPY copies only from addresses that it could have
 * itself (userfaultfd_copy() has them checked so). In a user namespace below, in which a process
 * may be by then, it takes the device (lazy_helper.c).
 */
static bool mm_waits(const struct restart *r, const struct restart_process *p)
{
	const Reprise__File *f;

	if (p->mm->compat || (p->msg->user_namespace && r->mm->lazy_device < 0))
		return false;
	for (size_t i = 0; i < p->mm->n_vmas; i++)
		if (p->mm->vmas[i]->flags & VMA_SEALED)
			return false;
	for (size_t i = 0; (f = restart_nth(r, RECORD_FILE, i, NULL)); i++) {
		const struct restart_task *owner;

		if (!f->userfaultfd)
			continue;
		owner = restart_task_by_vtid((struct restart *)r, f->userfaultfd->owner);
		if (owner && owner->process->mm_id == p->mm_id)
			return false;
	}
	return true;
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* What children take along when they are forked: they are already. */
static int inherited(const struct restart *r, uint64_t mm_id, uint32_t stage, struct span_vec *ret)
{
	const Reprise__Mm *mm;
	size_t n = 0;

	for (size_t i = 0; (mm = restart_nth(r, RECORD_MM, i, NULL)); i++) {
		if (mm->parent != mm_id || mm->parent_stage != stage)
			continue;
		for (size_t j = 0; j < mm->n_pages; j++) {
			const Reprise__PageRange *range = mm->pages[j];
			struct span *s;

			if (range->kind != PAGE_INHERITED)
				continue;
			s = vec_push(ret);
			if (!s)
				return -ENOMEM;
			*s = (struct span){range->start, range->start + range->length};
		}
	}
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_start);
	for (size_t i = 0; i < ret->n; i++) {
		struct span *last = n ? &ret->v[n - 1] : NULL;

		if (!last || ret->v[i].start > last->end)
			ret->v[n++] = ret->v[i];
		else if (ret->v[i].end > last->end)
			last->end = ret->v[i].end;
	}
	ret->n = n;
	return 0;
}

/* The first span that ends behind an address. */
static size_t behind(const struct span_vec *spans, uint64_t address)
{
	return bisect(spans->n, i, spans->v[i].end > address);
}

static int add(struct span_vec *spans, uint64_t start, uint64_t end)
{
	struct span *last = spans->n ? &spans->v[spans->n - 1] : NULL;

	if (last && last->end == start) {
		last->end = end;
		return 0;
	}
	last = vec_push(spans);
	if (!last)
		return -ENOMEM;
	*last = (struct span){start, end};
	return 0;
}

static int divide(const Reprise__Mm *mm, uint64_t start, uint64_t end, const struct span_vec *held,
		  struct lazy_share *ret)
{
	while (start < end) {
		const Reprise__Vma *v = mm_vma_at(mm, start);
		uint64_t stop = v && v->end < end ? v->end : end;
		bool later = vma_waits(v);
		size_t i = behind(held, start);

		if (later && i < held->n) {
			const struct span *h = &held->v[i];

			later = h->start > start;
			if (stop > (later ? h->start : h->end))
				stop = later ? h->start : h->end;
		}
		if (add(later ? &ret->later : &ret->now, start, stop) < 0)
			return -ENOMEM;
		if (later)
			ret->bytes += stop - start;
		start = stop;
	}
	return 0;
}

/* What it held for children that were forked before is in the way. */
static int give_up(struct restart *r, struct restart_process *p, const struct span_vec *spans,
		   struct error *e)
{
	_cleanup_(calls_free) struct calls calls = {.r = r, .p = p};

	vec_for_each (s, spans) {
		int n;

		calls_add(&calls, "madvise(MADV_DONTNEED)", s->start, s->end, __NR_madvise,
			  VAL(s->start), VAL(s->end - s->start), VAL(MADV_DONTNEED));
		n = calls_bound(&calls, e);
		if (n < 0)
			return n;
	}
	return calls_run(&calls, e);
}

static int remember(struct restart *r, struct restart_process *p, const struct lazy_share *share,
		    struct error *e)
{
	struct lazy_space **slot = vec_push(&r->mm->lazy);

	if (!slot)
		return no_memory(e);
	*slot = lazy_space_new(p->mm_id, p->pid);
	if (!*slot) {
		r->mm->lazy.n--;
		return no_memory(e);
	}
	vec_for_each (s, &share->later)
		if (missing_add(&(*slot)->missing, s->start, s->end, s->start) < 0)
			return no_memory(e);
	return 0;
}

int lazy_divide(struct restart *r, struct restart_process *p, uint32_t stage,
		struct lazy_share *ret, struct error *e)
{
	struct span_vec held = {};
	int n;

	if (!r->lazy || stage != p->mm->last_stage || !mm_waits(r, p))
		return 0;
	n = inherited(r, p->mm_id, stage, &held);
	for (size_t i = 0; n >= 0 && i < p->mm->n_pages; i++) {
		const Reprise__PageRange *range = p->mm->pages[i];

		if (range->kind == PAGE_OWN && range->stage == stage)
			n = divide(p->mm, range->start, range->start + range->length, &held, ret);
	}
	vec_free(&held);
	if (n < 0)
		return no_memory(e);
	if (!ret->bytes)
		return 0;
	if (stage > 0)
		n = give_up(r, p, &ret->later, e);
	return n < 0 ? n : remember(r, p, ret, e);
}

void lazy_share_free(struct lazy_share *s)
{
	vec_free(&s->now);
	vec_free(&s->later);
}

size_t lazy_part(const struct lazy_share *s, uint64_t address, size_t len, bool *ret_later)
{
	size_t i = behind(&s->later, address);
	const struct span *next = i < s->later.n ? &s->later.v[i] : NULL;
	uint64_t border;

	*ret_later = next && next->start <= address;
	if (!next)
		return len;
	border = *ret_later ? next->end : next->start;
	return border - address < len ? border - address : len;
}

static bool overlap(const struct span_vec *spans, uint64_t start, uint64_t end)
{
	size_t i = behind(spans, start);

	return i < spans->n && spans->v[i].start < end;
}

int lazy_when(const struct lazy_share *s, uint64_t first, uint64_t end)
{
	int when = overlap(&s->later, first, end) ? IMAGE_LATER : IMAGE_NOW;

	/* A frame of no use at all is delivered, and refused. */
	return overlap(&s->now, first, end) ? when | IMAGE_NOW : when;
}

/* ---- registering ---- */

#define EVENTS                                                                            \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
	 UFFD_FEATURE_EVENT_UNMAP)

int lazy_begin(int fd)
{
	struct uffdio_api api = {.api = UFFD_API, .features = EVENTS};

	return ioctl(fd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

/* Pids mean something in one namespace only, names of sockets in one of another kind. */
static socklen_t name_of(int proc_fd, pid_t pid, struct sockaddr_un *ret)
{
	char ns[64] = "";
	int n;

	ignore(readlinkat(proc_fd, "self/ns/pid", ns, sizeof(ns) - 1), "then it is as good a name");
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(ret->sun_path + 1, sizeof(ret->sun_path) - 1, "reprise-lazy %s %d", ns, pid);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

void mm_lazy_wait(int proc_fd, pid_t pid)
{
	_cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un name;
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t len = sizeof(who);
	char byte;

	if (fd < 0 || connect(fd, (struct sockaddr *)&name, name_of(proc_fd, pid, &name)) < 0)
		return;
	/* Anybody may have a socket of that name. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.uid != 0)
		return;
	ignore(read(fd, &byte, 1), "it ends with the process that has the other side");
}

int mm_lazy_possible(struct restart *r, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int n;

	if (!image_is_file(r->image))
		return error_set(e, -ESPIPE, E_LAZY,
				 "the image is no regular file, in which pages "
				 "could be looked for when they are needed");
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	n = fd < 0 ? -errno : lazy_begin(fd);
	/* before namespaces are entered */
	r->mm->lazy_name = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (n < 0)
		return error_errno(e, n, E_LAZY, "no userfaultfd with all its events");
	n = lazy_help_begin(r->mm);
	if (n < 0)
		return error_errno(e, n, E_LAZY, "no process that helps to make userfaultfds");
	return image_use_heads(r->image, e);
}

static int register_vmas(const struct restart_process *p, const struct lazy_space *s,
			 struct error *e)
{
	for (size_t i = 0; i < p->mm->n_vmas; i++) {
		const Reprise__Vma *v = p->mm->vmas[i];
		struct uffdio_register reg = {.range = {v->start, v->end - v->start},
					      .mode = UFFDIO_REGISTER_MODE_MISSING};
		size_t first = missing_from(&s->missing, false, v->start);

		if (!vma_waits(v) || first == s->missing.n || s->missing.v[first].start >= v->end)
			continue;
		if (ioctl(s->uffd, UFFDIO_REGISTER, &reg) < 0)
			return error_errno(
				e, -errno, E_LAZY,
				"mapping %lx-%lx cannot be registered with a userfaultfd",
				(unsigned long)v->start, (unsigned long)v->end);
	}
	return 0;
}

/* A page that is there already would stay as it is. */
static int check_empty(const struct restart *r, const struct lazy_space *s, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", s->pid);
	struct span_vec where = {};
	struct page_spans found = {};
	int n = fd < 0 ? fd : 0;

	vec_for_each (m, &s->missing)
		if (n >= 0 && add(&where, m->start, m->end) < 0)
			n = no_memory(e);
	if (n >= 0)
		n = pagemap_scan(fd, &where, &found, e);
	if (n >= 0 && found.n)
		n = error_set(e, -EEXIST, E_INTERNAL, "memory at %#lx was touched before its time",
			      (unsigned long)found.v[0].start);
	vec_free(&where);
	vec_free(&found);
	return n;
}

static int begin_space(struct restart *r, struct lazy_space *s, struct error *e)
{
	struct restart_process *p = r->processes.v;
	int n;

	while (p->mm_id != s->object || !p->mm_owner)
		p++;
	n = userfaultfd_make(r, p, r->mm->lazy_device, O_NONBLOCK, &s->uffd, e);
	if (n >= 0) {
		n = r->mm->lazy_helper < 0 ? lazy_begin(s->uffd)
					   : lazy_help(r->mm, LAZY_ASK_EVENTS, s->uffd);
		if (n < 0)
			error_errno(e, n, E_LAZY, "no userfaultfd with all its events");
	}
	if (n >= 0)
		n = register_vmas(p, s, e);
	if (n >= 0)
		n = check_empty(r, s, e);
	return n < 0 ? error_object(e, n, "task %d", p->vpid) : 0;
}

int mm_lazy_serve(struct restart *r, int messages, struct error *e)
{
	struct lazy_start start = {.r = r, .messages = messages};
	struct sockaddr_un name;
	int pair[2];
	pid_t pid;

	if (!r->mm->lazy.n)
		return 0;
	vec_for_each (s, &r->mm->lazy) {
		int n = begin_space(r, *s, e);

		if (n < 0)
			return n;
	}
	if (r->mm->lazy_name >= 0 && bind(r->mm->lazy_name, (struct sockaddr *)&name,
					  name_of(r->proc_fd, r->processes.v[0].pid, &name)) == 0)
		ignore(r->mm->lazy_helper < 0 ? listen(r->mm->lazy_name, LAZY_WAITING)
					      : lazy_help(r->mm, LAZY_ASK_LISTEN, r->mm->lazy_name),
		       "then a checkpoint is refused meanwhile");
	lazy_help_end(r->mm);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	pid = fork();
	if (pid == 0) {
		close_fd(&pair[1]);
		start.go = pair[0];
		lazy_server_run(&start);
	}
	close_fd(&pair[0]);
	close_fd(&r->mm->lazy_name);
	r->mm->lazy_go = pair[1];
	/* From now on they are the server's alone. */
	vec_for_each (s, &r->mm->lazy)
		close_fd(&(*s)->uffd);
	return pid < 0 ? error_errno(e, -errno, E_SYSTEM, "fork") : 0;
}

int mm_lazy_ready(struct restart *r, struct error *e)
{
	char byte;

	if (r->mm->lazy_go < 0 || read(r->mm->lazy_go, &byte, 1) == 1)
		return 0;
	return error_set(e, -ESRCH, E_LAZY, "the process that is to serve memory has ended");
}

#define GO_TRIES 5

void mm_lazy_go(struct restart *r)
{
	const char go = 1;

	/* The tasks run already. If it has just been killed, its keeper does what is left. */
	for (int i = 0; i < GO_TRIES && r->mm->lazy_go >= 0; i++)
		if (send(r->mm->lazy_go, &go, 1, MSG_NOSIGNAL) == 1)
			close_fd(&r->mm->lazy_go);
}

void lazy_end(struct restart *r)
{
	close_fd(&r->mm->lazy_go);
	close_fd(&r->mm->lazy_name);
	lazy_help_end(r->mm);
	vec_for_each (s, &r->mm->lazy)
		lazy_space_free(*s);
	vec_free(&r->mm->lazy);
}
