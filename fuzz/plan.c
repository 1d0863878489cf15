/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of a restart that happens before anything is made: the image is read, every
 * record validated, the tree planned; and what `reprise inspect` says of it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "operation/load.h"
#include "operation/operation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void plan(int fd)
{
	_cleanup_(restart_unload) struct loaded l;
	_cleanup_(free_ptr) char *text = NULL;
	struct error e = {};
	size_t len;
	int r = restart_load(&l, fd, 1, &e);

	/* Every refusal has its sentence, and success has none. */
	if ((r < 0) != (e.code != ERROR_NONE) || e.code == E_INTERNAL)
		__builtin_trap();
	if (r >= 0) {
		FILE *f = open_memstream(&text, &len);

		if (!f)
			return;
		tree_plan_print(&l.plan, l.nodes, f);
		fclose(f);
		ignore(restart_check_machine(&l, &e), "either will do");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(close_fd) int fd = memfd_create("image", MFD_CLOEXEC);
	_cleanup_(free_ptr) char *json = NULL;

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		return 0;
	lseek(fd, 0, SEEK_SET);
	plan(fd);
	lseek(fd, 0, SEEK_SET);
	ignore(operation_inspect(fd, &json, NULL), "either will do");
	return 0;
}
