/* SPDX-License-Identifier: Apache-2.0 */
/* Maps like those of the application, and type information as a program has it: for trials. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_rewrite.h"
#include "fs/bpf_types.h"

#define RECORDS_MAX (1u << 20)

/* ---- maps ---- */

/*
 * Of maps that neither a program nor bpf(2) can write any more the verifier takes values for
 * constants (bpf_map_is_rdonly(), bpf_map_direct_read()).
 */
static int copy_constants(struct kernel_memory *k, int fd, const struct bpf_map_info *info,
			  int like)
{
	_cleanup_(bpf_contents_free) struct bpf_contents all = {};
	uint64_t map = 0;
	uint8_t frozen = 0;
	int r;

	if (info->type != BPF_MAP_TYPE_ARRAY || !(info->map_flags & BPF_F_RDONLY_PROG))
		return 0;
	r = bpf_map_address(k, fd, &map);
	if (r >= 0)
		r = kernel_member(k, map, "bpf_map", "frozen", &frozen, sizeof(frozen));
	if (r < 0 || !frozen)
		return r;
	r = bpf_contents_read(&all, k, fd, info, 1);
	for (uint64_t i = 0; i < all.count && r >= 0; i++)
		r = bpf_map_element(BPF_MAP_UPDATE_ELEM, like, all.keys + i * all.key_size,
				    all.values + i * all.value_size);
	return r < 0 ? r : bpf_map_freeze(like);
}

static int make(struct kernel_memory *k, int fd, struct bpf_like *ret)
{
	const struct bpf_map_info *info = &ret->info;
	_cleanup_(close_fd) int types = info->btf_id ? bpf_types_open(info->btf_id) : -1;
	struct bpf_map_make what = {.frame = bpf_map_frame(info),
				    .types = types,
				    .key_type = info->btf_key_type_id,
				    .value_type = info->btf_value_type_id};
	const struct bpf_map_make inner = {.frame = ret->frame, .types = -1};
	int r = 0;

	if (info->btf_id && types < 0)
		return types;
	if (bpf_map_of_maps(info->type)) {
		what.inner = &ret->frame;
		r = ret->inner = bpf_map_make(&inner);
	}
	if (r >= 0)
		r = ret->like = bpf_map_make(&what);
	return r < 0 ? r : copy_constants(k, fd, info, ret->like);
}

int bpf_map_like(struct kernel_memory *k, uint32_t id, struct bpf_like *ret)
{
	_cleanup_(close_fd) int fd = bpf_map_open(id, O_RDWR);
	struct bpf_map_info made;
	int r;

	*ret = (struct bpf_like){.id = id, .like = -1, .inner = -1};
	r = fd < 0 ? fd : bpf_map_info(fd, &ret->info);
	if (r >= 0 && (bpf_map_shape(ret->info.type) == SHAPE_NONE ||
		       (ret->info.map_flags & ~(uint32_t)BPF_MAP_FLAGS)))
		r = -EOPNOTSUPP;
	if (r >= 0 && bpf_map_of_maps(ret->info.type))
		r = bpf_map_inner(k, fd, &ret->frame);
	if (r >= 0)
		r = make(k, fd, ret);
	if (r >= 0)
		r = bpf_map_info(ret->like, &made);
	if (r < 0)
		bpf_like_free(ret);
	else
		ret->like_id = made.id;
	return r;
}

void bpf_like_free(struct bpf_like *like)
{
	close_fd(&like->like);
	close_fd(&like->inner);
}

/* ---- type information ---- */

void bpf_debug_free(struct bpf_debug *d)
{
	close_fd(&d->types);
	free(d->functions);
	free(d->lines);
}

int bpf_debug_read(int fd, struct bpf_debug *ret)
{
	struct bpf_prog_info is = {}, info;
	int r = bpf_program_info(fd, &is);

	*ret = (struct bpf_debug)BPF_DEBUG_INIT;
	if (r < 0 || !is.btf_id)
		return r;
	if (is.nr_func_info > RECORDS_MAX || is.nr_line_info > RECORDS_MAX)
		return -EFBIG;
	ret->functions = calloc(is.nr_func_info + 1, sizeof(*ret->functions));
	ret->lines = calloc(is.nr_line_info + 1, sizeof(*ret->lines));
	ret->types = bpf_types_open(is.btf_id);
	info = (struct bpf_prog_info){.nr_func_info = is.nr_func_info,
				      .func_info_rec_size = sizeof(*ret->functions),
				      .func_info = kernel_bpf_pointer(ret->functions),
				      .nr_line_info = is.nr_line_info,
				      .line_info_rec_size = sizeof(*ret->lines),
				      .line_info = kernel_bpf_pointer(ret->lines)};
	if (!ret->functions || !ret->lines)
		r = -ENOMEM;
	else if (ret->types < 0)
		r = ret->types;
	else
		r = bpf_program_info(fd, &info);
	if (r >= 0 &&
	    (info.nr_func_info != is.nr_func_info || info.nr_line_info != is.nr_line_info))
		r = -EIO;
	if (r < 0) {
		bpf_debug_free(ret);
		*ret = (struct bpf_debug)BPF_DEBUG_INIT;
		return r;
	}
	ret->nfunctions = info.nr_func_info;
	ret->nlines = info.nr_line_info;
	return 0;
}
