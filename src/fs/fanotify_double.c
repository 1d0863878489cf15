/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of fanotify that cannot be caused on the files themselves: of what was made, removed or
 * renamed, of what has gone. Where an event tells of files by handles that an ext4 can have, they
 * are caused on a double of the file system (double_fs.c), whose number and inodes are the same to
 * whoever reads the event. One double serves as many events as it can, of all groups.
 *
 * An event tells of several things if the kernel has merged them. They are done one by one, by
 * whoever has caused them, while the group has a mark for that very one on the inode; what has to
 * be there before, or to go afterwards, is our doing, which nobody is told of. The kernel merges
 * them again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/double_fs.h"
#include "fs/fanotify_events.h"
#include "fs/watch.h"

#define INO32_GEN 1 /* FILEID_INO32_GEN */

#define ENTRIES (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO)
#define SELF	(FAN_DELETE_SELF | FAN_MOVE_SELF)
#define OF_ANY	(FAN_OPEN | FAN_ACCESS | FAN_MODIFY | FAN_ATTRIB | FAN_CLOSE_NOWRITE)
#define OF_FILE (FAN_CLOSE_WRITE | FAN_OPEN_EXEC)

static bool is_directory(const Reprise__FanotifyEvent *m)
{
	return m->mask & FAN_ONDIR;
}

/* ---- what can be done ---- */

static bool proper(const Reprise__FanotifyObject *o)
{
	return o && double_fs_has(o->number);
}

/* None that is ours there. */
static bool is_name_in(const Reprise__FanotifyObject *directory, const ProtobufCBinaryData *name)
{
	return fanotify_is_name(name) &&
	       !(directory && directory->number == DOUBLE_ROOT && *name->data == *DOUBLE_PREFIX);
}

/* By names: `to` alone, or both, of FAN_RENAME, which is never merged. */
static bool possible_by_name(const Reprise__FanotifyEvent *m)
{
	const uint32_t known = is_directory(m) ? ENTRIES : ENTRIES | OF_ANY | OF_FILE;
	const uint32_t mask = m->mask & ~(uint32_t)FAN_ONDIR;

	if (m->child && (!proper(m->child) || m->child->number == DOUBLE_ROOT ||
			 (is_directory(m) && mask & FAN_CREATE)))
		return false;
	if (mask == FAN_RENAME)
		return (m->object || m->to) && (!m->object || proper(m->object)) &&
		       (!m->to || proper(m->to)) && !m->object == !m->name.len &&
		       !m->to == !m->to_name.len &&
		       (!m->name.len || is_name_in(m->object, &m->name)) &&
		       (!m->to_name.len || is_name_in(m->to, &m->to_name));
	return proper(m->object) && !m->to && !m->to_name.len && mask && !(mask & ~known) &&
	       (!m->name.len || is_name_in(m->object, &m->name));
}

/* Something in the directory, though no name is told? */
static bool is_inside(const Reprise__Fanotify *group, const Reprise__FanotifyEvent *m,
		      uint32_t step)
{
	return m->type == FANOTIFY_NAME || step & ENTRIES ||
	       (group->flags & FAN_REPORT_DIR_FID && !is_directory(m) && !(m->mask & SELF));
}

static bool possible_by_handle(const Reprise__Fanotify *group, const Reprise__FanotifyEvent *m)
{
	const uint32_t mask = m->mask & ~(uint32_t)FAN_ONDIR;
	const uint32_t known = ENTRIES | SELF | OF_ANY | (is_directory(m) ? 0 : OF_FILE);

	if (!proper(m->object) || m->child || m->to || m->name.len || m->to_name.len || !mask ||
	    (mask & ~known))
		return false;
	if (mask & SELF && m->object->number == DOUBLE_ROOT)
		return false;
	/* With names only of what is unconnected; that cannot be had. */
	if (!is_directory(m) && (group->flags & FAN_REPORT_NAME) && (mask & ~(uint32_t)SELF))
		return false;
	/* Else it would be told of a directory, and of a file. */
	return is_directory(m) || !(mask & ENTRIES) || is_inside(group, m, 0) ||
	       !(mask & (SELF | OF_ANY | OF_FILE));
}

static bool possible(const Reprise__Fanotify *group, const Reprise__FanotifyEvent *m)
{
	if (m->type != FANOTIFY_NAME && m->type != FANOTIFY_HANDLE)
		return false;
	return m->type == FANOTIFY_NAME ? possible_by_name(m) : possible_by_handle(group, m);
}

