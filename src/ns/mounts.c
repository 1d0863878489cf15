/* SPDX-License-Identifier: Apache-2.0 */
/* The mounts of a container: where each comes from. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/cgroups.h"
#include "ns/mounts.h"
#include "ns/mounts_idmap.h"
#include "ns/mounts_late.h"
#include "ns/mounts_layers.h"
#include "ns/mounts_overlay.h"
#include "ns/mounts_refuse.h"
#include "ns/propagation.h"
#include "ns/spaces.h"

void mounts_survey_free(struct mounts_survey *m)
{
	vec_for_each (l, &m->layers)
		close_fd(&l->dir_fd);
	vec_free(&m->layers);
	vec_for_each (part, &m->overlays)
		close_fd(&part->dir_fd);
	vec_free(&m->overlays);
	vec_free(&m->shown);
	vec_free(&m->mounts);
	vec_free(&m->unmounted);
	mounts_hidden_free(&m->hidden);
	mount_table_free(&m->theirs);
	mount_table_free(&m->ours);
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
}

static const struct mount_line *by_id(const struct mount_table *t, int id)
{
	vec_for_each (m, t)
		if (m->id == id)
			return m;
	return NULL;
}

dev_t mounts_device(const struct mounts_survey *m, int id)
{
	const struct mount_line *line = by_id(&m->theirs, id);

	return line ? line->dev : 0;
}

static const struct mount_line *root_of(const struct mount_table *t)
{
	vec_for_each (m, t)
		if (!strcmp(m->point, "/") && (m->id == m->parent || !by_id(t, m->parent)))
			return m;
	return NULL;
}

static char *join(struct scratch *s, const char *dir, const char *rest)
{
	size_t n = strlen(dir) + strlen(rest) + 2;
	char *path = scratch_alloc(s, n);

	if (!path)
		return NULL;
	if (!strcmp(dir, "/"))
		snprintf(path, n, "%s%s", *rest == '/' ? "" : "/", *rest ? rest : "");
	else
		snprintf(path, n, "%s%s", dir, strcmp(rest, "/") ? rest : "");
	return path;
}

/* By a path in the mount namespace that is outside: is it that file, on a mount that can be bound?
 * Which one it is need not be the one that is looked at. */
static bool is_there(const struct mounts_survey *sv, int proc_fd, const char *path,
		     const struct stat *want)
{
	const unsigned int mask = STATX_INO | STATX_MNT_ID;
	const struct mount_line *on;
	struct statx st = {};
	char at[4200];
	int r;

	snprintf(at, sizeof(at), "%d/root%s", sv->above, path);
	r = sv->above ? statx(proc_fd, at, 0, mask, &st) : statx(AT_FDCWD, path, 0, mask, &st);
	if (r < 0 || st.stx_ino != want->st_ino ||
	    makedev(st.stx_dev_major, st.stx_dev_minor) != want->st_dev)
		return false;
	on = by_id(&sv->ours, (int)st.stx_mnt_id);
	/* what shows other owners there shows them here as well */
	return !on || !(on->unbindable || mounts_idmapped(on));
}

/* A path by which the host reaches the same place of the same file system. */
static char *host_path(const struct mounts_survey *sv, int proc_fd, const struct mount_line *m,
		       const struct stat *want, struct scratch *s)
{
	vec_for_each (h, &sv->ours) {
		char *path;

		if (h->dev != m->dev || !mount_is_below(m->root, h->root))
			continue;
		path = join(s, h->point,
			    strcmp(h->root, "/") ? m->root + strlen(h->root) : m->root);
		if (path && is_there(sv, proc_fd, path, want))
			return path;
	}
	return NULL;
}

static bool is_outside(const struct mounts_survey *sv, dev_t dev)
{
	vec_for_each (m, &sv->ours)
		if (m->dev == dev)
			return true;
	return false;
}

/* Of what is made anew one shows most, and the others are bound from it, whichever comes first. */
static int wider_of(const struct mounts_survey *sv, const struct mount_line *m)
{
	const struct mount_line *best = m;

	if ((!mounts_is_memory(m->type) && !mounts_is_fresh(m->type)) || !strcmp(m->type, "proc") ||
	    is_outside(sv, m->dev))
		return 0;
	vec_for_each (other, &sv->theirs)
		if (other->dev == m->dev && strlen(other->root) < strlen(best->root) &&
		    mount_is_below(best->root, other->root))
			best = other;
	return best == m ? 0 : best->id;
}

