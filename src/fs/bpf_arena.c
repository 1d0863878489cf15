/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arenas (BPF_MAP_TYPE_ARENA): memory that programs and processes share, at one address in all of
 * these. Which pages there are tells the kernel's list of those that there are not (`rt` of struct
 * bpf_arena), and what is in them its own mapping. A page comes when a process touches it; but with
 * BPF_F_SEGV_ON_FAULT, where programs alone give pages: then one of ours does.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_bpf.h"
#include "core/procfs.h"
#include "fs/bpf_map.h"
#include "fs/bpf_rewrite.h"
#include "fs/bpf_ring.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "fs/parts.h"
#include "mm/pages.h"
#include "mm/state.h"
#include "mm/vma.h"

#define PAGE	  4096ull
#define PAGES_MAX (1u << 20) /* 4 GiB (arena_map_alloc()) */
#define GUARD	  65536ull   /* on both sides together: as far as an instruction reaches */
#define RANGES	  (1u << 16)
#define DEPTH	  64

/* ---- checkpoint ---- */

struct reading {
	struct kernel_memory *k;
	Reprise__BpfMap *m;
	struct scratch *s;
	uint64_t base;		      /* where the kernel has what is at address 0 */
	int first, last, left, right; /* in struct range_node */
	uint32_t next;		      /* page that is looked at */
	uint64_t bytes;
	size_t ranges;
};

/* A range in which there are all pages. */
static int save_pages(struct reading *x, uint32_t end)
{
	Reprise__BpfMap *m = x->m;
	uint64_t at = x->next * PAGE, size = (end - x->next) * PAGE;
	Reprise__MemoryPart *part =
		scratch_message(x->s, Reprise__MemoryPart, reprise__memory_part__init);

	x->bytes += size;
	if (x->bytes > BPF_CONTENTS_MAX)
		return -EFBIG;
	if (!part)
		return -ENOMEM;
	part->offset = at;
	part->data.len = size;
	part->data.data = scratch_alloc(x->s, size);
	if (!part->data.data)
		return -ENOMEM;
	m->pages[m->n_pages++] = part;
	/* the low half of an address says where it is */
	return kernel_read(x->k, x->base + (uint32_t)(m->arena_start + at), part->data.data, size);
}

static int pass(struct reading *x, uint64_t node)
{
	uint32_t first, last;
	int r = kernel_read(x->k, node + (uint32_t)x->first, &first, sizeof(first));

	if (r >= 0)
		r = kernel_read(x->k, node + (uint32_t)x->last, &last, sizeof(last));
	if (r >= 0 && (first < x->next || last < first || last >= x->m->max_entries))
		r = -EAGAIN; /* it changes */
	if (r >= 0 && first > x->next)
		r = save_pages(x, first);
	if (r >= 0)
		x->next = last + 1;
	return r;
}

/* In order: an entry of the tree and all below. */
static int walk(struct reading *x, uint64_t rb, bool counting, int depth)
{
	uint64_t below = 0;
	int r = depth > DEPTH || x->ranges > RANGES ? -EAGAIN : 0;

	if (r >= 0)
		r = kernel_read(x->k, rb + (uint32_t)x->left, &below, sizeof(below));
	if (r >= 0 && below)
		r = walk(x, below, counting, depth + 1);
	if (r >= 0 && counting)
		x->ranges++;
	else if (r >= 0)
		r = pass(x, rb);
	if (r >= 0)
		r = kernel_read(x->k, rb + (uint32_t)x->right, &below, sizeof(below));
	return r < 0 || !below ? r : walk(x, below, counting, depth + 1);
}

