/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/opener.h"
#include "ns/resident.h"

/* ---- checkpoint ---- */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a user namespace");
}

/* Lines of three numbers: inside, outside as we see it, how many. */
static int read_map(int proc_fd, pid_t pid, const char *file, size_t *n, Reprise__IdMap ***ret,
		    struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	int r = (int)procfs_read(proc_fd, &text, e, "%d/%s", pid, file);
	char *save = NULL;

	if (r < 0)
		return r;
	*ret = scratch_alloc(s, USERNS_EXTENTS_MAX * sizeof(**ret));
	if (!*ret)
		return no_memory(e);
	for (char *line = strtok_r(text, "\n", &save); line && *n < USERNS_EXTENTS_MAX;
	     line = strtok_r(NULL, "\n", &save)) {
		Reprise__IdMap *m = scratch_message(s, Reprise__IdMap, reprise__id_map__init);

		if (!m)
			return no_memory(e);
		if (sscanf(line, "%u %u %u", &m->inside, &m->outside, &m->count) != 3)
			return error_set(e, -EPROTO, E_SYSTEM, "the map of ids is not understood");
		(*ret)[(*n)++] = m;
	}
	return 0;
}

/*
 * By its number (PROC_USER_INIT_INO, which init_ns_ino of linux/nsfs.h made an interface in 6.18):
 * others may map everything to itself, too.
 */
#define FIRST_USER_NAMESPACE 0xEFFFFFFDu

bool userns_is_first(int proc_fd)
{
	struct stat st;

	return geteuid() == 0 && fstatat(proc_fd, "self/ns/user", &st, 0) == 0 &&
	       st.st_ino == FIRST_USER_NAMESPACE;
}

static int number_of(int fd, ino_t *ret)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	*ret = st.st_ino;
	return 0;
}

