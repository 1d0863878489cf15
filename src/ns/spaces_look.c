/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces of tasks that are not the root's: what is in them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/utsname.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/cgroupns.h"
#include "ns/mounts_overlay.h"
#include "ns/net_pairs.h"
#include "ns/resident.h"
#include "ns/settings.h"
#include "ns/spaces.h"
#include "ns/timens.h"

typedef int (*look_fn)(struct checkpoint *c, size_t i, struct error *e);

static struct space_contents *contents(struct checkpoint *c, size_t i)
{
	return c->spaces.looked->list.v[i];
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a namespace");
}

int space_visit(struct checkpoint *c, uint64_t id, struct error *e)
{
	const struct checkpoint_space *s = space_by_id(c, id);

	/* Nobody goes where he does not come back from: the same is asked for going where one is.
	 */
	if (s && setns(c->spaces.looked->fds[space_kind_of(s->flag)], (int)s->flag) < 0)
		return error_set(
			e, -EOPNOTSUPP, E_TASK_NAMESPACE,
			"cannot be looked into, because the %s namespace of the root task does "
			"not belong to its user namespace",
			space_kind_name(s->flag));
	if (s && setns(s->ns, (int)s->flag) == 0)
		return 0;
	return error_errno(e, -errno, E_NAMESPACE, "cannot enter its namespace");
}

int space_return(struct checkpoint *c, uint64_t flag, struct error *e)
{
	if (setns(c->spaces.looked->fds[space_kind_of(flag)], (int)flag) < 0)
		return error_errno(e, -errno, E_INTERNAL, "cannot leave a namespace");
	return 0;
}

/* Whoever does not find back is of no use any more. */
static int from_inside(struct checkpoint *c, size_t i, look_fn look, struct error *e)
{
	const struct checkpoint_space *s = &c->spaces.list.v[i];
	int r = space_visit(c, s->id, e), back;
	struct error lost = {};

	if (r < 0)
		return r;
	r = look(c, i, e);
	back = space_return(c, s->flag, &lost);
	if (back < 0)
		*e = lost;
	return back < 0 ? back : r;
}

static int look_uts(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);
	struct scratch *s = &c->spaces.looked->s;
	struct utsname uts;

	if (uname(&uts) < 0)
		return error_errno(e, -errno, E_SYSTEM, "uname");
	x->msg.nodename = scratch_string(s, uts.nodename);
	x->msg.domainname = scratch_string(s, uts.domainname);
	return x->msg.nodename && x->msg.domainname ? 0 : no_memory(e);
}

static int look_ipc(struct checkpoint *c, size_t i, struct error *e)
{
	return settings_checkpoint(c->proc_fd, &contents(c, i)->msg, &c->spaces.looked->s, e);
}

static int look_net(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);

	return network_checkpoint(&x->network, c->proc_fd, &x->msg, &c->spaces.looked->s, e);
}

static int resolve(struct checkpoint *c, size_t i, struct error *e)
{
	const struct spaces *sp = c->spaces.looked;
	const int root = sp->fds[space_kind_of(CLONE_NEWNET)];

	return net_pairs_resolve(c, sp->ct->own & CLONE_NEWNET ? root : -EBADF,
				 contents(c, i)->msg.network, e);
}

/* Not yet, of the container's own. */
static const Reprise__Network *network_with(const void *arg, uint64_t id)
{
	const struct checkpoint *c = arg;

	for (size_t i = 0; i < c->spaces.list.n; i++)
		if (c->spaces.list.v[i].id == id)
			return c->spaces.looked->list.v[i]->msg.network;
	return NULL;
}

int space_join(struct checkpoint *c, size_t i, struct error *e)
{
	const Reprise__Network *m = contents(c, i)->msg.network;

	return m && m->n_links ? from_inside(c, i, resolve, e) : 0;
}

int space_check(struct checkpoint *c, size_t i, struct error *e)
{
	return net_pairs_check(c->spaces.list.v[i].id, contents(c, i)->msg.network, network_with, c,
			       e);
}

struct with_root {
	const struct checkpoint *c;
	const Reprise__Network *root;
};

static const Reprise__Network *any_network(const void *arg, uint64_t id)
{
	const struct with_root *w = arg;

	return id ? network_with(w->c, id) : w->root;
}

int spaces_check_network(struct checkpoint *c, const struct container *ct, struct error *e)
{
	const struct with_root w = {c, ct->msg.network};
	int r;

	if (!(ct->own & CLONE_NEWNET) || !w.root)
		return 0;
	r = net_pairs_resolve(c, -EBADF, w.root, e);
	if (r >= 0)
		r = net_pairs_check(0, w.root, any_network, &w, e);
	vec_for_each (s, &c->spaces.list)
		if (r >= 0)
			r = net_pairs_check(s->id, network_with(c, s->id), any_network, &w, e);
	return r;
}

