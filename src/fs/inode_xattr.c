/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes and access control lists of files that have no name. Labels of security
 * modules are left out: a new file gets what their rules say.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"

static bool is_user(const char *name)
{
	return !strncmp(name, "user.", 5);
}

static bool is_wanted(const char *name)
{
	return is_user(name) || !strncmp(name, "trusted.", 8) ||
	       !strncmp(name, "system.posix_acl_", 17) || !strcmp(name, "security.capability");
}

static int save_one(int fd, const char *name, struct scratch *s, Reprise__InodeXattr **ret,
		    struct error *e)
{
	Reprise__InodeXattr *m =
		scratch_message(s, Reprise__InodeXattr, reprise__inode_xattr__init);
	ssize_t size = fgetxattr(fd, name, NULL, 0);

	if (size < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot read the attribute %s", name);
	if (m) {
		m->name = scratch_string(s, name);
		m->value.data = scratch_alloc(s, (size_t)size + 1);
	}
	if (!m || !m->name || !m->value.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an attribute");
	if (fgetxattr(fd, name, m->value.data, (size_t)size) != size)
		return error_errno(e, -errno, E_SYSTEM, "cannot read the attribute %s", name);
	m->value.len = (size_t)size;
	*ret = m;
	return 0;
}

static int save_all(int fd, const char *list, size_t size, struct scratch *s, Reprise__Inode *msg,
		    struct error *e)
{
	size_t n = 0;

	for (const char *name = list; name < list + size; name += strlen(name) + 1)
		n += is_wanted(name);
	if (!n)
		return 0;
	msg->xattrs = scratch_alloc(s, n * sizeof(*msg->xattrs));
	if (!msg->xattrs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for attributes");
	for (const char *name = list; name < list + size; name += strlen(name) + 1) {
		int r = is_wanted(name) ? save_one(fd, name, s, &msg->xattrs[msg->n_xattrs], e) : 0;

		if (r < 0)
			return r;
		msg->n_xattrs += is_wanted(name);
	}
	return 0;
}

int inode_xattr_checkpoint(struct checkpoint *c, int fd, const struct stat *st,
			   struct inode_entry *entry, struct error *e)
{
	_cleanup_(close_fd) int own = -EBADF;
	_cleanup_(free_ptr) char *list = NULL;
	ssize_t size;

	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return 0;
	own = reopen_fd(c->proc_fd, fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	/* Contents that cannot be read are told of where they are read. */
	size = own < 0 ? 0 : flistxattr(own, NULL, 0);
	if (size <= 0) /* none, or the file system knows no such thing */
		return 0;
	list = malloc((size_t)size);
	if (!list)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for attributes");
	size = flistxattr(own, list, (size_t)size);
	if (size < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot list the attributes of %s",
				   entry->msg.path);
	return save_all(own, list, (size_t)size, &c->files->scratch, &entry->msg, e);
}

int inode_xattr_restart(struct restart *r, const struct inode_open *inode, bool user,
			struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	_cleanup_(close_fd) int own = -EBADF;

	if (!msg->n_xattrs)
		return 0;
	own = reopen_fd(r->proc_fd, inode->fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (own < 0)
		return error_errno(e, own, E_RESTORE, "cannot open %s anew", msg->path);
	for (size_t i = 0; i < msg->n_xattrs; i++) {
		const Reprise__InodeXattr *x = msg->xattrs[i];

		if (!is_wanted(x->name))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "%s has an attribute that is never saved", msg->path);
		if (is_user(x->name) != user)
			continue;
		if (fsetxattr(own, x->name, x->value.data, x->value.len, 0) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot give %s its attribute %s",
					   msg->path, x->name);
	}
	return 0;
}
