/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel makes of the instructions of a BPF program: it replaces accesses to the context
 * by those to its own structures (convert_ctx_accesses()), puts small helpers in place of their
 * calls, checks in front of divisions (do_misc_fixups()). How it does so differs from one kernel to
 * the next, so it is asked: it is given programs with the instructions in question, between marks,
 * and tells what has become of them.
 */
#include "fs/bpf_rewrite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"

#define MARK	     0x5ea1000
#define CONTEXT_MAX  256 /* bytes of a context that are tried */
#define STACK_MAX    448
#define CONSTANT_MAX 32

static void give_debug(union bpf_attr *attr, const struct bpf_debug *d)
{
	attr->prog_btf_fd = (uint32_t)d->types;
	attr->func_info_rec_size = sizeof(*d->functions);
	attr->func_info = kernel_bpf_pointer(d->functions);
	attr->func_info_cnt = d->nfunctions;
	attr->line_info_rec_size = sizeof(*d->lines);
	attr->line_info = kernel_bpf_pointer(d->lines);
	attr->line_info_cnt = d->nlines;
}

int bpf_program_load(const struct bpf_source *what, const struct bpf_insn *insns, size_t n,
		     const struct bpf_debug *debug)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = what->type;
	attr.expected_attach_type = what->attach;
	attr.prog_flags = what->flags;
	attr.insns = kernel_bpf_pointer(insns);
	attr.insn_cnt = (uint32_t)n;
	attr.license = kernel_bpf_pointer(what->gpl ? "GPL" : "");
	memcpy(attr.prog_name, what->name, sizeof(attr.prog_name));
	if (debug && debug->types >= 0)
		give_debug(&attr, debug);
	return kernel_bpf(BPF_PROG_LOAD, &attr);
}

int bpf_program_info(int fd, struct bpf_prog_info *info)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = kernel_bpf_pointer(info);
	attr.info.info_len = sizeof(*info);
	return kernel_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

int bpf_program_dump(int fd, struct bpf_insn **ret, size_t *ret_n)
{
	struct bpf_prog_info info = {};
	struct bpf_insn *insns;
	uint32_t size;
	int r = bpf_program_info(fd, &info);

	size = info.xlated_prog_len;
	if (r < 0 || !size || size > BPF_INSNS_MAX * BPF_PIECE_MAX * sizeof(*insns))
		return r < 0 ? r : -EOPNOTSUPP;
	insns = malloc(size);
	if (!insns)
		return -ENOMEM;
	memset(&info, 0, sizeof(info));
	info.xlated_prog_len = size;
	info.xlated_prog_insns = kernel_bpf_pointer(insns);
	r = bpf_program_info(fd, &info);
	/* none where addresses of the kernel are not shown (bpf_dump_raw_ok()) */
	if (r < 0 || !info.xlated_prog_insns || info.xlated_prog_len != size) {
		free(insns);
		return r < 0 ? r : -EPERM;
	}
	*ret = insns;
	*ret_n = size / sizeof(*insns);
	return 0;
}

/* ---- a trial ---- */

struct trial {
	VEC(struct bpf_insn) insns;
	VEC(struct bpf_insn) asked;
	int mark; /* a register that nothing else uses */
	bool failed;
};

static void trial_free(struct trial *t)
{
	vec_free(&t->insns);
	vec_free(&t->asked);
}

static void put(struct trial *t, struct bpf_insn insn)
{
	struct bpf_insn *at = vec_push(&t->insns);

	t->failed |= !at;
	if (at)
		*at = insn;
}

static struct bpf_insn mark(const struct trial *t, size_t i)
{
	return SET((uint8_t)t->mark & 15, MARK + (int)i);
}

static void ask(struct trial *t, struct bpf_insn insn)
{
	struct bpf_insn *at = vec_push(&t->asked);

	t->failed |= !at;
	if (!at)
		return;
	*at = insn;
	put(t, mark(t, 2 * t->asked.n - 2));
	put(t, insn);
	put(t, mark(t, 2 * t->asked.n - 1));
}