bool fanotify_double_possible(const struct restart *r, const Reprise__Fanotify *group,
			      const Reprise__FanotifyEvent *m)
{
	const Reprise__FanotifyObject *const all[] = {m->object, m->child, m->to};
	struct error ignored = {};

	for (size_t i = 0; i < 3; i++)
		if (all[i] && all[i]->inode && inode_validate(r, all[i]->inode, &ignored) < 0)
			return false;
	return m->pid >= 0 && (m->pid || !m->gone) && !m->inode && possible(group, m);
}

/* ---- checkpoint ---- */

struct saving {
	struct checkpoint *c;
	const struct fanotify_devices *devices;
	uint64_t fsid;
};

/* What is there still is known by its name as well: a restart may find it elsewhere. */
static int save_object(const struct saving *s, const struct fanotify_handle *h,
		       Reprise__FanotifyObject **ret, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	_cleanup_(free_ptr) char *link = NULL;
	Reprise__FanotifyObject *o;

	if (!h->len)
		return 0;
	if (h->type != INO32_GEN || h->len != 8)
		return error_set(e, -EOPNOTSUPP, E_FILE_EVENTS, "other handles");
	o = scratch_message(&s->c->files->scratch, Reprise__FanotifyObject,
			    reprise__fanotify_object__init);
	if (!o)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	*ret = o;
	memcpy(&o->number, h->bytes, 4);
	memcpy(&o->generation, h->bytes + 4, 4);
	fd = fanotify_open_handle(s->c, s->devices, s->fsid, h);
	if (fd < 0 || procfs_readlink(s->c->proc_fd, &link, NULL, "self/fd/%d", fd) < 0 ||
	    inode_checkpoint(s->c, NULL, fd, link, &o->inode, e) < 0) {
		error_clear(e);
		o->inode = 0;
	}
	return 0;
}

static int save_name(struct checkpoint *c, const char *name, ProtobufCBinaryData *ret,
		     struct error *e)
{
	ret->len = strlen(name);
	ret->data = scratch_copy(&c->files->scratch, name, ret->len + 1);
	return ret->data ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
}

int fanotify_double_save(struct checkpoint *c, const Reprise__Fanotify *group,
			 const struct fanotify_devices *devices, const struct fanotify_raw *raw,
			 Reprise__FanotifyEvent *m, struct error *e)
{
	const struct saving s = {c, devices, raw->fsid};
	int r = save_name(c, raw->name, &m->name, e);

	m->inode = 0;
	m->doubled = true;
	m->fsid = raw->fsid;
	if (r >= 0)
		r = save_name(c, raw->to_name, &m->to_name, e);
	if (r >= 0)
		r = save_object(&s, &raw->object, &m->object, e);
	if (r >= 0)
		r = save_object(&s, &raw->child, &m->child, e);
	if (r >= 0)
		r = save_object(&s, &raw->to, &m->to, e);
	if (r >= 0 && !possible(group, m))
		r = error_set(e, -EOPNOTSUPP, E_FILE_EVENTS, "no double can have it");
	return r;
}

/* ---- restart: the double ---- */

/* What an event tells of, as it is now. */
struct resolved {
	uint64_t fsid;
	struct double_inode object, child, to; /* number 0: not told */
};

struct fanotify_double {
	int root;
	uint64_t fsid;
	struct double_inode has[DOUBLE_INODES_MAX];
	size_t n;
};

void fanotify_double_end(struct fanotify_double *d)
{
	if (d)
		close_fd(&d->root);
	free(d);
}

static int resolve_one(struct restart *r, const Reprise__FanotifyObject *o, bool directory,
		       struct double_inode *ret, uint64_t *fsid, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct fanotify_handle h;
	char path[32];
	int res;

	if (!o)
		return 0;
	*ret = (struct double_inode){o->number, o->generation, directory};
	if (!o->inode)
		return 0;
	res = watch_open(r, o->inode, &fd, path, sizeof(path), e);
	if (res >= 0)
		res = fanotify_handle_of(fd, &h);
	if (res >= 0)
		res = fanotify_fsid_of(fd, fsid);
	if (res >= 0 && (h.type != INO32_GEN || h.len != 8))
		res = -EOPNOTSUPP;
	if (res >= 0) {
		memcpy(&ret->number, h.bytes, 4);
		memcpy(&ret->generation, h.bytes + 4, 4);
		res = double_fs_has(ret->number) ? 0 : -EOPNOTSUPP;
	}
	return res < 0 ? error_errno(e, res, E_RESTORE, "%s is on another kind of file system now",
				     watch_name(r, o->inode))
		       : 0;
}

