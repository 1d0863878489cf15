/* SPDX-License-Identifier: Apache-2.0 */
#include "model/spaces.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include "core/kabi.h"
#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns.pb-c.h"

const struct checkpoint_space *space_of_mount(const struct checkpoint *c, int mnt_id)
{
	vec_for_each (s, &c->spaces.list)
		vec_for_each (id, &s->mounts)
			if (*id == mnt_id)
				return s;
	return NULL;
}

int space_of_file(const struct checkpoint *c, int fd, uint64_t *ret_id)
{
	const struct checkpoint_space *s = NULL;
	struct statx st = {};

	*ret_id = 0;
	if (c->spaces.list.n && statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) == 0)
		s = space_of_mount(c, (int)st.stx_mnt_id);
	if (!s)
		return AT_FDCWD;
	*ret_id = s->id;
	return s->root;
}

bool space_brings(const struct checkpoint *c, dev_t dev)
{
	vec_for_each (s, &c->spaces.list)
		vec_for_each (d, &s->brought)
			if (*d == dev)
				return true;
	return false;
}

const struct checkpoint_member *space_member(const struct checkpoint *c, pid_t tid)
{
	vec_for_each (m, &c->spaces.members)
		if (m->tid == tid)
			return m;
	return NULL;
}

uint64_t space_of_task(const struct checkpoint *c, pid_t tid, uint64_t flag)
{
	const struct checkpoint_member *m = space_member(c, tid);

	vec_for_each (s, &c->spaces.list)
		for (size_t k = 0; m && s->flag == flag && k < SPACE_KINDS; k++)
			if (m->ids[k] == s->id)
				return s->id;
	return 0;
}

uint64_t space_of_process(const struct checkpoint *c, pid_t pid)
{
	vec_for_each (m, &c->spaces.nested)
		if (m->pid == pid)
			return m->id;
	return 0;
}

uint64_t space_of_user(const struct checkpoint *c, pid_t pid)
{
	vec_for_each (m, &c->spaces.users)
		if (m->pid == pid)
			return m->id;
	return 0;
}

const struct checkpoint_space *space_by_id(const struct checkpoint *c, uint64_t id)
{
	vec_for_each (s, &c->spaces.list)
		if (s->id == id)
			return s;
	return NULL;
}

const struct checkpoint_space *space_by_number(const struct checkpoint *c, uint64_t flag,
					       uint64_t ino)
{
	vec_for_each (s, &c->spaces.list)
		if (s->flag == flag && s->ino == ino)
			return s;
	return NULL;
}

bool restart_space_missing(const struct restart *r, uint64_t id, uint64_t flag)
{
	const Reprise__Container *msg = id ? restart_find(r, RECORD_NAMESPACE, id) : NULL;

	return id && (!msg || msg->own != flag);
}

static int namespace_of(const struct restart *r, uint64_t id, uint64_t flag)
{
	vec_for_each (s, &r->spaces.list)
		if (id && s->id == id && s->flag == flag)
			return s->ns;
	for (size_t k = 0; !id && k < SPACE_KINDS; k++)
		if (r->spaces.root[k].flag == flag)
			return r->spaces.root[k].ns;
	return -EBADF;
}

static int enter(const struct restart *r, uint64_t id, uint64_t flag, uint64_t *now, uint64_t *was)
{
	*was = *now;
	if (id == *was)
		return 0;
	if (setns(namespace_of(r, id, flag), (int)flag) < 0)
		return -errno;
	*now = id;
	return 0;
}

int restart_enter_network(struct restart *r, uint64_t id, uint64_t *was)
{
	return enter(r, id, CLONE_NEWNET, &r->spaces.network, was);
}

int restart_enter_ipc(struct restart *r, uint64_t id, uint64_t *was)
{
	return enter(r, id, CLONE_NEWIPC, &r->spaces.ipc, was);
}

uint64_t restart_space_of(const struct restart *r, const struct restart_task *t, uint64_t flag)
{
	for (size_t i = 0; i < t->msg->n_namespaces; i++)
		if (!restart_space_missing(r, t->msg->namespaces[i], flag))
			return t->msg->namespaces[i];
	return 0;
}

int restart_root(const struct restart *r, uint64_t id)
{
	vec_for_each (s, &r->spaces.list)
		if (id && s->id == id)
			return s->root;
	return AT_FDCWD;
}

int restart_root_under(const struct restart *r, uint64_t id, int under, const char **path)
{
	if (!under)
		return restart_root(r, id);
	vec_for_each (p, &r->spaces.places)
		if (p->space == id && p->by == under) {
			*path += p->skip;
			return p->fd;
		}
	return -EBADF;
}

int restart_root_detached(const struct restart *r, uint64_t id)
{
	vec_for_each (d, &r->spaces.detached)
		if (d->id == id)
			return d->fd;
	return -EBADF;
}

struct rooted rooted_path(int root, const char *path)
{
	if (root == AT_FDCWD)
		return (struct rooted){root, path};
	while (*path == '/')
		path++;
	return (struct rooted){root, *path ? path : "."};
}
