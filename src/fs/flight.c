/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptions in flight: peeking into the queue of a socket (SCM_RIGHTS with MSG_PEEK) gives us
 * descriptors of our own, which kcmp(2) compares with those of the tasks. What nobody in the tree
 * has open is saved from ours, and that one is kept, since later ones are compared with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/fdinfo.h"
#include "fs/file_private.h"

static int save_new(struct checkpoint *c, struct file_seen *f, int *fd, struct error *e)
{
	struct files_checkpoint *fc = c->files;
	struct file_entry **slot = vec_push(&fc->by_class);
	size_t class = fc->by_class.n;
	int *kept = slot ? vec_push(&fc->in_flight) : NULL;
	int r;

	if (!kept)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of files");
	*kept = take_fd(fd);
	r = file_save(c, f, e);
	fc->by_class.v[class - 1] = f->entry;
	return r;
}

/* The kernel shows us no less of our own descriptors than of those of others. */
static int look(struct checkpoint *c, int fd, char **ret_info, char **ret_link, struct error *e)
{
	_cleanup_(close_fd) int infos = -EBADF;
	_cleanup_(close_fd) int links = -EBADF;
	char name[16];

	snprintf(name, sizeof(name), "%d", fd);
	infos = procfs_open(c->proc_fd, O_RDONLY | O_DIRECTORY, e, "%d/fdinfo", c->self);
	if (infos < 0)
		return infos;
	links = procfs_open(c->proc_fd, O_RDONLY | O_DIRECTORY, e, "%d/fd", c->self);
	if (links < 0)
		return links;
	*ret_info = file_read_info(infos, name);
	*ret_link = file_read_link(links, name);
	if (!*ret_info || !*ret_link)
		return error_errno(e, -errno, E_SYSTEM, "cannot look at a descriptor in flight");
	return 0;
}

static int save_once(struct checkpoint *c, struct file_seen *f, int *fd, uint64_t *ret,
		     struct error *e)
{
	const struct file_entry *entry;
	uint64_t class;
	bool is_new;
	int r;

	if (fstat(*fd, &f->st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of a descriptor in flight");
	r = kcmp_index_get(c->files->by_file, file_hash(&f->st, f->fdinfo), c->self,
			   (unsigned long)*fd, &class, &is_new);
	if (r < 0)
		return error_errno(e, r, E_TASK_GONE, "cannot compare a descriptor in flight");
	if (is_new) {
		r = save_new(c, f, fd, e);
		if (r < 0)
			return r;
	}
	entry = class <= c->files->by_class.n ? c->files->by_class.v[class - 1] : NULL;
	*ret = entry ? entry->id : 0;
	return 0;
}

int file_in_flight(struct checkpoint *c, const struct file_entry *carrier, int given, uint64_t *ret,
		   struct error *e)
{
	_cleanup_(close_fd) int fd = given;
	_cleanup_(free_ptr) char *info = NULL;
	_cleanup_(free_ptr) char *link = NULL;
	struct file_seen f = {.tid = c->self, .fd = fd, .local = fd, .carrier = carrier};
	int r = look(c, fd, &info, &link, e);

	f.fdinfo = info;
	f.link = link;
	return r < 0 ? r : save_once(c, &f, &fd, ret, e);
}

int file_of_kernel(struct checkpoint *c, const struct file_entry *carrier, int given,
		   const struct file_told *told, uint64_t *ret, struct error *e)
{
	_cleanup_(close_fd) int fd = given;
	_cleanup_(free_ptr) char *info = NULL;
	_cleanup_(free_ptr) char *link = NULL;
	struct file_seen f = {.tid = c->self,
			      .fd = fd,
			      .local = fd,
			      .carrier = carrier,
			      .address = told->address};
	struct fdinfo own;
	char text[96];
	int r = look(c, fd, &info, &link, e);

	if (r < 0)
		return r;
	if (fdinfo_parse(info, &own) < 0)
		return error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
	snprintf(text, sizeof(text), "pos:\t%llu\nflags:\t0%o\nmnt_id:\t%d\n",
		 (unsigned long long)told->pos, told->flags, own.mnt_id);
	f.fdinfo = text;
	f.link = link;
	return save_once(c, &f, &fd, ret, e);
}