static int load(const struct bpf_rewrites *w, struct trial *t)
{
	put(t, SET(BPF_REG_0, 0));
	put(t, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
	return t->failed ? -ENOMEM : bpf_program_load(w->what, t->insns.v, t->insns.n, NULL);
}

static bool same(const struct bpf_insn *a, const struct bpf_insn *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static int keep(struct bpf_rewrites *w, const struct bpf_insn *from, const struct bpf_insn *to,
		size_t n)
{
	struct bpf_rewrite *x;

	if (!n || n > BPF_PIECE_MAX || (n == 1 && same(from, to)))
		return 0;
	x = vec_push(&w->list);
	if (!x)
		return -ENOMEM;
	x->from = *from;
	x->n = n;
	memcpy(x->to, to, n * sizeof(*to));
	return 0;
}

/* 0 also where the kernel does not take it: then no program has it. */
static int learn(struct bpf_rewrites *w, struct trial *t)
{
	_cleanup_(close_fd) int fd = t->asked.n ? load(w, t) : -EINVAL;
	_cleanup_(free_ptr) struct bpf_insn *got = NULL;
	size_t n = 0, at = 0;
	int r = 0;

	if (fd < 0 || bpf_program_dump(fd, &got, &n) < 0)
		return fd == -ENOMEM ? fd : 0;
	for (size_t i = 0; i < t->asked.n && r >= 0; i++) {
		struct bpf_insn first = mark(t, 2 * i), last = mark(t, 2 * i + 1);
		size_t from;

		while (at < n && !same(&got[at], &first))
			at++;
		from = at + 1;
		while (at < n && !same(&got[at], &last))
			at++;
		if (at < n)
			r = keep(w, &t->asked.v[i], got + from, at - from);
	}
	return r;
}

/* ---- accesses to the context ---- */

enum access { ACCESS_LOAD, ACCESS_STORE, ACCESS_CONSTANT, ACCESS_KINDS };

struct accesses {
	enum access kind;
	int32_t constant;
	VEC(struct bpf_insn) list; /* those that the kernel takes, with any registers */
};

static const uint8_t sizes[] = {BPF_W, BPF_DW, BPF_H, BPF_B};
static const int bytes[] = {4, 8, 2, 1};

static struct bpf_insn access_insn(const struct accesses *a, uint8_t size, int16_t offset,
				   uint8_t value, uint8_t base)
{
	if (a->kind == ACCESS_LOAD)
		return INSN((uint8_t)(BPF_LDX | BPF_MEM | size), value & 15, base & 15, offset, 0);
	if (a->kind == ACCESS_STORE)
		return INSN((uint8_t)(BPF_STX | BPF_MEM | size), base & 15, value & 15, offset, 0);
	return INSN((uint8_t)(BPF_ST | BPF_MEM | size), base & 15, 0, offset, a->constant);
}

static int try_access(const struct bpf_rewrites *w, struct accesses *a, uint8_t size,
		      int16_t offset)
{
	_cleanup_(trial_free) struct trial t = {};
	_cleanup_(close_fd) int fd = -EBADF;
	struct bpf_insn *x;

	put(&t, MOVE(BPF_REG_6, BPF_REG_1));
	put(&t, SET(BPF_REG_0, 0));
	put(&t, access_insn(a, size, offset, BPF_REG_0, BPF_REG_6));
	fd = load(w, &t);
	if (fd < 0)
		return fd == -ENOMEM ? fd : 0;
	x = vec_push(&a->list);
	if (!x)
		return -ENOMEM;
	*x = access_insn(a, size, offset, 0, 0);
	return 0;
}

/* A narrow access is possible only within one that is not. */
static bool within(const struct accesses *a, int offset, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int size = BPF_SIZE(a->list.v[i].code) == BPF_DW ? 8 : 4;

		if (offset >= a->list.v[i].off && offset < a->list.v[i].off + size)
			return true;
	}
	return false;
}

static int find_accesses(const struct bpf_rewrites *w, struct accesses *a, bool narrow)
{
	size_t wide = 0;
	int r = 0;

	for (size_t s = 0; s < (narrow ? 4 : 2); s++) {
		if (s == 2)
			wide = a->list.n;
		for (int at = 0; at < CONTEXT_MAX && r >= 0; at += bytes[s])
			if (s < 2 || within(a, at, wide))
				r = try_access(w, a, sizes[s], (int16_t)at);
	}
	return r;
}

static int other_than(int a, int b, int c)
{
	int i = 6;

	while (i == a || i == b || i == c)
		i++;
	return i;
}

/* All accesses with these registers, in one program. */
static int learn_accesses(struct bpf_rewrites *w, const struct accesses *a, int value, int base)
{
	_cleanup_(trial_free) struct trial t = {};
	int context = other_than(value, base, -1);

	t.mark = other_than(value, base, context);
	put(&t, MOVE((uint8_t)context & 15, BPF_REG_1));
	vec_for_each (x, &a->list) {
		if (a->kind == ACCESS_STORE)
			put(&t, SET((uint8_t)value & 15, 0));
		put(&t, MOVE((uint8_t)base & 15, (uint8_t)context & 15));
		ask(&t, access_insn(a, BPF_SIZE(x->code), x->off, (uint8_t)value, (uint8_t)base));
	}
	return learn(w, &t);
}

/* Whose value and base are these registers? A store of a constant has no value. */
static bool is_access(const struct bpf_insn *x, const struct accesses *a, int *value, int *base)
{
	static const uint8_t classes[] = {BPF_LDX, BPF_STX, BPF_ST};

	if (BPF_CLASS(x->code) != classes[a->kind] || BPF_MODE(x->code) != BPF_MEM)
		return false;
	*value = a->kind == ACCESS_LOAD ? x->dst_reg : a->kind == ACCESS_STORE ? x->src_reg : 0;
	*base = a->kind == ACCESS_LOAD ? x->src_reg : x->dst_reg;
	return *base != BPF_REG_10 && *value != BPF_REG_10 &&
	       (a->kind != ACCESS_STORE || *value != *base) &&
	       (a->kind != ACCESS_CONSTANT || x->imm == a->constant);
}

static int learn_kind(struct bpf_rewrites *w, struct accesses *a, const struct bpf_insn *insns,
		      size_t n, bool narrow)
{
	bool done[16][16] = {}, found = false;
	int value, base, r = 0;

	for (size_t i = 0; i < n && r >= 0; i++) {
		if (!is_access(&insns[i], a, &value, &base) || done[value][base])
			continue;
		if (!found)
			r = find_accesses(w, a, narrow);
		found = done[value][base] = true;
		if (r >= 0)
			r = learn_accesses(w, a, value, base);
	}
	vec_free(&a->list);
	return r;
}

/* Each constant that is stored anywhere. */
static int learn_constants(struct bpf_rewrites *w, const struct bpf_insn *insns, size_t n,
			   bool narrow)
{
	int32_t known[CONSTANT_MAX];
	size_t count = 0;
	int r = 0;

	for (size_t i = 0; i < n && r >= 0 && count < CONSTANT_MAX; i++) {
		struct accesses a = {.kind = ACCESS_CONSTANT, .constant = insns[i].imm};
		bool seen = false;
		int value, base;

		for (size_t k = 0; k < count; k++)
			seen |= known[k] == a.constant;
		if (seen || !is_access(&insns[i], &a, &value, &base))
			continue;
		known[count++] = a.constant;
		r = learn_kind(w, &a, insns, n, narrow);
	}
	return r;
}

/* ---- helpers ---- */

/* Those without arguments. */
static int learn_simple(struct bpf_rewrites *w)
{
	static const int helpers[] = {BPF_FUNC_ktime_get_ns,
				      BPF_FUNC_get_prandom_u32,
				      BPF_FUNC_get_smp_processor_id,
				      BPF_FUNC_get_current_pid_tgid,
				      BPF_FUNC_get_current_uid_gid,
				      BPF_FUNC_get_current_task,
				      BPF_FUNC_get_numa_node_id,
				      BPF_FUNC_get_current_cgroup_id,
				      BPF_FUNC_jiffies64,
				      BPF_FUNC_ktime_get_boot_ns,
				      BPF_FUNC_ktime_get_coarse_ns};
	int r = 0;

	for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]) && r >= 0; i++) {
		_cleanup_(trial_free) struct trial t = {.mark = BPF_REG_7};

		ask(&t, CALL(helpers[i]));
		r = learn(w, &t);
	}
	return r;
}

