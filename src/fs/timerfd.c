/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers go on with the time that they had left; those set to an absolute time
 * of the wall clock, or of a clock of a time namespace, expire at that time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/clocks.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/file_kinds.h"

#define NSEC_PER_SEC 1000000000ULL
#define ASK_TRIES    8
#define ASK_NEAR_NS  10000

static bool timerfd_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[timerfd]");
}

static bool follows_wall_clock(int clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM;
}

/* The clock by which absolute times of a timer are meant. */
static clockid_t base_clock(int clock)
{
	if (clock == CLOCK_REALTIME_ALARM)
		return CLOCK_REALTIME;
	return clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME : clock;
}

static uint64_t to_ns(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * NSEC_PER_SEC + (uint64_t)ts->tv_nsec;
}

static struct timespec from_ns(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / NSEC_PER_SEC), (long)(ns % NSEC_PER_SEC)};
}

static int read_flags(const char *fdinfo, Reprise__TimerFd *m, struct error *e)
{
	uint64_t clock, flags;

	if (proc_field_u64(fdinfo, "clockid", 10, &clock) < 0 ||
	    proc_field_u64(fdinfo, "ticks", 10, &m->ticks) < 0 ||
	    proc_field_u64(fdinfo, "settime flags", 8, &flags) < 0)
		return error_set(e, -EINVAL, E_KERNEL_TOO_OLD, "its fdinfo is not understood");
	m->clock = (int32_t)clock;
	m->settime_flags = (uint32_t)flags;
	return 0;
}

/* The time left, and the clock at that moment, or a little before. */
static int ask(int fd, clockid_t clock, struct itimerspec *its, uint64_t *ret_now, struct error *e)
{
	uint64_t nearest = UINT64_MAX;

	for (int i = 0; i < ASK_TRIES && nearest > ASK_NEAR_NS; i++) {
		uint64_t before = clock_ns(clock), took;
		struct itimerspec is;

		if (timerfd_gettime(fd, &is) < 0)
			return error_errno(e, -errno, E_SYSTEM, "timerfd_gettime");
		took = clock_ns(clock) - before;
		if (took >= nearest)
			continue;
		nearest = took;
		*its = is;
		*ret_now = before;
	}
	return 0;
}

/*
 * Asking for the time left makes the kernel count the expirations of a periodic
 * timer that nobody has read since the first one (timerfd_get_remaining()): the ticks have to be
 * read after it.
 */
static int read_timer(struct checkpoint *c, const struct file_seen *f, Reprise__TimerFd *m,
		      uint64_t *ret_now, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct itimerspec its = {};
	ssize_t n;
	int r = read_flags(f->fdinfo, m, e);

	if (r >= 0)
		r = ask(f->local, base_clock(m->clock), &its, ret_now, e);
	if (r < 0)
		return r;
	n = procfs_read(c->proc_fd, &text, e, "self/fdinfo/%d", f->local);
	if (n < 0)
		return (int)n;
	m->value_ns = to_ns(&its.it_value);
	m->interval_ns = to_ns(&its.it_interval);
	return read_flags(text, m, e);
}

static int cancelled(const char *clock_tells, struct error *e)
{
	return error_set(
		e, -EBUSY, E_FILE_STATE,
		"a step of the clock has cancelled it (TFD_TIMER_CANCEL_ON_SET), which has not been read%s; "
		"try again when it has been",
		clock_tells);
}

/*
 * Only a step of the clock makes it so (timerfd_clock_was_set()), and only the kernel's memory says
 * so. Without that: who cancels also counts an expiration, and a timer that expires once has none
 * while it runs, and one afterwards.
 */
