/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF programs, by their instructions, as far as these can be found again (bpf_reverse.c). What a
 * program is attached to is not restored: so one that anybody but the tree's descriptors refers to
 * is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_attached.h"
#include "fs/bpf_known.h"
#include "fs/bpf_resolve.h"
#include "fs/bpf_rewrite.h"
#include "fs/bpf_types.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"

/* Of prog_flags, what the kernel tells (linux/bpf.h). */
#define FLAG_SLEEPABLE (1u << 4)
#define FLAG_XDP_FRAGS (1u << 5)

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF program");
}

/* ---- checkpoint ---- */

static bool program_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:bpf-prog");
}

static int refuse_kind(const struct bpf_prog_info *info, struct error *e)
{
	if (info->attach_btf_id || info->attach_btf_obj_id)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "a BPF program that is tied to a function or structure of the "
				 "kernel (attach_btf_id) cannot be saved");
	if (info->ifindex)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "a BPF program of a network interface cannot be saved");
	if (info->nr_map_ids > BPF_MAPS_MAX ||
	    info->xlated_prog_len > BPF_INSNS_MAX * sizeof(struct bpf_insn))
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "a BPF program of this size cannot be saved");
	return 0;
}

/* struct bpf_prog of a descriptor of ours: a member of it, or of struct bpf_prog_aux. */
static int program_member(struct kernel_memory *k, int fd, const char *member, void *buf,
			  size_t size)
{
	int is = 0;
	const int offsets[] = {kernel_offset(k, "file", "private_data"),
			       kernel_offset_size(k, "bpf_prog", member, &is)};

	if (offsets[1] >= 0 && (size_t)is != size)
		return -EOPNOTSUPP;
	return kernel_of_file(k, fd, offsets, 2, buf, size);
}

static int aux_member(struct kernel_memory *k, int fd, const char *member, void *buf, size_t size)
{
	int is = 0;
	const int offsets[] = {kernel_offset(k, "file", "private_data"),
			       kernel_offset(k, "bpf_prog", "aux"),
			       kernel_offset_size(k, "bpf_prog_aux", member, &is)};

	if (offsets[2] >= 0 && (size_t)is != size)
		return -EOPNOTSUPP;
	return kernel_of_file(k, fd, offsets, 3, buf, size);
}

/* Flags are told by members of one byte; those that this kernel does not have cannot be set. */
static int read_flag(struct kernel_memory *k, int fd, const char *member, uint32_t flag,
		     uint32_t *ret)
{
	uint8_t is = 0;
	int r = aux_member(k, fd, member, &is, sizeof(is));

	if (is)
		*ret |= flag;
	return r == -ENOENT ? 0 : r;
}

/* A bit of struct bpf_prog; a flag of struct bpf_prog_aux before 6.10. */
static int read_sleepable(struct kernel_memory *k, int fd, uint32_t *ret)
{
	int bit = kernel_bit(k, "bpf_prog", "sleepable"), r;
	const int offsets[] = {kernel_offset(k, "file", "private_data"), bit / 8};
	uint8_t is = 0;

	if (bit < 0)
		return read_flag(k, fd, "sleepable", FLAG_SLEEPABLE, ret);
	r = kernel_of_file(k, fd, offsets, 2, &is, sizeof(is));
	if (is >> bit % 8 & 1)
		*ret |= FLAG_SLEEPABLE;
	return r;
}

int bpf_source_read(struct kernel_memory *k, int fd, const struct bpf_prog_info *info,
		    struct bpf_source *ret)
{
	int r;

	*ret = (struct bpf_source){.type = info->type, .gpl = info->gpl_compatible};
	memcpy(ret->name, info->name, sizeof(ret->name));
	r = program_member(k, fd, "expected_attach_type", &ret->attach, sizeof(ret->attach));
	if (r >= 0)
		r = read_sleepable(k, fd, &ret->flags);
	return r < 0 ? r : read_flag(k, fd, "xdp_has_frags", FLAG_XDP_FRAGS, &ret->flags);
}

static int save_debug(const struct bpf_known_program *p, uint32_t id, Reprise__BpfProgram *m,
		      struct scratch *s, struct error *e)
{
	if (!p->has_types)
		return 0;
	m->types = id; /* until the files are known */
	m->functions.len = p->debug.nfunctions * sizeof(*p->debug.functions);
	m->lines.len = p->debug.nlines * sizeof(*p->debug.lines);
	m->functions.data = scratch_copy(s, p->debug.functions, m->functions.len);
	m->lines.data = scratch_copy(s, p->debug.lines, m->lines.len);
	return m->functions.data && m->lines.data ? 0 : no_memory(e);
}

