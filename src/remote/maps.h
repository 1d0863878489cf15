/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_MAPS_H
#define REPRISE_REMOTE_MAPS_H

#include "core/error.h"
#include "core/vec.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Private to src/remote: the few mappings of a task that an agent cares about. */
enum { MAP_READ = 1, MAP_WRITE = 2, MAP_EXEC = 4, MAP_IS_SHARED = 8 };

struct map_entry {
	uint64_t start, end;
	unsigned int perms;
	uint64_t inode;
	char name[64]; /* the end of a longer one */
};

/* Those with code, the [stack], and the one that holds `sp`. */
struct maps {
	VEC(struct map_entry) entries;
	uint64_t hole; /* where nothing is mapped, for an agent and a page on either side; 0:
			  nowhere */
};

int maps_read(int proc_fd, pid_t tid, uint64_t sp, struct maps *ret, struct error *e) must_check;
void maps_free(struct maps *m);

#endif
