/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back to the instructions with which a BPF program was loaded. What the kernel makes of single
 * ones has been learnt (bpf_learn.c); here they are looked for, and put in the place of what they
 * have become. Whether that is right is not a matter of trust: what has been found is loaded, and
 * has to become the same, with the same tag.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_rewrite.h"

#define TRIALS_MAX     64 /* programs that are loaded as a proof */
#define SYMBOLS_BUFFER (64 << 10)
#define STEPS_MAX      100000u /* of the search */

/* ---- names of helpers ---- */

struct symbol {
	uint64_t address;
	char name[56];
};

struct bpf_symbols {
	uint64_t base;
	VEC(struct symbol) list;
};

static int read_symbols(struct bpf_symbols *s, FILE *f)
{
	char line[512], name[256];
	unsigned long long address;

	while (fgets(line, sizeof(line), f)) {
		struct symbol *x;

		if (sscanf(line, "%llx %*c %255s", &address, name) != 2)
			continue;
		if (!strcmp(name, "__bpf_call_base"))
			s->base = address;
		if (strncmp(name, "bpf_", 4) != 0 || strlen(name) >= sizeof(x->name) + 4)
			continue;
		x = vec_push(&s->list);
		if (!x)
			return -ENOMEM;
		x->address = address;
		strcpy(x->name, name + 4);
	}
	if (ferror(f))
		return -EIO;
	return s->base ? 0 : -EPERM;
}

static int open_symbols(struct bpf_symbols **ret, int proc_fd)
{
	struct bpf_symbols *s = calloc(1, sizeof(*s));
	int fd = openat(proc_fd, "kallsyms", O_RDONLY | O_CLOEXEC), r;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	_cleanup_(free_ptr) char *buffer = malloc(SYMBOLS_BUFFER);

	if (!f || !s) {
		close_fd(&fd);
		free(s);
		return -ENOMEM;
	}
	/* The kernel formats as many lines as there is room for. */
	if (buffer)
		setvbuf(f, buffer, _IOFBF, SYMBOLS_BUFFER);
	r = read_symbols(s, f);
	fclose(f);
	if (r < 0)
		bpf_symbols_free(s);
	else
		*ret = s;
	return r;
}

void bpf_symbols_free(struct bpf_symbols *s)
{
	if (s)
		vec_free(&s->list);
	free(s);
}

/* "skb_load_bytes": as in BPF_FUNC_skb_load_bytes. Variants have more behind it. */
static int helper_by_name(struct kernel_memory *k, const char *name)
{
	char text[80];
	size_t len = strlen(name);

	if (len > 13 && !strcmp(name + len - 13, "_event_output"))
		return BPF_FUNC_perf_event_output;
	/* of hashes, of arrays: bpf_for_each_hash_elem() */
	if (!strncmp(name, "for_each_", 9) && len > 5 && !strcmp(name + len - 5, "_elem"))
		return BPF_FUNC_for_each_map_elem;
	snprintf(text, sizeof(text), "BPF_FUNC_%s", name);
	for (;;) {
		int id = kernel_enumerator(k, text);
		char *last = strrchr(text, '_');

		if (id > 0)
			return id;
		if (last <= text + 8)
			return 0;
		*last = '\0';
	}
}

int bpf_symbols_helper(struct bpf_symbols **s, struct kernel_memory *k, int proc_fd, int32_t call)
{
	if (!*s && open_symbols(s, proc_fd) < 0)
		return 0;
	vec_for_each (x, &(*s)->list)
		if (x->address == (*s)->base + (uint64_t)(int64_t)call)
			return helper_by_name(k, x->name);
	return 0;
}

/* ---- the search ---- */

/* What an instruction of the program as it is has been, and where. */
struct element {
	struct bpf_insn insn;
	size_t at, len; /* in what it has become */
};

struct search {
	const struct bpf_source *what;
	const struct bpf_like *maps;
	size_t nmaps;
	struct bpf_rewrites rewrites;
	struct bpf_symbols **symbols;
	struct kernel_memory *kernel;
	int proc_fd;
	const struct bpf_insn *is; /* the program, with indices of maps */
	size_t n;
	uint8_t tag[BPF_TAG_SIZE];
	struct bpf_debug *debug; /* as the kernel has it; when proved: as it was given */
	struct element *found;
	size_t nfound, steps, trials;
	struct bpf_insn *proved; /* result */
	size_t nproved;
};

