/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/cgroup_programs.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_alone.h"

#define PROGRAMS_MAX 64 /* BPF_CGROUP_MAX_PROGS */

static const struct place {
	uint32_t type; /* enum bpf_attach_type */
	const char *name;
} places[] = {
	{BPF_CGROUP_DEVICE, "which devices may be opened"},
	{BPF_CGROUP_INET_INGRESS, "packets that arrive"},
	{BPF_CGROUP_INET_EGRESS, "packets that are sent"},
	{BPF_CGROUP_INET_SOCK_CREATE, "new sockets"},
	{BPF_CGROUP_INET_SOCK_RELEASE, "sockets that are closed"},
	{BPF_CGROUP_SOCK_OPS, "what happens to TCP sockets"},
	{BPF_CGROUP_INET4_BIND, "bind()"},
	{BPF_CGROUP_INET6_BIND, "bind()"},
	{BPF_CGROUP_INET4_POST_BIND, "bind()"},
	{BPF_CGROUP_INET6_POST_BIND, "bind()"},
	{BPF_CGROUP_INET4_CONNECT, "connect()"},
	{BPF_CGROUP_INET6_CONNECT, "connect()"},
	{BPF_AT_UNIX_CONNECT, "connect()"},
	{BPF_CGROUP_UDP4_SENDMSG, "sendmsg()"},
	{BPF_CGROUP_UDP6_SENDMSG, "sendmsg()"},
	{BPF_AT_UNIX_SENDMSG, "sendmsg()"},
	{BPF_CGROUP_UDP4_RECVMSG, "recvmsg()"},
	{BPF_CGROUP_UDP6_RECVMSG, "recvmsg()"},
	{BPF_AT_UNIX_RECVMSG, "recvmsg()"},
	{BPF_CGROUP_INET4_GETPEERNAME, "getpeername()"},
	{BPF_CGROUP_INET6_GETPEERNAME, "getpeername()"},
	{BPF_AT_UNIX_GETPEERNAME, "getpeername()"},
	{BPF_CGROUP_INET4_GETSOCKNAME, "getsockname()"},
	{BPF_CGROUP_INET6_GETSOCKNAME, "getsockname()"},
	{BPF_AT_UNIX_GETSOCKNAME, "getsockname()"},
	{BPF_CGROUP_GETSOCKOPT, "getsockopt()"},
	{BPF_CGROUP_SETSOCKOPT, "setsockopt()"},
	{BPF_CGROUP_SYSCTL, "files of /proc/sys"},
	{BPF_LSM_CGROUP, "hooks of the security modules"},
};

/* ---- checkpoint ---- */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF program");
}

static int open_by_number(int command, uint32_t id)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_id = id;
	return kernel_bpf(command, &attr);
}

/* What is attached by a link goes with that: the descriptors of it are somebody else's. Who may not
 * ask has not been told of the program either. */
static bool has_link(uint32_t program)
{
	uint32_t id = 0;

	for (;;) {
		_cleanup_(close_fd) int fd = -EBADF;
		struct bpf_link_info info = {};
		union bpf_attr attr;

		memset(&attr, 0, sizeof(attr));
		attr.start_id = id;
		if (kernel_bpf(BPF_LINK_GET_NEXT_ID, &attr) < 0)
			return false;
		id = attr.next_id;
		fd = open_by_number(BPF_LINK_GET_FD_BY_ID, id);
		memset(&attr, 0, sizeof(attr));
		attr.info.bpf_fd = (uint32_t)fd;
		attr.info.info = kernel_bpf_pointer(&info);
		attr.info.info_len = sizeof(info);
		if (fd >= 0 && kernel_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) >= 0 &&
		    info.type == BPF_LINK_TYPE_CGROUP && info.prog_id == program)
			return true;
	}
}

