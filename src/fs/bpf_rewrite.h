/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_REWRITE_H
#define REPRISE_FS_BPF_REWRITE_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "core/kernel_memory.h"
#include "core/vec.h"
#include "fs/bpf_map.h"

/*
 * What a BPF program was before the kernel has rewritten it. For those who save some.
 */

#define BPF_INSNS_MAX 4096u /* of one program */
#define BPF_MAPS_MAX  64u
#define BPF_PIECE_MAX 64u /* that one instruction becomes, at most */

/* What else a program is loaded with. */
struct bpf_source {
	uint32_t type, attach; /* BPF_PROG_TYPE_*, expected_attach_type */
	uint32_t flags;	       /* BPF_F_* of prog_flags */
	bool gpl;
	char name[BPF_OBJ_NAME_LEN];
};
int bpf_source_read(struct kernel_memory *k, int fd, const struct bpf_prog_info *info,
		    struct bpf_source *ret) must_check;

/* Type information that a program was given, and which instructions it is about. */
struct bpf_debug {
	int types; /* BTF; -1: none, and nothing else */
	struct bpf_func_info *functions;
	struct bpf_line_info *lines;
	uint32_t nfunctions, nlines;
};
#define BPF_DEBUG_INIT       \
	{                    \
		.types = -1, \
	}

/* As the kernel has it: by the places of the rewritten instructions. */
int bpf_debug_read(int fd, struct bpf_debug *ret) must_check;
void bpf_debug_free(struct bpf_debug *d);

/* A descriptor of the program, or an error. `debug` may be NULL. */
int bpf_program_load(const struct bpf_source *what, const struct bpf_insn *insns, size_t n,
		     const struct bpf_debug *debug);
int bpf_program_info(int fd, struct bpf_prog_info *ret);

/* Instructions as the kernel has them; `*ret` is to be freed. Numbers of maps are their ids. */
int bpf_program_dump(int fd, struct bpf_insn **ret, size_t *ret_n);

/* An instruction, and what this kernel makes of it. */
struct bpf_rewrite {
	struct bpf_insn from, to[BPF_PIECE_MAX];
	size_t n;
};

/* A map of the program, and an empty one like it, which is ours: no trial touches the first. */
struct bpf_like {
	uint32_t id, like_id;
	int like;
	int inner;		/* like those in a map of maps; -1 */
	struct bpf_frame frame; /* of that */
	struct bpf_map_info info;
};

struct bpf_rewrites {
	const struct bpf_source *what;
	const struct bpf_like *maps;
	size_t nmaps;
	VEC(struct bpf_rewrite) list;
};

/* Learns from the kernel what may have become of instructions that a program of `n` has; `narrow`:
 * also what is less than a word of the context. */
int bpf_rewrites_learn(struct bpf_rewrites *w, const struct bpf_insn *insns, size_t n,
		       bool narrow) must_check;
void bpf_rewrites_free(struct bpf_rewrites *w);

/* Which helper (BPF_FUNC_*) a call leads to; 0: none that is known. */
struct bpf_symbols;
int bpf_symbols_helper(struct bpf_symbols **s, struct kernel_memory *k, int proc_fd, int32_t call);
void bpf_symbols_free(struct bpf_symbols *s); /* accepts NULL */

/*
 * The instructions with which a program was loaded, proved by loading them once more: the kernel
 * makes the very same of them, and computes the same tag, a hash of what was loaded. Maps stand
 * there by their index. `symbols` are read when they are needed first, and are the caller's to keep
 * for the next program, and to free. `debug`, as it was read, is changed to what was given then.
 * -ENOENT if they are not found.
 */
int bpf_reverse(int fd, const struct bpf_source *what, const struct bpf_like *maps, size_t nmaps,
		struct kernel_memory *k, int proc_fd, struct bpf_symbols **symbols,
		struct bpf_debug *debug, struct bpf_insn **ret, size_t *ret_n) must_check;

/* An empty map of the same kind, or an error. What a program takes for constant is in it. */
int bpf_map_like(struct kernel_memory *k, uint32_t id, struct bpf_like *ret);
void bpf_like_free(struct bpf_like *like);

#endif