/* ---- cgroups ---- */

/* /proc/self/cgroup, as it reads from inside. */
static int read_inside(struct checkpoint *c, size_t i, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct space_contents *x = contents(c, i);

	if (procfs_read(c->proc_fd, &text, e, "%d/cgroup", x->tid) < 0)
		return e->err;
	x->msg.name = scratch_string(&c->spaces.looked->s, text);
	return x->msg.name ? 0 : no_memory(e);
}

static int look_cgroup(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);
	int r = from_inside(c, i, read_inside, e);

	if (r >= 0)
		r = cgroupns_check(c, x->tid, x->msg.name, e);
	x->msg.name = (char *)protobuf_c_empty_string;
	return r;
}

/* ---- clocks ---- */

static int look_time(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);
	const struct checkpoint_space *s = &c->spaces.list.v[i];
	pid_t teller = timens_teller(c, s->id);
	bool begun = false;
	int r = timens_checkpoint(c->proc_fd, teller, s->ns, &x->msg, &c->spaces.looked->s, e);

	/* While it runs, its clocks might just be set. */
	if (r >= 0 && !c->checking && timens_is_next(c, s->id))
		r = timens_has_begun(c->proc_fd, teller, x->msg.time, &begun, e);
	if (r >= 0)
		x->msg.time->begun = begun;
	return r;
}

/* ---- mounts ---- */

static int open_inside(void *arg, const char *point, struct error *e)
{
	return resident_mount(arg, point, e);
}

static const struct mount_line *line_of(const struct mount_table *t, int id)
{
	vec_for_each (m, t)
		if (m->id == id)
			return m;
	return NULL;
}

static bool is_of_root(const struct mounts_survey *sv, int group)
{
	vec_for_each (h, &sv->ours)
		if (h->shared == group)
			return true;
	return false;
}

/* Groups of which the root has no member, but another one has. */
static int check_apart(struct checkpoint *c, size_t i, struct error *e)
{
	const struct mounts_survey *ours = &contents(c, i)->mounts;

	vec_for_each (m, &ours->theirs) {
		if (!m->shared && !m->master)
			continue;
		for (size_t j = 0; j < c->spaces.list.n; j++)
			vec_for_each (other, &contents(c, j)->mounts.theirs)
				if (j != i && other->shared && !is_of_root(ours, other->shared) &&
				    (other->shared == m->shared || other->shared == m->master))
					return error_set(
						e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
						"mount %s shares its mounts with %s in the mount "
						"namespace of task %d, and none of the root task's",
						m->point, other->point, contents(c, j)->tid);
	}
	return 0;
}

/* What two of them have in common and the root has not would come back twice; which one does not
 * see of a proc. */
static int check_shared(struct checkpoint *c, size_t i, struct error *e)
{
	const struct mounts_survey *ours = &contents(c, i)->mounts;

	vec_for_each (m, &ours->mounts) {
		const struct mount_line *line = line_of(&ours->theirs, (*m)->id);

		if (!line || (*m)->kind == MOUNT_EXTERNAL || (*m)->kind == MOUNT_REMOUNT ||
		    (*m)->kind == MOUNT_NAMESPACE || (*m)->kind == MOUNT_BIND ||
		    (*m)->pid_namespace)
			continue;
		for (size_t j = 0; j < c->spaces.list.n; j++)
			vec_for_each (other, &contents(c, j)->mounts.theirs)
				if (j != i && other->dev == line->dev)
					return error_set(
						e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
						"mount %s (%s) is in the mount namespace of task "
						"%d, too, and not in that of the root task",
						line->point, line->type, contents(c, j)->tid);
	}
	return 0;
}

/* What is joined to others from outside is found by its path. */
static int check_hidden(struct checkpoint *c, size_t i, struct error *e)
{
	const struct space_contents *x = contents(c, i);

	vec_for_each (m, &x->mounts.mounts)
		if (x->msg.user_namespace && (*m)->hidden &&
		    ((*m)->shared || (*m)->unbindable || (*m)->peer || (*m)->master ||
		     *(*m)->root_peer || *(*m)->root_master))
			return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					 "mount %s, which shares its mounts, is hidden by another "
					 "one, in a mount namespace of another user namespace",
					 (*m)->point);
	return 0;
}

