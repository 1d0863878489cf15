/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process outside has in an epoll set, that it has open or somebody sent it: that keeps no
 * file open, but is told of it as long as somebody has it open. fdinfo of the set tells which inode
 * each entry is about, and kcmp(2) whether it is the very file.
 */
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/fdinfo.h"
#include "ns/leaks.h"

struct entry {
	int tfd;
	uint64_t ino;
	dev_t dev;
};

static bool parse(const char *text, struct entry *ret)
{
	unsigned int sdev;
	char line[256];

	fdinfo_copy_line(text, line, sizeof(line));
	/* ep_show_fdinfo() */
	if (sscanf(line, "tfd: %d events: %*x data: %*x pos:%*d ino:%" SCNx64 " sdev:%x", &ret->tfd,
		   &ret->ino, &sdev) != 3)
		return false;
	ret->dev = makedev(sdev >> 20, sdev & 0xfffff); /* MAJOR(), MINOR() of the kernel */
	return true;
}

/* Several entries may have one number: kcmp(2) takes the n-th that is shown (ep_find_tfd()). */
static uint32_t nth(const char *from, const char *at, int tfd)
{
	uint32_t n = 0;
	struct entry x;

	for (; fdinfo_find_line(&from, "tfd:") && from < at; fdinfo_skip_line(&from))
		n += parse(from, &x) && x.tfd == tfd;
	return n;
}

/* What he has open by that number as well is found there. */
static bool is_same(const struct leak_search *s, const struct inside *x, const struct outsider *o,
		    pid_t holder, const struct kcmp_epoll_slot *slot)
{
	pid_t ours = x->file ? leak_pid_outside(s, x->file->pid) : 0;

	return ours && x->file->fd >= 0 &&
	       leak_compare(KCMP_EPOLL_TFD, ours, (unsigned long)x->file->fd, holder,
			    (unsigned long)slot) == 0 &&
	       (holder != o->tid ||
		leak_compare(KCMP_FILE, ours, (unsigned long)x->file->fd, o->tid, slot->tfd) != 0);
}

static int report(struct leak_search *s, const struct outsider *o, const struct inside *x,
		  const char *where, struct error *e)
{
	_cleanup_(free_ptr) char *link = NULL;
	char how[96];
	int r = procfs_readlink(s->c->proc_fd, &link, e, "%d/fd/%d", x->file->pid, x->file->fd);

	if (r < 0)
		return r;
	snprintf(how, sizeof(how), " in an epoll set%s", where);
	return leak_report(s, o, leak_kind(0, link), link, x, how, e);
}

static int look_at_entry(struct leak_search *s, const struct outsider *o,
			 const struct leak_set *set, const char *text, const char *at,
			 struct error *e)
{
	struct kcmp_epoll_slot slot = {.efd = (uint32_t)set->fd};
	struct entry entry;
	struct inside *x = parse(at, &entry) ? leak_first(s, entry.dev, entry.ino) : NULL;

	if (!x)
		return 0;
	slot.tfd = (uint32_t)entry.tfd;
	slot.toff = nth(text, at, entry.tfd);
	for (; x; x = leak_next(s, x))
		if (is_same(s, x, o, set->holder, &slot))
			return report(s, o, x, set->where, e);
	return 0;
}

int leak_look_at_epoll(struct leak_search *s, const struct outsider *o, const struct leak_set *set,
		       struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(s->ct->host_proc, &text, e, "%d/fdinfo/%d", set->holder, set->fd);
	int r = 0;

	if (n < 0)
		return leak_unless_hidden(n, e);
	for (const char *at = text; r >= 0 && fdinfo_find_line(&at, "tfd:"); fdinfo_skip_line(&at))
		r = look_at_entry(s, o, set, text, at, e);
	return r;
}
