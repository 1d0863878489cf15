/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V message queues. Messages are copied without being taken (MSG_COPY, which needs
 * CONFIG_CHECKPOINT_RESTORE). Those who wait to send or to receive issue their call again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "ipc/sysv.h"

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

#define SIZE_MAX_MSG (1 << 24) /* of one message: far more than msgmax ever is */
#define BATCH_MAX    32768

struct buffer {
	long type;
	char text[];
};

/* ---- checkpoint ---- */

static int copy_message(int id, long n, struct buffer *buf, size_t room, Reprise__Msg **ret,
			struct scratch *s, struct error *e)
{
	ssize_t len = msgrcv(id, buf, room, n, MSG_COPY | IPC_NOWAIT);
	Reprise__Msg *m = scratch_message(s, Reprise__Msg, reprise__msg__init);

	if (len < 0)
		return error_errno(e, -errno, errno == EACCES ? E_PERMISSION : E_IPC_STATE,
				   "message %ld cannot be copied", n);
	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message");
	m->type = buf->type;
	m->data.len = (size_t)len;
	m->data.data = scratch_copy(s, buf->text, (size_t)len);
	if (!m->data.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message");
	*ret = m;
	return 0;
}

static int copy_messages(int id, const struct msqid_ds *ds, Reprise__Msg ***ret, size_t *ret_n,
			 struct scratch *s, struct error *e)
{
	size_t room = ds->__msg_cbytes;
	_cleanup_(free_ptr) struct buffer *buf = malloc(sizeof(*buf) + room + 1);
	int r = 0;

	*ret = scratch_alloc(s, (ds->msg_qnum + 1) * sizeof(**ret));
	if (!buf || !*ret)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for its messages");
	for (*ret_n = 0; *ret_n < ds->msg_qnum && r >= 0; ++*ret_n)
		r = copy_message(id, (long)*ret_n, buf, room, &(*ret)[*ret_n], s, e);
	return r;
}

static int save_queue(struct checkpoint *c, struct sysv_object *o, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__MsgQueue msg = REPRISE__MSG_QUEUE__INIT;
	enum ipc_relation relation;
	struct msqid_ds ds;
	int r;

	for (int i = 0; i < 2; i++)
		sysv_used_by(c, o, o->users[i], o->times[i]);
	relation = sysv_relation(c, o);
	if (relation == IPC_NOT_OURS)
		return 0;
	if (msgctl(o->id, IPC_STAT, &ds) < 0)
		return errno == EINVAL || errno == EIDRM ? 0 : /* removed meanwhile */
			       error_errno(e, -errno, errno == EACCES ? E_PERMISSION : E_IPC_STATE,
					   "cannot be read");
	msg.qbytes = ds.msg_qbytes;
	msg.stime = ds.msg_stime;
	msg.rtime = ds.msg_rtime;
	msg.lspid = ds.msg_lspid;
	msg.lrpid = ds.msg_lrpid;
	r = sysv_save_perm(c, o, relation, &s, &msg.perm, e);
	if (r >= 0 && relation != IPC_OUTSIDE_TOO && !c->checking)
		r = copy_messages(o->id, &ds, &msg.messages, &msg.n_messages, &s, e);
	return r < 0 ? r
		     : checkpoint_put(c, RECORD_MSG_QUEUE, objects_fresh(c->objects), &msg.base, e);
}

int msg_checkpoint(struct checkpoint *c, uint64_t space, struct error *e)
{
	vec_for_each (o, &c->ipc->objects[SYSV_MSG]) {
		int r = o->space == space ? save_queue(c, o, e) : 0;

		if (r < 0)
			sysv_error(e, r, SYSV_MSG, o->id, o->key);
		r = checkpoint_refuse(c, r, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- restart ---- */

static bool is_first(const struct restart *r, const Reprise__MsgQueue *m)
{
	const Reprise__MsgQueue *other;

	for (size_t i = 0; (other = restart_nth(r, RECORD_MSG_QUEUE, i, NULL)) != m; i++)
		if (other->perm->id == m->perm->id &&
		    other->perm->namespace_ == m->perm->namespace_)
			return false;
	return true;
}

int msg_validate(const struct restart *r, struct error *e)
{
	const Reprise__MsgQueue *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_MSG_QUEUE, i, NULL)); i++) {
		int res = sysv_validate_perm(r, m->perm, e);

		if (res < 0)
			return res;
		if (!is_first(r, m))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "two message queues have the id %d", m->perm->id);
		for (size_t k = 0; k < m->n_messages; k++)
			if (m->messages[k]->type < 1 || m->messages[k]->data.len > SIZE_MAX_MSG)
				return error_set(e, -EBADMSG, E_IMAGE_INVALID,
						 "an impossible message in queue %d", m->perm->id);
	}
	return 0;
}

/* More than fits into a batch, or nobody is there to do it. */
static int send_ourselves(int id, const Reprise__Msg *m, struct error *e)
{
	_cleanup_(free_ptr) struct buffer *buf = malloc(sizeof(*buf) + m->data.len);

	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message");
	buf->type = (long)m->type;
	memcpy(buf->text, m->data.data, m->data.len);
	return msgsnd(id, buf, m->data.len, IPC_NOWAIT) < 0 ? -errno : 0;
}

static int send_by(const struct restart_task *t, int id, const Reprise__Msg *m, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, NULL, (uint32_t)(sizeof(long) + m->data.len));
	int call = batch_call(&b, SYS_msgsnd, VAL(id), DATA(at), VAL(m->data.len), VAL(IPC_NOWAIT));
	int r;

	if (!b.failed) {
		struct buffer *buf = batch_at(&b, at);

		buf->type = (long)m->type;
		if (m->data.len)
			memcpy(buf->text, m->data.data, m->data.len);
	}
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	return r < 0 ? r : (int)batch_result(&b, call);
}