static int save(struct checkpoint *c, int fd, const struct bpf_prog_info *info,
		Reprise__BpfProgram *m, struct scratch *s, struct error *e)
{
	const struct bpf_known_program *p;
	struct kernel_memory *k;
	int r = files_kernel_memory(c, &k, e);

	if (r >= 0)
		r = bpf_known_get(&c->programs, k, c->proc_fd, fd, info, &p, e);
	if (r < 0)
		return r;
	m->type = p->what.type;
	m->attach = p->what.attach;
	m->flags = p->what.flags;
	m->gpl = p->what.gpl;
	m->name = scratch_string(s, p->what.name);
	m->instructions.len = p->n * sizeof(*p->insns);
	m->instructions.data = scratch_copy(s, p->insns, m->instructions.len);
	m->maps = scratch_alloc(s, (p->nmaps + 1) * sizeof(*m->maps));
	if (!m->name || !m->instructions.data || !m->maps)
		return no_memory(e);
	/* ids, until the files are known */
	for (size_t i = 0; i < p->nmaps; i++)
		m->maps[m->n_maps++] = p->maps[i];
	return save_debug(p, info->btf_id, m, s, e);
}

static uint64_t find_same(const struct checkpoint *c, const struct file_seen *f, uint32_t id)
{
	vec_for_each (other, &c->files->files)
		if ((*other)->ops == &bpf_program_file_ops && (*other)->id != f->id &&
		    (*other)->private == id && !(*other)->msg->bpf_program->same_as)
			return (*other)->id;
	return 0;
}

static int program_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	Reprise__BpfProgram *m =
		scratch_message(scratch, Reprise__BpfProgram, reprise__bpf_program__init);
	struct bpf_prog_info info = {};
	int r;

	msg->bpf_program = m;
	if (!m)
		return no_memory(e);
	r = bpf_program_info(f->local, &info);
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM,
				   "cannot look at this BPF program");
	f->entry->private = info.id;
	r = refuse_kind(&info, e);
	if (r < 0)
		return r;
	m->same_as = find_same(c, f, info.id);
	return m->same_as ? 0 : save(c, f->local, &info, m, scratch, e);
}

/* Descriptions, links, sockets, groups, arrays of programs, pins: each is one reference. */
static int check_others(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	_cleanup_(close_fd) int pidfd = files_pidfd(f->tid);
	_cleanup_(close_fd) int fd = -EBADF;
	int64_t references = 0, ours = bpf_attached_count(c, f->private) + bpf_references(c, f);
	int r;

	if (f->msg->bpf_program->same_as)
		return 0;
	vec_for_each (other, &c->files->files)
		ours += (*other)->ops == &bpf_program_file_ops && (*other)->private == f->private;
	if (pidfd >= 0)
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);
	if (fd < 0)
		return c->checking ? 0 : error_errno(e, -errno, E_SYSTEM, "pidfd_getfd");
	r = aux_member(c->files->kernel, fd, "refcnt", &references, sizeof(references));
	if (r < 0)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell who else has this BPF program");
	if (references != ours)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			"this BPF program is attached to something else than a socket of the tree "
			"(a group, an event, an interface), pinned, or open outside of the tree; "
			"detach it first");
	return 0;
}

static int program_checkpoint_all(struct checkpoint *c, struct error *e)
{
	return file_for_each(c, &bpf_program_file_ops, check_others, e);
}

/* ---- restart ---- */

static bool is_map(const struct restart *r, uint64_t id)
{
	const Reprise__File *msg = restart_find(r, RECORD_FILE, id);

	return msg && msg->kind == FILE_BPF_MAP && msg->bpf_map;
}

static bool names_map(const struct bpf_insn *x)
{
	return x->src_reg == BPF_PSEUDO_MAP_FD || x->src_reg == BPF_PSEUDO_MAP_VALUE;
}

static bool maps_fit(const struct restart *r, const Reprise__BpfProgram *m)
{
	const struct bpf_insn *insns = (const void *)m->instructions.data;

	for (size_t i = 0; i < m->n_maps; i++)
		if (!is_map(r, m->maps[i]))
			return false;
	for (size_t i = 0; i < m->instructions.len / sizeof(*insns); i++) {
		struct bpf_insn x;

		memcpy(&x, insns + i, sizeof(x));
		if (x.code != (BPF_LD | BPF_IMM | BPF_DW))
			continue;
		if ((x.src_reg > BPF_PSEUDO_MAP_VALUE && x.src_reg != BPF_PSEUDO_FUNC) ||
		    (names_map(&x) && (x.imm < 0 || (size_t)x.imm >= m->n_maps)))
			return false;
		i++;
	}
	return true;
}

