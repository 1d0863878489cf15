/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/mounts_covered.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "ns/mounts.h"
#include "ns/mounts_late.h"
#include "ns/spaces.h"

/* ---- checkpoint ---- */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
}

/* Those of a mount namespace that is saved; *ret_pid: who is in it. */
static const struct mounts_survey *survey_of(struct checkpoint *c, uint64_t space, pid_t *ret_pid)
{
	const struct spaces *sp = c->spaces.looked;

	*ret_pid = c->freezer.root;
	if (sp && !space)
		return sp->ct->own & CLONE_NEWNS ? &sp->ct->mounts : NULL;
	for (size_t i = 0; sp && i < c->spaces.list.n; i++)
		if (c->spaces.list.v[i].id == space) {
			*ret_pid = sp->list.v[i]->resident.pid;
			return &sp->list.v[i]->mounts;
		}
	return NULL;
}

static const struct mount_line *line_of(const struct mount_table *t, int id)
{
	vec_for_each (m, t)
		if (m->id == id)
			return m;
	return NULL;
}

/* Few mounts have files that are open; of those that are outside it is known as well. */
static struct space_mount *known_mount(struct checkpoint *c, int id, uint64_t space)
{
	struct spaces *sp = c->spaces.looked;
	struct space_mount *m;
	const struct mounts_survey *sv;
	pid_t unused;

	vec_for_each (x, &sp->mounts)
		if (x->id == id && x->space == space)
			return x;
	sv = survey_of(c, space, &unused);
	m = sv ? vec_push(&sp->mounts) : NULL;
	if (m)
		*m = (struct space_mount){
			.id = id, .space = space, .fd = -EBADF, .line = line_of(&sv->theirs, id)};
	return m;
}

int mount_of_file(struct checkpoint *c, int fd, uint64_t space)
{
	const int id = mount_id_at(fd, "", AT_EMPTY_PATH);
	struct space_mount *m;
	pid_t unused;

	if (!survey_of(c, space, &unused) || !id)
		return 0;
	m = known_mount(c, id, space);
	return m && m->line ? m->id : 0;
}

/*
 * From the file towards the root: what is mounted on the way, and not part of it. The first that is
 * found lies nearest to the file, and from its place nothing else is in the way.
 */
static const struct mount_line *cover_of(const struct mount_table *t, const struct mount_line *m,
					 const char *path)
{
	const struct mount_line *from = NULL, *best = NULL;

	for (size_t n = 0; m && n <= t->n; n++) {
		const struct mount_line *parent = line_of(t, m->parent);

		vec_for_each (k, t)
			if (k->parent == m->id && k != m && k != from &&
			    mount_is_below(path, k->point) &&
			    (!best || strlen(k->point) > strlen(best->point)))
				best = k;
		if (best || parent == m)
			break;
		path = m->point;
		from = m;
		m = parent;
	}
	return best;
}

/* Whatever lies over it is taken away, in a copy of the namespace. */
static int open_alone(struct checkpoint *c, struct space_mount *m, struct error *e)
{
	pid_t pid;
	const struct mounts_survey *sv = survey_of(c, m->space, &pid);
	const struct mount_hidden *h = mount_hidden_of(&sv->hidden, m->id);
	_cleanup_(mounts_hidden_free) struct mounts_hidden one = {};
	struct mount_hidden *slot;
	int r;

	if (m->fd >= 0)
		return m->fd;
	if (h && h->fd >= 0)
		return h->fd;
	slot = vec_push(&one);
	if (!slot)
		return no_memory(e);
	*slot = (struct mount_hidden){.id = m->id, .fd = -EBADF, .loose = true};
	r = mounts_hidden_find(c->proc_fd, pid, &sv->theirs, &one, e);
	if (r < 0 && slot->fd < 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it lies below another mount, which cannot be taken away");
	error_clear(e);
	m->fd = take_fd(&slot->fd);
	return m->fd;
}

/* What is mounted in time, on something of which we get hold. */
static int check_cover(const struct mounts_survey *sv, const struct mount_line *cover,
		       struct error *e)
{
	_cleanup_(free_ptr) bool *late = mounts_find_late(sv->mounts.n, sv->mounts.v, e);

	if (!late)
		return e->err;
	for (size_t i = 0; i < sv->mounts.n; i++)
		if (sv->mounts.v[i]->id == cover->id && sv->mounts.v[i]->kind != MOUNT_REMOUNT &&
		    !late[i])
			return 0;
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "it lies below mount %s, which %s",
			 cover->point,
			 line_of(&sv->ours, cover->id) || sv->derived
				 ? "is one of those of which the mounts here are a copy"
				 : "is a proc of another pid namespace than the root task's");
}

int mounts_look_covered(struct checkpoint *c, int mount, uint64_t space, const char *path,
			struct mount_covered *ret, struct error *e)
{
	pid_t unused;
	const struct mounts_survey *sv = mount ? survey_of(c, space, &unused) : NULL;
	struct space_mount *m = sv ? known_mount(c, mount, space) : NULL;
	const struct mount_line *cover =
		m && m->line && *path == '/' ? cover_of(&sv->theirs, m->line, path) : NULL;
	int r;

	*ret = (struct mount_covered){.root = -EBADF};
	if (!cover)
		return 0;
	if (!mount_is_below(path, m->line->point))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "where it is on its mount (%s) is not known", m->line->point);
	r = check_cover(sv, cover, e);
	if (r >= 0)
		r = ret->root = open_alone(c, m, e);
	if (r < 0)
		return r;
	ret->by = cover->id;
	ret->skip = strcmp(m->line->point, "/") ? strlen(m->line->point) : 0;
	return 0;
}

/* ---- restart ---- */