int userns_open(int proc_fd, pid_t pid, struct error *e)
{
	_cleanup_(close_fd) int own =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/user", getpid());
	_cleanup_(close_fd) int ns = -EBADF;
	ino_t home, at;

	if (own < 0)
		return own;
	ns = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/user", pid);
	if (ns < 0)
		return ns;
	if (number_of(own, &home) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	for (;;) {
		int parent = ioctl(ns, NS_GET_PARENT);

		/* Whoever is not above it is not told (ns_get_owner()). */
		if (number_of(parent, &at) < 0) {
			close_fd(&parent);
			return error_set(
				e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				"is in a user namespace that is not below that of reprise");
		}
		if (at == home) {
			close_fd(&parent);
			return take_fd(&ns);
		}
		close_fd(&ns);
		ns = parent;
	}
}

int userns_read_maps(int proc_fd, pid_t pid, Reprise__Container *msg, struct scratch *s,
		     struct error *e)
{
	_cleanup_(free_ptr) char *setgroups = NULL;
	int r = read_map(proc_fd, pid, "uid_map", &msg->n_uid_map, &msg->uid_map, s, e);

	if (r >= 0)
		r = read_map(proc_fd, pid, "gid_map", &msg->n_gid_map, &msg->gid_map, s, e);
	if (r >= 0)
		r = read_map(proc_fd, pid, "projid_map", &msg->n_projid_map, &msg->projid_map, s,
			     e);
	if (r >= 0)
		r = (int)procfs_read(proc_fd, &setgroups, e, "%d/setgroups", pid);
	if (r < 0)
		return r;
	msg->setgroups_denied = !strncmp(setgroups, "deny", 4);
	return 0;
}

static bool has_name(size_t n, Reprise__IdMap *const *map, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (id >= map[i]->outside && id - map[i]->outside < map[i]->count)
			return true;
	return n == 1 && map[0]->count == 1;
}

uint32_t userns_somebody(size_t n, Reprise__IdMap *const *map)
{
	uint32_t ret = n ? map[0]->inside : 0;

	for (size_t i = 0; i < n; i++)
		if (!map[i]->inside)
			ret = 0;
	return ret;
}

int userns_become(const Reprise__Container *msg, struct error *e)
{
	const uint32_t uid = userns_somebody(msg->n_uid_map, msg->uid_map),
		       gid = userns_somebody(msg->n_gid_map, msg->gid_map);

	if (syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "cannot become user %u of the user namespace", uid);
	return 0;
}

bool userns_is_foreign(const Reprise__Container *msg)
{
	return !has_name(msg->n_uid_map, msg->uid_map, geteuid()) ||
	       !has_name(msg->n_gid_map, msg->gid_map, getegid());
}

static bool all_have_names(const char *status, const char *field, size_t n,
			   Reprise__IdMap *const *map)
{
	size_t len;
	const char *value = proc_field(status, field, &len);
	unsigned int ids[4];

	if (!value || sscanf(value, "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return false;
	for (size_t i = 0; i < 4; i++)
		if (!has_name(n, map, ids[i]))
			return false;
	return true;
}

/* Maps of ids that are not ours are written by who may take on any (new_idmap_permitted()). */
int userns_check_right(const Reprise__Container *msg, struct error *e)
{
	const uint64_t want = 1ULL << CAP_SETUID | 1ULL << CAP_SETGID;
	uint64_t ours = 0;

	if (!userns_is_foreign(msg) ||
	    (capabilities_in_effect(0, false, &ours) >= 0 && (ours & want) == want))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
			 "it has a user namespace in which user %u and group %u have no name, who "
			 "cannot make it again; call reprise as root, or within that "
			 "(podman unshare)",
			 geteuid(), getegid());
}

/* Who has gone there without becoming anybody is nobody there, and hides from those who are. */
int userns_check_names(int proc_fd, pid_t pid, const Reprise__Container *msg, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int r = (int)procfs_read(proc_fd, &status, e, "%d/status", pid);

	if (r < 0)
		return r;
	if (all_have_names(status, "Uid", msg->n_uid_map, msg->uid_map) &&
	    all_have_names(status, "Gid", msg->n_gid_map, msg->gid_map))
		return userns_check_right(msg, e);
	return error_object(e,
			    error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				      "has ids that have no name in its user namespace"),
			    "task %d", pid);
}

/* By a process of ours that is there: none of the tree need be. */
int userns_checkpoint(int proc_fd, int ns, Reprise__Container *msg, struct scratch *s,
		      struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct resident_begin how = {.proc_fd = proc_fd, .pidns = -1, .enter = &ns, .n = 1};
	int r = resident_begin(&res, &how, e);

	if (r >= 0)
		r = userns_read_maps(proc_fd, res.pid, msg, s, e);
	if (r >= 0 && (!msg->n_uid_map || !msg->n_gid_map))
		r = error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
			      "is in a user namespace without a map of ids");
	return r;
}

/* ---- restart ---- */

int userns_validate(const Reprise__Container *msg, struct error *e)
{
	const bool own = msg->own & CLONE_NEWUSER;

	if (own != (msg->n_uid_map > 0) || own != (msg->n_gid_map > 0) ||
	    msg->n_uid_map > USERNS_EXTENTS_MAX || msg->n_gid_map > USERNS_EXTENTS_MAX ||
	    msg->n_projid_map > (own ? USERNS_EXTENTS_MAX : 0))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible map of ids");
	return 0;
}

static int write_file(const char *path, const char *text)
{
	_cleanup_(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

int userns_write_map(int proc_fd, pid_t pid, const char *file, size_t n, Reprise__IdMap *const *map)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_WRONLY | O_CLOEXEC, NULL, "%d/%s", pid, file);
	char text[USERNS_EXTENTS_MAX * 36 + 1] = "";
	size_t at = 0;

	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%u %u %u\n", map[i]->inside,
				       map[i]->outside, map[i]->count);
	if (fd < 0)
		return fd;
	return write(fd, text, at) == (ssize_t)at ? 0 : -errno;
}

