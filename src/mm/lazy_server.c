/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mm/layout.h"
#include "mm/lazy_order.h"
#include "mm/lazy_server.h"

/*
 * One thread reads what happens in all address spaces; the others put pages into place, for those
 * who wait first. In the background come the frames of the image that registers point into, then
 * what was written last before the checkpoint, then those behind the one that was waited for last,
 * then the others in order.
 */

void server_fail(struct server *s, int err, const struct error *e)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&s->lock);
	if (!s->ended) {
		s->ended = true;
		s->error = *e;
		if (s->error.code == ERROR_NONE)
			error_errno(&s->error, err, E_LAZY, "pages cannot be put into place");
	}
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	ignore(write(s->alarm, &one, sizeof(one)), "it is not full");
}

/* ---- what happens in the address spaces ---- */

static int on_fault(void *arg, struct lazy_space *space, uint64_t address)
{
	struct server *s = arg;
	struct waiting *w;

	pthread_mutex_lock(&s->lock);
	w = vec_push(&s->waiting);
	if (w)
		*w = (struct waiting){space, address};
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	return w ? 0 : -ENOMEM;
}

static int watch(struct server *s, struct lazy_space *space)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = space};

	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, space->uffd, &event) < 0 ? -errno : 0;
}

/* Frames that were done with are not, for the child. */
static void look_again(struct server *s, const struct lazy_space *child)
{
	vec_for_each (f, &s->frames)
		if (f->done && f->f->group.object == child->object) {
			f->done = false;
			s->left++;
		}
	s->next = 0;
}

static int on_forked(void *arg, struct lazy_space *child)
{
	struct server *s = arg;
	struct lazy_space **slot;

	if (lazy_space_complete(child)) {
		lazy_space_free(child);
		return 0;
	}
	pthread_mutex_lock(&s->lock);
	slot = vec_push(&s->spaces);
	if (slot)
		*slot = child;
	look_again(s, child);
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	return slot ? watch(s, child) : -ENOMEM;
}

int server_read(struct server *s, struct lazy_space *space)
{
	const struct lazy_events events = {on_fault, on_forked, s};

	return lazy_space_read(space, &events);
}

struct lazy_space *server_space(struct server *s, size_t i)
{
	struct lazy_space *space;

	pthread_mutex_lock(&s->lock);
	space = i < s->spaces.n ? s->spaces.v[i] : NULL;
	pthread_mutex_unlock(&s->lock);
	return space;
}

static int compare(const struct frame_state *f, uint64_t object, uint64_t address)
{
	if (f->f->group.object != object)
		return f->f->group.object < object ? -1 : 1;
	return f->to <= address ? -1 : f->from > address ? 1 : 0;
}

