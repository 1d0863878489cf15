/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"

#define CAP_BIT(n) (1ULL << (n))

/* ---- checkpoint ---- */

struct cred {
	uint32_t uid, gid;
	uint64_t caps, space;
};

static int read_cred(struct kernel_memory *k, uint64_t at, struct cred *ret)
{
	int r = kernel_member(k, at, "cred", "fsuid", &ret->uid, sizeof(ret->uid));

	if (r >= 0)
		r = kernel_member(k, at, "cred", "fsgid", &ret->gid, sizeof(ret->gid));
	if (r >= 0)
		r = kernel_member(k, at, "cred", "cap_effective", &ret->caps, sizeof(ret->caps));
	if (r >= 0)
		r = kernel_member(k, at, "cred", "user_ns", &ret->space, sizeof(ret->space));
	return r;
}

/* His and ours: what he may do in a user namespace of his own he may not do here. */
static int look(struct kernel_memory *k, int fd, struct cred *his)
{
	const int offset = kernel_offset(k, "file", "f_cred");
	uint64_t at = 0, task = 0;
	struct cred own = {};
	int r = kernel_of_file(k, fd, &offset, 1, &at, sizeof(at));

	if (r >= 0)
		r = read_cred(k, at, his);
	if (r >= 0)
		r = kernel_task(k, (pid_t)syscall(SYS_gettid), &task);
	if (r >= 0)
		r = kernel_member(k, task, "task_struct", "cred", &at, sizeof(at));
	if (r >= 0)
		r = read_cred(k, at, &own);
	if (r >= 0 && own.space != his->space)
		his->caps = 0;
	return r;
}

int opener_save(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		struct scratch *s, struct error *e)
{
	struct kernel_memory *k = NULL;
	struct error ignored = {};
	struct cred his = {};
	int r;

	if (!S_ISREG(f->st.st_mode) || (f->flags & O_PATH) || c->files->kernel_hidden)
		return 0;
	if (files_kernel_memory(c, &k, &ignored) < 0) {
		c->files->kernel_hidden = true;
		return 0;
	}
	r = look(k, f->local, &his);
	if (r < 0)
		return error_errno(e, r, E_FILE_STATE, "who opened it cannot be read");
	msg->opener = scratch_message(s, Reprise__FileOpener, reprise__file_opener__init);
	if (!msg->opener)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file");
	msg->opener->uid = his.uid;
	msg->opener->gid = his.gid;
	msg->opener->capabilities = his.caps;
	return 0;
}

/* ---- restart ---- */

struct opening {
	const Reprise__FileOpener *as;
	uint64_t more; /* capabilities, to open it with */
	int proc_fd, fd, flags, result;
};

int capabilities_in_effect(uint64_t caps, bool set, uint64_t *ret)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	*ret = data[0].effective | (uint64_t)data[1].effective << 32;
	data[0].effective = data[0].permitted & (uint32_t)caps;
	data[1].effective = data[1].permitted & (uint32_t)(caps >> 32);
	return set && syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static void *open_as(void *arg)
{
	struct opening *o = arg;
	uint64_t were;

	setfsgid(o->as->gid);
	setfsuid(o->as->uid);
	o->result = capabilities_in_effect(o->as->capabilities | o->more, true, &were);
	if (o->result >= 0)
		o->result = narrow_reopen(o->proc_fd, o->fd, o->flags);
	return NULL;
}

/* In a thread, which ends with its credentials; the process becomes undumpable by the change
 * (commit_creds()). */
static int try(struct opening *o, uint64_t more)
{
	int dumpable = prctl(PR_GET_DUMPABLE), r;
	pthread_t thread;

	o->more = more;
	r = pthread_create(&thread, NULL, open_as, o);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	if (dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1);
	return o->result;
}

int opener_take_over(const struct restart *r, const Reprise__File *msg, int *fd, struct error *e)
{
	/* The task is not yet what it was when he looked into it, or it is out of his sight; or
	 * what he might open then he may not now. */
	const uint64_t look = CAP_BIT(CAP_SYS_PTRACE) | CAP_BIT(CAP_DAC_READ_SEARCH);
	const uint64_t more[] = {0, look, look | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_FOWNER)};
	struct opening o = {
		.as = msg->opener,
		.proc_fd = r->proc_fd,
		.fd = *fd,
		.flags = (int)(msg->flags & ~(uint32_t)(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW)) |
			 O_CLOEXEC | O_NOCTTY};
	uint64_t ours;
	int fresh = -1;

	if (!o.as || capabilities_in_effect(0, false, &ours) < 0 ||
	    (o.as->uid == geteuid() && o.as->gid == getegid() && !(ours & ~o.as->capabilities)))
		return 0;
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]) && fresh < 0; i++)
		fresh = try(&o, more[i]);
	/* Ours would let the kernel do for him what he may not. */
	if (fresh < 0)
		return error_errno(e, fresh, E_FILE_OPEN,
				   "user %u, who had opened it, cannot open it any more",
				   o.as->uid);
	close_fd(fd);
	*fd = fresh;
	return 0;
}
