/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/mounts_idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "ns/userns.h"

bool mounts_idmapped(const struct mount_line *m)
{
	return mount_has_option(m->options, "idmapped");
}

/* ---- checkpoint ---- */

static int not_told(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			 "it shows other owners than its files have (idmapped), and this kernel "
			 "does not tell which");
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a map of ids");
}

/* Strings, one behind the other: an id in the file system, what it is called, how many. */
static int take(const char *text, size_t len, uint32_t n, Reprise__IdMap ***ret, size_t *ret_n,
		struct scratch *s, struct error *e)
{
	if (!n || n > USERNS_EXTENTS_MAX)
		return not_told(e);
	*ret = scratch_alloc(s, n * sizeof(**ret));
	for (*ret_n = 0; *ret_n < n; (*ret_n)++) {
		Reprise__IdMap *m = scratch_message(s, Reprise__IdMap, reprise__id_map__init);
		const size_t here = strnlen(text, len);

		if (!m || !*ret)
			return no_memory(e);
		if (here == len ||
		    sscanf(text, "%u %u %u", &m->inside, &m->outside, &m->count) != 3)
			return not_told(e);
		(*ret)[*ret_n] = m;
		text += here + 1;
		len -= here + 1;
	}
	return 0;
}

static int take_maps(const struct kernel_statmount *st, size_t size, Reprise__Mount *msg,
		     struct scratch *s, struct error *e)
{
	const uint64_t maps = KERNEL_STATMOUNT_UIDMAP | KERNEL_STATMOUNT_GIDMAP;
	const size_t room = size - sizeof(*st);
	int r;

	if ((st->mask & maps) != maps || st->uidmap >= room || st->gidmap >= room)
		return not_told(e);
	r = take(st->strings + st->uidmap, room - st->uidmap, st->uidmap_num, &msg->uid_map,
		 &msg->n_uid_map, s, e);
	return r < 0 ? r
		     : take(st->strings + st->gidmap, room - st->gidmap, st->gidmap_num,
			    &msg->gid_map, &msg->n_gid_map, s, e);
}

int mounts_idmap_look(int proc_fd, pid_t pid, const struct mount_line *m, Reprise__Mount *msg,
		      struct scratch *s, struct error *e)
{
	const size_t size = sizeof(struct kernel_statmount) + 2 * USERNS_EXTENTS_MAX * 36;
	_cleanup_(free_ptr) struct kernel_statmount *st = calloc(1, size);
	_cleanup_(close_fd) int ns =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%d/ns/mnt", pid);
	struct kernel_mnt_id_req req = {.size = sizeof(req),
					.param = KERNEL_STATMOUNT_UIDMAP | KERNEL_STATMOUNT_GIDMAP};
	struct statx at = {};
	char path[4200];

	if (!st)
		return no_memory(e);
	/* What comes with the image has the owners that are seen here. */
	if ((msg->kind != MOUNT_EXTERNAL && msg->kind != MOUNT_BIND) || msg->hidden)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "it shows other owners than its files have (idmapped), and is "
				 "hidden, or the only one of a file system of the container");
	snprintf(path, sizeof(path), "%d/root%s", pid, m->point);
	if (ns < 0 || statx(proc_fd, path, 0, KERNEL_STATX_MNT_ID_UNIQUE, &at) < 0 ||
	    !(at.stx_mask & KERNEL_STATX_MNT_ID_UNIQUE) ||
	    ioctl(ns, KERNEL_NS_GET_MNTNS_ID, &req.mnt_ns_id) < 0)
		return not_told(e);
	req.mnt_id = at.stx_mnt_id;
	if (syscall(KERNEL_SYS_STATMOUNT, &req, st, size, 0) < 0)
		return not_told(e);
	return take_maps(st, size, msg, s, e);
}

/* ---- restart ---- */

static bool are_valid(size_t n, Reprise__IdMap *const *map)
{
	for (size_t i = 0; i < n; i++)
		if (!map[i]->count)
			return false;
	return n <= USERNS_EXTENTS_MAX;
}

bool mounts_idmap_valid(const Reprise__Mount *m)
{
	if (!m->n_uid_map && !m->n_gid_map)
		return true;
	return (m->kind == MOUNT_EXTERNAL || m->kind == MOUNT_BIND) && m->n_uid_map &&
	       m->n_gid_map && are_valid(m->n_uid_map, m->uid_map) &&
	       are_valid(m->n_gid_map, m->gid_map);
}

static int set(int fd, int proc_fd, pid_t pid, const Reprise__Mount *m, struct error *e)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP};
	_cleanup_(close_fd) int ns = -EBADF;
	int r = userns_write_map(proc_fd, pid, "uid_map", m->n_uid_map, m->uid_map);

	if (r >= 0)
		r = userns_write_map(proc_fd, pid, "gid_map", m->n_gid_map, m->gid_map);
	if (r < 0)
		return error_errno(e, r, E_CONTAINER_MOUNT, "cannot map the ids of its files");
	ns = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/user", pid);
	if (ns < 0)
		return ns;
	attr.userns_fd = (uint64_t)ns;
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot map the ids of its files");
	return 0;
}

/* Nobody makes one whose root directory is not that of his mount namespace (current_chrooted()). */
static int make_space(int top)
{
	return fchdir(top) < 0 || chroot(".") < 0 || unshare(CLONE_NEWUSER) < 0 ? -errno : 0;
}

/* The map is that of a user namespace, which a process of ours has for a moment. No /proc is
 * mounted where mounts are made. */
int mounts_idmap_restart(int fd, int top, const Reprise__Mount *m, struct error *e)
{
	_cleanup_(close_fd) int fs = -EBADF, proc_fd = -EBADF;
	const pid_t own = getpid();
	int go[2], r;
	pid_t child;
	char byte;

	if (!m->n_uid_map)
		return 0;
	fs = fsopen("proc", FSOPEN_CLOEXEC);
	if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) >= 0)
		proc_fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (proc_fd < 0 || pipe2(go, O_CLOEXEC) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot map the ids of its files");
	child = fork();
	if (child == 0) {
		/* a new user namespace takes the signal away (commit_creds()) */
		if (make_space(top) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
		    getppid() != own || write(go[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(go[1]);
	r = child > 0 && read(go[0], &byte, 1) == 1
		    ? set(fd, proc_fd, child, m, e)
		    : error_set(e, -EPERM, E_CONTAINER_MOUNT, "cannot make a user namespace");
	close(go[0]);
	if (child > 0)
		kill(child, SIGKILL);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		continue;
	return r;
}