static int note_mounts(struct checkpoint *c, size_t i, struct error *e)
{
	struct checkpoint_space *s = &c->spaces.list.v[i];
	struct space_contents *x = contents(c, i);

	vec_for_each (m, &x->mounts.theirs) {
		int *id = vec_push(&s->mounts);

		if (!id)
			return no_memory(e);
		*id = m->id;
	}
	/* What an overlay shows of what comes with the image comes with it. */
	vec_for_each (m, &x->mounts.mounts) {
		dev_t *dev = (*m)->inside ? vec_push(&s->brought) : NULL;

		if ((*m)->inside && !dev)
			return no_memory(e);
		if (dev)
			*dev = mounts_device(&x->mounts, (*m)->id);
	}
	vec_for_each (l, &x->mounts.layers) {
		dev_t *dev = vec_push(&s->brought);

		if (!dev)
			return no_memory(e);
		*dev = mounts_device(&x->mounts, l->mount->id);
	}
	return 0;
}

static int survey_mounts(struct checkpoint *c, size_t i, struct resident *res, struct error *e)
{
	struct checkpoint_space *s = &c->spaces.list.v[i];
	struct space_contents *x = contents(c, i);
	int r = mounts_survey(c->proc_fd, res->pid, &x->mounts, &c->spaces.looked->s, e);

	/* Even of what is refused it is good to know whose mounts they are. */
	if (x->mounts.theirs.n && note_mounts(c, i, e) < 0)
		return e->err;
	s->root = procfs_open(c->proc_fd, O_PATH | O_DIRECTORY | O_CLOEXEC, r < 0 ? NULL : e,
			      "%d/root", res->pid);
	if (r >= 0 && s->root < 0)
		r = s->root;
	if (r >= 0)
		r = check_shared(c, i, e);
	if (r >= 0)
		r = check_apart(c, i, e);
	if (r >= 0)
		r = check_hidden(c, i, e);
	if (r >= 0)
		r = mounts_check_lower(c, &x->mounts, res->pid, e);
	return r < 0 ? r : mounts_open_layers(&x->mounts, open_inside, res, e);
}

/* The others of whoever is in it were those of who mounted. */
static int note_within(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);
	const struct checkpoint_member *m = space_member(c, x->tid);

	/* Nobody is in it: then nobody knows. */
	if (!m)
		return 0;
	x->msg.within = scratch_alloc(&c->spaces.looked->s, SPACE_KINDS * sizeof(uint64_t));
	if (!x->msg.within)
		return no_memory(e);
	for (int k = 0; k < SPACE_TIME; k++)
		if (m->ids[k])
			x->msg.within[x->msg.n_within++] = m->ids[k];
	return 0;
}

/* Namespaces that are mounted there. */
static int look_at_bound(struct checkpoint *c, size_t i, pid_t resident, struct error *e)
{
	struct space_contents *x = contents(c, i);

	vec_for_each (m, &x->mounts.mounts) {
		_cleanup_(close_fd) int fd = -EBADF;
		int r;

		if ((*m)->kind != MOUNT_NAMESPACE)
			continue;
		fd = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/root%s", resident,
				 (*m)->point);
		r = fd < 0 ? fd
			   : space_of_descriptor(c, fd, &(*m)->namespace_, &(*m)->namespace_type,
						 e);
		if (r >= 0)
			r = space_check_bound(c, *m, e);
		if (r < 0)
			return error_object(e, r, "mount %s", (*m)->point);
	}
	return 0;
}

/* The process with that pid; NULL: there is none in the tree. */
static const struct frozen_process *process_of(struct checkpoint *c, pid_t pid)
{
	vec_for_each (f, &c->freezer.processes)
		vec_for_each (t, &f->threads)
			if (f->pid == pid || t->tid == pid)
				return f;
	return NULL;
}

/*
 * The namespace of the nearest ancestor that is in another one, if that has been looked at: it
 * began as a copy of that, and may have things in common with it that the root has not.
 */
static void find_above(struct checkpoint *c, size_t i)
{
	struct space_contents *x = contents(c, i);
	const struct frozen_process *f = process_of(c, x->tid);
	uint64_t is = f ? c->spaces.list.v[i].id : 0; /* or nobody is in it */

	while (f && is == c->spaces.list.v[i].id) {
		f = f->pid == c->freezer.root ? NULL : process_of(c, f->ppid);
		is = f ? space_of_task(c, f->pid, CLONE_NEWNS) : 0;
	}
	for (size_t j = 0; j < c->spaces.list.n; j++)
		if (is && c->spaces.list.v[j].id == is && contents(c, j)->resident.pid) {
			x->mounts.above = contents(c, j)->resident.pid;
			x->msg.above = is;
		}
}

static int compare_devices(const void *a, const void *b)
{
	const dev_t x = *(const dev_t *)a, y = *(const dev_t *)b;

	return (x > y) - (x < y);
}