static const Reprise__Container *mounts_message(const struct restart *r, uint64_t space)
{
	return space ? restart_find(r, RECORD_NAMESPACE, space)
		     : restart_nth(r, RECORD_CONTAINER, 0, NULL);
}

int mounts_validate_under(const struct restart *r, uint64_t space, int under, const char *path,
			  struct error *e)
{
	const Reprise__Container *msg = under ? mounts_message(r, space) : NULL;

	for (size_t i = 0; msg && i < msg->n_mounts; i++)
		if (msg->mounts[i]->id == under && msg->mounts[i]->kind != MOUNT_REMOUNT &&
		    strcmp(msg->mounts[i]->point, "/") != 0 &&
		    mount_is_below(path, msg->mounts[i]->point))
			return 0;
	return under ? error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a file lies below a mount that is not there")
		     : 0;
}

static void want(struct mounts_below *b, const struct mount_place *places, int under)
{
	size_t at = under ? mounts_place(places, b->n, under) : SIZE_MAX;

	if (at != SIZE_MAX)
		b->wanted[at] = true;
}

int mounts_below_begin(struct mounts_below *ret, struct restart *r, uint64_t space,
		       const Reprise__Container *msg, struct error *e)
{
	_cleanup_(free_ptr) struct mount_place *places = mounts_places(msg->n_mounts, msg->mounts);
	const Reprise__Inode *inode;
	const Reprise__File *file;

	*ret = (struct mounts_below){.wanted = calloc(msg->n_mounts + 1, sizeof(bool)),
				     .fds = calloc(msg->n_mounts + 1, sizeof(int)),
				     .n = msg->n_mounts};
	if (!places || !ret->wanted || !ret->fds)
		return no_memory(e);
	for (size_t i = 0; i < ret->n; i++)
		ret->fds[i] = -EBADF;
	for (size_t i = 0; (inode = restart_nth(r, RECORD_INODE, i, NULL)); i++)
		if (inode->mounts == space)
			want(ret, places, inode->under);
	for (size_t i = 0; (file = restart_nth(r, RECORD_FILE, i, NULL)); i++)
		if (file->proc && file->proc->mounts == space)
			want(ret, places, file->proc->under);
	return 0;
}

int mounts_below_note(struct mounts_below *b, size_t i, int on, struct error *e)
{
	if (!b || i >= b->n || !b->wanted[i])
		return 0;
	b->fds[i] = fcntl(on, F_DUPFD_CLOEXEC, 3);
	return b->fds[i] < 0 ? error_errno(e, -errno, E_SYSTEM, "dup") : 0;
}

/* SCM_MAX_FD */
#define AT_ONCE 250

struct message {
	char byte;
	struct iovec iov;
	struct msghdr head;
	char control[CMSG_SPACE(AT_ONCE * sizeof(int))]
		__attribute__((aligned(_Alignof(struct cmsghdr))));
};

static struct cmsghdr *prepare(struct message *m)
{
	*m = (struct message){};
	m->iov = (struct iovec){&m->byte, 1};
	m->head = (struct msghdr){.msg_iov = &m->iov,
				  .msg_iovlen = 1,
				  .msg_control = m->control,
				  .msg_controllen = sizeof(m->control)};
	return CMSG_FIRSTHDR(&m->head);
}

int mounts_below_send(struct mounts_below *b, int socket, struct error *e)
{
	for (size_t i = 0; i < b->n;) {
		struct message m;
		struct cmsghdr *h = prepare(&m);
		int *fds = (int *)(void *)CMSG_DATA(h), n = 0;

		for (; i < b->n && n < AT_ONCE; i++)
			if (b->wanted[i] && b->fds[i] < 0)
				return error_set(e, -ENOENT, E_CONTAINER_MOUNT,
						 "what lies below a mount was not found");
			else if (b->wanted[i])
				fds[n++] = b->fds[i];
		if (!n)
			break;
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
		m.head.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
		if (sendmsg(socket, &m.head, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
			return error_errno(e, -errno, E_SYSTEM, "sendmsg");
	}
	for (size_t i = 0; i < b->n; i++)
		close_fd(&b->fds[i]);
	return 0;
}

int mounts_below_receive(struct mounts_below *b, int socket, struct error *e)
{
	struct message m;
	const int *fds = NULL;
	size_t n = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct cmsghdr *h;

		if (!b->wanted[i])
			continue;
		if (!n) {
			prepare(&m);
			if (recvmsg(socket, &m.head, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
				return error_errno(e, -errno, E_SYSTEM, "recvmsg");
			h = CMSG_FIRSTHDR(&m.head);
			if (!h || h->cmsg_type != SCM_RIGHTS || h->cmsg_len <= CMSG_LEN(0))
				return error_set(e, -EIO, E_SYSTEM, "no descriptor came");
			n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			fds = (const int *)(const void *)CMSG_DATA(h);
		}
		b->fds[i] = *fds++;
		n--;
	}
	return 0;
}

int mounts_below_add(struct mounts_below *b, struct restart *r, uint64_t space,
		     const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; i < b->n; i++) {
		struct restart_place *p = b->wanted[i] ? vec_push(&r->spaces.places) : NULL;

		if (p)
			*p = (struct restart_place){.space = space,
						    .by = msg->mounts[i]->id,
						    .fd = take_fd(&b->fds[i]),
						    .skip = strlen(msg->mounts[i]->point)};
		else if (b->wanted[i])
			return no_memory(e);
	}
	return 0;
}

void mounts_below_end(struct mounts_below *b)
{
	for (size_t i = 0; b->fds && i < b->n; i++)
		close_fd(&b->fds[i]);
	free(b->wanted);
	free(b->fds);
	*b = (struct mounts_below){};
}