static bool names_map(const struct bpf_insn *x)
{
	return x->code == (BPF_LD | BPF_IMM | BPF_DW) &&
	       (x->src_reg == BPF_PSEUDO_MAP_FD || x->src_reg == BPF_PSEUDO_MAP_VALUE);
}

/* Ids of maps become indices. */
static int number_maps(struct bpf_insn *insns, size_t n, const struct bpf_like *maps, size_t nmaps,
		       bool like)
{
	for (size_t i = 0; i < n; i++) {
		size_t m = 0;

		if (names_map(&insns[i])) {
			while (m < nmaps &&
			       (uint32_t)insns[i].imm != (like ? maps[m].like_id : maps[m].id))
				m++;
			if (m == nmaps)
				return -ENOENT;
			insns[i].imm = (int32_t)m;
		}
		if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW))
			i++;
	}
	return 0;
}

static bool jumps(const struct bpf_insn *x)
{
	uint8_t class = BPF_CLASS(x->code), op = BPF_OP(x->code);

	return (class == BPF_JMP || class == BPF_JMP32) && op != BPF_CALL && op != BPF_EXIT;
}

static bool calls_within(const struct bpf_insn *x)
{
	return x->code == (BPF_JMP | BPF_CALL) && x->src_reg == BPF_PSEUDO_CALL;
}

/* Where the instruction that has become the one at `at` stands among those that were found. */
static int place_of(const struct search *s, long at)
{
	for (size_t i = 0; i < s->nfound; i++)
		if ((long)s->found[i].at == at)
			return (int)i;
	return -ENOENT;
}

static bool names_function(const struct bpf_insn *x)
{
	return x->code == (BPF_LD | BPF_IMM | BPF_DW) && x->src_reg == BPF_PSEUDO_FUNC;
}

/* The address of a function of the program: a distance, and after it has been compiled the number
 * of the function in the second half (jit_subprogs()). */
static int aim_function(const struct search *s, struct bpf_insn *insns, size_t i)
{
	int to = place_of(s, (long)s->found[i].at + 1 + insns[i].imm);

	if (to < 0)
		return to;
	insns[i].imm = to - (int)i - 1;
	insns[i + 1].imm = 0;
	return 0;
}

/* Distances are those among the original instructions again. */
static int aim(const struct search *s, struct bpf_insn *insns)
{
	for (size_t i = 0; i < s->nfound; i++) {
		const struct element *x = &s->found[i];
		bool far = insns[i].code == (BPF_JMP32 | BPF_JA);
		int to;

		if (names_function(&insns[i])) {
			if (aim_function(s, insns, i++) < 0)
				return -ENOENT;
			continue;
		}
		/* a jump that was put there by the kernel is within its piece */
		if (x->len != 1 || (!jumps(&insns[i]) && !calls_within(&insns[i])))
			continue;
		to = place_of(s, (long)x->at + 1 + (far ? insns[i].imm : insns[i].off));
		if (to < 0)
			return to;
		to -= (int)i + 1;
		/* Calls within a program have the distance in `off` after they have been compiled
		 * (jit_subprogs()). */
		if (calls_within(&insns[i]))
			insns[i].off = 0;
		if (far || calls_within(&insns[i]))
			insns[i].imm = to;
		else
			insns[i].off = (int16_t)to;
	}
	return 0;
}

/* What is told of instructions is told of the original ones. */
static int aim_debug(const struct search *s, struct bpf_debug *d)
{
	for (uint32_t i = 0; i < d->nfunctions + d->nlines; i++) {
		uint32_t *at = i < d->nfunctions ? &d->functions[i].insn_off
						 : &d->lines[i - d->nfunctions].insn_off;
		int to = place_of(s, (long)*at);

		if (to < 0)
			return to;
		*at = (uint32_t)to;
	}
	return 0;
}

static void *copied(const void *from, size_t size)
{
	void *copy = malloc(size + 1);

	return copy ? memcpy(copy, from, size) : NULL;
}

static int copy_debug(const struct bpf_debug *d, struct bpf_debug *ret)
{
	*ret = (struct bpf_debug)BPF_DEBUG_INIT;
	if (d->types < 0)
		return 0;
	ret->functions = copied(d->functions, d->nfunctions * sizeof(*d->functions));
	ret->lines = copied(d->lines, d->nlines * sizeof(*d->lines));
	ret->types = fcntl(d->types, F_DUPFD_CLOEXEC, 3);
	ret->nfunctions = d->nfunctions;
	ret->nlines = d->nlines;
	return ret->functions && ret->lines && ret->types >= 0 ? 0 : -ENOMEM;
}