static int save(struct cgroup_programs *p, uint32_t id, Reprise__CgroupProgram *m,
		struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) struct bpf_insn *insns = NULL;
	_cleanup_(close_fd) int fd = open_by_number(BPF_PROG_GET_FD_BY_ID, id);
	struct bpf_source what = {};
	size_t n = 0;
	int r = fd;

	if (r >= 0 && !p->kernel)
		r = kernel_memory_open(p->proc_fd, &p->kernel, e);
	if (r >= 0)
		r = has_link(id) ? -EOPNOTSUPP
				 : bpf_alone_read(p->kernel, p->proc_fd, fd, &what, &insns, &n);
	if (r < 0)
		return r;
	m->type = what.type;
	m->expected = what.attach;
	m->load_flags = what.flags;
	m->gpl = what.gpl;
	m->name = scratch_string(s, what.name);
	m->instructions.len = n * sizeof(*insns);
	m->instructions.data = scratch_copy(s, insns, m->instructions.len);
	return m->name && m->instructions.data ? 0 : -ENOMEM;
}

/* One that was seen before is the same: a group that is looked at again. */
static const Reprise__CgroupProgram *get(struct cgroup_programs *p, uint32_t id, struct scratch *s,
					 struct error *e)
{
	struct cgroup_program_seen *slot;
	Reprise__CgroupProgram *m;

	vec_for_each (x, &p->seen)
		if (x->id == id)
			return x->msg;
	m = scratch_message(s, Reprise__CgroupProgram, reprise__cgroup_program__init);
	slot = m && save(p, id, m, s, e) >= 0 ? vec_push(&p->seen) : NULL;
	if (!slot)
		return NULL;
	*slot = (struct cgroup_program_seen){id, m};
	return m;
}

static int refuse(const struct place *place, const char *path, struct error *e)
{
	error_clear(e);
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_PROGRAM,
			 "a BPF program is attached to control group %s (it decides about %s, "
			 "attach type %u), and would not come back",
			 path, place->name, place->type);
}

static int add(Reprise__Cgroup *msg, const struct place *place, uint32_t flags,
	       const Reprise__CgroupProgram *m, struct scratch *s, struct error *e)
{
	Reprise__CgroupProgram *copy =
		scratch_message(s, Reprise__CgroupProgram, reprise__cgroup_program__init);

	if (!msg->programs)
		msg->programs = scratch_alloc(s, sizeof(places) / sizeof(places[0]) * PROGRAMS_MAX *
							 sizeof(*msg->programs));
	if (!copy || !msg->programs)
		return no_memory(e);
	*copy = *m;
	copy->place = place->type;
	copy->flags = flags;
	msg->programs[msg->n_programs++] = copy;
	return 0;
}

/* An error of any kind, above all EINVAL of a kernel that has no such place, or EPERM: nothing is
 * known. */
static int read_place(struct cgroup_programs *p, int dir, const struct place *place,
		      const char *path, Reprise__Cgroup *msg, struct scratch *s, struct error *e)
{
	uint32_t ids[PROGRAMS_MAX] = {};
	union bpf_attr attr;
	int r = 0;

	memset(&attr, 0, sizeof(attr));
	attr.query.target_fd = (uint32_t)dir;
	attr.query.attach_type = place->type;
	/* That of hooks of security modules says how many there are, and no more. */
	if (kernel_bpf(BPF_PROG_QUERY, &attr) < 0 || !attr.query.prog_cnt)
		return 0;
	attr.query.prog_ids = kernel_bpf_pointer(ids);
	attr.query.prog_cnt = PROGRAMS_MAX;
	if (kernel_bpf(BPF_PROG_QUERY, &attr) < 0 || attr.query.prog_cnt > PROGRAMS_MAX)
		return p->optional ? 0 : refuse(place, path, e);
	for (uint32_t i = 0; i < attr.query.prog_cnt && r >= 0; i++) {
		const Reprise__CgroupProgram *m = get(p, ids[i], s, e);

		if (m)
			r = add(msg, place, attr.query.attach_flags, m, s, e);
		else if (p->optional)
			error_clear(e);
		else
			r = refuse(place, path, e);
	}
	return r;
}

