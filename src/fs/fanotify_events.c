/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of fanotify, which can be read by taking them only: struct fsnotify_group has them
 * in a list. How they are put back is said in fanotify_replay.c.
 */
#include "fs/fanotify_events.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/dentry.h"
#include "fs/watch.h"

/* Where the members of its structures stand. */
struct layout {
	int list, mask, pid, mount, dentry, fsid, handle, name_fsid, info, info_size;
	uint32_t type_mask;
	int path, fid, name, overflow, permission; /* enum fanotify_event_type */
};

/* The type is a bit-field behind the mask, of as many bits as there are types. */
static int find_types(struct kernel_memory *k, struct layout *l)
{
	int n = kernel_enumerator(k, "__FANOTIFY_EVENT_TYPE_NUM");

	l->path = kernel_enumerator(k, "FANOTIFY_EVENT_TYPE_PATH");
	l->fid = kernel_enumerator(k, "FANOTIFY_EVENT_TYPE_FID");
	l->name = kernel_enumerator(k, "FANOTIFY_EVENT_TYPE_FID_NAME");
	l->overflow = kernel_enumerator(k, "FANOTIFY_EVENT_TYPE_OVERFLOW");
	l->permission = kernel_enumerator(k, "FANOTIFY_EVENT_TYPE_PATH_PERM");
	if (n < 2 || l->path < 0 || l->fid < 0 || l->name < 0 || l->overflow < 0)
		return -EOPNOTSUPP;
	for (l->type_mask = 1; l->type_mask < (uint32_t)n; l->type_mask *= 2)
		;
	l->type_mask--;
	return l->pid == l->mask + 8 ? 0 : -EOPNOTSUPP;
}

static int find_layout(struct kernel_memory *k, struct layout *l)
{
	*l = (struct layout){
		.list = kernel_offset(k, "fanotify_event", "fse.list"),
		.mask = kernel_offset(k, "fanotify_event", "mask"),
		.pid = kernel_offset(k, "fanotify_event", "pid"),
		.mount = kernel_offset(k, "fanotify_path_event", "path.mnt"),
		.dentry = kernel_offset(k, "fanotify_path_event", "path.dentry"),
		.fsid = kernel_offset(k, "fanotify_fid_event", "fsid"),
		.handle = kernel_offset(k, "fanotify_fid_event", "object_fh"),
		.name_fsid = kernel_offset(k, "fanotify_name_event", "fsid"),
		.info = kernel_offset(k, "fanotify_name_event", "info"),
		.info_size = kernel_offset(k, "fanotify_info", "buf"),
	};
	if (l->list < 0 || l->mask < 0 || l->pid < 0 || l->mount < 0 || l->dentry < 0 ||
	    l->fsid < 0 || l->handle < 0 || l->name_fsid < 0 || l->info < 0 || l->info_size != 8)
		return -EOPNOTSUPP;
	return find_types(k, l);
}

/* struct fanotify_fh: the handle follows it, or where it is, if it is long. */
struct fh {
	uint8_t type, len, flags, pad;
};
#define FH_OUTSIDE 1

static int read_handle(struct kernel_memory *k, uint64_t at, struct fanotify_handle *ret)
{
	struct fh fh;
	int r = kernel_read(k, at, &fh, sizeof(fh));

	if (r < 0)
		return r;
	if (!fh.len || fh.len > sizeof(ret->bytes) || (fh.flags & ~FH_OUTSIDE))
		return -EOPNOTSUPP;
	ret->type = fh.type;
	ret->len = fh.len;
	at += sizeof(fh);
	if (fh.flags & FH_OUTSIDE)
		at = kernel_pointer(k, (at + 7) & ~7ull);
	return at ? kernel_read(k, at, ret->bytes, ret->len) : -EFAULT;
}