/* Of which mount it is bound; 0: of none. */
static int same_fs(const struct mounts_survey *sv, const struct mount_line *m)
{
	for (size_t i = 0; i < sv->mounts.n; i++) {
		const Reprise__Mount *other = sv->mounts.v[i];
		const struct mount_line *line = by_id(&sv->theirs, other->id);

		/* What is outside as well is bound from there: here it may be hidden. */
		if (line && line->dev == m->dev && mount_is_below(m->root, line->root) &&
		    other->kind != MOUNT_EXTERNAL && other->kind != MOUNT_REMOUNT &&
		    other->kind != MOUNT_BIND && other->kind != MOUNT_NAMESPACE)
			return other->id;
	}
	return wider_of(sv, m);
}

/* One that is mounted again, by another name, is the same to the kernel (get_tree_keyed()). */
static bool is_new_name(const struct mounts_survey *sv, const struct mount_line *m, int of)
{
	const struct mount_line *other = by_id(&sv->theirs, of);

	return (!strcmp(m->type, "sysfs") || !strcmp(m->type, "mqueue")) && other &&
	       !strcmp(m->root, "/") && strcmp(m->source, other->source) != 0;
}

static int look_bound(const struct mounts_survey *sv, const struct mount_line *m, int of,
		      Reprise__Mount *msg, struct scratch *s, struct error *e)
{
	const struct mount_line *line = by_id(&sv->theirs, of);
	int r = msg->file ? mounts_check_terminal(m, e) : 0;

	if (r < 0)
		return r;
	msg->kind = MOUNT_BIND;
	msg->of = of;
	/* relative to what that one shows */
	msg->root = scratch_string(s, m->root + (strcmp(line->root, "/") ? strlen(line->root) : 0));
	return msg->root ? 0 : no_memory(e);
}

static bool is_one_of(const char *type, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(type, *list))
			return true;
	return false;
}

/* Their contents are made up by the kernel for the namespaces of who mounts them. */
static const char *const fresh_types[] = {"proc",    "sysfs",	"devpts",   "mqueue",
					  "cgroup2", "cgroup",	"bpf",	    "securityfs",
					  "tracefs", "debugfs", "configfs", NULL};
static const char *const memory_types[] = {"tmpfs", "ramfs", NULL};

bool mounts_is_fresh(const char *type)
{
	return is_one_of(type, fresh_types);
}

bool mounts_is_memory(const char *type)
{
	return is_one_of(type, memory_types);
}

int mounts_open(const struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		struct error *e)
{
	const struct mount_hidden *h = mount_hidden_of(&sv->hidden, m->id);
	int fd;

	if (!h)
		return procfs_open(proc_fd, O_PATH | O_CLOEXEC, e, "%d/root%s", pid, m->point);
	fd = h->fd < 0 ? -1 : fcntl(h->fd, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				  "it is hidden by another mount, which cannot be taken away")
		      : fd;
}

/* By the path on the host it would be the group of the original. */
static bool look_cgroup(const struct mounts_survey *sv, const struct mount_line *m,
			Reprise__Mount *msg, struct scratch *s)
{
	const struct cgroup_tree *tree = NULL;
	const char *below = NULL;

	if (!strncmp(m->type, "cgroup", 6) && sv->cgroups)
		tree = cgroups_find(sv->cgroups, m->type, m->super, m->root, &below);
	if (!tree)
		return false;
	msg->kind = MOUNT_CGROUP;
	msg->external = scratch_string(s, tree->msg.controllers);
	msg->root = scratch_string(s, below);
	return true;
}

/* A network has one, however often it is mounted (sysfs_init_fs_context()): the rest of it need not
 * be mounted anywhere (systemd-nspawn leaves its containers so). */
static bool is_part_of_sysfs(const struct mounts_survey *sv, const struct mount_line *m,
			     const Reprise__Mount *msg)
{
	return !sv->nested && !msg->file && !msg->hidden && !strcmp(m->type, "sysfs");
}

