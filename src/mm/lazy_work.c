/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mm/lazy_server.h"

/* The threads that put pages into place. */

struct worker {
	struct server *s;
	struct image_room *room;
	bool faults_only;
	/* what is being read, and for whom; NULL: for all */
	const struct image_later *f;
	uint64_t from, to;
	struct lazy_space *only;
};

/* ---- pages ---- */

static int put_into(struct server *s, struct lazy_space *space, uint64_t source,
		    const uint8_t *data, size_t len)
{
	for (;;) {
		int r = lazy_space_put(space, source, data, len);

		if (r != -EAGAIN)
			return r;
		/* The application changes its mappings, and has not said yet how. */
		r = server_read(s, space);
		if (r < 0)
			return r;
		sched_yield();
	}
}

/* A run of the image, as far as it is what is being read. */
static int put_run(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	struct worker *w = arg;
	uint64_t from = address > w->from ? address : w->from;
	uint64_t to = address + len < w->to ? address + len : w->to;
	const uint8_t *bytes = data;
	struct lazy_space *space;
	int r = 0;

	if (from >= to)
		return 0;
	if (bytes)
		bytes += from - address;
	if (w->only)
		r = put_into(w->s, w->only, from, bytes, to - from);
	for (size_t i = 0; !w->only && r >= 0 && (space = server_space(w->s, i)); i++)
		if (space->object == w->f->group.object)
			r = put_into(w->s, space, from, bytes, to - from);
	return r < 0 ? error_errno(e, r, E_LAZY, "pages cannot be put into place") : 0;
}

static int read_part(struct worker *w, const struct frame_state *f, uint64_t from, uint64_t to,
		     struct lazy_space *only, struct error *e)
{
	w->f = f->f;
	w->from = from;
	w->to = to;
	w->only = only;
	return image_read_later(w->room, f->f, from, to, put_run, w, e);
}

static bool anybody_lacks(struct worker *w, const struct frame_state *f)
{
	struct lazy_space *space;

	for (size_t i = 0; (space = server_space(w->s, i)); i++)
		if (space->object == f->f->group.object && lazy_space_lacks(space, f->from, f->to))
			return true;
	return false;
}

static void let_go_complete(struct server *s, uint64_t object)
{
	struct lazy_space *space;

	for (size_t i = 0; (space = server_space(s, i)); i++)
		if (space->object == object && space->uffd >= 0 && lazy_space_complete(space))
			lazy_space_close(space);
}

/* Reads a part of a frame and puts it where it is missing; first the page `source` into the space.
 */
static void settle(struct worker *w, const struct frame_state *f, struct lazy_space *space,
		   uint64_t source)
{
	struct error e = {};
	int r = 0;

	if (!space && !anybody_lacks(w, f))
		return;
	if (space)
		r = read_part(w, f, source, source + PAGE_BYTES, space, &e);
	if (r >= 0 && space && lazy_space_lacks(space, source, source + PAGE_BYTES))
		r = error_set(&e, -EBADMSG, E_IMAGE_INVALID,
			      "the image has not all the pages that it lists");
	if (r >= 0)
		r = read_part(w, f, f->from, f->to, NULL, &e);
	if (r < 0)
		server_fail(w->s, r, &e);
	else
		let_go_complete(w->s, f->f->group.object);
}

/* The lock is held, and let go meanwhile. */
static void work_on(struct worker *w, size_t i, struct lazy_space *space, uint64_t source)
{
	struct server *s = w->s;
	struct frame_state *f = &s->frames.v[i];

	f->busy = true;
	/* A fork from now on makes it undone again. */
	if (!f->done)
		s->left--;
	f->done = true;
	s->busy++;
	pthread_mutex_unlock(&s->lock);
	settle(w, f, space, source);
	pthread_mutex_lock(&s->lock);
	s->busy--;
	f->busy = false;
	pthread_cond_broadcast(&s->work);
}

