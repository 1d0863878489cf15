/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that share a port, and the program that may choose among them (struct sock_reuseport).
 * It answers with the place of a socket in the order in which they were bound (datagrams), or began
 * to listen. A classic one is kept as it was given (bpf_prog.orig_prog); any other has a number, by
 * which it is opened and saved as one that somebody has open.
 */
#include "net/reuseport.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/socket.h>

#include "fs/bpf_attached.h"
#include "net/kernel_sock.h"

#define MEMBERS_MAX 65535

struct group {
	struct kernel_memory *k;
	uint64_t at, sk;
	uint16_t n;
};

/* 1 if it is of a group that has a program, else 0. */
static int find_group(struct group *g, int fd, uint64_t *ret_program)
{
	int r = kernel_sock(g->k, fd, &g->sk);

	if (r >= 0)
		r = kernel_member(g->k, g->sk, "sock", "sk_reuseport_cb", &g->at, sizeof(g->at));
	if (r < 0 || !g->at)
		return r;
	r = kernel_member(g->k, g->at, "sock_reuseport", "prog", ret_program, sizeof(*ret_program));
	if (r >= 0)
		r = kernel_member(g->k, g->at, "sock_reuseport", "num_socks", &g->n, sizeof(g->n));
	return r < 0 ? r : *ret_program != 0;
}

/* Counted from 1. */
static int find_place(const struct group *g, uint32_t *ret)
{
	int offset = kernel_offset(g->k, "sock_reuseport", "socks"), r = offset;
	uint64_t sk = 0;

	for (uint32_t i = 0; i < g->n && r >= 0; i++) {
		r = kernel_read(g->k, g->at + (uint64_t)offset + 8ull * i, &sk, sizeof(sk));
		if (r >= 0 && sk == g->sk) {
			*ret = i + 1;
			return 0;
		}
	}
	return r < 0 ? r : -ENOENT;
}

/* One that is no classic one is known by its number. */
static int note_program(struct checkpoint *c, const struct file_seen *f, const struct group *g,
			uint64_t program, Reprise__InetSocket *m, struct error *e)
{
	const int to_number[] = {kernel_offset(g->k, "bpf_prog", "aux"),
				 kernel_offset(g->k, "bpf_prog_aux", "id")};
	uint32_t number = 0;
	int r = kernel_chase(g->k, program, to_number, 2, &number, sizeof(number));

	return r < 0 ? r : bpf_attached_note_by(c, f, g->at, number, &m->reuseport_bpf, e);
}

/* -EOPNOTSUPP: it is no classic one. */
static int copy_program(const struct group *g, uint64_t program, ProtobufCBinaryData *ret,
			struct scratch *s)
{
	uint64_t original = 0, code = 0;
	uint16_t n = 0;
	int r = kernel_member(g->k, program, "bpf_prog", "orig_prog", &original, sizeof(original));

	if (r >= 0 && !original)
		return -EOPNOTSUPP;
	if (r >= 0)
		r = kernel_member(g->k, original, "sock_fprog_kern", "len", &n, sizeof(n));
	if (r >= 0)
		r = kernel_member(g->k, original, "sock_fprog_kern", "filter", &code, sizeof(code));
	if (r < 0)
		return r;
	if (!n || n > BPF_MAXINSNS)
		return -EIO;
	ret->len = n * sizeof(struct sock_filter);
	ret->data = scratch_alloc(s, ret->len);
	return ret->data ? kernel_read(g->k, code, ret->data, ret->len) : -ENOMEM;
}

int reuseport_save(struct checkpoint *c, const struct file_seen *f, Reprise__InetSocket *m,
		   struct scratch *s, struct error *e)
{
	struct group g = {};
	uint64_t program = 0;
	int shared = 0, r;
	socklen_t len = sizeof(shared);

	if (getsockopt(f->local, SOL_SOCKET, SO_REUSEPORT, &shared, &len) < 0 || !shared)
		return 0;
	/* Who may not look there cannot know. */
	if (kernel_sock_memory(c, &g.k) < 0)
		return 0;
	r = find_group(&g, f->local, &program);
	if (r == 0)
		return 0;
	if (r > 0)
		r = find_place(&g, &m->reuseport_place);
	if (r >= 0)
		r = copy_program(&g, program, &m->reuseport_program, s);
	if (r == -EOPNOTSUPP)
		r = note_program(c, f, &g, program, m, e);
	if (r < 0)
		return e->code ? r
			       : error_errno(e, r, E_FILE_STATE,
					     "the program that chooses among the sockets of its "
					     "port (SO_ATTACH_REUSEPORT_CBPF) cannot be read");
	m->reuseport_members = g.n;
	f->entry->private = g.at;
	return 0;
}

/*
 * They come back in the order in which they are saved: whoever stands at place n must be the n-th
 * of his group.
 */
static int check_order(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	const Reprise__InetSocket *m = f->msg->inet;
	uint32_t before = 0, all = 0;

	if (!m->reuseport_place)
		return 0;
	vec_for_each (entry, &c->files->files) {
		const struct file_entry *x = *entry;

		if (x->ops != f->ops || x->private != f->private)
			continue;
		all++;
		before += x->id < f->id;
	}
	if (all != m->reuseport_members)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			"a program chooses among the sockets of its port "
			"(SO_ATTACH_REUSEPORT_CBPF or _EBPF), some of which are outside the tree");
	if (before + 1 != m->reuseport_place)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"a program chooses among the sockets of its port "
			"(SO_ATTACH_REUSEPORT_CBPF or _EBPF), which have been bound in another order "
			"than they come back");
	return 0;
}

int reuseport_save_all(struct checkpoint *c, const struct file_ops *ops, struct error *e)
{
	return file_for_each(c, ops, check_order, e);
}

/* ---- restart ---- */

int reuseport_validate(const Reprise__InetSocket *m, struct error *e)
{
	const size_t len = m->reuseport_program.len;

	if (len % sizeof(struct sock_filter) || len > sizeof(struct sock_filter) * BPF_MAXINSNS ||
	    m->reuseport_place > MEMBERS_MAX)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a socket whose group has an improper program");
	return 0;
}

/* It belongs to the group, to which the others come. */
int reuseport_restore(struct restart *r, int fd, const Reprise__InetSocket *m, struct error *e)
{
	const ProtobufCBinaryData *code = &m->reuseport_program;
	const struct sock_fprog program = {
		.len = (unsigned short)(code->len / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)code->data};

	if (m->reuseport_place == 1 && m->reuseport_bpf)
		return bpf_attached_give(r, fd, SO_ATTACH_REUSEPORT_EBPF, m->reuseport_bpf, e);
	if (m->reuseport_place == 1 && program.len &&
	    setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot attach the program that chooses among the sockets of a "
				   "port");
	return 0;
}