static int resolve(struct restart *r, const Reprise__Fanotify *group,
		   const Reprise__FanotifyEvent *m, struct resolved *ret, struct error *e)
{
	const bool directory = is_directory(m) || is_inside(group, m, m->mask);
	int res;

	*ret = (struct resolved){.fsid = m->fsid};
	res = resolve_one(r, m->child, is_directory(m), &ret->child, &ret->fsid, e);
	if (res >= 0)
		res = resolve_one(r, m->object, directory, &ret->object, &ret->fsid, e);
	return res < 0 ? res : resolve_one(r, m->to, true, &ret->to, &ret->fsid, e);
}

static struct double_inode *find_inode(struct fanotify_double *d, uint32_t number)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->has[i].number == number)
			return &d->has[i];
	return NULL;
}

/* False: it has another one of that number. */
static bool add_inode(struct fanotify_double *d, const struct double_inode *inode)
{
	const struct double_inode *same = find_inode(d, inode->number);

	if (same)
		return same->generation == inode->generation && same->directory == inode->directory;
	if (inode->number)
		d->has[d->n++] = *inode;
	return true;
}

static bool add_all(struct fanotify_double *d, const struct resolved *is)
{
	const size_t were = d->n;

	if (is->fsid == d->fsid && were + 3 <= DOUBLE_INODES_MAX && add_inode(d, &is->object) &&
	    add_inode(d, &is->child) && add_inode(d, &is->to))
		return true;
	d->n = were;
	return false;
}

static bool serves(struct fanotify_double *d, const struct resolved *is)
{
	const size_t were = d->n;
	const bool had = add_all(d, is) && d->n == were;

	d->n = were;
	return had;
}

/* What is no longer there, that a later event may tell of. */
static void forget(struct fanotify_double *d, const Reprise__FanotifyEvent *m,
		   const struct resolved *is)
{
	const bool child = is_directory(m) && m->child && m->mask & FAN_DELETE;
	struct double_inode *gone = NULL;

	if (child || m->mask & FAN_DELETE_SELF)
		gone = find_inode(d, child ? is->child.number : is->object.number);
	if (gone)
		*gone = d->has[--d->n];
}

/* What is made and renamed besides: a file, and a directory for what is elsewhere. */
static int make_spare(int root)
{
	_cleanup_(close_fd) int fd =
		openat(root, DOUBLE_PREFIX "spare", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);

	return fd < 0 || mkdirat(root, DOUBLE_PREFIX "aux", 0700) < 0 ? -errno : 0;
}

#define LOOK_AHEAD 1000 /* events */

/* What other events, of all groups, tell of as well. */
static int look_ahead(struct fanotify_double *d, struct restart *r, struct error *e)
{
	size_t seen = 0;

	vec_for_each (f, &r->files->files) {
		const Reprise__Fanotify *group = f->msg->fanotify;

		/* of another kind it would not have been validated */
		if (f->ops->kind != FILE_FANOTIFY)
			continue;
		for (size_t i = 0; i < group->n_events && seen < LOOK_AHEAD; i++) {
			struct resolved is;
			int res;

			if (!group->events[i]->doubled)
				continue;
			seen++;
			res = resolve(r, group, group->events[i], &is, e);
			if (res < 0)
				return res;
			/* If it does not fit there will be another. */
			add_all(d, &is);
		}
	}
	return 0;
}

static int make_double(struct fanotify_double **d, struct restart *r, const struct resolved *is,
		       struct error *e)
{
	struct fanotify_double *made = calloc(1, sizeof(*made));
	int res;

	if (!made)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	fanotify_double_end(*d);
	*d = made;
	made->root = -EBADF;
	made->fsid = is->fsid;
	if (!add_all(made, is))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an event tells of one file as two");
	res = look_ahead(made, r, e);
	if (res >= 0)
		res = made->root = double_fs_make(made->fsid, made->has, made->n, e);
	if (res < 0)
		return res;
	res = make_spare(made->root);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot make a file on a double") : 0;
}

