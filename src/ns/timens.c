/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/timens.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

#include "core/cleanup.h"
#include "core/clocks.h"
#include "core/procfs.h"
#include "model/checkpoint.h"
#include "ns/resident.h"
#include "ns/spaces.h"

#define SECOND	    1000000000ll
#define FURTHEST_NS (INT64_MAX / 4) /* KTIME_SEC_MAX / 2 is what the kernel takes */

/*
 * The kernel tells the offsets of the namespace of a task's children only. With us in it, whoever
 * has made it cannot change them any more; but nobody is there that has it for its children.
 */
static int read_offsets(int proc_fd, pid_t tid, int ns, struct clock_offsets *ret, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct resident_begin how = {.proc_fd = proc_fd, .pidns = -1, .enter = &ns, .n = 1};
	int r = tid ? 0 : resident_begin(&res, &how, e);

	return r < 0 ? r : clock_offsets_read(proc_fd, tid ?: res.pid, ret, e);
}

int timens_checkpoint(int proc_fd, pid_t tid, int ns, Reprise__Container *msg, struct scratch *s,
		      struct error *e)
{
	struct clock_offsets ahead;
	int r = read_offsets(proc_fd, tid, ns, &ahead, e);

	if (r < 0)
		return r;
	msg->time = scratch_message(s, Reprise__TimeOffsets, reprise__time_offsets__init);
	if (!msg->time)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a time namespace");
	msg->time->monotonic_ns = ahead.monotonic;
	msg->time->boottime_ns = ahead.boottime;
	return 0;
}

static int print(char *buf, size_t size, const char *name, int64_t offset)
{
	int64_t sec = offset / SECOND, nsec = offset % SECOND;

	if (nsec < 0) {
		nsec += SECOND;
		sec--;
	}
	return snprintf(buf, size, "%s %lld %lld\n", name, (long long)sec, (long long)nsec);
}

/* As long as nobody is in it. The file is about the namespace of children to come. */
static int write_offsets(int proc_fd, pid_t pid, const struct clock_offsets *ahead, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_WRONLY | O_CLOEXEC, e, "%d/timens_offsets", pid);
	char text[128];
	int n;

	if (fd < 0)
		return fd;
	n = print(text, sizeof(text), "monotonic", ahead->monotonic);
	n += print(text + n, sizeof(text) - (size_t)n, "boottime", ahead->boottime);
	if (write(fd, text, (size_t)n) != n)
		return error_errno(e, -errno, E_NAMESPACE,
				   "cannot set the clocks of a time namespace");
	return 0;
}

/* What it says is what stands there. The values are looked at first (proc_timens_set_offset()). */
int timens_has_begun(int proc_fd, pid_t tid, const Reprise__TimeOffsets *msg, bool *ret,
		     struct error *e)
{
	const struct clock_offsets ahead = {msg->monotonic_ns, msg->boottime_ns};
	int r = write_offsets(proc_fd, tid, &ahead, e);

	*ret = r == -EACCES;
	if (*ret)
		error_clear(e);
	return *ret ? 0 : r;
}

int timens_checkpoint_clocks(struct checkpoint *c, struct error *e)
{
	Reprise__Clocks msg = REPRISE__CLOCKS__INIT;

	msg.monotonic_ns = clock_machine_ns(&c->clocks, CLOCK_MONOTONIC);
	msg.boottime_ns = clock_machine_ns(&c->clocks, CLOCK_BOOTTIME);
	return checkpoint_put(c, RECORD_CLOCKS, objects_fresh(c->objects), &msg.base, e);
}

/* ---- restart ---- */

static bool is_too_far(int64_t ns)
{
	return ns > FURTHEST_NS || ns < -FURTHEST_NS;
}

int timens_validate(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	const Reprise__Clocks *clocks = restart_nth(r, RECORD_CLOCKS, 0, NULL);

	if (!(msg->own & CLONE_NEWTIME) && !msg->time)
		return 0;
	if (!(msg->own & CLONE_NEWTIME) || !msg->time || !clocks ||
	    is_too_far(msg->time->monotonic_ns) || is_too_far(msg->time->boottime_ns) ||
	    clocks->monotonic_ns > FURTHEST_NS || clocks->boottime_ns > FURTHEST_NS)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible time namespace");
	return 0;
}

struct clocks {
	struct restart *r;
	const Reprise__Container *msg;
};

static int unshare_clocks(void *arg, struct error *e)
{
	const struct clocks *c = arg;

	if (c->msg->user_namespace && user_space_become(c->r, c->msg->user_namespace, e) < 0)
		return e->err;
	if (unshare(CLONE_NEWTIME) == 0)
		return 0;
	if (errno == EINVAL)
		return error_set(e, -EOPNOTSUPP, E_NAMESPACE, "this kernel has no time namespaces");
	return error_errno(e, -errno, E_NAMESPACE, "cannot make a time namespace");
}

int timens_set(struct restart *r, pid_t tid, const Reprise__TimeOffsets *msg, struct error *e)
{
	const struct clock_offsets ahead = restart_clock_offsets(r, msg);

	return write_offsets(r->proc_fd, tid, &ahead, e);
}

/* By another process: unshare() would change what our next children get. */
int timens_restart(struct restart *r, const Reprise__Container *msg, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	struct clocks clocks = {r, msg};
	const struct resident_begin how = {
		.proc_fd = r->proc_fd, .pidns = -1, .first = unshare_clocks, .arg = &clocks};
	int ret = resident_begin(&res, &how, e);

	if (ret >= 0)
		ret = timens_set(r, res.pid, msg->time, e);
	return ret < 0 ? ret
		       : procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/time_for_children",
				     res.pid);
}