static int save_all(struct reading *x, uint64_t map)
{
	const struct kernel_place places[] = {
		{&x->first, "range_node", "rn_start"},
		{&x->last, "range_node", "rn_last"},
		{&x->left, "rb_node", "rb_left"},
		{&x->right, "rb_node", "rb_right"},
	};
	uint64_t root = 0;
	int r = kernel_places(x->k, places, sizeof(places) / sizeof(places[0]));
	int in_node = kernel_offset(x->k, "range_node", "rn_rbnode");

	if (r >= 0 && (in_node || kernel_offset(x->k, "bpf_arena", "map")))
		r = -EOPNOTSUPP;
	if (r >= 0)
		r = kernel_member(x->k, map, "bpf_arena", "rt.it_root.rb_root.rb_node", &root,
				  sizeof(root));
	if (r >= 0 && root)
		r = walk(x, root, true, 0);
	if (r < 0)
		return r;
	x->m->pages = scratch_alloc(x->s, (x->ranges + 2) * sizeof(*x->m->pages));
	if (!x->m->pages)
		return -ENOMEM;
	x->ranges = 0;
	r = root ? walk(x, root, false, 0) : 0;
	return r < 0 || x->next >= x->m->max_entries ? r : save_pages(x, x->m->max_entries);
}

static int find_place(struct reading *x, uint64_t map)
{
	uint64_t vm = 0, at = 0;
	int r = kernel_member(x->k, map, "bpf_arena", "user_vm_start", &x->m->arena_start,
			      sizeof(x->m->arena_start));

	if (r >= 0)
		r = kernel_member(x->k, map, "bpf_arena", "user_vm_end", &x->m->arena_end,
				  sizeof(x->m->arena_end));
	if (r >= 0)
		r = kernel_member(x->k, map, "bpf_arena", "kern_vm", &vm, sizeof(vm));
	if (r >= 0)
		r = kernel_member(x->k, vm, "vm_struct", "addr", &at, sizeof(at));
	x->base = at + GUARD / 2;
	return r;
}

int bpf_arena_save(struct checkpoint *c, int fd, Reprise__BpfMap *m, struct scratch *s,
		   struct error *e)
{
	struct reading x = {.k = c->files->kernel, .m = m, .s = s};
	uint64_t map = 0;
	int r = bpf_map_address(x.k, fd, &map);

	if (m->frozen)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "this BPF map, an arena, is frozen");
	if (r >= 0)
		r = find_place(&x, map);
	if (r >= 0)
		r = save_all(&x, map);
	if (c->checking && r != -EOPNOTSUPP && r != -ENOENT) {
		m->n_pages = 0; /* it may be in motion */
		return 0;
	}
	if (r == -EFBIG)
		return error_set(e, r, E_FILE_STATE,
				 "this BPF map, an arena, holds more than %llu MiB",
				 BPF_CONTENTS_MAX >> 20);
	if (r == -ENOMEM)
		return error_set(e, r, E_NO_MEMORY, "no memory for a BPF map");
	return r < 0 ? error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell which pages this BPF map, an arena, "
				 "has")
		     : 0;
}

/* That a process may write to; others may be mapped before. */
static bool is_mapping(const Reprise__Vma *v, uint64_t id)
{
	return v->kind == VMA_BPF_MAP && v->prot & PROT_WRITE && v->ring == id;
}

static uint64_t master_of(const Reprise__File *msg, uint64_t id)
{
	return msg->bpf_map->same_as ? msg->bpf_map->same_as : id;
}

static bool is_mapped(struct checkpoint *c, const struct file_entry *arena)
{
	vec_for_each (f, &c->files->files) {
		if ((*f)->ops != &bpf_map_file_ops || master_of((*f)->msg, (*f)->id) != arena->id)
			continue;
		vec_for_each (m, &c->mm->mms)
			for (size_t i = 0; m->msg && i < m->msg->n_vmas; i++)
				if (is_mapping(m->msg->vmas[i], (*f)->id))
					return true;
	}
	return false;
}

/* Its pages are filled through a mapping, which is what an address without map_extra comes from. */
int bpf_arena_check(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	const Reprise__BpfMap *m = f->msg->bpf_map;

	if (m->same_as || m->type != BPF_MAP_ARENA || is_mapped(c, f) ||
	    (!m->n_pages && m->arena_start == m->extra))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "this BPF map, an arena, is mapped by no process that may write to it");
}

/* ---- restart ---- */

