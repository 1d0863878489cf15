/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/bpf_alone.h"

#include <errno.h>

#include "core/cleanup.h"

int bpf_alone_read(struct kernel_memory *k, int proc_fd, int fd, struct bpf_source *what,
		   struct bpf_insn **ret, size_t *ret_n)
{
	_cleanup_(bpf_debug_free) struct bpf_debug debug = BPF_DEBUG_INIT;
	struct bpf_symbols *symbols = NULL;
	struct bpf_prog_info info = {};
	int r = bpf_program_info(fd, &info);

	if (r < 0)
		return r;
	if (info.nr_map_ids || info.attach_btf_id || info.attach_btf_obj_id || info.ifindex)
		return -EOPNOTSUPP;
	r = bpf_source_read(k, fd, &info, what);
	if (r >= 0)
		r = bpf_debug_read(fd, &debug);
	if (r >= 0)
		r = bpf_reverse(fd, what, NULL, 0, k, proc_fd, &symbols, &debug, ret, ret_n);
	bpf_symbols_free(symbols);
	return r;
}