/* struct fanotify_info: the directory, that to which something was moved, the file, the names. */
static int read_info(struct kernel_memory *k, uint64_t at, struct fanotify_raw *raw)
{
	struct {
		uint8_t dir, dir2, file, name, name2, pad[3];
	} info;
	int r = kernel_read(k, at, &info, sizeof(info));

	at += sizeof(info);
	if (r >= 0 && !info.dir && !info.dir2)
		raw->type = FANOTIFY_STRANGE;
	if (r < 0 || raw->type == FANOTIFY_STRANGE)
		return r;
	if (info.dir)
		r = read_handle(k, at, &raw->object);
	at += info.dir;
	if (r >= 0 && info.dir2)
		r = read_handle(k, at, &raw->to);
	at += info.dir2;
	if (r >= 0 && info.file)
		r = read_handle(k, at, &raw->child);
	at += info.file;
	if (r >= 0 && info.name)
		r = kernel_read(k, at, raw->name, info.name);
	at += info.name + 1;
	if (r >= 0 && info.name2)
		r = kernel_read(k, at, raw->to_name, info.name2);
	return r;
}

static int read_event(struct kernel_memory *k, const struct layout *l, uint64_t at,
		      struct fanotify_raw *raw)
{
	struct {
		uint32_t mask, type;
		uint64_t pid;
	} head;
	int r = kernel_read(k, at + (uint64_t)l->mask, &head, sizeof(head)), type;

	*raw = (struct fanotify_raw){};
	if (r < 0)
		return r;
	raw->mask = head.mask;
	raw->pid = head.pid;
	raw->type = FANOTIFY_STRANGE;
	type = (int)(head.type & l->type_mask);
	if (type == l->permission) {
		raw->type = FANOTIFY_PERMISSION;
	} else if (type == l->overflow) {
		raw->type = FANOTIFY_OVERFLOW;
	} else if (type == l->path) {
		raw->type = FANOTIFY_PATH;
		raw->mount = kernel_pointer(k, at + (uint64_t)l->mount);
		raw->dentry = kernel_pointer(k, at + (uint64_t)l->dentry);
	} else if (type == l->fid) {
		raw->type = FANOTIFY_HANDLE;
		r = kernel_read(k, at + (uint64_t)l->fsid, &raw->fsid, sizeof(raw->fsid));
		if (r >= 0)
			r = read_handle(k, at + (uint64_t)l->handle, &raw->object);
	} else if (type == l->name) {
		raw->type = FANOTIFY_NAME;
		r = kernel_read(k, at + (uint64_t)l->name_fsid, &raw->fsid, sizeof(raw->fsid));
		if (r >= 0)
			r = read_info(k, at + (uint64_t)l->info, raw);
	}
	return r;
}

static int read_list(struct kernel_memory *k, const struct layout *l, uint64_t head, bool last,
		     struct fanotify_raws *ret)
{
	uint64_t node = kernel_pointer(k, head + (last ? 8 : 0));
	int r = 0;

	while (r >= 0 && node != head) {
		struct fanotify_raw *raw = vec_push(&ret->all);

		if (!raw || !node || ret->all.n > FANOTIFY_EVENTS_MAX)
			return !raw ? -ENOMEM : -EOPNOTSUPP;
		r = read_event(k, l, node - (uint64_t)l->list, raw);
		node = last ? head : kernel_pointer(k, node);
	}
	return r;
}

int fanotify_events_read(struct kernel_memory *k, int fd, bool last, struct fanotify_raws *ret)
{
	int at = kernel_offset(k, "fsnotify_group", "notification_list");
	uint64_t file, group;
	struct layout l;
	int r = find_layout(k, &l);

	if (r >= 0)
		r = at < 0 ? at : kernel_file(k, fd, &file);
	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &group, sizeof(group));
	return r < 0 ? r : read_list(k, &l, group + (uint64_t)at, last, ret);
}

int fanotify_handle_of(int fd, struct fanotify_handle *ret)
{
	union {
		struct file_handle handle;
		uint8_t room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u = {.handle.handle_bytes = MAX_HANDLE_SZ};
	int mount;

	if (name_to_handle_at(fd, "", &u.handle, &mount, AT_EMPTY_PATH) < 0)
		return -errno;
	*ret = (struct fanotify_handle){.type = (uint32_t)u.handle.handle_type,
					.len = u.handle.handle_bytes};
	memcpy(ret->bytes, u.handle.f_handle, ret->len);
	return 0;
}

int fanotify_fsid_of(int fd, uint64_t *ret)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	memcpy(ret, &fs.f_fsid, sizeof(*ret));
	return 0;
}