bool bpf_arena_valid(const Reprise__BpfMap *m)
{
	uint64_t size = m->max_entries * PAGE;

	if (m->type != BPF_MAP_ARENA)
		return !m->n_pages && !m->extra && !m->arena_start && !m->arena_end;
	if (m->key_size || m->value_size || m->count || m->frozen || !m->max_entries ||
	    m->max_entries > PAGES_MAX || !parts_fit(m->n_pages, m->pages, size) ||
	    m->arena_start % PAGE || m->arena_start > INT64_MAX || m->arena_end < m->arena_start ||
	    m->arena_end - m->arena_start > PAGES_MAX * PAGE)
		return false;
	for (size_t i = 0; i < m->n_pages; i++)
		if (m->pages[i]->offset % PAGE || m->pages[i]->data.len % PAGE ||
		    !m->pages[i]->data.len ||
		    m->pages[i]->offset + m->pages[i]->data.len > m->arena_end - m->arena_start)
			return false;
	return !m->extra || m->extra == m->arena_start;
}

struct giving {
	uint64_t address, pages;
};

/* A function of the kernel; the number by which programs call it is that of its type. */
static int load_giver(struct restart *r, int arena)
{
	struct kernel_memory *k = NULL;
	struct error unused = {};
	int res = kernel_memory_open(r->proc_fd, &k, &unused);
	int function = res < 0 ? res : kernel_function(k, "bpf_arena_alloc_pages");
	const struct bpf_insn insns[] = {
		LOAD(2, 1, offsetof(struct giving, address)),
		LOAD(3, 1, offsetof(struct giving, pages)),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, arena),
		INSN(0, 0, 0, 0, 0),
		SET(4, -1), /* any node */
		SET(5, 0),
		INSN(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, function),
		SET(0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	const struct bpf_source what = {
		.type = BPF_PROG_TYPE_SYSCALL, .flags = BPF_F_SLEEPABLE, .gpl = true};

	kernel_memory_free(k);
	return function < 0
		       ? function
		       : bpf_program_load(&what, insns, sizeof(insns) / sizeof(insns[0]), NULL);
}

static int give_pages(struct restart *r, const Reprise__BpfMap *m, int fd)
{
	_cleanup_(close_fd) int program = load_giver(r, fd);
	int res = program < 0 ? program : 0;

	for (size_t i = 0; i < m->n_pages && res >= 0; i++) {
		const struct giving g = {m->arena_start + m->pages[i]->offset,
					 m->pages[i]->data.len / PAGE};

		res = bpf_ring_run(program, &g, sizeof(g));
	}
	return res;
}

static int fill(struct restart *r, const struct restart_process *p, const Reprise__Vma *v,
		const struct file_open *f, struct error *e)
{
	const Reprise__BpfMap *m = f->msg->bpf_map;
	_cleanup_(close_fd) int mem_fd =
		procfs_open(r->proc_fd, O_RDWR | O_CLOEXEC, e, "%d/mem", p->pid);
	int res;

	if (mem_fd < 0)
		return mem_fd;
	if (v->start != m->arena_start || v->end != m->arena_end)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an arena is mapped elsewhere");
	res = m->flags & BPF_SEGV_ON_FAULT && m->n_pages ? give_pages(r, m, f->fd) : 0;
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot give pages to an arena of BPF");
	for (size_t i = 0; i < m->n_pages && res >= 0; i++)
		res = pages_force(mem_fd, v->start + m->pages[i]->offset, m->pages[i]->data.data,
				  m->pages[i]->data.len, e);
	return res;
}

/* Through the first mapping of any description of it. */
static int restore(struct restart *r, const struct file_open *f, struct error *e)
{
	vec_for_each (p, &r->processes)
		for (size_t i = 0; p->mm && p->mm_owner && i < p->mm->n_vmas; i++) {
			const Reprise__Vma *v = p->mm->vmas[i];
			const Reprise__File *msg = v->kind == VMA_BPF_MAP
							   ? restart_find(r, RECORD_FILE, v->ring)
							   : NULL;

			if (msg && is_mapping(v, v->ring) && master_of(msg, v->ring) == f->id)
				return fill(r, p, v, f, e);
		}
	return f->msg->bpf_map->n_pages
		       ? error_set(e, -EBADMSG, E_IMAGE_INVALID, "an arena that nobody has mapped")
		       : 0;
}

int bpf_arena_restore(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files)
		if (res >= 0 && f->ops == &bpf_map_file_ops && !f->msg->bpf_map->same_as &&
		    f->msg->bpf_map->type == BPF_MAP_ARENA)
			res = restore(r, f, e);
	return res;
}
