/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User namespaces below the root's: those of processes, those in which these were made, and those
 * that own another namespace or are held by a descriptor. Ids in their maps are written as the
 * root's namespace has them, which is what we read.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/settings.h"
#include "model/glance.h"
#include "ns/spaces.h"
#include "ns/userns.h"

/* ---- checkpoint ---- */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a user namespace");
}

/* A process that goes there tells what it finds in this memory, which it has in common with us. */
#define ROOM 16384
struct inside {
	int proc_fd;
	struct found {
		size_t len;
		uint8_t packed[ROOM - sizeof(size_t)];
	} * found;
};

/* /proc/sys/user is that of who looks (set_lookup() in kernel/ucount.c). */
static int read_inside(void *arg, struct error *e)
{
	const struct inside *in = arg;
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Container msg = REPRISE__CONTAINER__INIT;
	int r;

	msg.own = CLONE_NEWUSER;
	r = settings_checkpoint(in->proc_fd, &msg, &s, e);
	if (r < 0)
		return r;
	if (reprise__container__get_packed_size(&msg) > sizeof(in->found->packed))
		return no_memory(e);
	in->found->len = reprise__container__pack(&msg, in->found->packed);
	return 0;
}

static int look_inside(struct checkpoint *c, size_t i, struct inside *in, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	struct space_contents *x = c->spaces.looked->list.v[i];
	const struct resident_begin how = {.proc_fd = c->proc_fd,
					   .pidns = -1,
					   .enter = &c->spaces.list.v[i].ns,
					   .n = 1,
					   .first = read_inside,
					   .arg = in};
	int r = resident_begin(&res, &how, e);

	if (r >= 0)
		r = userns_read_maps(c->proc_fd, res.pid, &x->msg, &c->spaces.looked->s, e);
	if (r < 0)
		return r;
	x->settings = reprise__container__unpack(NULL, in->found->len, in->found->packed);
	if (!x->settings)
		return no_memory(e);
	x->msg.settings = x->settings->settings;
	x->msg.n_settings = x->settings->n_settings;
	return 0;
}

