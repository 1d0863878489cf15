/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_pairs.h"
#include "ns/spaces.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "net/rtnl.h"
#include "ns/net_links.h"

/* ---- checkpoint ---- */

int net_pair_note(Reprise__NetLink *m, int32_t number, int index, struct scratch *s)
{
	m->elsewhere = scratch_message(s, Reprise__NetElsewhere, reprise__net_elsewhere__init);
	if (!m->elsewhere)
		return -ENOMEM;
	m->elsewhere->namespace_ = (uint32_t)number;
	m->elsewhere->index = index;
	return 0;
}

static int refuse(const Reprise__NetLink *m, const char *what, struct error *e)
{
	return error_object(e, error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE, "%s", what),
			    "network interface %s", m->name);
}

static int resolve_one(const struct checkpoint *c, int fd, int root, const Reprise__NetLink *m,
		       struct error *e)
{
	const int32_t number = (int32_t)m->elsewhere->namespace_;

	if (root >= 0 && net_id_of(fd, root) == number) {
		m->elsewhere->namespace_ = 0;
		return 0;
	}
	vec_for_each (s, &c->spaces.list)
		if (s->flag == CLONE_NEWNET && net_id_of(fd, s->ns) == number) {
			m->elsewhere->namespace_ = s->id;
			return 0;
		}
	return refuse(
		m,
		"it leads to a network namespace other than that of reprise, in which no task "
		"of the tree is and which none has open",
		e);
}

int net_pairs_resolve(const struct checkpoint *c, int root, const Reprise__Network *m,
		      struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int r = 0;

	for (size_t i = 0; i < m->n_links && r >= 0; i++) {
		if (!m->links[i]->elsewhere)
			continue;
		if (fd < 0)
			fd = rtnl_open();
		r = fd < 0 ? error_errno(e, fd, E_SYSTEM, "cannot ask about interfaces")
			   : resolve_one(c, fd, root, m->links[i], e);
	}
	return r;
}

static const Reprise__NetLink *link_of(const Reprise__Network *m, int index)
{
	for (size_t i = 0; m && i < m->n_links; i++)
		if (m->links[i]->index == index)
			return m->links[i];
	return NULL;
}

static bool are_a_pair(uint64_t id, const Reprise__NetLink *m, const Reprise__NetLink *other)
{
	return other && other->elsewhere && other->elsewhere->namespace_ == id &&
	       other->elsewhere->index == m->index && !strcmp(m->kind, "veth") &&
	       !strcmp(other->kind, "veth");
}

int net_pairs_check(uint64_t id, const Reprise__Network *m, net_pairs_of of, const void *arg,
		    struct error *e)
{
	for (size_t i = 0; m && i < m->n_links; i++) {
		const Reprise__NetElsewhere *there = m->links[i]->elsewhere;
		const Reprise__Network *net = there ? of(arg, there->namespace_) : NULL;

		if (net && !are_a_pair(id, m->links[i], link_of(net, there->index)))
			return refuse(m->links[i],
				      "its other end, in another network namespace, has changed "
				      "meanwhile; try again",
				      e);
	}
	return 0;
}

/* ---- restart ---- */

static const Reprise__Network *network_with(const struct restart *r, uint64_t id)
{
	const Reprise__Container *msg = id ? restart_find(r, RECORD_NAMESPACE, id)
					   : restart_nth(r, RECORD_CONTAINER, 0, NULL);

	return msg && msg->own & CLONE_NEWNET ? msg->network : NULL;
}

static int validate_of(const struct restart *r, uint64_t id, struct error *e)
{
	const Reprise__Network *m = network_with(r, id);

	for (size_t i = 0; m && i < m->n_links; i++) {
		const Reprise__NetElsewhere *there = m->links[i]->elsewhere;

		if (there &&
		    (there->namespace_ == id ||
		     !are_a_pair(id, m->links[i],
				 link_of(network_with(r, there->namespace_), there->index))))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a network interface with an impossible other end");
	}
	return 0;
}