/* ---- faults ---- */

static int zero(struct server *s, const struct waiting *wait)
{
	int r = lazy_space_zero(wait->space, wait->address);

	if (r == -EAGAIN) {
		r = server_read(s, wait->space);
		sched_yield();
		return r < 0 ? r : -EAGAIN;
	}
	return r;
}

/* The lock is held, and let go meanwhile. */
static void serve(struct worker *w, struct waiting wait)
{
	struct server *s = w->s;

	while (!s->ended) {
		uint64_t source;
		size_t i;
		int r = 0;

		pthread_mutex_unlock(&s->lock);
		source = lazy_space_source(wait.space, wait.address);
		if (source == MISSING_NOTHING)
			r = zero(s, &wait);
		if (r < 0 && r != -EAGAIN)
			server_fail(s, r, &(struct error){});
		pthread_mutex_lock(&s->lock);
		if (source == MISSING_NOTHING && r != -EAGAIN)
			return;
		if (source == MISSING_NOTHING)
			continue;
		i = server_frame(s, wait.space->object, source);
		if (i == SIZE_MAX) {
			struct error e = {};

			pthread_mutex_unlock(&s->lock);
			r = error_set(&e, -EBADMSG, E_IMAGE_INVALID,
				      "the image has not all the pages that it lists");
			server_fail(s, r, &e);
			pthread_mutex_lock(&s->lock);
			return;
		}
		/* Another thread has it in its hands. */
		if (s->frames.v[i].busy) {
			pthread_cond_wait(&s->work, &s->lock);
			continue;
		}
		s->next = i + 1;
		work_on(w, i, wait.space, source);
	}
}

/* ---- in the background ---- */

static size_t pick(struct server *s)
{
	while (s->next_first < s->first.n) {
		size_t i = s->first.v[s->next_first++];

		if (!s->frames.v[i].done && !s->frames.v[i].busy)
			return i;
	}
	for (size_t n = 0; n < s->frames.n && !s->first_only; n++) {
		size_t i = (s->next + n) % s->frames.n;

		if (s->frames.v[i].done || s->frames.v[i].busy)
			continue;
		s->next = i + 1;
		return i;
	}
	return SIZE_MAX;
}

/* The lock is held, and let go meanwhile. */
static void take_time(struct server *s)
{
	if (!s->slow)
		return;
	pthread_mutex_unlock(&s->lock);
	usleep(20000);
	pthread_mutex_lock(&s->lock);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct server *s = w->s;

	pthread_mutex_lock(&s->lock);
	while (!s->ended) {
		size_t i = SIZE_MAX;

		if (s->waiting.n) {
			struct waiting wait = s->waiting.v[0];

			memmove(&s->waiting.v[0], &s->waiting.v[1], --s->waiting.n * sizeof(wait));
			s->busy++;
			serve(w, wait);
			s->busy--;
			continue;
		}
		if (s->go && !w->faults_only && s->left)
			i = pick(s);
		if (i != SIZE_MAX) {
			work_on(w, i, NULL, 0);
			take_time(s);
			continue;
		}
		if (s->go && !s->left && !s->busy) {
			const uint64_t one = 1;

			ignore(write(s->alarm, &one, sizeof(one)), "it is not full");
		}
		pthread_cond_wait(&s->work, &s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int server_start_workers(struct server *s)
{
	int jobs = s->start->r->jobs;
	int n = jobs > 0 ? jobs : (int)sysconf(_SC_NPROCESSORS_ONLN);

	/* One does nothing but serve faults. */
	for (int i = 0; i <= n; i++) {
		struct worker *w = calloc(1, sizeof(*w));
		pthread_t thread;

		if (!w || !(w->room = image_room_new(s->image)))
			return -ENOMEM;
		w->s = s;
		w->faults_only = i == 0;
		if (pthread_create(&thread, NULL, worker_main, w))
			return -EAGAIN;
	}
	return 0;
}