static int look_fresh(const struct mounts_survey *sv, const struct mount_line *m, int at,
		      Reprise__Mount *msg, struct scratch *s, struct error *e)
{
	int r = strcmp(m->type, "bpf") ? 0 : mounts_check_pinned(at, e);

	if (r < 0)
		return r;
	if (!mounts_is_fresh(m->type) || (strcmp(m->root, "/") && !is_part_of_sysfs(sv, m, msg)))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "no path outside the container leads to it");
	msg->kind = MOUNT_FRESH;
	msg->data = mounts_data(sv, s, m->super);
	return msg->data ? 0 : no_memory(e);
}

static int look_own(struct mounts_survey *sv, const struct mount_line *m,
		    const struct overlay_place *at, Reprise__Mount *msg, struct scratch *s,
		    struct error *e)
{
	return strcmp(m->type, "overlay") ? mounts_look_memory(sv, m, msg, s, e)
					  : mounts_look_overlay(sv, m, at, msg, s, e);
}

/* Where the contents of a mount come from. */
static int look_source(struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		       Reprise__Mount *msg, struct scratch *s, struct error *e)
{
	const int of = same_fs(sv, m);
	_cleanup_(close_fd) int at = -EBADF;
	struct overlay_place place;
	struct stat st;
	int r;

	at = mounts_open(sv, proc_fd, pid, m, e);
	if (at < 0)
		return at;
	if (fstat(at, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	place = (struct overlay_place){proc_fd, pid, at};
	msg->file = !S_ISDIR(st.st_mode);
	if (of && is_new_name(sv, m, of))
		return look_fresh(sv, m, at, msg, s, e);
	if (of)
		return look_bound(sv, m, of, msg, s, e);
	r = mounts_look_proc(sv, proc_fd, pid, m, &msg->pid_namespace, e);
	if (r < 0 || msg->pid_namespace)
		return r < 0 ? r : look_fresh(sv, m, at, msg, s, e);
	if (look_cgroup(sv, m, msg, s))
		return msg->external && msg->root ? 0 : no_memory(e);
	if (mounts_is_given(sv, m, &place))
		return look_own(sv, m, &place, msg, s, e);
	if ((msg->external = host_path(sv, proc_fd, m, &st, s))) {
		msg->kind = MOUNT_EXTERNAL;
		return 0;
	}
	if (!strcmp(m->type, "nsfs")) {
		msg->kind = MOUNT_NAMESPACE;
		return !msg->hidden
			       ? 0
			       : error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					   "it holds a namespace, and is hidden by another one");
	}
	if ((!strcmp(m->type, "overlay") && !strcmp(m->root, "/")) || mounts_is_memory(m->type))
		return look_own(sv, m, &place, msg, s, e);
	return look_fresh(sv, m, at, msg, s, e);
}

/* What is mounted over itself is there twice, the upper one read-only, for instance. */
static const struct mount_line *find_same(const struct mount_table *t, const struct mount_line *m)
{
	vec_for_each (x, t)
		if (x->dev == m->dev && !strcmp(x->root, m->root) && !strcmp(x->point, m->point) &&
		    x->height == m->height && mounts_idmapped(x) == mounts_idmapped(m))
			return x;
	return NULL;
}

/* Of a copy of the host's mounts those that are the same stay as they are copied. */
static int check_propagation(const struct mounts_survey *sv, const struct mount_line *m,
			     struct error *e)
{
	vec_for_each (other, &sv->theirs)
		if (other != m &&
		    ((m->master && other->shared == m->master) ||
		     (m->shared && other->shared == m->shared)) &&
		    find_same(&sv->ours, other))
			return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					 "mount %s shares its mounts with %s", m->point,
					 other->point);
	return 0;
}

static int look_at(struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		   struct scratch *s, struct error *e)
{
	Reprise__Mount *msg = scratch_message(s, Reprise__Mount, reprise__mount__init);
	Reprise__Mount **slot;
	int r;

	if (sv->without_consoles && mounts_is_terminal(m))
		return 0;
	if (!msg)
		return no_memory(e);
	msg->id = m->id;
	msg->parent = m->parent;
	msg->root = m->root;
	msg->point = m->point;
	msg->type = m->type;
	msg->source = m->source;
	msg->flags = mount_flags(m->options);
	msg->super_readonly = mount_has_option(m->super, "ro");
	msg->hidden = mount_hidden_of(&sv->hidden, m->id) != NULL;
	r = mounts_check_line(m, e);
	if (r >= 0)
		r = look_source(sv, proc_fd, pid, m, msg, s, e);
	if (r >= 0 && mounts_idmapped(m))
		r = mounts_idmap_look(proc_fd, pid, m, msg, s, e);
	if (r >= 0 && sv->derived && !sv->nested)
		r = check_propagation(sv, m, e);
	if (r >= 0)
		r = propagation_look(sv, proc_fd, pid, m, msg, e);
	if (r < 0)
		return error_object(e, r, "mount %s (%s)", m->point, m->type);
	slot = vec_push(&sv->mounts);
	if (!slot)
		return no_memory(e);
	*slot = msg;
	return 0;
}