/* ---- restart: one step ---- */

struct doing {
	struct restart *r;
	int root, group;
	const Reprise__Fanotify *of;
	const Reprise__FanotifyEvent *m;
	struct resolved is;
	char directory[16];	   /* of the event, from the root */
	char place[32 + NAME_MAX]; /* what is in it */
	char to[32 + NAME_MAX];	   /* of FAN_RENAME */
	char source[16];	   /* what can be put there */
	bool there;		   /* it is */
	fanotify_act_fn act;
	void *arg;
};

static void path_of(const struct double_inode *inode, char *path, size_t size)
{
	if (inode->number == DOUBLE_ROOT)
		snprintf(path, size, ".");
	else
		snprintf(path, size, DOUBLE_PREFIX "%u", inode->number);
}

static void path_in(const struct double_inode *directory, const ProtobufCBinaryData *name,
		    char *path, size_t size)
{
	char above[16] = DOUBLE_PREFIX "aux";

	if (directory->number)
		path_of(directory, above, sizeof(above));
	snprintf(path, size, "%s/%.*s", above, name->len ? (int)name->len : 4,
		 name->len ? (const char *)name->data : "some");
}

static int result(int r)
{
	return r < 0 ? -errno : 0;
}

/* By us, unseen. */
static int put_there(struct doing *d, const char *path)
{
	if (is_directory(d->m))
		return d->is.child.number ? result(renameat(d->root, d->source, d->root, path))
					  : result(mkdirat(d->root, path, 0700));
	return result(linkat(d->root, d->source, d->root, path, 0));
}

static int take_away(struct doing *d, const char *path)
{
	if (is_directory(d->m) && d->is.child.number)
		return result(renameat(d->root, path, d->root, d->source));
	return result(unlinkat(d->root, path, is_directory(d->m) ? AT_REMOVEDIR : 0));
}

static int mark(const struct doing *d, unsigned int how, uint32_t mask, const char *path)
{
	return result(fanotify_mark(d->group, how | FAN_MARK_DONT_FOLLOW, mask, d->root, path));
}

/* The group is told of that alone, on one inode, or of a renaming on two. */
static int act(const struct doing *d, uint32_t step, const char *path, const char *other,
	       const char *marked, const char *marked_too, struct error *e)
{
	struct fanotify_cause x = {.r = d->r,
				   .group = d->group,
				   .object = d->root,
				   .marked = -EBADF,
				   .event = d->m,
				   .directory = is_directory(d->m),
				   .step = step};
	const uint32_t mask = step | (d->m->mask & FAN_ONDIR) |
			      (is_inside(d->of, d->m, step) && !(step & (ENTRIES | FAN_RENAME))
				       ? FAN_EVENT_ON_CHILD
				       : 0);
	int r = marked ? mark(d, FAN_MARK_ADD, mask, marked) : 0;

	if (r >= 0 && marked_too)
		r = mark(d, FAN_MARK_ADD, mask, marked_too);
	snprintf(x.path, sizeof(x.path), "%s", path);
	snprintf(x.other, sizeof(x.other), "%s", other);
	if (r >= 0)
		r = d->act(d->arg, &x, e);
	/* That of what has been removed has gone with it; what has moved is elsewhere. */
	if (r >= 0 && marked && step != FAN_DELETE_SELF)
		r = mark(d, FAN_MARK_REMOVE, mask, step == FAN_MOVE_SELF ? other : marked);
	if (r >= 0 && marked_too)
		r = mark(d, FAN_MARK_REMOVE, mask, marked_too);
	return r;
}

static int do_rename(struct doing *d, struct error *e)
{
	char to[16];
	int r = put_there(d, d->place);

	path_of(&d->is.to, to, sizeof(to));
	if (r >= 0)
		r = act(d, FAN_RENAME, d->place, d->to, d->is.object.number ? d->directory : NULL,
			d->is.to.number && d->is.to.number != d->is.object.number ? to : NULL, e);
	return r < 0 ? r : take_away(d, d->to);
}

static int do_self(struct doing *d, uint32_t step, struct error *e)
{
	int r = act(d, step, d->directory, DOUBLE_PREFIX "aux/self", d->directory, NULL, e);

	return r < 0 || step != FAN_MOVE_SELF
		       ? r
		       : result(renameat(d->root, DOUBLE_PREFIX "aux/self", d->root, d->directory));
}

