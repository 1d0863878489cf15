/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "remote/agent.h"

/*
 * Whether a task is a 32-bit one (TIF_ADDR32, what its address space may hold) is decided by the
 * program that it executes, and by nothing else. So it executes one, of nothing but the agent's
 * code, which is 64-bit code in any case: the processor does not mind.
 */

static int failed(struct error *e, long r, enum arch_program kind, const char *what)
{
	if (r == -ENOEXEC && kind == ARCH_PROGRAM_32)
		return error_set(e, (int)r, E_TASK_COMPAT,
				 "this kernel does not run 32-bit programs");
	return error_errno(e, (int)r, E_RESTORE, "cannot %s", what);
}

/* The program as a file in memory; returns its descriptor in the task. */
static int make_file(struct agent *a, pid_t tid, enum arch_program kind, uint64_t boot_at, int keep,
		     struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const char name[] = "reprise";
	uint8_t image[ARCH_PROGRAM_MAX];
	size_t size = arch_program_build(kind, boot_at, arch_agent_code,
					 (size_t)(arch_agent_code_end - arch_agent_code), image);
	uint32_t at = batch_data(&b, name, sizeof(name));
	int file, r;

	file = batch_call(&b, SYS_memfd_create, DATA(at), VAL(MFD_CLOEXEC | MFD_EXEC));
	batch_call(&b, SYS_fcntl, VAL(keep), VAL(F_SETFD), VAL(0));
	r = agent_run(a, tid, NULL, &b, e);
	if (r == 0 && batch_result(&b, file) == -EINVAL) { /* before 6.3 */
		batch_reset(&b);
		at = batch_data(&b, name, sizeof(name));
		file = batch_call(&b, SYS_memfd_create, DATA(at), VAL(MFD_CLOEXEC));
		r = agent_run(a, tid, NULL, &b, e);
	}
	if (r < 0)
		return r;
	r = (int)batch_result(&b, file);
	if (r < 0)
		return failed(e, r, kind, "make a program");
	batch_reset(&b);
	file = batch_call(&b, SYS_write, VAL(r), DATA(batch_data(&b, image, (uint32_t)size)),
			  VAL(size));
	if (agent_run(a, tid, NULL, &b, e) < 0)
		return e->err;
	return batch_result(&b, file) == (long)size
		       ? r
		       : failed(e, batch_result(&b, file), kind, "write a program");
}

static int execute(struct agent *a, pid_t tid, enum arch_program kind, int file, struct error *e)
{
	struct {
		uint64_t argv[2], envp[1];
		char name[8], empty[8];
	} data = {.name = "reprise"};
	uint64_t at = a->mapping + AGENT_SIZE - sizeof(data);
	const uint64_t args[6] = {(uint64_t)file, at + offsetof(__typeof__(data), empty),
				  at + offsetof(__typeof__(data), argv),
				  at + offsetof(__typeof__(data), envp), AT_EMPTY_PATH};
	long result = 0;
	int r;

	data.argv[0] = at + offsetof(__typeof__(data), name);
	r = mem_write(tid, at, &data, sizeof(data), e);
	if (r == 0)
		r = captive_call(a, tid, SYS_execveat, args, &result, e);
	return r < 0 || result >= 0 ? r : failed(e, result, kind, "execute a program");
}

/* From the page that the kernel has mapped, which is not to be written to. */
static int move_to(struct agent *a, pid_t tid, uint64_t at, struct error *e)
{
	const uint64_t args[6] = {at,
				  AGENT_SIZE,
				  PROT_READ | PROT_WRITE | PROT_EXEC,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				  (uint64_t)-1,
				  0};
	long result = 0;
	int r = captive_call(a, tid, SYS_mmap, args, &result, e);

	if (r < 0)
		return r;
	if (result != (long)at)
		return failed(e, result, ARCH_PROGRAM_OTHER, "place the agent");
	a->mapping = at;
	return mem_write(tid, at, arch_agent_code, (size_t)(arch_agent_code_end - arch_agent_code),
			 e);
}

/* ---- capabilities ---- */

struct caps {
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
};

static int read_caps(struct agent *a, pid_t tid, struct caps *ret, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const struct caps none = {.header = {.version = _LINUX_CAPABILITY_VERSION_3}};
	uint32_t at = batch_data(&b, &none, sizeof(none));
	int call = batch_call(&b, SYS_capget, DATA(at),
			      DATA(at + (uint32_t)offsetof(struct caps, data)));
	int r = agent_run(a, tid, NULL, &b, e);

	if (r == 0 && batch_result(&b, call) < 0)
		r = error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				"cannot read capabilities");
	if (r == 0)
		memcpy(ret, batch_at(&b, at), sizeof(*ret));
	return r;
}

/*
 * Who is not root loses all capabilities by exec, but for the ambient ones; and those of root may
 * grow. ambient: for the time of the exec; or all is as it was.
 */
static int set_caps(struct agent *a, pid_t tid, const struct caps *caps, bool ambient,
		    struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct caps set = *caps;
	uint32_t at;
	int call, r;

	for (size_t i = 0; ambient && i < _LINUX_CAPABILITY_U32S_3; i++)
		set.data[i].inheritable = set.data[i].permitted;
	at = batch_data(&b, &set, sizeof(set));
	if (!ambient)
		batch_call(&b, SYS_prctl, VAL(PR_CAP_AMBIENT), VAL(PR_CAP_AMBIENT_CLEAR_ALL),
			   VAL(0), VAL(0), VAL(0));
	call = batch_call(&b, SYS_capset, DATA(at),
			  DATA(at + (uint32_t)offsetof(struct caps, data)));
	for (uint32_t cap = 0; ambient && cap < 64; cap++)
		if (set.data[cap / 32].permitted & 1u << cap % 32)
			batch_call(&b, SYS_prctl, VAL(PR_CAP_AMBIENT), VAL(PR_CAP_AMBIENT_RAISE),
				   VAL(cap), VAL(0), VAL(0));
	r = agent_run(a, tid, NULL, &b, e);
	if (r == 0 && batch_result(&b, call) < 0)
		r = error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				"cannot keep capabilities");
	return r;
}

int agent_change_program(struct agent *a, pid_t tid, bool compat, uint64_t boot_at, uint64_t at,
			 int keep, struct error *e)
{
	enum arch_program kind = compat ? ARCH_PROGRAM_32 : ARCH_PROGRAM_64;
	const uint64_t close_on_exec[6] = {(uint64_t)keep, F_SETFD, FD_CLOEXEC};
	struct caps caps = {};
	uint64_t mask;
	int file = make_file(a, tid, kind, boot_at, keep, e), r = file;

	if (r >= 0)
		r = read_caps(a, tid, &caps, e);
	if (r >= 0)
		r = set_caps(a, tid, &caps, true, e);
	if (r >= 0)
		r = trace_get_sigmask(tid, &mask, e);
	if (r >= 0)
		r = trace_set_sigmask(tid, ~0ULL, e);
	if (r >= 0)
		r = execute(a, tid, kind, file, e);
	if (r < 0)
		return r;
	a->mapping = boot_at;
	r = move_to(a, tid, at, e);
	if (r >= 0)
		r = trace_set_sigmask(tid, mask, e);
	if (r >= 0)
		r = set_caps(a, tid, &caps, false, e);
	/* It may not have been there. */
	if (r >= 0)
		ignore(agent_syscall(a, tid, NULL, e, SYS_fcntl, close_on_exec), "see above");
	return r;
}
