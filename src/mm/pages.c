/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"

static int failed(struct error *e, int r, const char *what, uint64_t address)
{
	if (r == -ESRCH)
		return error_set(e, r, E_TASK_GONE, "ended while its memory was %s", what);
	return error_errno(e, r, E_VMA_READ, "memory at %#lx cannot be %s", (unsigned long)address,
			   what);
}

/* FOLL_FORCE: mem_rw() of the kernel also reads what PROT_NONE or execute-only mappings hold. */
int pages_read_shared(int proc_fd, pid_t tid, uint64_t address, void *buf, size_t len,
		      struct error *e)
{
	_cleanup_(close_fd) int fd = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/mem", tid);

	if (fd < 0)
		return fd;
	while (len) {
		ssize_t r = pread(fd, buf, len, (off_t)address);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return failed(e, r ? -errno : -ESRCH, "read", address);
		buf = (char *)buf + r;
		address += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

int pages_read(int proc_fd, pid_t tid, uint64_t address, void *buf, size_t len, struct error *e)
{
	while (len) {
		struct iovec local = {buf, len}, remote = {(void *)address, len};
		ssize_t r = process_vm_readv(tid, &local, 1, &remote, 1, 0);

		if (r < 0 && errno == EFAULT)
			return pages_read_shared(proc_fd, tid, address, buf, len, e);
		if (r <= 0)
			return failed(e, r ? -errno : -EFAULT, "read", address);
		/* a short count ends at a page that cannot be read in this way */
		buf = (char *)buf + r;
		address += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

int pages_write(pid_t tid, uint64_t address, const void *buf, size_t len, struct error *e)
{
	while (len) {
		struct iovec local = {(void *)(uintptr_t)buf, len}, remote = {(void *)address, len};
		ssize_t r = process_vm_writev(tid, &local, 1, &remote, 1, 0);

		if (r <= 0)
			return failed(e, r ? -errno : -EFAULT, "filled", address);
		buf = (const char *)buf + r;
		address += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

int pages_force(int mem_fd, uint64_t address, const void *buf, size_t len, struct error *e)
{
	while (len) {
		ssize_t r = pwrite(mem_fd, buf, len, (off_t)address);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return failed(e, r ? -errno : -ESRCH, "filled", address);
		buf = (const char *)buf + r;
		address += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}
