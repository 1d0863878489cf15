/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/addresses.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"

int file_addresses_list(struct checkpoint *c, struct kernel_memory *k, struct file_addresses *ret,
			struct error *e)
{
	_cleanup_(close_fd) int pidfd = -EBADF;
	pid_t opened = 0;

	vec_for_each (f, &c->files->files) {
		_cleanup_(close_fd) int local = -EBADF;
		struct file_address *a;

		if ((*f)->fd < 0 || !(*f)->ops)
			continue;
		if (opened != (*f)->tid) {
			close_fd(&pidfd);
			pidfd = files_pidfd((*f)->tid);
			opened = (*f)->tid;
		}
		if (pidfd >= 0)
			local = (int)syscall(SYS_pidfd_getfd, pidfd, (*f)->fd, 0);
		if (local < 0)
			continue; /* gone, while checking */
		a = vec_push(&ret->of);
		if (!a)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for open files");
		a->id = (*f)->id;
		a->eventfd = (*f)->ops == &eventfd_file_ops;
		if (kernel_file(k, local, &a->file) < 0)
			return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
					 "this kernel does not tell which files are registered");
	}
	return 0;
}

void file_addresses_free(struct file_addresses *a)
{
	vec_free(&a->of);
}

uint64_t file_addresses_id(const struct file_addresses *all, uint64_t file)
{
	vec_for_each (a, &all->of)
		if (a->file == file)
			return a->id;
	return 0;
}

uint64_t file_addresses_eventfd(const struct file_addresses *all, struct kernel_memory *k,
				uint64_t ctx)
{
	vec_for_each (a, &all->of) {
		uint64_t is;

		if (a->eventfd &&
		    kernel_member(k, a->file, "file", "private_data", &is, sizeof(is)) >= 0 &&
		    is == ctx)
			return a->id;
	}
	return 0;
}
