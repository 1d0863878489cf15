/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "remote/hand.h"
#include "ns/container.h"
#include "ns/cgroup_visit.h"
#include "ns/mounts_late.h"
#include "ns/network.h"
#include "ns/pidns.h"
#include "ns/settings.h"
#include "ns/spaces.h"
#include "ns/timens.h"
#include "ns/userns.h"
#include "remote/tracer.h"

#define SUPPORTED                                                                             \
	((uint64_t)(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
		    CLONE_NEWCGROUP | CLONE_NEWUSER | CLONE_NEWTIME))

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

static const Reprise__Container *container_of(const struct restart *r)
{
	return restart_nth(r, RECORD_CONTAINER, 0, NULL);
}

bool container_has_pidns(const struct restart *r)
{
	const Reprise__Container *msg = container_of(r);

	return msg && msg->own & CLONE_NEWPID;
}

static bool has_writable_layer(const Reprise__Container *msg)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->kind == MOUNT_OVERLAY && msg->mounts[i]->layer)
			return true;
	return false;
}

bool container_needs_place(const struct restart *r, char *name, size_t size)
{
	const Reprise__Container *msg = container_of(r);

	if (msg)
		snprintf(name, size, "%s", msg->name);
	return msg && ((msg->n_mounts && !msg->derived_mounts) || msg->n_cgroups ||
		       has_writable_layer(msg));
}

int container_validate(const struct restart *r, struct error *e)
{
	const Reprise__Container *msg = container_of(r);
	const Reprise__Layer *layer;
	int res;

	for (size_t i = 0; (layer = restart_nth(r, RECORD_LAYER, i, NULL)); i++) {
		res = layer_validate(layer, e);
		if (res < 0)
			return res;
	}
	if (!msg)
		return 0;
	if (restart_nth(r, RECORD_CONTAINER, 1, NULL))
		return invalid(e, "there are two containers");
	if (msg->own & ~SUPPORTED)
		return invalid(e, "a namespace of unknown kind");
	if ((msg->own & CLONE_NEWPID) && r->processes.v[0].vpid != 1)
		return invalid(e, "a container without its first process");
	if (strlen(msg->nodename) > 64 || strlen(msg->domainname) > 64)
		return invalid(e, "a host name that is too long");
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->layer && !restart_find(r, RECORD_LAYER, msg->mounts[i]->layer))
			return invalid(e, "a layer is not in the image");
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];

		if (m->kind == MOUNT_NAMESPACE && space_validate_bound(r, m, e) < 0)
			return -EBADMSG;
		if (*m->root_peer || *m->root_master)
			return invalid(e, "a mount of the root joins mounts of the root");
	}
	res = mounts_validate_late(r, msg, e);
	if (res >= 0)
		res = userns_validate(msg, e);
	if (res >= 0)
		res = timens_validate(r, msg, e);
	if (res >= 0)
		res = network_validate(msg, e);
	if (res >= 0)
		res = mounts_validate(msg, e);
	if (res >= 0)
		res = cgroups_validate(r, msg, e);
	return res < 0 ? res : settings_validate(msg, e);
}

static const char *find_cgroup(const void *made, const char *controllers)
{
	const struct cgroup_made *found = cgroup_made_find(made, controllers);

	return found ? found->path : NULL;
}

static int make_network(struct network *n, struct restart *r, const struct container_restart *cr,
			struct error *e)
{
	return cr->msg->own & CLONE_NEWNET ? network_restart(n, r, 0, cr->msg, cr->net, e) : 0;
}

/* Which only root of the machine may suspend (PTRACE_O_SUSPEND_SECCOMP). */
static bool any_filters(const struct restart *r)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (t->msg->seccomp_mode)
				return true;
	return false;
}

static int make_user_namespace(struct restart *rs, struct container_restart *cr, int flags,
			       struct error *e)
{
	const bool foreign = userns_is_foreign(cr->msg);
	int r = userns_check_right(cr->msg, e);

	if (r >= 0 && any_filters(rs) && userns_is_first(rs->proc_fd))
		r = hand_new_child(&cr->hand, e);
	if (r >= 0 && cr->hand)
		r = tracer_set(cr->hand, false, e);
	if (r >= 0 && foreign)
		r = foreign_begin(&cr->foreign, cr->msg, &cr->place, e);
	if (r >= 0)
		r = userns_make(flags, cr->msg, e);
	if (r < 0 || !foreign)
		return r;
	rs->foreign = cr->foreign.pid > 0 ? &cr->foreign : NULL;
	cr->place.external = foreign_source;
	cr->place.arg = &cr->foreign;
	r = userns_become(cr->msg, e);
	/* What we fork is traced by us; nobody in there sees us, who are in the pid namespace of
	 * outside. */
	if (r >= 0 && prctl(PR_SET_DUMPABLE, 1) < 0)
		r = error_errno(e, -errno, E_SYSTEM, "prctl");
	return r;
}

static int make_namespaces(struct restart *r, struct container_restart *cr, struct network *n,
			   struct error *e)
{
	const Reprise__Container *msg = cr->msg;
	int flags = (int)(msg->own & ~(uint64_t)(CLONE_NEWPID | CLONE_NEWTIME));

	/* That is made by who has entered its groups. */
	if (cr->cgroups.made.n > 0)
		flags &= ~CLONE_NEWCGROUP;