size_t server_frame(const struct server *s, uint64_t object, uint64_t address)
{
	size_t low = 0, high = s->frames.n;

	while (low < high) {
		size_t mid = (low + high) / 2;
		int c = compare(&s->frames.v[mid], object, address);

		if (c == 0)
			return mid;
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return SIZE_MAX;
}

/* ---- beginning ---- */

static int by_place(const void *a, const void *b)
{
	const struct frame_state *x = a, *y = b;

	if (x->f->group.object != y->f->group.object)
		return x->f->group.object < y->f->group.object ? -1 : 1;
	return (x->from > y->from) - (x->from < y->from);
}

/* What the general registers point to was in use, as nearly as anything tells. */
static int add_pointed(struct server *s, const struct restart_process *p)
{
	vec_for_each (t, &p->tasks) {
		const uint64_t *regs = (const uint64_t *)t->msg->regs.data;

		if (t->msg->regs.len < sizeof(struct user_regs_struct))
			continue;
		for (size_t i = 0; i < sizeof(struct user_regs_struct) / sizeof(*regs); i++) {
			size_t frame = server_frame(s, p->mm_id, regs[i]), *slot;

			if (frame == SIZE_MAX)
				continue;
			slot = vec_push(&s->first);
			if (!slot)
				return -ENOMEM;
			*slot = frame;
		}
	}
	return 0;
}

static int by_rank(const void *a, const void *b)
{
	const struct frame_state *x = *(const struct frame_state *const *)a;
	const struct frame_state *y = *(const struct frame_state *const *)b;

	if (x->rank != y->rank)
		return x->rank > y->rank ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* What was written not long before comes first; how long ago the rest was used, nothing tells. */
static int add_written(struct server *s)
{
	_cleanup_(free_ptr) struct lazy_part *parts = calloc(s->frames.n + 1, sizeof(*parts));
	_cleanup_(free_ptr) uint32_t *ranks = calloc(s->frames.n + 1, sizeof(*ranks));
	_cleanup_(free_ptr) struct frame_state **sorted = calloc(s->frames.n + 1, sizeof(*sorted));
	size_t n = 0;

	if (!parts || !ranks || !sorted)
		return -ENOMEM;
	for (size_t i = 0; i < s->frames.n; i++) {
		const struct frame_state *f = &s->frames.v[i];

		parts[i] = (struct lazy_part){f->f->group.object, f->from, f->place};
	}
	if (lazy_ranks(parts, s->frames.n, ranks) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < s->frames.n; i++) {
		s->frames.v[i].rank = ranks[i];
		if (ranks[i])
			sorted[n++] = &s->frames.v[i];
	}
	if (n)
		qsort(sorted, n, sizeof(struct frame_state *), by_rank);
	for (size_t i = 0; i < n; i++) {
		size_t *slot = vec_push(&s->first);

		if (!slot)
			return -ENOMEM;
		*slot = (size_t)(sorted[i] - s->frames.v);
	}
	return 0;
}

static int add_part(void *arg, const struct image_later *f, uint64_t from, uint64_t to,
		    uint64_t place)
{
	struct server *s = arg;
	struct frame_state *slot = vec_push(&s->frames);

	if (!slot)
		return -ENOMEM;
	slot->f = f;
	slot->from = from;
	slot->to = to;
	slot->place = place;
	return 0;
}

static int list_frames(struct server *s)
{
	const struct image_later *f;
	struct error e = {};

	for (size_t i = 0; (f = image_later(s->image, i)); i++) {
		int r = image_later_parts(s->image, f, add_part, s, &e);

		if (r < 0)
			return r;
	}
	if (s->frames.n)
		qsort(s->frames.v, s->frames.n, sizeof(*s->frames.v), by_place);
	s->left = s->frames.n;
	vec_for_each (p, &s->start->r->processes)
		if (!p->msg->zombie && add_pointed(s, p) < 0)
			return -ENOMEM;
	return add_written(s);
}

static int list_tasks(struct server *s)
{
	const struct restart *r = s->start->r;
	struct lazy_task *tasks = calloc(r->processes.n, sizeof(*tasks));

	if (!tasks)
		return -ENOMEM;
	vec_for_each (p, &r->processes) {
		struct lazy_task *t = &tasks[s->keeper.n];

		t->pid = p->pid;
		t->pidfd = p->pid ? (int)syscall(SYS_pidfd_open, p->pid, 0) : -1;
		if (t->pidfd >= 0)
			s->keeper.n++;
	}
	s->keeper.tasks = tasks;
	return 0;
}

static int keeper_watch(struct server *s)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &s->keeper_end};

	s->keeper_end = lazy_keeper_start(&s->keeper);
	if (s->keeper_end < 0)
		return s->keeper_end;
	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->keeper_end, &event) < 0 ? -errno : 0;
}

static int keeper_begin(struct server *s)
{
	struct lazy_keeper *k = &s->keeper;

	k->shared =
		mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (k->shared == MAP_FAILED)
		return -errno;
	k->proc_fd = s->start->r->proc_fd;
	k->messages = s->start->messages;
	k->server = (int)syscall(SYS_pidfd_open, getpid(), 0);
	return k->server < 0 ? -errno : keeper_watch(s);
}

