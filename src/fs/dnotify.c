/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that are watched with F_NOTIFY. It belongs to a description and a descriptor table
 * (dn_filp, dn_owner), and no interface tells of it; but whoever watches has become the owner of
 * the description, if there was none (fcntl_dirnotify()). So only the memory of the kernel is
 * asked, where there is an owner.
 */
#include "fs/dnotify.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_private.h"

#define MARKS_MAX 100000

/* convert_arg(): FS_* of include/linux/fsnotify_backend.h, which some events have two of. */
static const struct {
	uint32_t kernels, is;
} events[] = {
	{0x00000001, DN_ACCESS},    {0x00000002, DN_MODIFY}, {0x00000180, DN_CREATE},
	{0x00000240, DN_DELETE},    {0x10000000, DN_RENAME}, {0x00000004, DN_ATTRIB},
	{0x20000000, DN_MULTISHOT}, {0x08000000, 0}, /* FS_EVENT_ON_CHILD */
};

#define DN_ALL                                                                              \
	((uint32_t)(DN_ACCESS | DN_MODIFY | DN_CREATE | DN_DELETE | DN_RENAME | DN_ATTRIB | \
		    DN_MULTISHOT))

static int events_of(uint32_t mask, uint32_t *ret)
{
	*ret = 0;
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if ((mask & events[i].kernels) == events[i].kernels) {
			*ret |= events[i].is;
			mask &= ~events[i].kernels;
		}
	return mask ? -EOPNOTSUPP : 0;
}

static int unknown(int r, struct error *e)
{
	return error_set(
		e, r == -ENOMEM ? r : -EOPNOTSUPP, r == -ENOMEM ? E_NO_MEMORY : E_KERNEL_TOO_OLD,
		"the directory may be watched with F_NOTIFY, of which this kernel keeps book "
		"in a way that is not known");
}

/* The first mark on the inode of a file, as the address of its link in the list. */
static int first_mark(struct kernel_memory *k, uint64_t file, uint64_t *ret)
{
	uint64_t inode, connector;
	int r = kernel_member(k, file, "file", "f_inode", &inode, 8);

	*ret = 0;
	if (r >= 0)
		r = kernel_member(k, inode, "inode", "i_fsnotify_marks", &connector, 8);
	if (r < 0 || !connector)
		return r;
	return kernel_member(k, connector, "fsnotify_mark_connector", "list", ret, 8);
}

static int mark_group(struct kernel_memory *k, uint64_t link, uint64_t *ret_mark, uint64_t *ret)
{
	int offset = kernel_offset(k, "fsnotify_mark", "obj_list");

	if (offset < 0)
		return offset;
	*ret_mark = link - (uint64_t)offset;
	return kernel_member(k, *ret_mark, "fsnotify_mark", "group", ret, 8);
}