/* With a key at the bottom of the stack, and a value above it. */
static int learn_on_map(struct bpf_rewrites *w, int map, const struct bpf_frame *is, int helper)
{
	_cleanup_(trial_free) struct trial t = {.mark = BPF_REG_7};
	uint32_t key = (is->key_size + 7) / 8 * 8, value = (is->value_size + 7) / 8 * 8;
	bool queue = helper == BPF_FUNC_map_push_elem || helper == BPF_FUNC_map_pop_elem ||
		     helper == BPF_FUNC_map_peek_elem;

	if (key > STACK_MAX || value > STACK_MAX || key + value > STACK_MAX)
		return 0;
	for (uint32_t at = 8; at <= key + value; at += 8)
		put(&t, INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, (int16_t) - (int)at, 0));
	put(&t, INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map));
	put(&t, INSN(0, 0, 0, 0, 0));
	put(&t, MOVE(BPF_REG_2, BPF_REG_10));
	put(&t, ADD(BPF_REG_2, queue ? -(int)value : -(int)(key + value)));
	put(&t, MOVE(BPF_REG_3, BPF_REG_10));
	put(&t, ADD(BPF_REG_3, -(int)value));
	if (helper == BPF_FUNC_map_push_elem)
		put(&t, SET(BPF_REG_3, 0));
	put(&t, SET(BPF_REG_4, 0));
	ask(&t, CALL(helper));
	return learn(w, &t);
}