bool fanotify_handle_equal(const struct fanotify_handle *a, const struct fanotify_handle *b)
{
	return a->type == b->type && a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

/* ---- saving ---- */

struct saving {
	struct checkpoint *c;
	const Reprise__Fanotify *m;
	const struct fanotify_devices *devices;
	struct fanotify_causers causers;
};

#define CAUSED_BY_FILE                                                              \
	(FAN_OPEN | FAN_ACCESS | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE | \
	 FAN_OPEN_EXEC | FAN_ATTRIB)
#define CAUSED_BY_DIRECTORY (FAN_OPEN | FAN_ACCESS | FAN_CLOSE_NOWRITE | FAN_ATTRIB)

int fanotify_open_handle(struct checkpoint *c, const struct fanotify_devices *devices,
			 uint64_t fsid, const struct fanotify_handle *handle)
{
	struct watch_inode w = {.handle = (struct file_handle *)w.room};
	uint64_t is = 0;

	w.handle->handle_type = (int)handle->type;
	w.handle->handle_bytes = handle->len;
	memcpy(w.handle->f_handle, handle->bytes, handle->len);
	for (size_t i = 0; i < devices->n; i++) {
		int fd;

		w.dev = devices->v[i];
		fd = watch_open_handle(c, &w);
		if (fd >= 0 && fanotify_fsid_of(fd, &is) >= 0 && is == fsid)
			return fd;
		close_fd(&fd);
	}
	return -1;
}

static int open_handle(struct saving *s, uint64_t fsid, const struct fanotify_handle *handle)
{
	return fanotify_open_handle(s->c, s->devices, fsid, handle);
}

/* The name that a file has in a directory, if only handles are told. */
static int find_name(struct saving *s, const struct fanotify_raw *raw, char *name)
{
	_cleanup_(close_fd) int fd = open_handle(s, raw->fsid, &raw->child);
	_cleanup_(free_ptr) char *link = NULL;
	const char *base;

	if (fd < 0 || procfs_readlink(s->c->proc_fd, &link, NULL, "self/fd/%d", fd) < 0)
		return -ESTALE;
	base = strrchr(link, '/');
	if (!base || strlen(base + 1) > NAME_MAX)
		return -ESTALE;
	strcpy(name, base + 1);
	return 0;
}

/* It still has the name under which it was seen: what is opened by that. */
static int open_named(struct saving *s, const struct fanotify_raw *raw, int dir, char *name)
{
	_cleanup_(close_fd) int fd = -1;
	struct fanotify_handle is;

	strcpy(name, raw->name);
	if (!*name && find_name(s, raw, name) < 0)
		return -1;
	fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || !raw->child.len)
		return take_fd(&fd);
	return fanotify_handle_of(fd, &is) >= 0 && fanotify_handle_equal(&is, &raw->child)
		       ? take_fd(&fd)
		       : -1;
}

/* Its contents are saved with it. */
static int open_removed(struct saving *s, const struct fanotify_raw *raw)
{
	_cleanup_(close_fd) int fd = dentry_open_removed(s->c, raw->mount, raw->dentry);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) >= 0 && S_ISREG(st.st_mode) && !st.st_nlink ? take_fd(&fd)
										     : -1;
}

static int refuse_gone(struct saving *s, const struct fanotify_raw *raw, struct error *e)
{
	char name[NAME_MAX + 1], why[NAME_MAX + 96];

	snprintf(name, sizeof(name), "%s", raw->name);
	if (raw->type == FANOTIFY_PATH)
		dentry_name(s->c->kernel, raw->dentry, name);
	snprintf(why, sizeof(why),
		 "of a file that is no longer where it was, or not in this mount "
		 "namespace%s%s%s",
		 *name ? " (" : "", name, *name ? ")" : "");
	return fanotify_refuse(raw, why, e);
}

