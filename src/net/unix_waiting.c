/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only the memory of the kernel tells: what clients have sent before they are accepted. It is
 * in the queue of a socket that nobody has a descriptor of (unix_stream_connect()): it hangs on a
 * message in the queue of the listener. So it is read from the memory of the kernel, while all
 * tasks stand still.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/kernel_memory.h"
#include "fs/context.h"
#include "net/kernel_sock.h"
#include "net/unix.h"

#define WAITING_MAX 65536      /* clients */
#define PIECES_MAX  4096       /* of one client */
#define BYTES_MAX   (1u << 20) /* of one piece */

/* Where all is, on this kernel. */
struct places {
	int files, fdt, fds, file_data, socket_file, socket_sk;
	int queue, head_next, head_qlen, peer_cred, peer_pid, euid, egid, oob;
	int addr, name_len, name;
	int next, sk, len, data_len, data, cb, pid, uid, gid, fp, consumed;
	int thread_pid, level, numbers, upid_ns, upid_size;
};

struct unix_kernel {
	struct kernel_memory *k;
	struct places at;
	uint64_t pidns;
	struct scratch *s;
};

static int find_places(struct kernel_memory *k, struct places *p)
{
	const struct kernel_place list[] = {
		{&p->files, "task_struct", "files"},
		{&p->fdt, "files_struct", "fdt"},
		{&p->fds, "fdtable", "fd"},
		{&p->file_data, "file", "private_data"},
		{&p->socket_file, "socket", "file"},
		{&p->socket_sk, "socket", "sk"},
		{&p->queue, "sock", "sk_receive_queue"},
		{&p->head_next, "sk_buff_head", "next"},
		{&p->head_qlen, "sk_buff_head", "qlen"},
		{&p->peer_cred, "sock", "sk_peer_cred"},
		{&p->peer_pid, "sock", "sk_peer_pid"},
		{&p->euid, "cred", "euid"},
		{&p->egid, "cred", "egid"},
		{&p->oob, "unix_sock", "oob_skb"},
		{&p->addr, "unix_sock", "addr"},
		{&p->name_len, "unix_address", "len"},
		{&p->name, "unix_address", "name"},
		{&p->next, "sk_buff", "next"},
		{&p->sk, "sk_buff", "sk"},
		{&p->len, "sk_buff", "len"},
		{&p->data_len, "sk_buff", "data_len"},
		{&p->data, "sk_buff", "data"},
		{&p->cb, "sk_buff", "cb"},
		{&p->pid, "unix_skb_parms", "pid"},
		{&p->uid, "unix_skb_parms", "uid"},
		{&p->gid, "unix_skb_parms", "gid"},
		{&p->fp, "unix_skb_parms", "fp"},
		{&p->consumed, "unix_skb_parms", "consumed"},
		{&p->thread_pid, "task_struct", "thread_pid"},
		{&p->level, "pid", "level"},
		{&p->numbers, "pid", "numbers"},
		{&p->upid_ns, "upid", "ns"},
	};

	int r = kernel_places(k, list, sizeof(list) / sizeof(list[0]));

	p->upid_size = kernel_size(k, "upid");
	return r < 0 ? r : p->upid_size;
}

static uint64_t follow(const struct unix_kernel *rd, uint64_t from, int offset)
{
	return from ? kernel_pointer(rd->k, from + (uint64_t)offset) : 0;
}

static uint32_t number(const struct unix_kernel *rd, uint64_t from, int offset)
{
	uint32_t value = 0;

	if (!from || kernel_read(rd->k, from + (uint64_t)offset, &value, sizeof(value)) < 0)
		return 0;
	return value;
}

static uint64_t find_sock(const struct unix_kernel *rd, pid_t tid, int fd)
{
	uint64_t task, table, file, socket;

	if (kernel_task(rd->k, tid, &task) < 0)
		return 0;
	table = follow(rd, follow(rd, follow(rd, task, rd->at.files), rd->at.fdt), rd->at.fds);
	file = follow(rd, table, fd * (int)sizeof(uint64_t));
	socket = follow(rd, file, rd->at.file_data);
	if (follow(rd, socket, rd->at.socket_file) != file)
		return 0;
	return follow(rd, socket, rd->at.socket_sk);
}

/* The namespace of pids in which we are. */
static uint64_t own_pidns(const struct unix_kernel *rd)
{
	uint64_t task, pid;

	if (kernel_task(rd->k, getpid(), &task) < 0)
		return 0;
	pid = follow(rd, task, rd->at.thread_pid);
	return follow(rd, pid,
		      rd->at.numbers + (int)number(rd, pid, rd->at.level) * rd->at.upid_size +
			      rd->at.upid_ns);
}

static pid_t number_of_pid(const struct unix_kernel *rd, uint64_t pid)
{
	uint32_t levels = number(rd, pid, rd->at.level);

	for (uint32_t i = 0; pid && i <= levels && i < 32; i++) {
		int at = rd->at.numbers + (int)i * rd->at.upid_size;

		if (follow(rd, pid, at + rd->at.upid_ns) == rd->pidns)
			return (pid_t)number(rd, pid, at);
	}
	return 0;
}