static int watch_descriptors(struct server *s)
{
	struct epoll_event alarm = {.events = EPOLLIN, .data.ptr = &s->alarm};
	struct epoll_event go = {.events = EPOLLIN, .data.ptr = &s->go};

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->alarm = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll < 0 || s->alarm < 0 ||
	    epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->alarm, &alarm) < 0 ||
	    epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->start->go, &go) < 0)
		return -errno;
	vec_for_each (space, &s->start->r->mm->lazy) {
		struct lazy_space **slot = vec_push(&s->spaces);
		int r = slot ? 0 : -ENOMEM;

		if (slot) {
			*slot = *space;
			r = watch(s, *slot);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the process ---- */

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Of what the restart has opened for the tasks nothing may be held here. */
static int keep_descriptors(const struct lazy_start *start)
{
	const struct restart *r = start->r;
	size_t n = 0, images = 0;
	_cleanup_(free_ptr) int *kept = NULL;
	int from = 0;

	while (image_descriptor(r->image, images) >= 0)
		images++;
	kept = calloc(r->mm->lazy.n + images + 4, sizeof(*kept));
	if (!kept)
		return -ENOMEM;
	while (n < images) {
		kept[n] = image_descriptor(r->image, n);
		n++;
	}
	kept[n++] = r->proc_fd;
	kept[n++] = start->go;
	kept[n++] = r->mm->lazy_name;
	kept[n++] = start->messages;
	vec_for_each (s, &r->mm->lazy)
		kept[n++] = (*s)->uffd;
	qsort(kept, n, sizeof(*kept), by_number);
	for (size_t i = 0; i < n; i++) {
		if (kept[i] > from)
			syscall(SYS_close_range, from, kept[i] - 1, 0);
		if (kept[i] >= from)
			from = kept[i] + 1;
	}
	syscall(SYS_close_range, from, ~0u, 0);
	return 0;
}

static void become_server(int proc_fd)
{
	_cleanup_(close_fd) int fd = openat(proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "lazy-pages");
	/* Who is chosen when memory is short takes the tasks along. */
	if (fd >= 0)
		ignore(write(fd, "-1000", 5), "without privilege it stays as it is");
}

static void __attribute__((noreturn)) leave(struct server *s, int status)
{
	atomic_store(&s->keeper.shared->over, 1);
	_exit(status);
}

/* The cause is told before the effect is seen. */
static void __attribute__((noreturn)) give_up(struct server *s)
{
	lazy_tell(s->keeper.messages, &s->error);
	lazy_kill(s->keeper.proc_fd, s->keeper.tasks, s->keeper.n);
	lazy_poison(s->keeper.proc_fd);
	leave(s, 1);
}

/* All frames have been put everywhere. What is still missing is not in the image. */
static void check_complete(struct server *s)
{
	struct lazy_space *space;
	struct error e = {};
	bool over;

	pthread_mutex_lock(&s->lock);
	over = s->go && !s->left && !s->busy && !s->waiting.n;
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; over && (space = server_space(s, i)); i++) {
		if (lazy_space_complete(space)) {
			lazy_space_close(space);
			continue;
		}
		error_set(&e, -EBADMSG, E_IMAGE_INVALID,
			  "the image has not all the pages that it lists");
		server_fail(s, -EBADMSG, &e);
		return;
	}
	if (over)
		leave(s, 0);
}

/* Whoever restarts says that the tasks run; or has failed, and ended them. */
static void on_go(struct server *s)
{
	char byte;

	if (read(s->start->go, &byte, 1) != 1) {
		lazy_kill(s->keeper.proc_fd, s->keeper.tasks, s->keeper.n);
		lazy_poison(s->keeper.proc_fd);
		leave(s, 0);
	}
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->start->go, NULL);
	pthread_mutex_lock(&s->lock);
	s->go = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
}

static int handle(struct server *s, void *what)
{
	uint64_t count;

	if (what == &s->go) {
		on_go(s);
	} else if (what == &s->alarm) {
		ignore(read(s->alarm, &count, sizeof(count)), "it only wakes");
		check_complete(s);
	} else if (what == &s->keeper_end) {
		close_fd(&s->keeper_end);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		return keeper_watch(s);
	} else {
		return server_read(s, what);
	}
	return 0;
}

static void __attribute__((noreturn)) run(struct server *s)
{
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(s->epoll, events, 64, -1), r = 0;

		for (int i = 0; i < n && r >= 0; i++)
			r = handle(s, events[i].data.ptr);
		if (r < 0)
			server_fail(s, r, &(struct error){});
		if (s->ended)
			give_up(s);
	}
}

void lazy_server_run(const struct lazy_start *start)
{
	static struct server s; /* in a process of its own */
	const char *fault = getenv("REPRISE_FAULT");
	int r;

	s.start = start;
	s.image = start->r->image;
	s.slow = fault && strcmp(fault, "lazy-slow") == 0;
	s.first_only = fault && strcmp(fault, "lazy-first") == 0;
	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.work, NULL);
	become_server(start->r->proc_fd);
	image_reader_set_progress(s.image, NULL, NULL);
	r = keep_descriptors(start);
	if (r >= 0)
		r = watch_descriptors(&s);
	if (r >= 0)
		r = list_tasks(&s);
	if (r >= 0)
		r = list_frames(&s);
	if (r >= 0)
		r = keeper_begin(&s);
	if (r >= 0)
		r = server_start_workers(&s);
	/* Not told so, the restart fails. */
	if (r < 0 || send(start->go, "", 1, MSG_NOSIGNAL) != 1)
		_exit(1);
	run(&s);
}