/* What is opened, and the inode that the image has for it: the same, or its directory. */
static int find_object(struct saving *s, const struct fanotify_raw *raw, int *ret_object,
		       int *ret_inode, char *name, struct error *e)
{
	*ret_inode = raw->type == FANOTIFY_PATH ? dentry_open(s->c, raw->mount, raw->dentry)
						: open_handle(s, raw->fsid, &raw->object);
	if (raw->type == FANOTIFY_PATH && *ret_inode < 0)
		*ret_inode = open_removed(s, raw);
	if (raw->type == FANOTIFY_NAME && *ret_inode >= 0)
		*ret_object = open_named(s, raw, *ret_inode, name);
	else if (*ret_inode >= 0)
		*ret_object = fcntl(*ret_inode, F_DUPFD_CLOEXEC, 0);
	return *ret_object < 0 ? refuse_gone(s, raw, e) : 0;
}

/* Does the kernel know AT_EXECVE_CHECK? Since then (and some time before) a file is opened for
 * execution before the arguments are looked at (alloc_bprm()). */
static bool exec_opens_first(void)
{
	return syscall(SYS_execveat, -1, "", NULL, NULL, AT_EMPTY_PATH | KERNEL_EXECVE_CHECK) < 0 &&
	       errno == EBADF;
}

/*
 * A change of attributes is told when a default ACL is removed from what has none. Of directories
 * the file system is asked, and others than these change the time of change (simple_set_acl()).
 */
static bool tells_attributes(const struct saving *s, int object, bool directory)
{
	const long unchanged[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC};
	char path[32];
	struct statfs fs;
	bool known = !directory;
	struct statx st;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", object);
	if (fstatfs(object, &fs) < 0 || fs.f_flags & ST_RDONLY ||
	    statx(object, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0 ||
	    st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND) ||
	    getxattr(path, FANOTIFY_NO_ACL, NULL, 0) >= 0 || errno != ENODATA)
		return false;
	for (size_t i = 0; i < sizeof(unchanged) / sizeof(*unchanged); i++)
		known = known || fs.f_type == unchanged[i];
	return known;
}

static int check_kind(const struct saving *s, const struct fanotify_raw *raw, int object,
		      struct error *e)
{
	uint32_t mask = FANOTIFY_MASK(raw->mask), known;
	struct stat st;