/* In their order: there may be a hundred thousand mounts (fs.mount-max). */
static dev_t *devices_of(const struct mount_table *t)
{
	dev_t *devices = calloc(t->n + 1, sizeof(*devices));

	for (size_t i = 0; devices && i < t->n; i++)
		devices[i] = t->v[i].dev;
	if (devices)
		qsort(devices, t->n, sizeof(*devices), compare_devices);
	return devices;
}

static bool has_device(const dev_t *devices, size_t n, dev_t dev)
{
	return bsearch(&dev, devices, n, sizeof(*devices), compare_devices);
}

/* One for each mount that a namespace has, and the one above it has not. */
static int find_own(struct checkpoint *c, const struct space_contents *x, dev_t **ret,
		    size_t *ret_n, struct error *e)
{
	_cleanup_(mount_table_free) struct mount_table own = {}, above = {};
	_cleanup_(free_ptr) dev_t *devices = NULL, *others = NULL;
	int r = mount_table_read(c->proc_fd, x->resident.pid, &own, e);

	if (r >= 0)
		r = mount_table_read(c->proc_fd, x->mounts.above ?: getpid(), &above, e);
	if (r < 0)
		return r;
	devices = devices_of(&own);
	others = devices_of(&above);
	if (!devices || !others)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
	*ret_n = 0;
	for (size_t i = 0; i < own.n; i++)
		if (!has_device(others, above.n, devices[i]))
			devices[(*ret_n)++] = devices[i];
	*ret = take_ptr(&devices);
	return 0;
}

/* How many of these mounts has another one? */
static int in_common(const dev_t *own, size_t n, const struct mount_table *other, size_t *ret,
		     struct error *e)
{
	_cleanup_(free_ptr) dev_t *devices = devices_of(other);

	if (!devices)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
	for (size_t i = 0; i < n; i++)
		*ret += has_device(devices, other->n, own[i]);
	return 0;
}

/*
 * What it has in common with another one, and those above do not have any more (a tmpfs, which
 * both got when they were copied), stays common if it is made as a copy of that. In a copy for
 * another user namespace nothing can be unmounted that it has not (lock_mnt_tree()).
 */
static int find_nearer(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);
	_cleanup_(free_ptr) dev_t *own = NULL;
	size_t best = 0, n_own = 0;
	int r = find_own(c, x, &own, &n_own, e);

	for (size_t j = 0; j < c->spaces.list.n && r >= 0; j++) {
		const struct space_contents *other = contents(c, j);
		size_t n = 0;

		if (j != i && other->resident.pid &&
		    other->msg.user_namespace == x->msg.user_namespace)
			r = in_common(own, n_own, &other->mounts.theirs, &n, e);
		if (r < 0 || n <= best)
			continue;
		best = n;
		x->mounts.above = other->resident.pid;
		x->msg.above = c->spaces.list.v[j].id;
	}
	return r;
}

static int look_mounts(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);
	const int ns = c->spaces.list.v[i].ns;
	const struct resident_begin how = {
		.proc_fd = c->proc_fd, .pidns = -1, .enter = &ns, .n = 1};
	int r = resident_begin(&x->resident, &how, e);

	find_above(c, i);
	if (r >= 0)
		r = find_nearer(c, i, e);
	x->mounts.nested = true;
	x->mounts.ids = x->mounts.user ? NULL : c->spaces.looked->ct->mounts.ids;
	x->mounts.without_consoles = c->spaces.looked->ct->mounts.without_consoles;
	x->mounts.c = c->spaces.nested.n ? c : NULL;
	if (r >= 0)
		r = survey_mounts(c, i, &x->resident, e);
	if (r >= 0)
		r = look_at_bound(c, i, x->resident.pid, e);
	if (r >= 0)
		r = note_within(c, i, e);
	x->msg.derived_mounts = x->mounts.derived;
	x->msg.mounts = x->mounts.mounts.v;
	x->msg.n_mounts = x->mounts.mounts.n;
	x->msg.unmounted = x->mounts.unmounted.v;
	x->msg.n_unmounted = x->mounts.unmounted.n;
	return r;
}

int space_look(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = contents(c, i);

	switch (x->msg.own) {
	case CLONE_NEWUTS:
		return from_inside(c, i, look_uts, e);
	case CLONE_NEWIPC:
		return from_inside(c, i, look_ipc, e);
	case CLONE_NEWNET:
		if (network_begin(&x->network, c->proc_fd, e) < 0)
			return -EIO;
		x->network.host.ours = c->spaces.looked->ct->own & CLONE_NEWNET;
		return from_inside(c, i, look_net, e);
	case CLONE_NEWCGROUP:
		return look_cgroup(c, i, e);
	case CLONE_NEWTIME:
		return look_time(c, i, e);
	default:
		return look_mounts(c, i, e);
	}
}