/* All watches of that kind are of one group: that of a watch of ours. */
static int find_group(struct kernel_memory *k, int proc_fd, uint64_t *ret)
{
	_cleanup_(close_fd) int fd =
		openat(proc_fd, "self/fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t file, link, mark;
	int r;

	if (fd < 0 || fcntl(fd, F_NOTIFY, DN_ATTRIB) < 0)
		return -errno;
	r = kernel_file(k, fd, &file);
	if (r >= 0)
		r = first_mark(k, file, &link);
	return r < 0 ? r : link ? mark_group(k, link, &mark, ret) : -ENOENT;
}

struct watching {
	struct kernel_memory *k;
	uint64_t file;
	Reprise__File *msg;
	struct scratch *scratch;
};

static int add_watch(const struct watching *w, uint64_t at)
{
	Reprise__DirNotify *m =
		scratch_message(w->scratch, Reprise__DirNotify, reprise__dir_notify__init);
	Reprise__DirNotify **list =
		scratch_alloc(w->scratch, (w->msg->n_notify + 1) * sizeof(*list));
	uint32_t mask = 0;
	int r;

	if (!m || !list)
		return -ENOMEM;
	for (size_t i = 0; i < w->msg->n_notify; i++)
		list[i] = w->msg->notify[i];
	r = kernel_member(w->k, at, "dnotify_struct", "dn_mask", &mask, 4);
	if (r >= 0)
		r = kernel_member(w->k, at, "dnotify_struct", "dn_fd", &m->fd, 4);
	if (r >= 0) /* until the tables are known */
		r = kernel_member(w->k, at, "dnotify_struct", "dn_owner", &m->table, 8);
	if (r >= 0)
		r = events_of(mask, &m->events);
	list[w->msg->n_notify] = m;
	w->msg->notify = list;
	w->msg->n_notify++;
	return r;
}

/* All who watch through one mark. */
static int look_at_mark(const struct watching *w, uint64_t mark)
{
	uint64_t at, file;
	int r = kernel_member(w->k, mark, "dnotify_mark", "dn", &at, 8);

	for (int i = 0; r >= 0 && at; i++) {
		r = kernel_member(w->k, at, "dnotify_struct", "dn_filp", &file, 8);
		if (r >= 0 && file == w->file)
			r = add_watch(w, at);
		if (r >= 0)
			r = i < MARKS_MAX
				    ? kernel_member(w->k, at, "dnotify_struct", "dn_next", &at, 8)
				    : -ELOOP;
	}
	return r;
}

static int look(const struct watching *w, uint64_t group)
{
	uint64_t link, mark, is;
	int r = first_mark(w->k, w->file, &link);

	for (int i = 0; r >= 0 && link; i++) {
		r = mark_group(w->k, link, &mark, &is);
		if (r >= 0 && is == group)
			r = look_at_mark(w, mark);
		if (r >= 0) /* struct hlist_node begins with the next */
			r = i < MARKS_MAX ? kernel_read(w->k, link, &link, sizeof(link)) : -ELOOP;
	}
	return r;
}

int dnotify_checkpoint(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		       struct scratch *scratch, struct error *e)
{
	struct watching w = {.msg = msg, .scratch = scratch};
	struct error unused = {};
	uint64_t group;
	int r;

	if (!S_ISDIR(f->st.st_mode) || !msg->owner || (f->flags & O_PATH))
		return 0;
	if (files_kernel_memory(c, &w.k, &unused) < 0)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"the directory has an owner for signals (F_SETOWN), and may be "
			"watched with F_NOTIFY, which only the memory of the kernel tells");
	r = find_group(w.k, c->proc_fd, &group);
	if (r >= 0)
		r = kernel_file(w.k, f->local, &w.file);
	if (r >= 0)
		r = look(&w, group);
	return r < 0 ? unknown(r, e) : 0;
}

static int find_table(struct checkpoint *c, Reprise__DirNotify *m, struct error *e)
{
	vec_for_each (t, &c->files->tables) {
		uint64_t task, files = 0;

		if (kernel_task(c->files->kernel, t->tid, &task) < 0 ||
		    kernel_member(c->files->kernel, task, "task_struct", "files", &files, 8) < 0 ||
		    files != m->table)
			continue;
		m->table = t->id;
		return 0;
	}
	return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			 "a process outside the tree watches the directory with F_NOTIFY");
}

int dnotify_checkpoint_all(struct checkpoint *c, struct error *e)
{
	vec_for_each (f, &c->files->files)
		for (size_t i = 0; i < (*f)->msg->n_notify; i++) {
			int r = find_table(c, (*f)->msg->notify[i], e);

			if (r < 0)
				r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
			if (r < 0)
				return r;
		}
	return 0;
}

/* ---- restart ---- */

int dnotify_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_notify; i++)
		if ((msg->notify[i]->events & ~DN_ALL) ||
		    !restart_find(r, RECORD_FILES, msg->notify[i]->table))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a directory is watched for unknown events %#x",
					 msg->notify[i]->events);
	return 0;
}

/* The signal tells the number through which it was asked for. */
static int number_of(const Reprise__Files *table, uint64_t file, int wanted)
{
	int any = -1;

	for (size_t i = 0; i < table->n_fds; i++)
		if (table->fds[i]->file == file && (any < 0 || table->fds[i]->fd == wanted))
			any = table->fds[i]->fd;
	return any;
}

int dnotify_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			  struct error *e)
{
	vec_for_each (f, &r->files->files)
		for (size_t i = 0; i < f->msg->n_notify; i++) {
			const Reprise__DirNotify *m = f->msg->notify[i];
			int fd = number_of(table, f->id, m->fd);
			const uint64_t args[6] = {(uint64_t)fd, F_NOTIFY, m->events};
			long res;

			if (m->table != t->msg->files || fd < 0)
				continue;
			res = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_fcntl, args);
			if (res < 0)
				return error_errno(e, (int)res, E_RESTORE,
						   "cannot watch a directory with F_NOTIFY");
		}
	return 0;
}