static int program_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__BpfProgram *m = msg->bpf_program;
	const Reprise__File *same =
		m && m->same_as ? restart_find(r, RECORD_FILE, m->same_as) : NULL;

	if (!m || (m->same_as && (!same || same->kind != FILE_BPF_PROGRAM || !same->bpf_program ||
				  same->bpf_program->same_as)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a BPF program that is nothing");
	if (m->same_as)
		return 0;
	if (!m->instructions.len || m->instructions.len % sizeof(struct bpf_insn) ||
	    m->instructions.len > BPF_INSNS_MAX * sizeof(struct bpf_insn) ||
	    m->n_maps > BPF_MAPS_MAX || (m->flags & ~(FLAG_SLEEPABLE | FLAG_XDP_FRAGS)) ||
	    m->functions.len % sizeof(struct bpf_func_info) || m->functions.len > UINT32_MAX ||
	    m->lines.len % sizeof(struct bpf_line_info) || m->lines.len > UINT32_MAX ||
	    !bpf_types_valid(r, m->types) || !maps_fit(r, m))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible BPF program");
	return 0;
}

static int open_map(struct restart *r, uint64_t id, int *ret, struct error *e)
{
	struct file_open *f = file_open_find(r, id);
	int res = f->fd < 0 ? file_open_now(r, f, e) : 0;

	*ret = f->fd;
	return res;
}

/* Instructions with descriptors of maps. */
static int name_maps(struct restart *r, const Reprise__BpfProgram *m, struct bpf_insn *insns,
		     struct error *e)
{
	size_t n = m->instructions.len / sizeof(*insns);
	int res = 0, fd;

	memcpy(insns, m->instructions.data, m->instructions.len);
	for (size_t i = 0; i < n && res >= 0; i++) {
		if (insns[i].code != (BPF_LD | BPF_IMM | BPF_DW))
			continue;
		if (names_map(&insns[i])) {
			res = open_map(r, m->maps[insns[i].imm], &fd, e);
			insns[i].imm = fd;
		}
		i++;
	}
	return res;
}

/* Those that its instructions do not name have been tied to it (BPF_PROG_BIND_MAP); to tie one that
 * they name changes nothing. */
static int bind_maps(struct restart *r, const Reprise__BpfProgram *m, int program, struct error *e)
{
	int res = 0, fd;

	for (size_t i = 0; i < m->n_maps && res >= 0; i++) {
		union bpf_attr attr;

		res = open_map(r, m->maps[i], &fd, e);
		if (res < 0)
			return res;
		memset(&attr, 0, sizeof(attr));
		attr.prog_bind_map.prog_fd = (uint32_t)program;
		attr.prog_bind_map.map_fd = (uint32_t)fd;
		res = kernel_bpf(BPF_PROG_BIND_MAP, &attr);
	}
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot give a map to a BPF program") : 0;
}

static int load(struct restart *r, const Reprise__BpfProgram *m, int *ret, struct error *e)
{
	_cleanup_(free_ptr) struct bpf_insn *insns = malloc(m->instructions.len);
	struct bpf_source what = {
		.type = m->type, .attach = m->attach, .flags = m->flags, .gpl = m->gpl};
	struct bpf_debug debug = {
		.types = -1,
		.functions = (struct bpf_func_info *)m->functions.data,
		.lines = (struct bpf_line_info *)m->lines.data,
		.nfunctions = (uint32_t)(m->functions.len / sizeof(struct bpf_func_info)),
		.nlines = (uint32_t)(m->lines.len / sizeof(struct bpf_line_info))};
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	if (!insns)
		return no_memory(e);
	strncpy(what.name, m->name ? m->name : "", sizeof(what.name) - 1);
	res = bpf_types_of(r, m->types, &debug.types, e);
	if (res >= 0)
		res = name_maps(r, m, insns, e);
	if (res < 0)
		return res;
	fd = bpf_program_load(&what, insns, m->instructions.len / sizeof(*insns), &debug);
	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot load a BPF program of type %u", m->type);
	res = bind_maps(r, m, fd, e);
	if (res >= 0)
		*ret = take_fd(&fd);
	return res;
}

static int program_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	struct file_open *first;
	struct bpf_prog_info info = {};
	union bpf_attr attr;
	int res;

	if (!msg->bpf_program->same_as)
		return load(r, msg->bpf_program, ret_fd, e);
	first = file_open_find(r, msg->bpf_program->same_as);
	res = first->fd < 0 ? file_open_now(r, first, e) : 0;
	if (res < 0)
		return res;
	res = bpf_program_info(first->fd, &info);
	memset(&attr, 0, sizeof(attr));
	attr.prog_id = info.id;
	if (res >= 0)
		res = kernel_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	if (res < 0)
		return error_errno(e, res, res == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot open a BPF program");
	*ret_fd = res;
	return 0;
}

static void program_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__BpfProgram *m = msg->bpf_program;

	if (m && m->same_as)
		snprintf(buf, size, "the program of open file %llu",
			 (unsigned long long)m->same_as);
	else if (m)
		snprintf(buf, size, "type %u, %zu instructions, %zu maps", m->type,
			 m->instructions.len / sizeof(struct bpf_insn), m->n_maps);
}

const struct file_ops bpf_program_file_ops = {
	.kind = FILE_BPF_PROGRAM,
	.name = "BPF program",
	.support =
		"with its maps and types (BTF), where the instructions that it was loaded with are found again from "
		"what the kernel made of them, which is proved by loading them; also attached to sockets; not "
		"those that are attached to something else, pinned, or tied to a function of the kernel; by root",
	.match = program_match,
	.checkpoint = program_checkpoint,
	.checkpoint_all = program_checkpoint_all,
	.validate = program_validate,
	.restart = program_restart,
	.describe = program_describe,
};
