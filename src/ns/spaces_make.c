/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces of tasks that are not the root's: each is made, and gets what was in it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/cgroupns.h"
#include "ns/mounts_early.h"
#include "ns/net_pairs.h"
#include "ns/propagation.h"
#include "ns/resident.h"
#include "ns/settings.h"
#include "ns/spaces.h"
#include "ns/timens.h"

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

static int open_own(struct restart *r, int kind, struct error *e)
{
	return procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "thread-self/ns/%s",
			   space_kinds[kind].name);
}

static int fill(struct restart *r, const Reprise__Container *msg, struct error *e)
{
	switch (msg->own) {
	case CLONE_NEWUTS:
		if (sethostname(msg->nodename, strlen(msg->nodename)) < 0 ||
		    setdomainname(msg->domainname, strlen(msg->domainname)) < 0)
			return error_errno(e, -errno, E_NAMESPACE, "cannot set the host name");
		return 0;
	case CLONE_NEWIPC:
		return settings_restart(r->proc_fd, msg, e);
	default:
		return 0;
	}
}

struct owned {
	struct restart *r;
	const Reprise__Container *msg;
};

/*
 * By a process in the user namespace that is to own it. One of control groups begins where its
 * maker is.
 */
static int unshare_owned(void *arg, struct error *e)
{
	const struct owned *o = arg;
	int res = 0;

	if (o->msg->own == CLONE_NEWCGROUP)
		res = cgroups_join(o->r->spaces.cgroups, e);
	if (res >= 0 && o->msg->user_namespace)
		res = user_space_become(o->r, o->msg->user_namespace, e);
	if (res >= 0 && unshare((int)o->msg->own) < 0)
		res = error_errno(e, -errno, E_NAMESPACE, "cannot make it");
	if (res >= 0 && o->msg->own == CLONE_NEWIPC)
		res = settings_restart(o->r->proc_fd, o->msg, e);
	return res;
}

static int make_owned(struct restart *r, const Reprise__Container *msg, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	struct owned o = {r, msg};
	const struct resident_begin how = {
		.proc_fd = r->proc_fd, .pidns = -1, .first = unshare_owned, .arg = &o};
	int ret = resident_begin(&res, &how, e);

	return ret < 0 ? ret
		       : procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/%s", res.pid,
				     space_kind_name(msg->own));
}