static int add_remount(struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		       struct scratch *s, struct error *e)
{
	Reprise__Mount *msg = scratch_message(s, Reprise__Mount, reprise__mount__init);
	Reprise__Mount **slot = msg ? vec_push(&sv->mounts) : NULL;

	if (!slot)
		return no_memory(e);
	*slot = msg;
	msg->kind = MOUNT_REMOUNT;
	msg->id = m->id;
	msg->parent = m->parent;
	msg->point = m->point;
	msg->flags = mount_flags(m->options);
	return sv->nested ? propagation_look(sv, proc_fd, pid, m, msg, e) : 0;
}

static int look_unmounted(struct mounts_survey *sv, struct error *e)
{
	for (size_t i = sv->ours.n; i-- > 0;) {
		char **slot;

		if (find_same(&sv->theirs, &sv->ours.v[i]))
			continue;
		/* It comes only when this namespace has been made as a copy, without it. */
		if (sv->c && space_of_proc(sv->c, sv->ours.v[i].dev))
			continue;
		slot = vec_push(&sv->unmounted);
		if (!slot)
			return no_memory(e);
		*slot = sv->ours.v[i].point;
	}
	return 0;
}

static int look_at_difference(struct mounts_survey *sv, int proc_fd, pid_t pid,
			      const struct mount_line *m, struct scratch *s, struct error *e)
{
	const struct mount_line *same = sv->derived ? find_same(&sv->ours, m) : NULL;
	uint64_t space = 0;
	int r = same && sv->c ? mounts_look_proc(sv, proc_fd, pid, m, &space, e) : 0;

	if (r < 0)
		return error_object(e, r, "mount %s (%s)", m->point, m->type);
	/* What comes late is not there when this namespace is made as a copy. */
	if (!same || space || (sv->c && mounts_is_on_late(sv, m)))
		return look_at(sv, proc_fd, pid, m, s, e);
	if (mount_flags(same->options) != mount_flags(m->options) ||
	    (sv->nested && propagation_matters(sv, m)))
		return add_remount(sv, proc_fd, pid, m, s, e);
	return 0;
}

/* Of one that cannot be bound there is no copy without what is on it, but where that is gone. */
static bool is_covered(const struct mounts_survey *sv, const struct mount_line *m)
{
	vec_for_each (other, &sv->theirs)
		if (m->unbindable && mounts_is_memory(m->type) && other->parent == m->id)
			return true;
	return false;
}

/* Mounts that are not there before: those need be found. */
static int find_hidden(struct mounts_survey *sv, int proc_fd, pid_t pid, struct error *e)
{
	vec_for_each (m, &sv->theirs) {
		struct mount_hidden *h;

		if ((sv->derived && find_same(&sv->ours, m)) ||
		    (!mount_is_hidden(proc_fd, pid, m) && !is_covered(sv, m)))
			continue;
		if (!strcmp(m->point, "/"))
			return error_object(
				e,
				error_set(
					e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					"it is the root of tasks, and another one is mounted over it"),
				"mount %s (%s)", m->point, m->type);
		h = vec_push(&sv->hidden);
		if (!h)
			return no_memory(e);
		*h = (struct mount_hidden){.id = m->id, .fd = -EBADF};
	}
	return mounts_hidden_find(proc_fd, pid, &sv->theirs, &sv->hidden, e);
}

static bool stands_on(const struct mount_table *t, const struct mount_line *m, int id)
{
	const struct mount_line *parent;

	for (size_t n = 0; n < t->n && (parent = by_id(t, m->parent)) && parent != m; n++) {
		if (parent->id == id)
			return true;
		m = parent;
	}
	return false;
}