static int write_maps(pid_t pid, const Reprise__Container *msg)
{
	_cleanup_(close_fd) int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[64];
	int r = proc_fd < 0 ? -errno : 0;

	snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
	if (r >= 0 && msg->setgroups_denied)
		r = write_file(path, "deny");
	if (r >= 0)
		r = userns_write_map(proc_fd, pid, "uid_map", msg->n_uid_map, msg->uid_map);
	if (r >= 0)
		r = userns_write_map(proc_fd, pid, "gid_map", msg->n_gid_map, msg->gid_map);
	return r < 0 || !msg->n_projid_map ? r
					   : userns_write_map(proc_fd, pid, "projid_map",
							      msg->n_projid_map, msg->projid_map);
}

/* A map of other ids than one's own is written from the namespace above (user_namespaces(7)). */
static int make_with_help(int flags, const Reprise__Container *msg, struct error *e)
{
	int go[2], status;
	pid_t child;
	char byte = 0;

	if (pipe2(go, O_CLOEXEC) < 0)
		return error_errno(e, -errno, E_SYSTEM, "pipe");
	child = fork();
	if (child == 0) {
		close(go[1]);
		_exit(read(go[0], &byte, 1) == 1 ? -write_maps(getppid(), msg) & 0x7f : 0);
	}
	close(go[0]);
	if (child > 0 && unshare(flags) < 0) {
		error_errno(e, -errno, E_NAMESPACE, "cannot make a user namespace");
		close(go[1]);
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			continue;
		return -EPERM;
	}
	if (child > 0)
		ignore(write(go[1], &byte, 1) == 1 ? 0 : -EPIPE, "it tells by its end");
	close(go[1]);
	if (child < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a process");
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return error_errno(e, WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO, E_NAMESPACE,
				   "cannot map the ids of the user namespace");
	return 0;
}

static bool is_single(const Reprise__Container *msg)
{
	return msg->n_uid_map == 1 && msg->uid_map[0]->count == 1 && msg->n_gid_map == 1 &&
	       msg->gid_map[0]->count == 1;
}

int userns_make(int flags, const Reprise__Container *msg, struct error *e)
{
	uint32_t uid = geteuid(), gid = getegid();
	char map[64];
	int r;

	if (!is_single(msg))
		return make_with_help(flags | CLONE_NEWUSER, msg, e);
	/* What was of an ordinary user does not become root's. */
	if (uid == 0 && msg->uid_map[0]->outside)
		return error_set(e, -EPERM, E_NAMESPACE,
				 "the container is that of user %u: restart it as this user",
				 msg->uid_map[0]->outside);
	if (unshare(flags | CLONE_NEWUSER) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a user namespace");
	/* Without privilege it is a condition for a map of groups. */
	r = write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u %u 1", msg->uid_map[0]->inside, uid);
	if (r >= 0)
		r = write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u %u 1", msg->gid_map[0]->inside, gid);
	if (r >= 0)
		r = write_file("/proc/self/gid_map", map);
	return r < 0 ? error_errno(e, r, E_NAMESPACE, "cannot map the ids of the user namespace")
		     : 0;
}

int userns_make_new(int flags, bool as_root, struct error *e)
{
	const bool all = geteuid() == 0;
	Reprise__IdMap uid, gid, *uids = &uid, *gids = &gid;
	Reprise__Container msg;

	reprise__container__init(&msg);
	reprise__id_map__init(&uid);
	reprise__id_map__init(&gid);
	/* Root has all ids inside, and no power over what is outside. */
	uid.count = gid.count = all ? UINT32_MAX : 1;
	uid.inside = as_root ? 0 : geteuid();
	gid.inside = as_root ? 0 : getegid();
	msg.n_uid_map = msg.n_gid_map = 1;
	msg.uid_map = &uids;
	msg.gid_map = &gids;
	return userns_make(flags, &msg, e);
}
