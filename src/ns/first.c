/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/first.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "init_blob.h"

#define NAME "reprise-init"

int first_open(struct error *e)
{
	_cleanup_(close_fd) int fd = memfd_create(NAME, MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(NAME, MFD_CLOEXEC);
	if (fd < 0 || write(fd, init_program, sizeof(init_program)) != sizeof(init_program) ||
	    fchmod(fd, 0555) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make the first process");
	return take_fd(&fd);
}

int first_become(int fd, pid_t child, bool until_all)
{
	char name[] = NAME, number[16], all[] = "all";
	char *argv[] = {name, number, until_all ? all : NULL, NULL}, *envp[] = {NULL};

	snprintf(number, sizeof(number), "%d", child);
	syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
	return -errno;
}

int first_stand(int fd)
{
	char name[] = NAME, stand[] = "-";
	char *argv[] = {name, stand, NULL}, *envp[] = {NULL};

	if ((fd && syscall(SYS_close_range, 0, fd - 1, 0) < 0) ||
	    syscall(SYS_close_range, fd + 1, ~0u, 0) < 0)
		return -errno;
	syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
	return -errno;
}

static bool read_name(int proc_fd, pid_t pid, char **text)
{
	struct error unused = {};
	ssize_t n = procfs_read(proc_fd, text, &unused, "%d/cmdline", pid);

	return n > (ssize_t)sizeof(NAME) && memcmp(*text, NAME, sizeof(NAME)) == 0;
}

bool first_is(int proc_fd, pid_t pid)
{
	_cleanup_(free_ptr) char *text = NULL;

	return read_name(proc_fd, pid, &text);
}

bool first_cares_for(int proc_fd, pid_t pid, pid_t inner, pid_t *ret)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct error unused = {};
	struct proc_stat st;

	*ret = 0;
	if (proc_stat_read(proc_fd, pid, pid, &st, &unused) < 0)
		return false;
	if (!read_name(proc_fd, st.ppid, &text))
		return false;
	*ret = st.ppid;
	return atoi(text + sizeof(NAME)) == inner;
}