static int do_inside(struct doing *d, uint32_t step, struct error *e)
{
	const bool comes = step & (FAN_CREATE | FAN_MOVED_TO);
	int r = 0;

	if (d->there && comes)
		r = take_away(d, d->place);
	else if (!d->there && !comes)
		r = put_there(d, d->place);
	if (r >= 0 && step == FAN_MOVED_TO)
		r = put_there(d, DOUBLE_PREFIX "aux/moved");
	if (r < 0)
		return r;
	if (step == FAN_MOVED_TO)
		r = act(d, step, DOUBLE_PREFIX "aux/moved", d->place, d->directory, NULL, e);
	else
		r = act(d, step, d->place,
			step == FAN_MOVED_FROM ? DOUBLE_PREFIX "aux/moved" : d->source,
			d->directory, NULL, e);
	d->there = !(step & (FAN_DELETE | FAN_MOVED_FROM));
	return r >= 0 && step == FAN_MOVED_FROM ? take_away(d, DOUBLE_PREFIX "aux/moved") : r;
}

/* What is removed is removed last. */
static const uint32_t steps[] = {FAN_CREATE,	 FAN_MOVED_TO,	 FAN_OPEN,	  FAN_ACCESS,
				 FAN_MODIFY,	 FAN_ATTRIB,	 FAN_CLOSE_WRITE, FAN_CLOSE_NOWRITE,
				 FAN_OPEN_EXEC,	 FAN_MOVED_FROM, FAN_DELETE,	  FAN_MOVE_SELF,
				 FAN_DELETE_SELF};

static int do_all(struct doing *d, struct error *e)
{
	int r = 0;

	if (d->m->mask & FAN_RENAME)
		return do_rename(d, e);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && r >= 0; i++) {
		if (!(d->m->mask & steps[i]))
			continue;
		if (is_inside(d->of, d->m, steps[i]))
			r = do_inside(d, steps[i], e);
		else
			r = do_self(d, steps[i], e);
	}
	return r >= 0 && d->there ? take_away(d, d->place) : r;
}

static void want_handle(const struct double_inode *inode, struct fanotify_handle *h)
{
	if (!inode->number)
		return;
	*h = (struct fanotify_handle){.type = INO32_GEN, .len = 8};
	memcpy(h->bytes, &inode->number, 4);
	memcpy(h->bytes + 4, &inode->generation, 4);
}

static void tell_wanted(const struct doing *d, struct fanotify_raw *want)
{
	*want = (struct fanotify_raw){.type = d->m->type, .mask = d->m->mask, .fsid = d->is.fsid};
	want_handle(&d->is.object, &want->object);
	want_handle(&d->is.child, &want->child);
	want_handle(&d->is.to, &want->to);
	if (d->m->name.len)
		memcpy(want->name, d->m->name.data, d->m->name.len);
	if (d->m->to_name.len)
		memcpy(want->to_name, d->m->to_name.data, d->m->to_name.len);
}

int fanotify_double_cause(struct restart *r, int fd, const Reprise__Fanotify *group, size_t i,
			  fanotify_act_fn act_fn, void *arg, struct fanotify_raw *want,
			  struct error *e)
{
	const Reprise__FanotifyEvent *m = group->events[i];
	struct fanotify_double **copy = &r->files->fanotify_double;
	struct doing d = {.r = r, .group = fd, .of = group, .m = m, .act = act_fn, .arg = arg};
	int res = resolve(r, group, m, &d.is, e);

	if (res >= 0 && (!*copy || (*copy)->root < 0 || !serves(*copy, &d.is)))
		res = make_double(copy, r, &d.is, e);
	if (res < 0)
		return res;
	d.root = (*copy)->root;
	path_of(&d.is.object, d.directory, sizeof(d.directory));
	path_in(&d.is.object, &m->name, d.place, sizeof(d.place));
	path_in(&d.is.to, &m->to_name, d.to, sizeof(d.to));
	snprintf(d.source, sizeof(d.source), DOUBLE_PREFIX "spare");
	if (d.is.child.number)
		path_of(&d.is.child, d.source, sizeof(d.source));
	res = do_all(&d, e);
	forget(*copy, m, &d.is);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot cause an event (%#x) on a double",
				   m->mask);
	tell_wanted(&d, want);
	return 0;
}