	/* New mounts are seen by nobody else; the root of a new pid namespace has its own /proc. */
	if (r->pidns)
		flags |= CLONE_NEWNS;
	if (msg->own & CLONE_NEWNET && network_begin(n, r->proc_fd, e) < 0)
		return -EIO;
	if (flags & CLONE_NEWUSER) {
		int res = make_user_namespace(r, cr, flags, e);

		if (res < 0)
			return res;
	} else if (unshare(flags) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the namespaces");
	if ((flags & CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the mounts private");
	if (msg->own & CLONE_NEWUTS &&
	    (sethostname(msg->nodename, strlen(msg->nodename)) < 0 ||
	     setdomainname(msg->domainname, strlen(msg->domainname)) < 0))
		return error_errno(e, -errno, E_NAMESPACE, "cannot set the host name");
	return 0;
}

/* What lies below an overlay may not change once it is mounted. */
static int fill_overlays(struct restart *r, struct container_restart *cr, struct error *e)
{
	for (size_t i = 0; i < cr->msg->n_mounts; i++) {
		const Reprise__Mount *m = cr->msg->mounts[i];
		_cleanup_(close_fd) int fd = -EBADF;
		int res;

		if (m->kind != MOUNT_OVERLAY || !m->layer)
			continue;
		fd = foreign_upper(&cr->foreign, i);
		fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : mounts_upper(&cr->place, m, e);
		res = fd < 0 ? fd : layer_restart(r, m->layer, fd, e);
		if (res < 0)
			return error_object(e, res, "writable layer of %s", m->point);
	}
	return foreign_mount_overlays(&cr->foreign, e);
}

/* In the order of the image. */
static int fill_layers(struct restart *r, struct container_restart *cr, struct error *e)
{
	int res = mounts_early_any(cr->msg) ? mounts_early_make(&cr->early, cr->msg, e) : 0;

	cr->place.early_fds = cr->early.fds;
	if (res >= 0)
		res = mounts_early_fill(&cr->early, r, cr->msg, true, NULL, NULL, e);
	if (res >= 0)
		res = fill_overlays(r, cr, e);
	if (res >= 0)
		res = mounts_early_fill(&cr->early, r, cr->msg, false, NULL, NULL, e);
	/* Overlays were filled from within. */
	if (res >= 0 && chdir("/") < 0)
		res = error_errno(e, -errno, E_SYSTEM, "chdir");
	return res;
}

/* What they hold in memory counts for the container. */
static int fill_charged(struct restart *r, struct container_restart *cr, struct error *e)
{
	int res = cgroup_visit_for_memory(r, e), back;
	struct error lost = {};

	if (res < 0)
		return res;
	res = fill_layers(r, cr, e);
	back = cgroup_return_from_memory(r, res < 0 ? &lost : e);
	return res < 0 ? res : back;
}

int container_restart_begin(struct restart *r, struct container_restart *cr, struct error *e)
{
	_cleanup_(network_free) struct network n = NETWORK_INIT;
	int res;

	cr->msg = container_of(r);
	if (!cr->msg)
		return 0;
	if (!cr->msg->derived_mounts && cr->msg->n_mounts && !cr->place.root)
		return error_set(e, -EINVAL, E_CONTAINER_STATE,
				 "the image is of a container, which needs a directory of its own");
	cr->place.cgroup = find_cgroup;
	cr->place.cgroups = &cr->cgroups.made;
	cr->place.below = &cr->below;
	cr->channel[0] = cr->channel[1] = -EBADF;
	if (mounts_below_begin(&cr->below, r, 0, cr->msg, e) < 0)
		return e->err;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, cr->channel) < 0)
		return error_errno(e, -errno, E_SYSTEM, "socketpair");
	res = cgroups_restart_begin(&cr->cgroups, cr->msg, cr->cgroups_file, e);
	r->cgroups = &cr->cgroups;
	if (res >= 0)
		res = make_namespaces(r, cr, &n, e);
	if (res >= 0)
		res = make_network(&n, r, cr, e);
	if (res >= 0)
		res = settings_restart(r->proc_fd, cr->msg, e);
	return res < 0 ? res : fill_charged(r, cr, e);
}

void container_restart_end(struct container_restart *cr)
{
	mounts_below_end(&cr->below);
	if (cr->msg) {
		close_fd(&cr->channel[0]);
		close_fd(&cr->channel[1]);
	}
	mounts_early_free(&cr->early);
	foreign_end(&cr->foreign);
	hand_end_child(cr->hand);
	cgroups_restart_end(&cr->cgroups);
}

int container_restart_first(void *arg, struct error *e)
{
	const struct container_restart *cr = arg;
	int r = cr->msg ? cgroups_restart_enter(&cr->cgroups, cr->msg, e) : 0;

	if (r < 0)
		return r;
	if (!cr->msg || !(cr->msg->own & CLONE_NEWNS))
		return pidns_mount_proc(NULL, e);
	r = mounts_restart(cr->msg, &cr->place, e);
	return r < 0 ? r : mounts_below_send(cr->place.below, cr->channel[1], e);
}

int container_restart_place(struct restart *r, struct container_restart *cr, struct error *e)
{
	return cr->msg ? cgroups_restart_place(&cr->cgroups, r, cr->msg, e) : 0;
}

int container_restart_mounted(struct restart *r, struct container_restart *cr, struct error *e)
{
	int res = 0;

	/* A mount that somebody else has open is not unmounted. */
	mounts_early_free(&cr->early);
	if (cr->msg && chdir("/") < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot change to the new root");
	if (cr->msg)
		res = mounts_below_receive(&cr->below, cr->channel[0], e);
	return cr->msg && res >= 0 ? mounts_below_add(&cr->below, r, 0, cr->msg, e) : res;
}