static int refuse_cancelled(struct checkpoint *c, const struct file_seen *f,
			    const Reprise__TimerFd *m, struct error *e)
{
	const uint32_t both = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET;
	struct kernel_memory *k = NULL;
	struct error ignored = {};
	int64_t offset = 0; /* between the clocks, as far as has been told */

	if (!follows_wall_clock(m->clock) || (m->settime_flags & both) != both)
		return 0;
	if (files_kernel_memory(c, &k, &ignored) >= 0) {
		const int offsets[] = {kernel_offset(k, "file", "private_data"),
				       kernel_offset(k, "timerfd_ctx", "moffs")};

		if (kernel_of_file(k, f->local, offsets, 2, &offset, sizeof(offset)) >= 0)
			return offset == INT64_MAX ? cancelled("", e) : 0;
	}
	if (!c->checking && !m->interval_ns && m->ticks > (m->value_ns ? 0 : 1))
		return cancelled(", as it seems", e);
	return 0;
}

static int timerfd_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	Reprise__TimerFd *m = scratch_message(scratch, Reprise__TimerFd, reprise__timer_fd__init);
	uint64_t now = 0;
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a timerfd");
	msg->timerfd = m;
	r = c->checking ? read_flags(f->fdinfo, m, e) : read_timer(c, f, m, &now, e);
	if (r >= 0)
		r = refuse_cancelled(c, f, m, e);
	if (r < 0 || c->checking)
		return r;
	if (m->value_ns && follows_wall_clock(m->clock) && (m->settime_flags & TFD_TIMER_ABSTIME)) {
		m->absolute = true;
		m->value_ns += now;
	} else if (m->value_ns && (m->settime_flags & TFD_TIMER_ABSTIME)) {
		m->machine_ns = now - (uint64_t)clock_offset(&c->clocks, base_clock(m->clock)) +
				m->value_ns;
	}
	return 0;
}

static int timerfd_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->timerfd ||
	    msg->timerfd->settime_flags & ~(uint32_t)(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper timerfd");
	return 0;
}

/* By our clock, which is not that of the tasks. */
static uint64_t absolute_time(const struct restart *r, const Reprise__TimerFd *m)
{
	const clockid_t clock = base_clock(m->clock);
	const struct restart_process *root = &r->processes.v[0];
	uint64_t due, now = restart_task_clock_ns(r, root, clock), ours = clock_ns(clock);

	if (!restart_clock_point(r, root, clock, m->machine_ns, &due))
		return ours + m->value_ns;
	return due > now || now - due < ours ? ours + due - now : 1;
}

static int arm(const struct restart *r, int fd, const Reprise__TimerFd *m, struct error *e)
{
	struct itimerspec its = {.it_interval = from_ns(m->interval_ns)};
	uint64_t value = m->value_ns;

	if (value && (m->settime_flags & TFD_TIMER_ABSTIME) && !m->absolute)
		value = absolute_time(r, m);
	its.it_value = from_ns(value);
	if (timerfd_settime(fd, (int)m->settime_flags, &its, NULL) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set a timerfd");
	/* After the setting, which forgets them. */
	if (m->ticks && ioctl(fd, TFD_IOC_SET_TICKS, &m->ticks) < 0)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD,
				   "cannot set the unread expirations of a timerfd");
	return 0;
}

static int timerfd_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	_cleanup_(close_fd) int fd = timerfd_create(msg->timerfd->clock, TFD_CLOEXEC);
	int res;

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make a timerfd of clock %d",
				   msg->timerfd->clock);
	res = arm(r, fd, msg->timerfd, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void timerfd_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__TimerFd *m = msg->timerfd;

	snprintf(buf, size, "clock %d, %s%s, %llu unread", m ? m->clock : 0,
		 m && m->value_ns ? "armed" : "disarmed", m && m->interval_ns ? ", periodic" : "",
		 m ? (unsigned long long)m->ticks : 0);
}

const struct file_ops timerfd_file_ops = {
	.kind = FILE_TIMERFD,
	.name = "timerfd",
	.support = "all clocks, absolute and periodic, unread expirations",
	.match = timerfd_match,
	.checkpoint = timerfd_checkpoint,
	.validate = timerfd_validate,
	.restart = timerfd_restart,
	.describe = timerfd_describe,
};
