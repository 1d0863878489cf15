/* SPDX-License-Identifier: Apache-2.0 */
/* Where processes have mapped the rings of packet sockets. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_kinds.h"
#include "fs/send_fds.h"
#include "mm/calls.h"
#include "mm/state.h"
#include "mm/vma.h"
#include "net/packet_ring.h"

/* Mappings know the inode of their socket. */
static int find_socket(struct checkpoint *c, Reprise__Vma *v, struct error *e)
{
	uint64_t ino = v->ring;

	v->ring = 0;
	vec_for_each (f, &c->files->files)
		if ((*f)->msg->packet && (*f)->ino == ino)
			v->ring = (*f)->id;
	if (!v->ring)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "is memory of a socket that is no packet socket, or that nobody "
				 "in the tree has as a descriptor");
	return 0;
}

int packet_map_save(struct checkpoint *c, struct error *e)
{
	return mm_for_each_vma(c, VMA_PACKET, "packet socket", find_socket, e);
}

static int map_one(struct calls *calls, const Reprise__Vma *v, struct error *e)
{
	int fd = -1, r = give_fd(calls->r, &calls->p->tasks.v[0],
				 files_restart_fd(calls->r, v->ring), &fd, e);

	if (r < 0)
		return r;
	calls_place(calls, "mmap of a packet socket", v->start, v->end, SYS_mmap, VAL(v->start),
		    VAL(v->end - v->start), VAL(v->prot), VAL(MAP_SHARED | MAP_FIXED_NOREPLACE),
		    VAL(fd), VAL(0));
	calls_add(calls, "close", 0, 0, SYS_close, VAL(fd));
	return calls_run(calls, e);
}

int packet_map_restore(struct restart *r, struct error *e)
{
	vec_for_each (p, &r->processes) {
		_cleanup_(calls_free) struct calls calls = {.r = r, .p = p};

		if (!p->mm || !p->mm_owner)
			continue;
		for (size_t i = 0; i < p->mm->n_vmas; i++) {
			int res = p->mm->vmas[i]->kind == VMA_PACKET
					  ? map_one(&calls, p->mm->vmas[i], e)
					  : 0;

			if (res < 0)
				return res;
		}
	}
	return 0;
}
