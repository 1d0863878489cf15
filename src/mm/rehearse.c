/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/mman.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "image/store.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "mm/state.h"
#include "remote/ptrace.h"

#define WALK_MOST (64ull << 20) /* of addresses: more is not worth to be looked through */

/* What a process has written to is in its private mappings. */
static int list_spans(const struct checkpoint *c, pid_t pid, struct span_vec *ret)
{
	_cleanup_(vma_list_free) struct vma_list list = {};
	struct error unused = {};
	uint64_t sum = 0;
	int r = vmas_read(c->proc_fd, pid, "maps", &list, &unused);

	vec_for_each (v, &list.vmas)
		if (r >= 0 && !v->shared && (v->prot & PROT_READ) && (v->prot & PROT_WRITE)) {
			sum += v->end - v->start;
			r = span_add(ret, v->start, v->end);
		}
	return r >= 0 && sum > WALK_MOST ? -E2BIG : r;
}

/*
 * Little memory is copied while the process stands still, and that takes twice as long and more if
 * it comes from no cache. So it is read once before, to where it will be read again; nothing is
 * made of it, so that it does not matter what could not be read, or changes.
 */
void mm_rehearse(const struct checkpoint *c, pid_t pid, size_t most)
{
	_cleanup_(close_fd) int fd =
		procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/pagemap", pid);
	struct span_vec where = {};
	struct page_spans spans = {};
	struct error unused = {};
	size_t room, done = 0;
	char *to = store_spare(c->store, &room);

	most = most < room ? most : room;
	if (fd >= 0 && list_spans(c, pid, &where) >= 0 &&
	    pagemap_scan(fd, &where, &spans, &unused) >= 0)
		vec_for_each (s, &spans) {
			size_t len = s->end - s->start;

			len = len < most - done ? len : most - done;
			if (!s->guard && mem_read(pid, s->start, to + done, len, NULL) >= 0)
				done += len;
		}
	vec_free(&where);
	vec_free(&spans);
}