static int send(const struct restart_task *t, int id, const Reprise__Msg *m, struct error *e)
{
	int r = !t || m->data.len > BATCH_MAX ? send_ourselves(id, m, e) : send_by(t, id, m, e);

	return r < 0 ? error_errno(e, r, E_RESTORE, "a message of %zu bytes cannot be sent to it",
				   m->data.len)
		     : 0;
}

static int receive_by(const struct restart_task *t, int id, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, NULL, sizeof(struct buffer));
	int call = batch_call(&b, SYS_msgrcv, VAL(id), DATA(at), VAL(0), VAL(0), VAL(IPC_NOWAIT));
	int r = agent_run(t->process->agent, t->tid, NULL, &b, e);

	return r < 0 ? r : (int)batch_result(&b, call);
}

static int receive(const struct restart_task *t, int id, struct error *e)
{
	struct buffer empty;
	int r = 0;

	if (t)
		r = receive_by(t, id, e);
	else if (msgrcv(id, &empty, 0, 0, IPC_NOWAIT) < 0)
		r = -errno;
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot be received from") : 0;
}

static struct restart_task *user(struct restart *r, const Reprise__MsgQueue *m, pid_t vpid)
{
	return sysv_actor(r, m->perm->namespace_, vpid) ?: sysv_stand_in(r, m->perm->namespace_);
}

/*
 * The queue remembers who sent to it last and who received: an empty message does it. Times that
 * are 0 stay so: nothing is received where nothing was.
 */
static int leave_traces(struct restart *r, const Reprise__MsgQueue *m, struct error *e)
{
	const Reprise__Msg empty = {.base = PROTOBUF_C_MESSAGE_INIT(&reprise__msg__descriptor),
				    .type = 1};
	int res;

	if (!m->rtime)
		return 0;
	res = send(user(r, m, m->lspid), m->perm->id, &empty, e);
	return res < 0 ? res : receive(user(r, m, m->lrpid), m->perm->id, e);
}

static int fill(struct restart *r, const Reprise__MsgQueue *m, struct error *e)
{
	int res = leave_traces(r, m, e);

	for (size_t i = 0; i < m->n_messages && res >= 0; i++)
		res = send(user(r, m, m->lspid), m->perm->id, m->messages[i], e);
	return res;
}

static int set(const Reprise__MsgQueue *m, uint64_t qbytes, struct error *e)
{
	struct msqid_ds ds;

	if (msgctl(m->perm->id, IPC_STAT, &ds) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be looked at");
	ds.msg_perm.uid = m->perm->uid;
	ds.msg_perm.gid = m->perm->gid;
	ds.msg_perm.mode = m->perm->mode & 0777;
	ds.msg_qbytes = qbytes;
	if (msgctl(m->perm->id, IPC_SET, &ds) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "its owner, or its size of %llu bytes, cannot be set",
				   (unsigned long long)qbytes);
	return 0;
}

/* What is in it may be more than what it was allowed to hold later. */
static int make(struct restart *r, const Reprise__MsgQueue *m, struct error *e)
{
	uint64_t bytes = m->n_messages;
	int res = sysv_create(r, SYSV_MSG, m->perm, 0, e);

	for (size_t i = 0; i < m->n_messages; i++)
		bytes += m->messages[i]->data.len;
	if (bytes < m->qbytes)
		bytes = m->qbytes;
	if (res >= 0)
		res = set(m, bytes, e);
	if (res >= 0)
		res = fill(r, m, e);
	if (res >= 0 && bytes != m->qbytes)
		res = set(m, m->qbytes, e);
	return res;
}

static bool same_messages(const Reprise__MsgQueue *m, const struct msqid_ds *ds)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct error unused = {};
	Reprise__Msg **now;
	size_t n;

	if (ds->msg_qnum != m->n_messages ||
	    copy_messages(m->perm->id, ds, &now, &n, &s, &unused) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (now[i]->type != m->messages[i]->type ||
		    now[i]->data.len != m->messages[i]->data.len ||
		    (now[i]->data.len &&
		     memcmp(now[i]->data.data, m->messages[i]->data.data, now[i]->data.len)))
			return false;
	return true;
}

static int use(struct restart *r, const Reprise__MsgQueue *m, const struct msqid_ds *ds,
	       struct error *e)
{
	bool same = sysv_same_perm(m->perm, &ds->msg_perm) && ds->msg_qbytes == m->qbytes &&
		    (m->perm->relation == IPC_OUTSIDE_TOO || same_messages(m, ds));
	int res = sysv_changed(r, SYSV_MSG, m->perm, same, ds->msg_ctime, e);

	return res < 0 ? res : 0;
}

static int restart_queue(struct restart *r, void *arg, struct error *e)
{
	const Reprise__MsgQueue *m = arg;
	struct msqid_ds ds;
	int there = msgctl(m->perm->id, IPC_STAT, &ds) < 0 ? -errno : 0;
	int res = sysv_is_there(r, SYSV_MSG, m->perm, there, &ds.msg_perm,
				m->perm->key ? msgget(m->perm->key, 0) : -1, e);

	if (res == SYSV_ABSENT)
		return make(r, m, e);
	return res == SYSV_PRESENT ? use(r, m, &ds, e) : res < 0 ? res : 0;
}

int msg_restart(struct restart *r, struct error *e)
{
	const Reprise__MsgQueue *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_MSG_QUEUE, i, NULL)); i++) {
		int res = ipc_restart_visit(r, m->perm->namespace_, restart_queue, (void *)m, e);

		if (res < 0)
			return sysv_error(e, res, SYSV_MSG, m->perm->id, m->perm->key);
	}
	return 0;
}