static void read_sender(const struct unix_kernel *rd, uint64_t skb, Reprise__SocketData *d)
{
	uint64_t pid = follow(rd, skb, rd->at.cb + rd->at.pid);

	d->credentials = pid;
	d->pid = number_of_pid(rd, pid);
	d->uid = number(rd, skb, rd->at.cb + rd->at.uid);
	d->gid = number(rd, skb, rd->at.cb + rd->at.gid);
}

/* What is read of a message lies in one piece, as long as it is no longer than about a page
 * (unix_stream_sendmsg()). */
static int read_message(const struct unix_kernel *rd, uint64_t skb, Reprise__SocketData **ret,
			struct error *e)
{
	Reprise__SocketData *d =
		scratch_message(rd->s, Reprise__SocketData, reprise__socket_data__init);
	uint32_t len = number(rd, skb, rd->at.len), paged = number(rd, skb, rd->at.data_len);
	uint32_t consumed = number(rd, skb, rd->at.cb + rd->at.consumed);
	uint64_t data = follow(rd, skb, rd->at.data);

	if (follow(rd, skb, rd->at.cb + rd->at.fp))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a client waits there to be accepted and has sent descriptors "
				 "already; try again");
	if (paged || len > BYTES_MAX || consumed)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a client waits there to be accepted and has sent %u bytes "
				 "already, more than can be seen; try again",
				 len);
	if (d)
		d->data.data = scratch_alloc(rd->s, len + 1);
	if (!d || !d->data.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	if (len && kernel_read(rd->k, data, d->data.data, len) < 0)
		return error_set(e, -EFAULT, E_FILE_STATE, "what a client has sent cannot be read");
	d->data.len = len;
	read_sender(rd, skb, d);
	*ret = d;
	return 0;
}

/* The messages in the queue of a struct sock; at most `most`. Returns how many. */
static int walk(const struct unix_kernel *rd, uint64_t sock, uint64_t *ret, uint32_t most)
{
	uint64_t head = sock + (uint64_t)rd->at.queue, skb = follow(rd, head, rd->at.head_next);
	uint32_t n = number(rd, head, rd->at.head_qlen), i = 0;

	for (; skb && skb != head && i < n && i < most; i++) {
		ret[i] = skb;
		skb = follow(rd, skb, rd->at.next);
	}
	return skb == head && i == n ? (int)n : -EIO;
}

static int read_client(const struct unix_kernel *rd, uint64_t sock, Reprise__UnixWaiting **ret,
		       struct error *e)
{
	Reprise__UnixWaiting *w =
		scratch_message(rd->s, Reprise__UnixWaiting, reprise__unix_waiting__init);
	uint64_t *skbs = scratch_alloc(rd->s, PIECES_MAX * sizeof(*skbs));
	uint64_t cred = follow(rd, sock, rd->at.peer_cred);
	int n, r = 0;

	if (!w || !skbs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a backlog");
	n = sock ? walk(rd, sock, skbs, PIECES_MAX) : -EIO;
	if (n < 0 || !cred)
		return error_set(e, -EIO, E_FILE_STATE, "what a client has sent cannot be read");
	if (follow(rd, sock, rd->at.oob))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a client waits there to be accepted and has sent a byte out of "
				 "band; try again");
	w->pid = number_of_pid(rd, follow(rd, sock, rd->at.peer_pid));
	w->uid = number(rd, cred, rd->at.euid);
	w->gid = number(rd, cred, rd->at.egid);
	w->queue = scratch_alloc(rd->s, ((size_t)n + 1) * sizeof(*w->queue));
	if (!w->queue)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a backlog");
	for (int i = 0; i < n && r >= 0; i++, w->n_queue++)
		r = read_message(rd, skbs[i], &w->queue[i], e);
	*ret = w;
	return r;
}

static int read_all(const struct unix_kernel *rd, const struct file_entry *listener,
		    uint32_t clients, Reprise__UnixSocket *m, struct error *e)
{
	uint64_t sock = find_sock(rd, listener->tid, listener->fd);
	uint64_t *skbs = scratch_alloc(rd->s, (clients + 1) * sizeof(*skbs));
	int r = 0;

	m->waiting = scratch_alloc(rd->s, (clients + 1) * sizeof(*m->waiting));
	if (!m->waiting || !skbs)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a backlog");
	if (!sock || walk(rd, sock, skbs, clients) != (int)clients)
		return error_set(e, -EIO, E_FILE_STATE, "the clients that wait cannot be found");
	for (uint32_t i = 0; i < clients && r >= 0; i++, m->n_waiting++)
		r = read_client(rd, follow(rd, skbs[i], rd->at.sk), &m->waiting[i], e);
	return r;
}

/* Opened when it is needed first; NULL if it may not be read, or is not understood. */
static struct unix_kernel *get_kernel(struct checkpoint *c)
{
	struct unix_checkpoint *u = c->files->unix_sockets;
	struct error unused = {};
	struct unix_kernel *x;