/*
 * Would it lie over one that is not there yet? Each is mounted on the one below it, but for those
 * that stand on a mount that is there before: these are found by their paths.
 */
static bool comes_too_early(const struct mounts_survey *sv, const struct mount_line *m,
			    const bool *done)
{
	vec_for_each (other, &sv->theirs) {
		const struct mount_line *on;

		if (other == m || done[other - sv->theirs.v] || other->parent == m->id ||
		    !mount_is_below(other->point, m->point))
			continue;
		on = sv->derived && other->parent != m->parent ? by_id(&sv->theirs, other->parent)
							       : NULL;
		if (other->parent == m->parent ||
		    (on && find_same(&sv->ours, on) && !stands_on(&sv->theirs, other, m->id)))
			return true;
	}
	return false;
}

/* A part is bound from what shows more; if that stands on the part, from elsewhere. */
static bool is_part_of_later(const struct mounts_survey *sv, const struct mount_line *m,
			     const bool *done)
{
	if (!strcmp(m->root, "/"))
		return false;
	vec_for_each (other, &sv->theirs)
		if (other->dev == m->dev && !done[other - sv->theirs.v] &&
		    strcmp(other->root, m->root) != 0 && mount_is_below(m->root, other->root))
			return true;
	return false;
}

/* An overlay is mounted when its directories are there: they were on what is older than it, which
 * the kernel lists before. */
static bool is_made_of_later(const struct mounts_survey *sv, const struct mount_line *m,
			     const bool *done)
{
	if (strcmp(m->type, "overlay") != 0)
		return false;
	vec_for_each (other, &sv->theirs)
		if (other < m && !done[other - sv->theirs.v] && strcmp(other->point, "/") != 0 &&
		    !stands_on(&sv->theirs, other, m->id) &&
		    mounts_overlay_needs(m->super, other->point))
			return true;
	return false;
}

static bool has_turn(const struct mounts_survey *sv, const struct mount_line *m, const bool *done,
		     bool patient)
{
	const struct mount_line *parent = by_id(&sv->theirs, m->parent);

	return !done[m - sv->theirs.v] && (!parent || parent == m || done[parent - sv->theirs.v]) &&
	       !comes_too_early(sv, m, done) &&
	       !(patient && (is_part_of_later(sv, m, done) || is_made_of_later(sv, m, done)));
}

/*
 * Parents first, and what lies below others, or is bound elsewhere in part: the kernel lists mounts
 * by their age, and an old one may have been moved.
 */
static int look_all(struct mounts_survey *sv, int proc_fd, pid_t pid, struct scratch *s,
		    struct error *e)
{
	bool *done = scratch_alloc(s, sv->theirs.n * sizeof(*done) + 1), patient = true;
	size_t left = sv->theirs.n, before = left;

	if (!done)
		return no_memory(e);
	while (left) {
		for (size_t i = 0; i < sv->theirs.n; i++) {
			int r;

			if (!has_turn(sv, &sv->theirs.v[i], done, patient))
				continue;
			r = look_at_difference(sv, proc_fd, pid, &sv->theirs.v[i], s, e);
			if (r < 0)
				return r;
			done[i] = true;
			left--;
			patient = true;
		}
		if (left == before && !patient)
			return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
					 "there is no order in which its mounts can be made");
		patient = left != before;
		before = left;
	}
	return 0;
}

int mounts_survey(int proc_fd, pid_t pid, struct mounts_survey *sv, struct scratch *s,
		  struct error *e)
{
	const struct mount_line *root, *host;
	int r = mount_table_read(proc_fd, pid, &sv->theirs, e);

	if (r >= 0)
		r = mount_table_read(proc_fd, sv->above ?: getpid(), &sv->ours, e);
	if (r < 0)
		return r;
	root = root_of(&sv->theirs);
	host = root_of(&sv->ours);
	if (!root || !host)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "the root of the mounts is not known");
	sv->derived = root->dev == host->dev && !strcmp(root->root, host->root);
	r = sv->derived ? look_unmounted(sv, e) : 0;
	if (r >= 0)
		r = find_hidden(sv, proc_fd, pid, e);
	if (r >= 0)
		r = look_all(sv, proc_fd, pid, s, e);
	return r < 0 ? r : mounts_check_late(sv, e);
}