/* On a map, and on those that are in it. */
static int learn_on_both(struct bpf_rewrites *w, const struct bpf_like *map, int helper)
{
	const struct bpf_frame is = bpf_map_frame(&map->info);
	int r = learn_on_map(w, map->like, &is, helper);

	return r < 0 || map->inner < 0 ? r : learn_on_map(w, map->inner, &map->frame, helper);
}

static int learn_maps(struct bpf_rewrites *w)
{
	static const int helpers[] = {BPF_FUNC_map_lookup_elem, BPF_FUNC_map_update_elem,
				      BPF_FUNC_map_delete_elem, BPF_FUNC_map_push_elem,
				      BPF_FUNC_map_pop_elem,	BPF_FUNC_map_peek_elem};
	int r = 0;

	for (size_t m = 0; m < w->nmaps; m++)
		for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]) && r >= 0; i++)
			r = learn_on_both(w, &w->maps[m], helpers[i]);
	return r;
}

/* ---- single instructions ---- */

/* A division or remainder by a register, of numbers that the verifier knows nothing of. */
static int learn_division(struct bpf_rewrites *w, const struct bpf_insn *x)
{
	_cleanup_(trial_free) struct trial t = {};

	t.mark = other_than(x->dst_reg, x->src_reg, -1);
	put(&t, CALL(BPF_FUNC_get_prandom_u32));
	put(&t, MOVE(x->dst_reg, BPF_REG_0));
	put(&t, MOVE(x->src_reg, BPF_REG_0));
	ask(&t, *x);
	return learn(w, &t);
}

/* BPF_LD | BPF_ABS loads from a packet at a constant, which is put into the second register. */
static int learn_packet(struct bpf_rewrites *w, int32_t constant)
{
	_cleanup_(trial_free) struct trial t = {.mark = BPF_REG_7};

	put(&t, MOVE(BPF_REG_6, BPF_REG_1));
	for (size_t s = 0; s < 4; s++)
		if (sizes[s] != BPF_DW)
			ask(&t, INSN((uint8_t)(BPF_LD | BPF_ABS | sizes[s]), 0, 0, 0, constant));
	return learn(w, &t);
}

static int learn_single(struct bpf_rewrites *w, const struct bpf_insn *insns, size_t n)
{
	size_t packets = 0;
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i++) {
		uint8_t class = BPF_CLASS(insns[i].code), op = BPF_OP(insns[i].code);

		if ((class == BPF_ALU || class == BPF_ALU64) && (op == BPF_DIV || op == BPF_MOD) &&
		    BPF_SRC(insns[i].code) == BPF_X)
			r = learn_division(w, &insns[i]);
		else if (insns[i].code == (BPF_ALU64 | BPF_MOV | BPF_K) &&
			 insns[i].dst_reg == BPF_REG_2 && packets++ < CONSTANT_MAX)
			r = learn_packet(w, insns[i].imm);
	}
	return r;
}

int bpf_rewrites_learn(struct bpf_rewrites *w, const struct bpf_insn *insns, size_t n, bool narrow)
{
	struct accesses loads = {.kind = ACCESS_LOAD}, stores = {.kind = ACCESS_STORE};
	int r = learn_kind(w, &loads, insns, n, narrow);

	if (r >= 0)
		r = learn_kind(w, &stores, insns, n, narrow);
	if (r >= 0)
		r = learn_constants(w, insns, n, narrow);
	if (r >= 0)
		r = learn_simple(w);
	if (r >= 0)
		r = learn_maps(w);
	return r < 0 ? r : learn_single(w, insns, n);
}

void bpf_rewrites_free(struct bpf_rewrites *w)
{
	vec_free(&w->list);
}