static int look(struct checkpoint *c, size_t i, struct error *e)
{
	struct inside in = {.proc_fd = c->proc_fd};
	uid_t owner;
	int r;

	if (ioctl(c->spaces.list.v[i].ns, NS_GET_OWNER_UID, &owner) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot learn whose user namespace it is");
	c->spaces.looked->list.v[i]->msg.owner = owner;
	in.found = mmap(NULL, sizeof(*in.found), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (in.found == MAP_FAILED)
		return no_memory(e);
	r = look_inside(c, i, &in, e);
	munmap(in.found, sizeof(*in.found));
	return r;
}

int user_space_get(struct checkpoint *c, int fd, uint64_t *ret_id, struct error *e)
{
	uint64_t own = c->spaces.looked->own_user, above = 0;
	_cleanup_(close_fd) int ns = fd, parent = -EBADF;
	const struct checkpoint_space *s;
	struct stat st;
	size_t i;
	int r;

	if (ns < 0 || fstat(ns, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot open a user namespace");
	s = space_by_number(c, CLONE_NEWUSER, st.st_ino);
	*ret_id = s ? s->id : 0;
	if (s || st.st_ino == own)
		return 0;
	/* Whoever is not above it is not told (ns_get_owner()). */
	parent = ioctl(ns, NS_GET_PARENT);
	if (parent < 0)
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "is in a user namespace that is not below the root task's");
	r = user_space_get(c, take_fd(&parent), &above, e);
	if (r < 0)
		return r;
	i = c->spaces.list.n;
	s = space_add(c, CLONE_NEWUSER, st.st_ino, take_fd(&ns), e);
	if (!s)
		return e->err;
	*ret_id = s->id;
	c->spaces.looked->list.v[i]->looked = true;
	c->spaces.looked->list.v[i]->msg.above = above;
	r = look(c, i, e);
	/* Those that are found with a file come with it. */
	if (r >= 0 && c->spaces.looked->saved)
		r = checkpoint_put(c, RECORD_NAMESPACE, *ret_id,
				   &c->spaces.looked->list.v[i]->msg.base, e);
	return r;
}

static int look_at_process(struct checkpoint *c, const struct checkpoint_process *p, uint64_t own,
			   struct error *e)
{
	uint64_t ino = space_number(c->proc_fd, e, "%d/ns/user", p->frozen->pid), id;
	struct checkpoint_nested *slot;
	int r;

	if (!ino)
		return e->err;
	if (ino == own)
		return 0;
	r = user_space_get(
		c, procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/user", p->frozen->pid),
		&id, e);
	if (r < 0)
		return error_object(e, r, "user namespace of task %d (%s)", p->frozen->pid,
				    p->stat.comm);
	slot = vec_push(&c->spaces.users);
	if (!slot)
		return no_memory(e);
	*slot = (struct checkpoint_nested){p->frozen->pid, id};
	return 0;
}

int user_spaces_look(struct checkpoint *c, struct error *e)
{
	vec_for_each (p, &c->processes) {
		bool none = p->frozen->zombie || glance_at_home(c, p->frozen->pid);
		int r = none ? 0 : look_at_process(c, p, c->spaces.looked->own_user, e);

		/* Of whom nothing can be learnt: that is refused elsewhere. */
		if (r < 0 && (e->code == E_PERMISSION || (r == -ESRCH && c->checking))) {
			error_clear(e);
			r = 0;
		}
		r = checkpoint_refuse(c, r, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int user_spaces_checkpoint(struct checkpoint *c, struct error *e)
{
	int r = 0;

	/* Those above have been added before those below. */
	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++)
		if (c->spaces.list.v[i].flag == CLONE_NEWUSER)
			r = checkpoint_put(c, RECORD_NAMESPACE, c->spaces.list.v[i].id,
					   &c->spaces.looked->list.v[i]->msg.base, e);
	return r;
}

/* ---- restart ---- */

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

/*
 * What the root's namespace calls so much, as the namespace above this one calls it; NULL: it has
 * no name there. The kernel takes only what is in one line of the map above (map_id_range_down()).
 */
static bool name_above(const Reprise__IdMap *m, size_t n, Reprise__IdMap *const *above,
		       uint32_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		const Reprise__IdMap *a = above[i];

		if (m->outside < a->outside || m->outside - a->outside >= a->count ||
		    m->count > a->count - (m->outside - a->outside))
			continue;
		*ret = a->inside + (m->outside - a->outside);
		return true;
	}
	return false;
}

static int validate_map(size_t n, Reprise__IdMap *const *map, bool nested, size_t n_above,
			Reprise__IdMap *const *above, struct error *e)
{
	uint32_t unused;

	if (n > USERNS_EXTENTS_MAX)
		return invalid(e, "a map of ids that is too long");
	for (size_t i = 0; i < n; i++)
		if (!map[i]->count || (nested && !name_above(map[i], n_above, above, &unused)))
			return invalid(e, "a map of ids that the namespace above does not have");
	return 0;
}

/* Those above stand before those below, and owners before what they own. */
static bool stands_before(const struct restart *r, uint64_t id, uint64_t other)
{
	uint64_t at;

	for (size_t i = 0; restart_nth(r, RECORD_NAMESPACE, i, &at); i++)
		if (at == id || at == other)
			return at == id;
	return false;
}

static uint64_t id_of(const struct restart *r, const Reprise__Container *msg)
{
	const Reprise__Container *at;
	uint64_t id = 0;

	for (size_t i = 0; (at = restart_nth(r, RECORD_NAMESPACE, i, &id)) && at != msg; i++)
		continue;
	return id;
}

static int validate_owned(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	if (msg->n_uid_map || msg->n_gid_map || msg->n_projid_map)
		return invalid(e, "a map of ids in a namespace of another kind");
	if (restart_space_missing(r, msg->user_namespace, CLONE_NEWUSER) ||
	    (msg->user_namespace && !stands_before(r, msg->user_namespace, id_of(r, msg))))
		return invalid(e, "a namespace stands before that which owns it");
	return 0;
}

int user_space_validate(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	const Reprise__Container none = REPRISE__CONTAINER__INIT;
	const Reprise__Container *up =
		msg->above ? restart_find(r, RECORD_NAMESPACE, msg->above) : &none;
	int res;

	if (msg->own != CLONE_NEWUSER)
		return validate_owned(r, msg, e);
	if (!up || (msg->above && !stands_before(r, msg->above, id_of(r, msg))))
		return invalid(e, "a user namespace stands before that above it");
	if (msg->owner == UINT32_MAX || msg->user_namespace)
		return invalid(e, "a user namespace of nobody");
	res = validate_map(msg->n_uid_map, msg->uid_map, msg->above, up->n_uid_map, up->uid_map, e);
	if (res >= 0)
		res = validate_map(msg->n_gid_map, msg->gid_map, msg->above, up->n_gid_map,
				   up->gid_map, e);
	return res < 0 ? res
		       : validate_map(msg->n_projid_map, msg->projid_map, msg->above,
				      up->n_projid_map, up->projid_map, e);
}

static int write_file(int proc_fd, pid_t pid, const char *name, const char *text)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_WRONLY | O_CLOEXEC, NULL, "%d/%s", (int)pid, name);

	if (fd < 0)
		return fd;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

static int write_map(int proc_fd, pid_t pid, const char *name, size_t n, Reprise__IdMap *const *map,
		     bool nested, size_t n_above, Reprise__IdMap *const *above)
{
	char text[USERNS_EXTENTS_MAX * 36 + 1] = "";
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t outside = map[i]->outside;

		if (nested && !name_above(map[i], n_above, above, &outside))
			return -EINVAL;
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%u %u %u\n", map[i]->inside,
				       outside, map[i]->count);
	}
	return n ? write_file(proc_fd, pid, name, text) : 0;
}

struct mapping {
	struct restart *r;
	pid_t pid;
	const Reprise__Container *msg;
};

static int write_maps(void *arg, struct error *e)
{
	const struct mapping *m = arg;
	struct restart *r = m->r;
	pid_t pid = m->pid;
	const Reprise__Container *msg = m->msg;
	const Reprise__Container none = REPRISE__CONTAINER__INIT;
	const Reprise__Container *up =
		msg->above ? restart_find(r, RECORD_NAMESPACE, msg->above) : &none;
	_cleanup_(free_ptr) char *now = NULL;
	const bool nested = msg->above;
	int res = 0;

	if (procfs_read(r->proc_fd, &now, e, "%d/setgroups", pid) < 0)
		return e->err;
	if (!msg->setgroups_denied && !strncmp(now, "deny", 4))
		return error_set(e, -EPERM, E_NAMESPACE,
				 "supplementary groups could be set in it, which the user "
				 "namespace of this restart does not allow; restart it as root");
	if (msg->setgroups_denied && strncmp(now, "deny", 4))
		res = write_file(r->proc_fd, pid, "setgroups", "deny");
	if (res >= 0)
		res = write_map(r->proc_fd, pid, "uid_map", msg->n_uid_map, msg->uid_map, nested,
				up->n_uid_map, up->uid_map);
	if (res >= 0)
		res = write_map(r->proc_fd, pid, "gid_map", msg->n_gid_map, msg->gid_map, nested,
				up->n_gid_map, up->gid_map);
	if (res >= 0)
		res = write_map(r->proc_fd, pid, "projid_map", msg->n_projid_map, msg->projid_map,
				nested, up->n_projid_map, up->projid_map);
	return res < 0 ? error_errno(e, res, E_NAMESPACE, "cannot map its ids") : 0;
}

/* Maps are taken from the namespace above only (proc_uid_map_write()). */
static int write_maps_above(struct mapping *m, int above, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct resident_begin how = {.proc_fd = m->r->proc_fd,
					   .pidns = -1,
					   .enter = &above,
					   .n = 1,
					   .first = write_maps,
					   .arg = m};

	return above < 0 ? write_maps(m, e) : resident_begin(&res, &how, e);
}

/*
 * Other credentials hide /proc/PID from who is not root (commit_creds()). Root's is hidden: whoever
 * the namespace belongs to may look into those who are there, and this process has our memory.
 */
static void be_seen(bool by_root)
{
	if (!by_root)
		prctl(PR_SET_DUMPABLE, 1);
}

struct making {
	const Reprise__Container *msg, *up;
	int above; /* -1: it is made in ours */
	int proc_fd;
};

/* One that may be a group there: which one it was is told by nobody. */
static gid_t group_for(const struct making *m)
{
	const gid_t own = getegid();

	for (size_t i = 0; m->up && i < m->up->n_gid_map; i++)
		if (own >= m->up->gid_map[i]->outside &&
		    own - m->up->gid_map[i]->outside < m->up->gid_map[i]->count)
			return own;
	return m->up && m->up->n_gid_map ? m->up->gid_map[0]->outside : own;
}

/*
 * Whoever makes a user namespace owns it (create_user_ns()): our effective ids become his, and our
 * capabilities stay for the way there.
 */
static int make(void *arg, struct error *e)
{
	const struct making *m = arg;
	const gid_t gid = group_for(m);
	const bool root = userns_is_first(m->proc_fd);

	if (gid != getegid() || m->msg->owner != geteuid()) {
		if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS) < 0 ||
		    syscall(SYS_setresgid, -1, gid, -1) < 0 ||
		    syscall(SYS_setresuid, -1, m->msg->owner, -1) < 0)
			return error_errno(e, -errno, E_CREDENTIALS,
					   "it is that of user %u, as whom it cannot be made",
					   m->msg->owner);
	}
	if (m->above >= 0 && setns(m->above, CLONE_NEWUSER) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot enter the one above it");
	if (unshare(CLONE_NEWUSER) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make it");
	be_seen(root);
	return 0;
}

int user_space_make(struct restart *r, const Reprise__Container *msg, int above, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	struct making m = {msg, msg->above ? restart_find(r, RECORD_NAMESPACE, msg->above) : NULL,
			   above, r->proc_fd};
	const struct resident_begin how = {
		.proc_fd = r->proc_fd, .pidns = -1, .first = make, .arg = &m};
	int ret = resident_begin(&res, &how, e);

	if (ret >= 0)
		ret = write_maps_above(&(struct mapping){r, res.pid, msg}, above, e);
	return ret < 0 ? ret
		       : procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/user", res.pid);
}

/* Files are made there by those only who have a name there; some settings are root's. */
int user_space_become(struct restart *r, uint64_t id, struct error *e)
{
	const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, id);
	const uint32_t uid = userns_somebody(msg->n_uid_map, msg->uid_map),
		       gid = userns_somebody(msg->n_gid_map, msg->gid_map);
	const bool root = userns_is_first(r->proc_fd);

	vec_for_each (s, &r->spaces.list)
		if (s->id == id && setns(s->ns, CLONE_NEWUSER) < 0)
			return error_errno(e, -errno, E_NAMESPACE,
					   "cannot enter the user namespace");
	if ((msg->n_gid_map && syscall(SYS_setresgid, gid, gid, gid) < 0) ||
	    (msg->n_uid_map && syscall(SYS_setresuid, uid, uid, uid) < 0))
		return error_errno(e, -errno, E_CREDENTIALS, "cannot become user %u there", uid);
	be_seen(root);
	return 0;
}

struct settling {
	int proc_fd;
	const Reprise__Container *msg;
};

static int settle(void *arg, struct error *e)
{
	const struct settling *s = arg;

	return settings_restart(s->proc_fd, s->msg, e);
}

int user_space_settle(struct restart *r, int ns, const Reprise__Container *msg, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	struct settling s = {r->proc_fd, msg};
	const struct resident_begin how = {.proc_fd = r->proc_fd,
					   .pidns = -1,
					   .enter = &ns,
					   .n = 1,
					   .first = settle,
					   .arg = &s};

	return resident_begin(&res, &how, e);
}
