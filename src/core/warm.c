/* SPDX-License-Identifier: Apache-2.0 */
#include "core/warm.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/error.h"
#include "core/procfs.h"

/* The program that we are a part of may have any amount of memory. */
#define SMALL	   (2ul << 20)
#define SMALL_HEAP (8ul << 20)

static void warm(uintptr_t at, uintptr_t end)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	at = (at + page - 1) & -page;
	end &= -page;
	if (at < end)
		ignore(madvise((void *)at, end - at, MADV_POPULATE_WRITE), "it comes later then");
}

void warm_heap(size_t bytes)
{
	char *p = malloc(bytes);

	if (p)
		warm((uintptr_t)p, (uintptr_t)p + bytes);
	free(p);
}

void warm_data(int proc_fd)
{
	_cleanup_(free_ptr) char *maps = NULL;
	struct error unused = {};

	if (procfs_read(proc_fd, &maps, &unused, "self/maps") < 0)
		return;
	for (char *line = maps, *next; line && *line; line = next) {
		uintptr_t start, end;
		char prot[5];

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, prot) == 3 &&
		    end - start < (strstr(line, " [heap]") ? SMALL_HEAP : SMALL) &&
		    prot[1] == 'w' && prot[3] == 'p')
			warm(start, end);
	}
}
