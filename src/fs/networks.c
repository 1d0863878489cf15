/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets of network namespaces that are not the root task's. A socket stays in the one in which it
 * was made, wherever its holders go. What the kernel tells of it, and what a new one would be like,
 * depends on the namespace of who asks: so this thread goes there for the moment.
 */
#include <errno.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "net/inet_diag.h"
#include "net/multicast.h"
#include "net/socket_kinds.h"
#include "net/sockopt.h"
#include "net/unix.h"
#include "ns/spaces.h"

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

static void swap(struct files_checkpoint *fc, struct network_view *v)
{
	const struct network_view was = {.id = v->id,
					 .cookie = fc->netns,
					 .sockopts = fc->sockopts,
					 .multicast = fc->multicast,
					 .inet_tables = fc->inet_tables,
					 .packets = fc->packets};

	fc->netns = v->cookie;
	fc->sockopts = v->sockopts;
	fc->multicast = v->multicast;
	fc->inet_tables = v->inet_tables;
	fc->packets = v->packets;
	*v = was;
}

static int look_at_network(struct checkpoint *c, const struct checkpoint_space *s, struct error *e)
{
	struct network_view *v = vec_push(&c->files->networks);
	_cleanup_(close_fd) int fd = -EBADF;
	struct error lost = {};
	int r, back;

	if (!v)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a network namespace");
	r = space_visit(c, s->id, e);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	*v = (struct network_view){.id = s->id, .cookie = fd < 0 ? 0 : cookie_of(fd)};
	r = unix_checkpoint_network(c, e);
	back = space_return(c, s->flag, &lost);
	if (back < 0)
		*e = lost;
	return back < 0 ? back : r;
}

/* Unix sockets may be connected from one to the other: they are listed together. */
static int look_at_networks(struct checkpoint *c, struct error *e)
{
	int r = c->files->networks.n ? 0 : unix_checkpoint_network(c, e);

	if (r < 0)
		return r;
	vec_for_each (s, &c->spaces.list) {
		bool known = s->flag != CLONE_NEWNET;

		vec_for_each (v, &c->files->networks)
			known |= v->id == s->id;
		r = known ? 0 : look_at_network(c, s, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static size_t count_networks(const struct checkpoint *c)
{
	size_t n = 0;

	vec_for_each (s, &c->spaces.list)
		n += s->flag == CLONE_NEWNET;
	return n;
}

/* NULL: that of the root, or of nobody in the tree, which is refused by the kind. */
static struct network_view *view_of(struct checkpoint *c, int fd)
{
	const uint64_t cookie = cookie_of(fd);

	vec_for_each (v, &c->files->networks)
		if (cookie && v->cookie == cookie)
			return v;
	return NULL;
}

static int visit(struct checkpoint *c, struct file_seen *f, struct network_view *v,
		 struct scratch *s, struct error *e)
{
	struct file_entry *entry = f->entry;
	int r = space_visit(c, v->id, e), back;
	struct error lost = {};

	if (r < 0)
		return r;
	entry->msg->network = v->id;
	swap(c->files, v);
	r = entry->ops->checkpoint(c, f, entry->msg, s, e);
	swap(c->files, v);
	back = space_return(c, CLONE_NEWNET, &lost);
	if (back < 0)
		*e = lost;
	return back < 0 ? back : r;
}

int file_checkpoint_kind(struct checkpoint *c, struct file_seen *f, struct scratch *s,
			 struct error *e)
{
	const struct file_ops *ops = f->entry->ops;
	struct network_view *v;
	int r = 0;

	if (!S_ISSOCK(f->st.st_mode) || !count_networks(c))
		return ops->checkpoint(c, f, f->entry->msg, s, e);
	if (c->files->networks.n < count_networks(c))
		r = look_at_networks(c, e);
	if (r < 0)
		return r;
	v = view_of(c, f->local);
	if (!v)
		return ops->checkpoint(c, f, f->entry->msg, s, e);
	return visit(c, f, v, s, e);
}

void file_networks_end(struct checkpoint *c)
{
	vec_for_each (v, &c->files->networks) {
		swap(c->files, v);
		multicast_checkpoint_end(c);
		inet_diag_end(c);
		packet_file_ops.checkpoint_end(c);
		sockopt_defaults_free(c->files->sockopts);
		c->files->sockopts = NULL;
		swap(c->files, v);
	}
	vec_free(&c->files->networks);
}
