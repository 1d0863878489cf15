/* SPDX-License-Identifier: Apache-2.0 */
#include "operation/lasting.h"

#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"

void lasting_give_up(struct mm_tracks *tracks, struct report *rep)
{
	if (!tracks->last)
		return;
	tracks_end(tracks);
	report_forget(rep, 0);
}

static int resume(struct mm_tracks *tracks, int proc_fd, const struct page_map *parent,
		  struct report *rep, struct error *e)
{
	size_t n = 0;
	int r = 0;

	vec_for_each (t, &tracks->v) {
		if (!track_is_same_program(t, proc_fd)) {
			report_forget(rep, t->tid);
			track_end(t);
			continue;
		}
		if (r >= 0)
			r = track_resume(t, parent, e);
		tracks->v.v[n++] = *t;
	}
	tracks->v.n = n;
	return r;
}

/* What is written is known with regard to one image alone, which has to be the parent. */
int lasting_resume(struct subject *s, struct report *rep, struct error *e)
{
	const struct page_map *parent = s->parents ? page_chain_at(s->parents, 0) : NULL;
	_cleanup_(close_fd) int own = -EBADF;
	int r = 0;

	if (!s->tracks.v.n)
		return 0;
	if (!parent || !page_map_is(parent, s->tracks.of)) {
		lasting_give_up(&s->tracks, rep);
		return 0;
	}
	if (s->ct.proc_fd < 0)
		r = procfs_open_root(&own, e);
	return r < 0 ? r
		     : resume(&s->tracks, s->ct.proc_fd < 0 ? own : s->ct.proc_fd, parent, rep, e);
}

void lasting_hand_on(struct mm_tracks *tracks, const uint8_t digest[32], struct report *rep)
{
	vec_for_each (t, &tracks->v) {
		struct lasting_track track = {
			.tid = t->tid,
			.start_time = t->start_time,
			.object = t->object,
			.who = tracks->who,
			.seen_ns = t->seen_ns,
		};
		struct error unused = {};
		_cleanup_(close_fd) int spans = t->object ? track_pack(t, &unused) : -EBADF;

		if (spans < 0) {
			report_forget(rep, t->tid);
			continue;
		}
		memcpy(track.program, t->program, sizeof(track.program));
		memcpy(track.of, digest, sizeof(track.of));
		report_track(rep, &track, (const int[2]){t->uffd, spans});
	}
}

void lasting_forget(struct mm_tracks *tracks, pid_t tid)
{
	size_t n = 0;

	vec_for_each (t, &tracks->v) {
		if (!tid || t->tid == tid)
			track_end(t);
		else
			tracks->v.v[n++] = *t;
	}
	tracks->v.n = n;
}

/* In place of what was known of the task. */
void lasting_take(struct mm_tracks *tracks, const struct lasting_track *track, int fds[2])
{
	struct mm_track *t;

	lasting_forget(tracks, track->tid);
	t = vec_push(&tracks->v);
	if (!t)
		return;
	t->tid = track->tid;
	t->start_time = track->start_time;
	t->parent = track->object;
	t->lasting = true;
	t->uffd = take_fd(&fds[0]);
	memcpy(t->program, track->program, sizeof(t->program));
	memcpy(tracks->of, track->of, sizeof(tracks->of));
	tracks->who = track->who;
	t->seen_ns = track->seen_ns;
	if (track_unpack(t, fds[1]) < 0)
		lasting_forget(tracks, track->tid);
}
