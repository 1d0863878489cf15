/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/agent.h"
#include "remote/maps.h"

#define CHUNK	  65536UL
#define RANK_LAST 3

static bool complete(const struct arch_gadgets *g)
{
	return g->syscall_ret && g->sigreturn;
}

/* Text that cannot be read is passed over: there may be other. */
static void scan(pid_t tid, const struct map_entry *m, struct arch_gadgets *g)
{
	_cleanup_(free_ptr) uint8_t *text = malloc(CHUNK);

	for (uint64_t at = m->start; text && at < m->end && !complete(g);
	     at += CHUNK - ARCH_GADGET_MAX) {
		size_t len = m->end - at < CHUNK ? m->end - at : CHUNK;

		if (mem_read(tid, at, text, len, NULL) < 0)
			return;
		arch_gadgets_find(g, text, len, at);
	}
}

/*
 * The dynamic linker and the C library have what we need, and the former is the
 * smaller. Other text serves as well: static programs bring their own C library or
 * runtime.
 */
static int rank(const struct map_entry *m)
{
	if (!(m->perms & MAP_EXEC) || m->end - m->start < ARCH_GADGET_MAX)
		return -1;
	if (!m->inode)
		return strcmp(m->name, "[vdso]") ? -1 : 0; /* generated code may go away */
	if (strstr(m->name, "/ld-linux") || strstr(m->name, "/ld-musl"))
		return 1;
	return strstr(m->name, "/libc.so") || strstr(m->name, "/libc-") ? 2 : RANK_LAST;
}

static void scan_at(pid_t tid, const struct maps *maps, uint64_t at, struct arch_gadgets *g)
{
	uint8_t text[ARCH_GADGET_MAX];

	vec_for_each (m, &maps->entries)
		if (rank(m) >= 0 && m->start <= at && at < m->end && m->end - at >= sizeof(text) &&
		    mem_read(tid, at, text, sizeof(text), NULL) == 0)
			arch_gadgets_find(g, text, sizeof(text), at);
}

/*
 * The last resort: the zeros behind the vDSO's contents, up to the end of its
 * last page. The write makes a private copy of that page.
 */
static int place(int proc_fd, pid_t tid, struct maps *maps, struct arch_gadgets *g,
		 uint64_t *patched, struct error *e)
{
	const uint8_t *code;
	size_t size = arch_gadgets_code(&code);
	uint8_t tail[64], zero[64] = {};

	vec_for_each (m, &maps->entries) {
		_cleanup_(close_fd) int fd = -EBADF;
		uint64_t at = m->end - sizeof(tail);

		if (strcmp(m->name, "[vdso]") || mem_read(tid, at, tail, sizeof(tail), NULL) < 0 ||
		    memcmp(tail, zero, sizeof(tail)) != 0)
			continue;
		fd = procfs_open(proc_fd, O_RDWR, e, "%d/mem", tid);
		if (fd < 0)
			return fd;
		if (pwrite(fd, code, size, (off_t)at) != (ssize_t)size)
			break;
		*patched = at;
		*g = (struct arch_gadgets){};
		arch_gadgets_find(g, code, size, at);
		return 0;
	}
	return error_set(e, -ENOTSUP, E_NO_GADGET,
			 "task %d has no `syscall; ret` or no rt_sigreturn in its text", tid);
}

static void search(pid_t tid, const struct maps *maps, struct arch_gadgets *g)
{
	for (int wanted = 0; wanted <= RANK_LAST && !complete(g); wanted++)
		vec_for_each (m, &maps->entries)
			if (!complete(g) && rank(m) == wanted)
				scan(tid, m, g);
}

void agent_look_ahead(int proc_fd, pid_t tid, struct agent_found *found)
{
	_cleanup_(maps_free) struct maps maps = {};
	struct arch_gadgets g = {};

	if (maps_read(proc_fd, tid, 0, &maps, NULL) < 0)
		return;
	search(tid, &maps, &g);
	if (complete(&g))
		*found = (struct agent_found){g.syscall_ret, g.sigreturn};
}

int text_find_gadgets(int proc_fd, pid_t tid, struct maps *maps, bool compat,
		      const struct arch_gadgets *likely, struct arch_gadgets *ret,
		      uint64_t *patched, struct error *e)
{
	struct arch_gadgets g = {};

	/* There is no 64-bit code in a 32-bit program. */
	if (compat) {
		*ret = g;
		return place(proc_fd, tid, maps, ret, patched, e);
	}
	scan_at(tid, maps, likely->syscall_ret, &g);
	scan_at(tid, maps, likely->sigreturn, &g);
	search(tid, maps, &g);
	*patched = 0;
	if (!complete(&g)) {
		int r = place(proc_fd, tid, maps, &g, patched, e);

		if (r < 0)
			return r;
	}
	*ret = g;
	return 0;
}

void text_unpatch(int proc_fd, pid_t tid, uint64_t patched)
{
	_cleanup_(close_fd) int fd = -EBADF;
	uint8_t zero[64] = {};

	if (!patched)
		return;
	fd = procfs_open(proc_fd, O_RDWR, NULL, "%d/mem", tid);
	if (fd >= 0)
		ignore(pwrite(fd, zero, sizeof(zero), (off_t)patched),
		       "what stays there is never run");
}