int cgroup_programs_read(struct cgroup_programs *p, int dir, const char *path, Reprise__Cgroup *msg,
			 struct scratch *s, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]) && r >= 0; i++)
		r = read_place(p, dir, &places[i], path, msg, s, e);
	return r;
}

void cgroup_programs_end(struct cgroup_programs *p)
{
	kernel_memory_free(p->kernel);
	p->kernel = NULL;
}

void cgroup_programs_free(struct cgroup_programs *p)
{
	cgroup_programs_end(p);
	vec_free(&p->seen);
}

/* ---- restart ---- */

static bool is_place(uint32_t type)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (places[i].type == type)
			return type != BPF_LSM_CGROUP;
	return false;
}

static bool is_kind(uint32_t type)
{
	switch (type) {
	case BPF_PROG_TYPE_CGROUP_DEVICE:
	case BPF_PROG_TYPE_CGROUP_SKB:
	case BPF_PROG_TYPE_CGROUP_SOCK:
	case BPF_PROG_TYPE_CGROUP_SOCK_ADDR:
	case BPF_PROG_TYPE_CGROUP_SOCKOPT:
	case BPF_PROG_TYPE_CGROUP_SYSCTL:
	case BPF_PROG_TYPE_SOCK_OPS:
		return true;
	default:
		return false;
	}
}

/* A number in an instruction may be that of a descriptor of ours. */
static bool is_alone(const Reprise__CgroupProgram *m)
{
	struct bpf_insn x;

	for (size_t at = 0; at < m->instructions.len; at += sizeof(x)) {
		memcpy(&x, m->instructions.data + at, sizeof(x));
		if (x.code == (BPF_JMP | BPF_CALL) && x.src_reg == BPF_PSEUDO_KFUNC_CALL)
			return false;
		if (x.code != (BPF_LD | BPF_IMM | BPF_DW))
			continue;
		if (x.src_reg && x.src_reg != BPF_PSEUDO_FUNC)
			return false;
		at += sizeof(x);
	}
	return true;
}

bool cgroup_programs_valid(const Reprise__Cgroup *msg)
{
	for (size_t i = 0; i < msg->n_programs; i++) {
		const Reprise__CgroupProgram *m = msg->programs[i];
		const size_t size = m->instructions.len;

		if (!is_place(m->place) || !is_kind(m->type) || m->load_flags ||
		    (m->flags & ~(BPF_F_ALLOW_OVERRIDE | BPF_F_ALLOW_MULTI)) || !size ||
		    size % sizeof(struct bpf_insn) ||
		    size > BPF_INSNS_MAX * sizeof(struct bpf_insn) || !is_alone(m))
			return false;
	}
	return true;
}

static int attach(int dir, const Reprise__CgroupProgram *m)
{
	struct bpf_source what = {.type = m->type, .attach = m->expected, .gpl = m->gpl};
	_cleanup_(free_ptr) struct bpf_insn *insns = malloc(m->instructions.len);
	_cleanup_(close_fd) int fd = -EBADF;
	union bpf_attr attr;

	if (!insns)
		return -ENOMEM;
	memcpy(insns, m->instructions.data, m->instructions.len);
	strncpy(what.name, m->name, sizeof(what.name) - 1);
	fd = bpf_program_load(&what, insns, m->instructions.len / sizeof(*insns), NULL);
	if (fd < 0)
		return fd;
	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (uint32_t)dir;
	attr.attach_bpf_fd = (uint32_t)fd;
	attr.attach_type = m->place;
	attr.attach_flags = m->flags;
	return kernel_bpf(BPF_PROG_ATTACH, &attr);
}

int cgroup_programs_attach(int dir, const Reprise__Cgroup *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_programs; i++) {
		int r = attach(dir, msg->programs[i]);

		if (r < 0)
			return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_CONTAINER_CGROUP,
					   "cannot attach a BPF program of type %u to it",
					   msg->programs[i]->type);
	}
	return 0;
}