	if (fstat(object, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return fanotify_refuse(raw, "of what is neither a file nor a directory", e);
	known = S_ISDIR(st.st_mode) ? CAUSED_BY_DIRECTORY : CAUSED_BY_FILE;
	if (S_ISDIR(st.st_mode) && raw->type == FANOTIFY_HANDLE) {
		if (!(mask & FAN_ONDIR))
			return fanotify_refuse(raw, "of a file of which only the directory is told",
					       e);
		known |= FAN_ONDIR;
	} else if (raw->type == FANOTIFY_HANDLE && s->m->flags & FAN_REPORT_DIR_FID) {
		return fanotify_refuse(raw, "of a file whose directory was not known", e);
	}
	if (!mask || (mask & ~known))
		return fanotify_refuse(raw, "that cannot be caused again without changing the file",
				       e);
	if ((mask & FAN_ATTRIB) && !tells_attributes(s, object, S_ISDIR(st.st_mode)))
		return fanotify_refuse(raw,
				       "of attributes that cannot be caused again without "
				       "changing the file",
				       e);
	if ((mask & FAN_MODIFY) && (s->m->flags & FAN_REPORT_TID))
		return fanotify_refuse(raw, "of writing that tells of a thread (FAN_REPORT_TID)",
				       e);
	if ((mask & FAN_OPEN_EXEC) && !exec_opens_first())
		return fanotify_refuse(
			raw, "of executing a file, which this kernel cannot be made to tell", e);
	return 0;
}

static int save_object(struct saving *s, const struct fanotify_raw *raw, Reprise__FanotifyEvent *m,
		       struct error *e)
{
	_cleanup_(close_fd) int object = -EBADF, inode = -EBADF;
	_cleanup_(free_ptr) char *link = NULL;
	char name[NAME_MAX + 1] = "";
	int r = find_object(s, raw, &object, &inode, name, e);

	if (r >= 0)
		r = check_kind(s, raw, object, e);
	if (r < 0)
		return r;
	m->name.len = strlen(name);
	m->name.data = scratch_copy(&s->c->files->scratch, name, m->name.len + 1);
	if (!m->name.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	r = procfs_readlink(s->c->proc_fd, &link, e, "self/fd/%d", inode);
	return r < 0 ? r : inode_checkpoint(s->c, NULL, inode, link, &m->inode, e);
}

static int save_event(struct saving *s, const struct fanotify_raw *raw,
		      Reprise__FanotifyEvent **ret, struct error *e)
{
	Reprise__FanotifyEvent *m = scratch_message(&s->c->files->scratch, Reprise__FanotifyEvent,
						    reprise__fanotify_event__init);
	struct error why = {}, ignored = {};
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	*ret = m;
	m->type = raw->type;
	m->mask = FANOTIFY_MASK(raw->mask);
	if (raw->type == FANOTIFY_OVERFLOW)
		return 0;
	if (raw->type == FANOTIFY_STRANGE || raw->type == FANOTIFY_PERMISSION)
		return fanotify_refuse(raw, "that cannot be caused again", e);
	r = fanotify_causer_save(&s->causers, raw, m, e);
	if (r < 0)
		return r;
	r = save_object(s, raw, m, &why);
	if (r >= 0)
		return 0;
	if (why.code == E_FILE_EVENTS && !s->devices->no_double &&
	    (!(raw->mask & FAN_OPEN_EXEC) || exec_opens_first()) &&
	    fanotify_double_save(s->c, s->m, s->devices, raw, m, &ignored) >= 0)
		return 0;
	return error_set(e, r, why.code, "%s", why.text);
}

int fanotify_events_save(struct checkpoint *c, Reprise__Fanotify *m,
			 const struct fanotify_raws *events, const struct fanotify_devices *devices,
			 struct error *e)
{
	struct saving s = {.c = c, .m = m, .devices = devices};
	int r = fanotify_causers_list(c, m, &s.causers, e);

	m->events = scratch_alloc(&c->files->scratch, (events->all.n + 1) * sizeof(*m->events));
	if (!m->events)
		r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	/* What we have done ourselves to look at the tree is left out: it is no event of its. */
	vec_for_each (raw, &events->all)
		if (r >= 0 && !fanotify_causers_own(&s.causers, raw))
			r = save_event(&s, raw, &m->events[m->n_events++], e);
	fanotify_causers_free(&s.causers);
	return r;
}

/* ---- validation ---- */

bool fanotify_is_name(const ProtobufCBinaryData *name)
{
	return name->len && name->len <= NAME_MAX && !memchr(name->data, '\0', name->len) &&
	       !memchr(name->data, '/', name->len) &&
	       !(name->len <= 2 && !memcmp(name->data, "..", name->len));
}

static bool possible(const struct restart *r, const Reprise__Fanotify *group,
		     const Reprise__FanotifyEvent *m)
{
	struct error ignored = {};

	if (m->type == FANOTIFY_OVERFLOW)
		return m->mask == FAN_Q_OVERFLOW && !m->name.len && !m->doubled;
	if (m->doubled)
		return fanotify_double_possible(r, group, m);
	if (m->type < FANOTIFY_PATH || m->type > FANOTIFY_NAME || m->pid < 0 ||
	    (m->gone && !m->pid) || !m->mask ||
	    (m->mask & ~(uint32_t)(CAUSED_BY_FILE | FAN_ONDIR)) ||
	    ((m->mask & FAN_ONDIR) && (m->mask & ~(uint32_t)(CAUSED_BY_DIRECTORY | FAN_ONDIR))))
		return false;
	if (m->type == FANOTIFY_NAME ? !fanotify_is_name(&m->name) : m->name.len != 0)
		return false;
	return inode_validate(r, m->inode, &ignored) >= 0;
}

bool fanotify_events_possible(const struct restart *r, const Reprise__Fanotify *m)
{
	size_t overflows = 0;

	for (size_t i = 0; i < m->n_events; i++) {
		overflows += m->events[i]->type == FANOTIFY_OVERFLOW;
		if (!possible(r, m, m->events[i]))
			return false;
	}
	return m->n_events <= FANOTIFY_EVENTS_MAX && overflows <= 1 &&
	       !(m->overflow && m->n_events) && !(overflows && m->flags & FAN_UNLIMITED_QUEUE);
}
