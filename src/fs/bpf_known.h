/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_KNOWN_H
#define REPRISE_FS_BPF_KNOWN_H

#include "fs/bpf_rewrite.h"

/*
 * BPF programs whose instructions have been found. A program never changes, and to find them takes
 * tens of milliseconds: what was found before the freeze holds within it. Maps are another matter.
 */
struct bpf_known_program {
	uint32_t id;	    /* with the time at which it was loaded, nobody else's */
	uint64_t load_time; /* ns */
	struct bpf_source what;
	struct bpf_insn *insns; /* with indices of maps */
	size_t n;
	uint32_t maps[BPF_MAPS_MAX]; /* ids */
	size_t nmaps;
	bool has_types;
	struct bpf_debug debug; /* as it was given; without a descriptor of the types */
};

/* *known is NULL in the beginning. *ret is valid until the next call. Needs CAP_SYS_ADMIN. */
struct bpf_known;
int bpf_known_get(struct bpf_known **known, struct kernel_memory *k, int proc_fd, int fd,
		  const struct bpf_prog_info *info, const struct bpf_known_program **ret,
		  struct error *e) must_check;
void bpf_known_free(struct bpf_known *known); /* accepts NULL */

#endif
