/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files that were declared to be outside (--external): nothing of them is saved but a name,
 * for which the restart is given something else. The restart side is in external_restart.c.
 */
#include "fs/external.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "fs/file_kinds.h"

#define NAME_ROOM 4200

bool external_by_number(const char *object, pid_t *ret_pid, int *ret_fd)
{
	int end = 0;

	return sscanf(object, "pid:%d/fd:%d%n", ret_pid, ret_fd, &end) == 2 && end && !object[end];
}

/* "pipe:[123]" means itself, and is no set of characters. */
bool external_matches(const char *object, const char *name)
{
	return !strcmp(object, name) || fnmatch(object, name, 0) == 0;
}

static int unix_peer(const struct sockaddr_un *un, socklen_t len, char *buf, size_t size)
{
	int n = (int)(len - offsetof(struct sockaddr_un, sun_path));

	if (n <= 0)
		return -ENOENT;
	if (!un->sun_path[0])
		return snprintf(buf, size, "unix:@%.*s", n - 1, un->sun_path + 1);
	return snprintf(buf, size, "unix:%.*s", n, un->sun_path);
}

/* What a socket is connected to. */
static int peer_name(int fd, char *buf, size_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		char room[128 + sizeof(struct sockaddr_un)];
	} at = {};
	socklen_t len = sizeof(at), type_len = sizeof(int);
	char address[INET6_ADDRSTRLEN];
	int type;

	if (getpeername(fd, &at.any, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0)
		return -errno;
	switch (at.any.sa_family) {
	case AF_UNIX:
		return unix_peer(&at.un, len, buf, size);
	case AF_INET:
		inet_ntop(AF_INET, &at.in.sin_addr, address, sizeof(address));
		return snprintf(buf, size, "%s:%s:%d", type == SOCK_STREAM ? "tcp" : "udp", address,
				ntohs(at.in.sin_port));
	case AF_INET6:
		inet_ntop(AF_INET6, &at.in6.sin6_addr, address, sizeof(address));
		return snprintf(buf, size, "%s:[%s]:%d", type == SOCK_STREAM ? "tcp" : "udp",
				address, ntohs(at.in6.sin6_port));
	default:
		return -EAFNOSUPPORT;
	}
}

static void name_of(const struct file_seen *f, char *buf, size_t size)
{
	if (!S_ISSOCK(f->st.st_mode) || peer_name(f->local, buf, size) < 0)
		snprintf(buf, size, "%s", f->link);
}

static bool is_same(const struct file_seen *f, pid_t pid, int fd)
{
	return f->process && syscall(SYS_kcmp, f->tid, pid, KCMP_FILE, f->fd, fd) == 0;
}

int external_declared(const struct checkpoint *c, const struct file_seen *f, struct error *e)
{
	char name[NAME_ROOM];

	(void)e;
	if (!c->externals || !c->externals[0])
		return 0;
	name_of(f, name, sizeof(name));
	for (const char *const *x = c->externals; *x; x++) {
		pid_t pid;
		int fd;

		if (external_by_number(*x, &pid, &fd)
			    ? is_same(f, pid, fd)
			    : external_matches(*x, name) || external_matches(*x, f->link))
			return 1;
	}
	return 0;
}

static int external_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			       struct scratch *s, struct error *e)
{
	Reprise__External *m = scratch_message(s, Reprise__External, reprise__external__init);
	socklen_t len = sizeof(int);
	char name[NAME_ROOM];
	int type = 0;

	(void)c;
	name_of(f, name, sizeof(name));
	if (m) {
		m->name = scratch_string(s, name);
		m->link = scratch_string(s, f->link);
	}
	if (!m || !m->name || !m->link)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a name");
	m->type = f->st.st_mode & S_IFMT;
	if (S_ISSOCK(f->st.st_mode) && getsockopt(f->local, SOL_SOCKET, SO_TYPE, &type, &len) == 0)
		m->socket = (uint32_t)type;
	msg->external = m;
	return 0;
}

static int external_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	(void)r;
	if (!msg->external || !msg->external->name[0] || strlen(msg->external->name) >= NAME_ROOM)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an external file without a name");
	return 0;
}

/* Not replaced by name: a standard stream of the restart, if it was one. */
static int external_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			    struct error *e)
{
	(void)id;
	return file_outside_restart(r, msg, ret_fd, e);
}

static void external_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__External *m = msg->external;

	snprintf(buf, size, "%s, replaced at the restart (--replace)", m ? m->name : "?");
}

const struct file_ops external_file_ops = {
	.kind = FILE_EXTERNAL,
	.name = "external",
	.support =
		"whatever was declared so (`--external`): a device such as /dev/fuse, a connection, a "
		"pipe; a restart puts something in its place (`--replace`)",
	.checkpoint = external_checkpoint,
	.validate = external_validate,
	.restart = external_restart,
	.describe = external_describe,
};