int net_pairs_validate(const struct restart *r, struct error *e)
{
	int res = validate_of(r, 0, e);
	uint64_t id;

	for (size_t i = 0; res >= 0 && restart_nth(r, RECORD_NAMESPACE, i, &id); i++)
		res = validate_of(r, id, e);
	return res;
}

static bool has_pairs(const Reprise__Network *m)
{
	for (size_t i = 0; m && i < m->n_links; i++)
		if (m->links[i]->elsewhere)
			return true;
	return false;
}

/* The one in which this thread is now. */
static int note_here(struct restart *r, uint64_t id, struct error *e)
{
	_cleanup_(close_fd) int ns =
		procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "thread-self/ns/net");
	_cleanup_(close_fd) int rtnl = rtnl_open();
	struct restart_network *n = ns < 0 ? NULL : vec_push(&r->spaces.networks);

	if (ns < 0)
		return ns;
	if (rtnl < 0 || !n) {
		r->spaces.networks.n -= n != NULL;
		return error_errno(e, rtnl < 0 ? rtnl : -ENOMEM, E_NAMESPACE,
				   "cannot ask about interfaces");
	}
	*n = (struct restart_network){.id = id, .ns = take_fd(&ns), .rtnl = take_fd(&rtnl)};
	return 0;
}

static int make_all(struct restart *r, struct error *e)
{
	const Reprise__Container *msg;
	uint64_t id;
	int res = note_here(r, 0, e);

	for (size_t i = 0; res >= 0 && (msg = restart_nth(r, RECORD_NAMESPACE, i, &id)); i++) {
		if (!has_pairs(network_with(r, id)))
			continue;
		res = space_go_to_new(r, msg, e);
		if (res >= 0)
			res = note_here(r, id, e);
	}
	if (r->spaces.networks.n && net_pairs_enter(r, 0) < 0 && res >= 0)
		res = error_errno(e, -errno, E_NAMESPACE, "cannot leave a network namespace");
	return res;
}

int net_pairs_begin(struct restart *r, struct error *e)
{
	bool any = false;
	uint64_t id;

	for (size_t i = 0; restart_nth(r, RECORD_NAMESPACE, i, &id); i++)
		any |= has_pairs(network_with(r, id));
	return any && !r->spaces.networks.n ? make_all(r, e) : 0;
}

void net_pairs_end(struct restart *r)
{
	vec_for_each (n, &r->spaces.networks) {
		close_fd(&n->ns);
		close_fd(&n->rtnl);
	}
	vec_free(&r->spaces.networks);
}

static struct restart_network *find(const struct restart *r, uint64_t id)
{
	vec_for_each (n, &r->spaces.networks)
		if (n->id == id)
			return n;
	return NULL;
}

int net_pairs_enter(const struct restart *r, uint64_t id)
{
	const struct restart_network *n = find(r, id);

	if (!n)
		return -ENOENT;
	return setns(n->ns, CLONE_NEWNET) < 0 ? -errno : 0;
}

const Reprise__NetLink *net_pair_other(const struct net_pairs *p, const Reprise__NetLink *m,
				       int *ret_ns)
{
	const struct restart_network *n = find(p->r, m->elsewhere->namespace_);

	if (!n || n->made)
		return NULL;
	*ret_ns = n->ns;
	return link_of(network_with(p->r, n->id), m->elsewhere->index);
}

int net_pair_up(const struct net_pairs *p, const Reprise__NetLink *m)
{
	const struct restart_network *n = find(p->r, m->elsewhere->namespace_);
	int unused, r;
	const Reprise__NetLink *other = net_pair_other(p, m, &unused);

	if (!n || !other || !(other->flags & IFF_UP))
		return 0;
	/* Its addresses come with its own namespace. */
	r = net_mode_set(n->rtnl, other->index, NET_MODE_NONE);
	return r < 0 ? r : net_flags_set(n->rtnl, other->index, IFF_UP);
}

void net_pairs_made(const struct net_pairs *p)
{
	struct restart_network *n = find(p->r, p->id);

	if (n)
		n->made = true;
}