/* This thread is in a new one. */
int space_go_to_new(struct restart *r, const Reprise__Container *msg, struct error *e)
{
	_cleanup_(close_fd) int ns = -EBADF;

	if (msg->user_namespace) {
		ns = make_owned(r, msg, e);
		if (ns < 0)
			return ns;
	}
	if (ns < 0 ? unshare((int)msg->own) < 0 : setns(ns, (int)msg->own) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make it");
	return 0;
}

/* A network whose outside is that of the root. */
static int make_network(struct restart *r, uint64_t id, const Reprise__Container *msg,
			struct error *e)
{
	_cleanup_(network_free) struct network n = NETWORK_INIT;
	int res = net_pairs_begin(r, e);

	if (res < 0)
		return res;
	if (network_begin(&n, r->proc_fd, e) < 0)
		return -EIO;
	res = net_pairs_enter(r, id);
	if (res < 0 && res != -ENOENT)
		return error_errno(e, res, E_NAMESPACE, "cannot make it");
	if (res < 0)
		res = space_go_to_new(r, msg, e);
	return res < 0 ? res : network_restart(&n, r, id, msg, NULL, e);
}

/* We go there and come back: there is nobody else to make it. */
static int make_here(struct restart *r, struct restart_space *s, const Reprise__Container *msg,
		     struct error *e)
{
	const int kind = space_kind_of(msg->own);
	int res;

	if (msg->own == CLONE_NEWCGROUP && !msg->user_namespace)
		return cgroupns_restart(r, s, e);
	if (msg->own == CLONE_NEWCGROUP)
		return s->ns = make_owned(r, msg, e);
	if (msg->own == CLONE_NEWNET)
		res = make_network(r, s->id, msg, e);
	else
		res = space_go_to_new(r, msg, e);
	if (res >= 0)
		res = fill(r, msg, e);
	if (res >= 0)
		s->ns = res = open_own(r, kind, e);
	if (setns(r->spaces.root[kind].ns, (int)msg->own) < 0 && res >= 0)
		res = error_errno(e, -errno, E_NAMESPACE, "cannot leave it");
	return res;
}

/* ---- mounts ---- */

/* A directory on which nothing is that is still to be bound. */
static const char *free_directory(const Reprise__Container *msg)
{
	static const char *const names[] = {"/mnt", "/srv",  "/opt", "/media", "/home",
					    "/tmp", "/boot", "/run", "/usr",   NULL};

	for (const char *const *name = names; *name; name++) {
		size_t len = strlen(*name);
		struct stat st;
		bool taken = stat(*name, &st) < 0 || !S_ISDIR(st.st_mode);

		for (size_t i = 0; i < msg->n_mounts && !taken; i++)
			taken = msg->mounts[i]->kind == MOUNT_EXTERNAL &&
				!strncmp(msg->mounts[i]->external, *name, len) &&
				(!msg->mounts[i]->external[len] ||
				 msg->mounts[i]->external[len] == '/');
		if (!taken)
			return *name;
	}
	return NULL;
}

struct making {
	struct restart *r;
	const Reprise__Container *msg;
	struct mounts_early early;
	struct mounts_below below;
	int *external; /* one for each of msg->mounts; NULL: none */
	int ns;
};

static int namespace_of(const void *arg, const Reprise__Mount *m)
{
	const struct making *making = arg;
	struct error unused = {};

	return space_open(making->r, m->namespace_, m->namespace_type, &unused);
}

static int external_of(const void *arg, const Reprise__Mount *m)
{
	const struct making *making = arg;

	for (size_t i = 0; i < making->msg->n_mounts; i++)
		if (making->msg->mounts[i] == m)
			return making->external[i];
	return -EBADF;
}

/* While we are where all may be bound. The process ends soon. */
static int open_external(struct making *making)
{
	const Reprise__Container *msg = making->msg;

	making->external = calloc(msg->n_mounts + 1, sizeof(*making->external));
	for (size_t i = 0; making->external && i < msg->n_mounts; i++)
		making->external[i] = msg->mounts[i]->kind == MOUNT_EXTERNAL
					      ? open_tree(AT_FDCWD, msg->mounts[i]->external,
							  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
					      : -EBADF;
	return making->external ? 0 : -ENOMEM;
}

static int go_to_owner(struct making *making, struct error *e)
{
	if (open_external(making) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount namespace");
	return user_space_become(making->r, making->msg->user_namespace, e);
}

/* In the process that is to live there. */
static int make_mounts(void *arg, struct error *e)
{
	struct making *making = arg;
	const Reprise__Container *msg = making->msg;
	const bool owned = msg->user_namespace;
	_cleanup_(free_ptr) int *root_fds = calloc(msg->n_mounts + 1, sizeof(*root_fds));
	struct mounts_place place = {.root = free_directory(msg),
				     .namespace = namespace_of,
				     .arg = making,
				     .proc_fd = making->r->proc_fd,
				     .root_fds = root_fds,
				     .early_fds = making->early.fds,
				     .below = &making->below,
				     .external = owned ? external_of : NULL,
				     .apart = owned};

	if (!root_fds)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount namespace");
	if (!owned && propagation_open_root(msg, root_fds, e) < 0)
		return e->err;
	if (!msg->derived_mounts && !place.root)
		return error_set(e, -ENOENT, E_CONTAINER_MOUNT,
				 "there is no directory to mount on");
	if (owned && go_to_owner(making, e) < 0)
		return e->err;
	if (unshare(CLONE_NEWNS) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make it");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the mounts private");
	return mounts_restart(msg, &place, e);
}

/* Only who has rights in both may join a mount to one of the root's (do_set_group()). */
static int propagate(void *arg, struct error *e)
{
	const struct making *making = arg;
	const Reprise__Container *msg = making->msg;
	_cleanup_(free_ptr) int *root_fds = calloc(msg->n_mounts + 1, sizeof(*root_fds));

	if (!root_fds)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mount namespace");
	if (propagation_open_root(msg, root_fds, e) < 0)
		return e->err;
	if (setns(making->ns, CLONE_NEWNS) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot enter it");
	return propagation_restart(msg, root_fds, NULL, true, e);
}

/*
 * Files of a file system are made by those only who have a name in its user namespace. A change of
 * ids makes the process undumpable, in which what we make has its begin (commit_creds()).
 */
static void be_owner(struct restart *r, const Reprise__Container *msg, bool on)
{
	const struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
	const Reprise__Container *user = restart_find(r, RECORD_NAMESPACE, msg->user_namespace);
	int dumpable;

	if (!user || !user->n_uid_map || !user->n_gid_map)
		return;
	dumpable = prctl(PR_GET_DUMPABLE);
	setfsgid(on ? user->gid_map[0]->outside : getegid());
	setfsuid(on ? user->uid_map[0]->outside : geteuid());
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
	/* What it took from those in effect is still permitted (cap_task_fix_setuid()). */
	if (syscall(SYS_capget, &head, data) < 0)
		return;
	for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		data[i].effective = data[i].permitted;
	ignore(syscall(SYS_capset, &head, data), "what is missing then, is told by who needs it");
}

static int be_maker(void *arg, struct error *e)
{
	const struct making *making = arg;
	int r = user_space_become(making->r, making->msg->user_namespace, e);

	/* File systems are made by who may mount them (may_mount()). */
	if (r >= 0 && unshare(CLONE_NEWNS) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a mount namespace");
	return r;
}

static int make_early_one(void *arg, size_t i)
{
	const struct making *making = arg;

	return mounts_new(making->msg->mounts[i]);
}

/* By who is in the user namespace that they are to belong to. */
static int make_early(struct making *making, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const Reprise__Container *msg = making->msg;
	const struct resident_begin how = {.proc_fd = making->r->proc_fd,
					   .pidns = -1,
					   .first = be_maker,
					   .give = make_early_one,
					   .arg = making};
	int ret;

	if (!msg->user_namespace)
		return mounts_early_make(&making->early, msg, e);
	if (mounts_early_init(&making->early, msg->n_mounts) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	ret = resident_begin(&res, &how, e);
	for (size_t i = 0; i < msg->n_mounts && ret >= 0; i++) {
		if (msg->mounts[i]->kind != MOUNT_TMPFS)
			continue;
		ret = making->early.fds[i] = resident_give(&res, i);
		if (ret < 0)
			error_errno(e, ret, E_CONTAINER_MOUNT, "cannot make a new %s for %s",
				    msg->mounts[i]->type, msg->mounts[i]->point);
	}
	return ret;
}

static void be_owner_of(void *arg, bool on)
{
	const struct making *making = arg;

	be_owner(making->r, making->msg, on);
}

/* Before anything is mounted on them. */
static int fill_early(struct making *making, struct error *e)
{
	const Reprise__Container *msg = making->msg;
	int ret = mounts_early_any(msg) ? make_early(making, e) : 0;

	for (int pass = 0; pass < 2 && ret >= 0; pass++)
		ret = mounts_early_fill(&making->early, making->r, msg, pass == 0, be_owner_of,
					making, e);
	return ret;
}

static void end_making(struct making *making)
{
	mounts_early_free(&making->early);
	mounts_below_end(&making->below);
}

static int give_below(void *arg, size_t i)
{
	const struct making *making = arg;

	return i < making->below.n ? making->below.fds[i] : -EINVAL;
}

/* From the process that has mounted. */
static int take_below(struct making *making, struct resident *res, uint64_t id, struct error *e)
{
	struct mounts_below *b = &making->below;

	for (size_t i = 0; i < b->n; i++) {
		if (!b->wanted[i])
			continue;
		b->fds[i] = resident_give(res, i);
		if (b->fds[i] < 0)
			return error_errno(e, b->fds[i], E_CONTAINER_MOUNT,
					   "what lies below mount %s was not found",
					   making->msg->mounts[i]->point);
	}
	return mounts_below_add(b, making->r, id, making->msg, e);
}

static int make_there(struct restart *r, struct restart_space *s, const Reprise__Container *msg,
		      struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT, other = RESIDENT_INIT;
	_cleanup_(close_fd) int pidns = -EBADF;
	_cleanup_(end_making) struct making making = {.r = r, .msg = msg};
	const struct restart_space *above = msg->above ? space_made(r, msg->above) : NULL;
	int within[SPACE_KINDS];
	struct resident_begin how = {.proc_fd = r->proc_fd,
				     .enter = within,
				     .first = make_mounts,
				     .give = give_below,
				     .arg = &making};
	int ret;

	for (size_t i = 0; i < msg->n_within; i++) {
		const struct restart_space *in = space_made(r, msg->within[i]);

		if (!in || in->ns < 0)
			return invalid(e, "a namespace stands before those in which it was made");
		within[how.n++] = in->ns;
	}
	if (msg->above && (!above || above->ns < 0))
		return invalid(e, "a mount namespace stands before that above it");
	if (above)
		within[how.n++] = above->ns;
	/* A new proc is that of who mounts it. */
	if (r->pidns)
		pidns = procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/pid",
				    r->processes.v[0].pid);
	if (r->pidns && pidns < 0)
		return pidns;
	how.pidns = pidns;
	ret = mounts_below_begin(&making.below, r, s->id, msg, e);
	if (ret >= 0)
		ret = fill_early(&making, e);
	if (ret >= 0)
		ret = resident_begin(&res, &how, e);
	if (ret >= 0)
		ret = s->ns =
			procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/mnt", res.pid);
	if (ret >= 0)
		ret = s->root = procfs_open(r->proc_fd, O_PATH | O_DIRECTORY | O_CLOEXEC, e,
					    "%d/root", res.pid);
	if (ret >= 0)
		ret = take_below(&making, &res, s->id, e);
	if (ret < 0 || !msg->user_namespace)
		return ret;
	making.ns = s->ns;
	how.first = propagate;
	how.pidns = -1;
	return resident_begin(&other, &how, e);
}

int space_make(struct restart *r, struct restart_space *s, const Reprise__Container *msg,
	       struct error *e)
{
	struct stat st;
	int res;

	if (msg->own == CLONE_NEWTIME)
		res = s->ns = timens_restart(r, msg, e);
	else if (msg->own == CLONE_NEWPID)
		res = pid_space_make_ended(r, s, msg, e);
	else if (msg->own == CLONE_NEWUSER)
		res = s->ns =
			user_space_make(r, msg, msg->above ? space_made(r, msg->above)->ns : -1, e);
	else
		res = msg->own == CLONE_NEWNS ? make_there(r, s, msg, e) : make_here(r, s, msg, e);
	if (res >= 0 && fstat(s->ns, &st) < 0)
		res = error_errno(e, -errno, E_SYSTEM, "fstat");
	if (res < 0)
		return error_object(e, res, "%s namespace", space_kind_name(msg->own));
	s->ino = st.st_ino;
	return 0;
}
