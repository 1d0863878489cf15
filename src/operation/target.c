/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/mm.h"
#include "operation/target.h"

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

static bool is_ancestor(int proc_fd, pid_t pid)
{
	pid_t at = getpid();

	while (at > 0) {
		struct error unused = {};
		struct proc_stat st;

		if (at == pid)
			return true;
		if (proc_stat_read(proc_fd, at, at, &st, &unused) < 0)
			return false;
		at = st.ppid;
	}
	return false;
}

static int check_stat(int proc_fd, pid_t pid, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	struct proc_stat st;
	uint64_t tgid = 0;
	int r = proc_stat_read(proc_fd, pid, pid, &st, e);

	if (r == -ESRCH || r == -ENOENT) {
		error_clear(e);
		return error_set(e, -ESRCH, E_PID_NONE, "there is no such process");
	}
	if (r < 0)
		return r;
	if (st.flags & PF_KTHREAD)
		return error_set(e, -EINVAL, E_PID_KERNEL, "is a kernel thread (%s)", st.comm);
	r = (int)procfs_read(proc_fd, &status, e, "%d/status", pid);
	if (r < 0)
		return r;
	if (proc_field_u64(status, "Tgid", 10, &tgid) == 0 && (pid_t)tgid != pid)
		return error_set(e, -EINVAL, E_PID_THREAD, "is a thread of process %d (%s)",
				 (int)tgid, st.comm);
	if (st.state == 'Z' && st.num_threads <= 1)
		return error_set(e, -ESRCH, E_PID_ZOMBIE, "has ended already (%s)", st.comm);
	return 0;
}

int target_check(pid_t pid, struct error *e)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	int r;

	if (pid <= 0)
		return error_set(e, -EINVAL, E_PID_NONE, "%d is not a process id", pid);
	r = procfs_open_root(&proc_fd, e);
	if (r >= 0)
		r = check_stat(proc_fd, pid, e);
	/* The caller's own worker is left out of the tree; any other descent is our own branch. */
	if (r >= 0 && pid != getppid() && is_ancestor(proc_fd, pid))
		r = error_set(e, -EDEADLK, E_PID_SELF, "is an ancestor of reprise itself");
	/* What it does not have yet cannot be saved. */
	if (r >= 0)
		mm_lazy_wait(proc_fd, pid);
	return r < 0 ? error_object(e, r, "task %d", pid) : 0;
}

static const char *const user_features[] = {
	"sse3",
	"pni",
	"ssse3",
	"sse4_1",
	"sse4_2",
	"sse4a",
	"popcnt",
	"movbe",
	"aes",
	"pclmulqdq",
	"fma",
	"avx",
	"f16c",
	"rdrand",
	"rdseed",
	"avx2",
	"bmi1",
	"bmi2",
	"abm",
	"adx",
	"lahf_lm",
	"cx16",
	"erms",
	"fsrm",
	"sha_ni",
	"vaes",
	"gfni",
	"vpclmulqdq",
	"clwb",
	"clflushopt",
	"avx512f",
	"avx512dq",
	"avx512ifma",
	"avx512cd",
	"avx512bw",
	"avx512vl",
	"avx512vbmi",
	"avx512_vbmi2",
	"avx512_vnni",
	"avx512_bitalg",
	"avx512_vpopcntdq",
	"avx512_bf16",
	"avx512_fp16",
	"avx_vnni",
	"amx_tile",
	"amx_int8",
	"amx_bf16",
	"pku",
	"ospke",
	"rdpid",
	"fsgsbase",
	"rtm",
	"xsave",
	"xsavec",
	"xsaveopt",
	"waitpkg",
	"movdiri",
	"movdir64b",
	"rdtscp",
	"syscall",
};

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += len)
		if ((p == list || p[-1] == ' ') &&
		    (p[len] == ' ' || p[len] == '\0' || p[len] == '\n'))
			return true;
	return false;
}

int target_cpu_flags(int proc_fd, char **ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(proc_fd, &text, e, "cpuinfo");
	const char *line, *colon;
	char *end, *out;

	if (n < 0)
		return (int)n;
	line = strstr(text, "\nflags");
	colon = line ? strchr(line, ':') : NULL;
	out = calloc(1, sizeof(user_features) / sizeof(user_features[0]) * 24);
	if (!out)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the processor's features");
	if (colon) {
		end = strchr(colon, '\n');
		if (end)
			*end = '\0';
		for (size_t i = 0; i < sizeof(user_features) / sizeof(user_features[0]); i++)
			if (has_word(colon + 2, user_features[i])) {
				strcat(out, *out ? " " : "");
				strcat(out, user_features[i]);
			}
	}
	*ret = out;
	return 0;
}

char *target_missing_cpu_flag(const char *saved, const char *here)
{
	_cleanup_(free_ptr) char *copy = strdup(saved ? saved : "");
	char *save = NULL;

	for (char *w = copy ? strtok_r(copy, " ", &save) : NULL; w; w = strtok_r(NULL, " ", &save))
		if (!has_word(here, w))
			return strdup(w);
	return NULL;
}