	if (u->kernel)
		return u->kernel->k ? u->kernel : NULL;
	x = u->kernel = calloc(1, sizeof(*x));
	if (!x || checkpoint_kernel_memory(c, &x->k, &unused) < 0)
		return NULL;
	if (find_places(x->k, &x->at) >= 0) {
		x->pidns = own_pidns(x);
		return x;
	}
	x->k = NULL;
	return NULL;
}

void unix_kernel_free(struct unix_kernel *x)
{
	free(x);
}

/* ---- messages without bytes ---- */

int64_t unix_kernel_count(struct checkpoint *c, int fd)
{
	struct unix_kernel *x = get_kernel(c);
	uint32_t n;

	return x && kernel_of_sock(x->k, fd, x->at.queue + x->at.head_qlen, &n, sizeof(n)) >= 0
		       ? (int64_t)n
		       : -1;
}

/* Its sender has the name as long as it lives: the message refers to it (unix_copy_addr()). */
static int read_empty(const struct unix_kernel *rd, uint64_t skb, Reprise__SocketData **ret)
{
	const uint32_t family = offsetof(struct sockaddr_un, sun_path);
	uint64_t addr = follow(rd, follow(rd, skb, rd->at.sk), rd->at.addr);
	uint32_t len = number(rd, addr, rd->at.name_len);
	Reprise__SocketData *d =
		scratch_message(rd->s, Reprise__SocketData, reprise__socket_data__init);

	if (!d)
		return -ENOMEM;
	if (follow(rd, skb, rd->at.cb + rd->at.fp) || len > sizeof(struct sockaddr_un))
		return -EOPNOTSUPP;
	if (len > family) {
		d->sender.len = len - family;
		d->sender.data = scratch_alloc(rd->s, d->sender.len);
		if (!d->sender.data)
			return -ENOMEM;
		if (kernel_read(rd->k, addr + (uint64_t)rd->at.name + family, d->sender.data,
				d->sender.len) < 0)
			return -EFAULT;
	}
	read_sender(rd, skb, d);
	*ret = d;
	return 0;
}

/* How many of those that come next have no bytes. */
static uint32_t count_empty(const struct unix_kernel *rd, const uint64_t *skbs, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && !number(rd, skbs[i], rd->at.len))
		i++;
	return i;
}

/* Between two messages with bytes: those that were seen, if they are all, or what the kernel has.
 */
static int merge(const struct unix_kernel *rd, const uint64_t *skbs, uint32_t n,
		 Reprise__SocketData *const *seen, size_t nseen, Reprise__SocketData **ret)
{
	uint32_t i = 0;
	size_t at = 0;
	int r = 0;

	while (i < n && r >= 0) {
		uint32_t empty = count_empty(rd, skbs + i, n - i);
		size_t known = 0;

		while (at + known < nseen && !seen[at + known]->data.len)
			known++;
		if (known > empty)
			return -EIO;
		for (uint32_t k = 0; k < empty && r >= 0; k++, i++)
			if (known == empty)
				ret[i] = seen[at + k];
			else
				r = read_empty(rd, skbs[i], &ret[i]);
		at += known;
		if (i < n && r >= 0) {
			if (at == nseen || seen[at]->data.len != number(rd, skbs[i], rd->at.len))
				return -EIO;
			ret[i++] = seen[at++];
		}
	}
	return r < 0 ? r : at == nseen ? 0 : -EIO;
}

int unix_kernel_fill(struct checkpoint *c, int fd, Reprise__SocketData *const *seen, size_t nseen,
		     size_t n, Reprise__SocketData **ret, struct scratch *s)
{
	struct unix_kernel *x = get_kernel(c);
	uint64_t sock, *skbs = scratch_alloc(s, (n + 1) * sizeof(*skbs));
	int r;

	if (!x || !skbs || n > WAITING_MAX)
		return -ENOMEM;
	r = kernel_sock(x->k, fd, &sock);
	if (r >= 0 && walk(x, sock, skbs, (uint32_t)n) != (int)n)
		r = -EIO;
	x->s = s;
	return r < 0 ? r : merge(x, skbs, (uint32_t)n, seen, nseen, ret);
}

int unix_waiting_save(struct checkpoint *c, const struct file_entry *listener, uint32_t clients,
		      Reprise__UnixSocket *m, struct scratch *s, struct error *e)
{
	struct unix_kernel *x = get_kernel(c);

	if (!x)
		return error_set(
			e, -EBUSY, E_FILE_STATE,
			"a client waits there to be accepted and has sent data already, which "
			"only the memory of the kernel tells (root, and a kernel with BTF); try "
			"again");
	if (clients > WAITING_MAX)
		return error_set(e, -E2BIG, E_FILE_STATE, "too many clients wait there");
	if (c->checking) /* it changes as long as the tasks run */
		return 0;
	x->s = s;
	return read_all(x, listener, clients, m, e);
}