static bool same_debug(const struct bpf_debug *a, const struct bpf_debug *b)
{
	return (a->types < 0) == (b->types < 0) && a->nfunctions == b->nfunctions &&
	       a->nlines == b->nlines &&
	       (a->types < 0 ||
		(!memcmp(a->functions, b->functions, a->nfunctions * sizeof(*a->functions)) &&
		 !memcmp(a->lines, b->lines, a->nlines * sizeof(*a->lines))));
}

static int load_like(const struct search *s, const struct bpf_insn *insns,
		     const struct bpf_debug *debug)
{
	_cleanup_(free_ptr) struct bpf_insn *copy = malloc(s->nfound * sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	memcpy(copy, insns, s->nfound * sizeof(*copy));
	for (size_t i = 0; i < s->nfound; i++)
		if (names_map(&copy[i]))
			copy[i].imm = s->maps[copy[i].imm].like;
	return bpf_program_load(s->what, copy, s->nfound, debug);
}

/* Has it become the very same? */
static bool became_same(const struct search *s, int fd)
{
	_cleanup_(bpf_debug_free) struct bpf_debug debug = BPF_DEBUG_INIT;
	_cleanup_(free_ptr) struct bpf_insn *got = NULL;
	struct bpf_prog_info info = {};
	size_t n = 0;

	return bpf_program_info(fd, &info) >= 0 && !memcmp(info.tag, s->tag, sizeof(s->tag)) &&
	       bpf_program_dump(fd, &got, &n) >= 0 && n == s->n &&
	       number_maps(got, n, s->maps, s->nmaps, true) >= 0 &&
	       !memcmp(got, s->is, n * sizeof(*got)) && bpf_debug_read(fd, &debug) >= 0 &&
	       same_debug(&debug, s->debug);
}

/* 1: it is what was loaded. */
static int prove(struct search *s)
{
	_cleanup_(free_ptr) struct bpf_insn *insns = malloc(s->nfound * sizeof(*insns));
	_cleanup_(bpf_debug_free) struct bpf_debug given = BPF_DEBUG_INIT;
	_cleanup_(close_fd) int fd = -EBADF;

	if (!insns || copy_debug(s->debug, &given) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < s->nfound; i++)
		insns[i] = s->found[i].insn;
	if (aim(s, insns) < 0 || aim_debug(s, &given) < 0)
		return 0;
	if (s->trials++ == TRIALS_MAX)
		return -ENOENT;
	fd = load_like(s, insns, &given);
	if (fd < 0 || !became_same(s, fd))
		return fd == -ENOMEM ? fd : 0;
	bpf_debug_free(s->debug);
	*s->debug = given;
	given = (struct bpf_debug)BPF_DEBUG_INIT;
	s->nproved = s->nfound;
	s->proved = take_ptr(&insns);
	return 1;
}

static int go_on(struct search *s, size_t at, uint32_t contexts);

/* Takes an instruction for the original of `len` that begin here. */
static int take(struct search *s, size_t at, size_t len, struct bpf_insn insn, uint32_t contexts)
{
	size_t before = s->nfound;
	int r;

	s->found[s->nfound++] = (struct element){insn, at, len};
	/* the second half of a constant of 64 bits is no instruction, but counts as one */
	if (insn.code == (BPF_LD | BPF_IMM | BPF_DW)) {
		s->found[s->nfound - 1].len = 2;
		s->found[s->nfound++] = (struct element){s->is[at + 1], at + 1, 2};
	}
	r = go_on(s, at + len, contexts);
	if (r == 0)
		s->nfound = before;
	return r;
}

static bool fits(const struct search *s, size_t at, const struct bpf_rewrite *x)
{
	return x->n <= s->n - at && !memcmp(s->is + at, x->to, x->n * sizeof(x->to[0]));
}

/* Which registers hold the context, as far as the order of instructions tells: a hint. */
static uint32_t contexts_after(const struct bpf_insn *x, uint32_t contexts)
{
	uint8_t class = BPF_CLASS(x->code);
	uint32_t to = 1u << x->dst_reg;

	if (x->code == (BPF_ALU64 | BPF_MOV | BPF_X))
		return contexts & (1u << x->src_reg) ? contexts | to : contexts & ~to;
	if (class == BPF_LDX || class == BPF_ALU || class == BPF_ALU64 || class == BPF_LD)
		return contexts & ~to;
	return contexts;
}

static bool of_context(const struct bpf_insn *x, uint32_t contexts)
{
	uint8_t class = BPF_CLASS(x->code);

	if (class == BPF_LDX)
		return contexts & (1u << x->src_reg);
	if (class == BPF_ST || class == BPF_STX)
		return contexts & (1u << x->dst_reg);
	return true; /* not an access at all */
}

static int take_rewritten(struct search *s, size_t at, uint32_t contexts)
{
	int r = 0;

	vec_for_each (x, &s->rewrites.list) {
		if (r == 0 && fits(s, at, x))
			r = take(s, at, x->n, x->from, contexts_after(&x->from, contexts));
		if (r != 0)
			break;
	}
	return r;
}

static int take_call(struct search *s, size_t at, uint32_t contexts)
{
	struct bpf_insn x = s->is[at];
	int helper, r = take_rewritten(s, at, contexts);

	if (r != 0 || x.src_reg)
		return r;
	if (x.imm == BPF_FUNC_tail_call)
		return take(s, at, 1, x, contexts);
	helper = bpf_symbols_helper(s->symbols, s->kernel, s->proc_fd, x.imm);
	x.imm = helper;
	return helper ? take(s, at, 1, x, contexts) : 0;
}

/* 1: found; 0: not on this way. */
static int go_on(struct search *s, size_t at, uint32_t contexts)
{
	const struct bpf_insn *x = s->is + at;
	bool wide = at < s->n && x->code == (BPF_LD | BPF_IMM | BPF_DW), context;
	int r = 0;

	if (at == s->n)
		return prove(s);
	if (s->steps++ == STEPS_MAX)
		return -ENOENT;
	if (wide)
		return s->n - at < 2 ? 0 : take(s, at, 2, *x, contexts & ~(1u << x->dst_reg));
	if (x->code == (BPF_JMP | BPF_CALL) && !calls_within(x))
		return take_call(s, at, contexts);
	context = of_context(x, contexts);
	if (context)
		r = take_rewritten(s, at, contexts);
	if (r == 0)
		r = take(s, at, 1, *x, contexts_after(x, contexts));
	return r == 0 && !context ? take_rewritten(s, at, contexts) : r;
}

static int search(struct search *s, bool narrow)
{
	int r;

	bpf_rewrites_free(&s->rewrites);
	s->rewrites = (struct bpf_rewrites){.what = s->what, .maps = s->maps, .nmaps = s->nmaps};
	s->nfound = s->steps = s->trials = 0;
	r = bpf_rewrites_learn(&s->rewrites, s->is, s->n, narrow);
	return r < 0 ? r : go_on(s, 0, 1u << BPF_REG_1);
}

int bpf_reverse(int fd, const struct bpf_source *what, const struct bpf_like *maps, size_t nmaps,
		struct kernel_memory *k, int proc_fd, struct bpf_symbols **symbols,
		struct bpf_debug *debug, struct bpf_insn **ret, size_t *ret_n)
{
	_cleanup_(free_ptr) struct bpf_insn *is = NULL;
	struct search s = {.what = what,
			   .maps = maps,
			   .nmaps = nmaps,
			   .kernel = k,
			   .proc_fd = proc_fd,
			   .symbols = symbols,
			   .debug = debug};
	struct bpf_prog_info info = {};
	int r = bpf_program_info(fd, &info);

	if (r >= 0)
		r = bpf_program_dump(fd, &is, &s.n);
	if (r >= 0)
		r = s.n > BPF_INSNS_MAX ? -ENOENT : number_maps(is, s.n, maps, nmaps, false);
	if (r < 0)
		return r;
	memcpy(s.tag, info.tag, sizeof(s.tag));
	s.is = is;
	s.found = calloc(s.n + 1, sizeof(*s.found));
	r = s.found ? search(&s, false) : -ENOMEM;
	if (r == 0 || r == -ENOENT)
		r = search(&s, true);
	bpf_rewrites_free(&s.rewrites);
	free(s.found);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	*ret = s.proved;
	*ret_n = s.nproved;
	return 0;
}
