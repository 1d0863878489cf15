/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/bpf_known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"

struct bpf_known {
	VEC(struct bpf_known_program) list;
	struct bpf_symbols *symbols;
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF program");
}

struct likes {
	struct bpf_like maps[BPF_MAPS_MAX];
	size_t n;
};

static void likes_free(struct likes *x)
{
	for (size_t i = 0; i < x->n; i++)
		bpf_like_free(&x->maps[i]);
}

static int make_likes(struct kernel_memory *k, int fd, uint32_t n, struct likes *ret,
		      uint32_t ids[BPF_MAPS_MAX], struct error *e)
{
	struct bpf_prog_info info = {.nr_map_ids = n, .map_ids = (uint64_t)(uintptr_t)ids};
	int r = bpf_program_info(fd, &info);

	if (r >= 0 && info.nr_map_ids != n)
		r = -EIO;
	for (uint32_t i = 0; i < n && r >= 0; i++) {
		r = bpf_map_like(k, ids[i], &ret->maps[i]);
		ret->n += r >= 0;
	}
	return r < 0 ? error_errno(e, r, E_FILE_KIND, "a map of a BPF program cannot be made anew")
		     : 0;
}

/* A call that is one of the kernel's functions by a number in its types. */
static bool calls_kernel(int fd)
{
	_cleanup_(free_ptr) struct bpf_insn *is = NULL;
	size_t n = 0;

	if (bpf_program_dump(fd, &is, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (is[i].code == (BPF_JMP | BPF_CALL) && is[i].src_reg == BPF_PSEUDO_KFUNC_CALL)
			return true;
	return false;
}

static int not_found(int fd, struct error *e)
{
	if (calls_kernel(fd))
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "a BPF program that calls a function of the kernel (kfunc) cannot "
				 "be saved");
	return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
			 "the kernel keeps this BPF program as rewritten for this machine, and the "
			 "instructions that it was loaded with cannot be found from that (it may "
			 "have had some that are never reached)");
}

/* Our descriptor would count as somebody else who has them. */
static void keep_debug(struct bpf_known_program *p)
{
	p->has_types = p->debug.types >= 0;
	close_fd(&p->debug.types);
}

static int learn(struct bpf_known *known, struct kernel_memory *k, int proc_fd, int fd,
		 const struct bpf_prog_info *info, struct bpf_known_program *p, struct error *e)
{
	_cleanup_(likes_free) struct likes likes = {};
	int r = 0;

	if (bpf_source_read(k, fd, info, &p->what) < 0)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell how a BPF program was loaded");
	r = make_likes(k, fd, info->nr_map_ids, &likes, p->maps, e);
	if (r < 0)
		return r;
	p->nmaps = likes.n;
	r = bpf_debug_read(fd, &p->debug);
	if (r >= 0)
		r = bpf_reverse(fd, &p->what, likes.maps, likes.n, k, proc_fd, &known->symbols,
				&p->debug, &p->insns, &p->n);
	if (r == -ENOMEM)
		return no_memory(e);
	if (r < 0)
		return not_found(fd, e);
	keep_debug(p);
	return 0;
}

static void program_free(struct bpf_known_program *p)
{
	bpf_debug_free(&p->debug);
	free(p->insns);
}

int bpf_known_get(struct bpf_known **known, struct kernel_memory *k, int proc_fd, int fd,
		  const struct bpf_prog_info *info, const struct bpf_known_program **ret,
		  struct error *e)
{
	struct bpf_known_program *p;
	int r;

	if (!*known)
		*known = calloc(1, sizeof(**known));
	if (!*known)
		return no_memory(e);
	vec_for_each (x, &(*known)->list)
		if (x->id == info->id && x->load_time == info->load_time) {
			*ret = x;
			return 0;
		}
	p = vec_push(&(*known)->list);
	if (!p)
		return no_memory(e);
	*p = (struct bpf_known_program){
		.id = info->id, .load_time = info->load_time, .debug = BPF_DEBUG_INIT};
	r = learn(*known, k, proc_fd, fd, info, p, e);
	if (r < 0) {
		program_free(p);
		(*known)->list.n--;
		return r;
	}
	*ret = p;
	return 0;
}

void bpf_known_free(struct bpf_known *known)
{
	if (!known)
		return;
	vec_for_each (p, &known->list)
		program_free(p);
	vec_free(&known->list);
	bpf_symbols_free(known->symbols);
	free(known);
}
