/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "kernel/timer.h"
#include "model/pids.h"

#define NSEC 1000000000ull

/* struct sigevent as timer_create(2) takes it: 64 bytes, the thread id behind notify */
struct kernel_sigevent {
	uint64_t value;
	int32_t signo;
	int32_t notify;
	int32_t tid;
	int32_t pad[11];
};
_Static_assert(sizeof(struct kernel_sigevent) == 64, "SIGEV_MAX_SIZE");

static int parse_notify(const char *how, Reprise__PosixTimer *t)
{
	static const struct {
		const char *name;
		int notify;
	} kinds[] = {{"signal", SIGEV_SIGNAL}, {"none", SIGEV_NONE}, {"thread", SIGEV_THREAD}};
	const char *slash = strchr(how, '/');

	for (size_t i = 0; slash && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strncmp(how, kinds[i].name, (size_t)(slash - how)) != 0)
			continue;
		t->notify = kinds[i].notify;
		if (strncmp(slash + 1, "tid.", 4) == 0) {
			t->notify |= SIGEV_THREAD_ID;
			t->notify_tid = atoi(slash + 5);
		}
		return 0;
	}
	return -EINVAL;
}

/* One timer is four lines, see timers_proc show_timer() in fs/proc/base.c. */
static int parse_one(const char *text, Reprise__PosixTimer *t)
{
	char notify[64];
	unsigned long long value;

	if (sscanf(text, "ID: %d\nsignal: %d/%llx\nnotify: %63[^\n]\nClockID: %d", &t->id,
		   &t->signo, &value, notify, &t->clock) != 5)
		return -EINVAL;
	t->sigval = value;
	return parse_notify(notify, t);
}

int timers_parse(const char *text, size_t *ret_n, Reprise__PosixTimer ***ret, struct scratch *s,
		 struct error *e)
{
	size_t n = 0;

	for (const char *p = strstr(text, "ID: "); p; p = strstr(p + 1, "\nID: "))
		n++;
	*ret_n = 0;
	*ret = scratch_alloc(s, (n + 1) * sizeof(**ret));
	if (!*ret)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for timers");
	for (const char *p = strncmp(text, "ID: ", 4) == 0 ? text : NULL; p && *ret_n < n;) {
		Reprise__PosixTimer *t =
			scratch_message(s, Reprise__PosixTimer, reprise__posix_timer__init);

		if (!t)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for timers");
		if (parse_one(p, t) < 0)
			return error_set(e, -EINVAL, E_INTERNAL,
					 "/proc/PID/timers is not understood");
		(*ret)[(*ret_n)++] = t;
		p = strstr(p, "\nID: ");
		if (p)
			p++;
	}
	return 0;
}

static int too_many(size_t n, struct error *e)
{
	return error_set(e, -E2BIG, E_TASK_STATE, "has %zu POSIX timers; at most %d can be saved",
			 n, POSIX_TIMERS_MAX);
}

int timers_check(struct checkpoint *c, const struct checkpoint_process *p, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	size_t n = 0;

	if (procfs_read(c->proc_fd, &text, NULL, "%d/timers", p->tid) <= 0)
		return 0; /* none; or others say why it cannot be read */
	for (const char *at = text; (at = strstr(at, "ID: ")); at += 4)
		n += at == text || at[-1] == '\n';
	return n > POSIX_TIMERS_MAX ? too_many(n, e) : 0;
}

int timers_query(struct checkpoint *c, struct checkpoint_process *p, struct batch *b,
		 struct timers_query *q, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = checkpoint_text(c, p, LOOK_TIMERS, &text, e);
	int r;

	if (len < 0)
		return (int)len;
	r = timers_parse(text, &q->n, &q->timers, s, e);
	if (r < 0)
		return r;
	if (q->n > POSIX_TIMERS_MAX)
		return too_many(q->n, e);
	q->itimers = batch_data(b, NULL, ITIMERS * sizeof(struct itimerval));
	for (uint32_t i = 0; i < ITIMERS; i++)
		q->itimer_calls[i] = batch_call(b, SYS_getitimer, VAL(i),
						DATA(q->itimers + i * sizeof(struct itimerval)));
	q->values = batch_data(b, NULL, (uint32_t)((q->n + 1) * sizeof(struct itimerspec)));
	for (uint32_t i = 0; i < q->n; i++) {
		q->value_calls[i] = batch_call(b, SYS_timer_gettime, VAL(q->timers[i]->id),
					       DATA(q->values + i * sizeof(struct itimerspec)));
		q->overrun_calls[i] = batch_call(b, SYS_timer_getoverrun, VAL(q->timers[i]->id));
	}
	/* A timer is due that much later than these show, or a little earlier. */
	q->clocks = batch_data(b, NULL, 2 * sizeof(struct timespec));
	for (uint32_t i = 0; i < 2 && q->n; i++)
		batch_call(b, SYS_clock_gettime, VAL(i ? CLOCK_BOOTTIME : CLOCK_MONOTONIC),
			   DATA(q->clocks + i * sizeof(struct timespec)));
	return 0;
}

static uint64_t usec(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000000 + (uint64_t)tv->tv_usec;
}

/* When it is due, by its own clock; 0: not by a monotonic one. */
static uint64_t due_ns(const Reprise__PosixTimer *t, const struct timespec now[2])
{
	bool boot = t->clock == CLOCK_BOOTTIME || t->clock == CLOCK_BOOTTIME_ALARM;

	if (!t->value_ns || (!boot && t->clock != CLOCK_MONOTONIC))
		return 0;
	return (uint64_t)now[boot].tv_sec * NSEC + (uint64_t)now[boot].tv_nsec + t->value_ns;
}

int timers_collect(struct batch *b, struct timers_query *q, Reprise__Process *msg,
		   struct scratch *s, struct error *e)
{
	const struct itimerval *itv = batch_at(b, q->itimers);
	const struct itimerspec *its = batch_at(b, q->values);
	const struct timespec *now = batch_at(b, q->clocks);

	msg->itimers = scratch_alloc(s, ITIMERS * sizeof(*msg->itimers));
	if (!msg->itimers)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for timers");
	for (size_t i = 0; i < ITIMERS; i++) {
		Reprise__Itimer *t = scratch_message(s, Reprise__Itimer, reprise__itimer__init);

		if (!t)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for timers");
		if (batch_result(b, q->itimer_calls[i]) < 0)
			return error_errno(e, (int)batch_result(b, q->itimer_calls[i]), E_REMOTE,
					   "cannot ask for interval timer %zu", i);
		t->interval_us = usec(&itv[i].it_interval);
		t->value_us = usec(&itv[i].it_value);
		msg->itimers[msg->n_itimers++] = t;
	}
	for (size_t i = 0; i < q->n; i++) {
		if (batch_result(b, q->value_calls[i]) < 0)
			return error_errno(e, (int)batch_result(b, q->value_calls[i]), E_REMOTE,
					   "cannot ask for POSIX timer %d", q->timers[i]->id);
		q->timers[i]->interval_ns = (uint64_t)its[i].it_interval.tv_sec * NSEC +
					    (uint64_t)its[i].it_interval.tv_nsec;
		q->timers[i]->value_ns =
			(uint64_t)its[i].it_value.tv_sec * NSEC + (uint64_t)its[i].it_value.tv_nsec;
		q->timers[i]->due_ns = due_ns(q->timers[i], now);
		q->timers[i]->overrun = (int32_t)batch_result(b, q->overrun_calls[i]);
	}
	msg->n_timers = q->n;
	msg->timers = q->timers;
	return 0;
}

int timers_validate(const Reprise__Process *msg, struct error *e)
{
	if (msg->n_itimers != ITIMERS)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%zu interval timers",
				 msg->n_itimers);
	if (msg->n_timers > POSIX_TIMERS_MAX)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%zu POSIX timers", msg->n_timers);
	for (size_t i = 0; i < msg->n_timers; i++)
		if (msg->timers[i]->id < 0 || msg->timers[i]->signo < 0 ||
		    msg->timers[i]->signo > 64 || msg->timers[i]->pending_overrun > INT32_MAX)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "POSIX timer %d with signal %d", msg->timers[i]->id,
					 msg->timers[i]->signo);
	return 0;
}

static struct timeval to_timeval(uint64_t us)
{
	return (struct timeval){.tv_sec = (time_t)(us / 1000000),
				.tv_usec = (suseconds_t)(us % 1000000)};
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NSEC), .tv_nsec = (long)(ns % NSEC)};
}

/*
 * timer_create() counts ids up from the last one (posix_timer_add()). With
 * PR_TIMER_CREATE_RESTORE_IDS the kernel takes the id that is passed; older
 * kernels are made to count up to it by creating and deleting.
 */
static int create_timer(struct restart *r, struct restart_process *p, const Reprise__PosixTimer *t,
			struct error *e)
{
	const struct kernel_sigevent sev = {
		.value = t->sigval,
		.signo = t->signo,
		.notify = t->notify,
		.tid = restart_pid_in(r, t->notify_tid, p->msg->pid_namespace),
	};

	for (int tries = 0; tries <= t->id; tries++) {
		_cleanup_(batch_free) struct batch b = {};
		int32_t id = t->id;
		uint32_t at = batch_data(&b, &id, sizeof(id));
		int call = batch_call(&b, SYS_timer_create, VAL(t->clock),
				      DATA(batch_data(&b, &sev, sizeof(sev))), DATA(at));
		int res = agent_run(p->agent, p->tasks.v[0].tid, NULL, &b, e);
		const uint64_t args[6] = {0};

		if (res < 0)
			return res;
		if (batch_result(&b, call) < 0)
			return error_errno(e, (int)batch_result(&b, call), E_RESTORE,
					   "cannot make POSIX timer %d on clock %d", t->id,
					   t->clock);
		memcpy(&id, batch_at(&b, at), sizeof(id));
		if (id == t->id)
			return 0;
		if (id > t->id)
			break;
		ignore(agent_syscall(p->agent, p->tasks.v[0].tid, NULL, NULL, SYS_timer_delete,
				     (const uint64_t[6]){(uint64_t)id, args[1]}),
		       "a stray timer is not armed");
	}
	return error_set(e, -EEXIST, E_RESTORE, "the id %d of a POSIX timer cannot be had", t->id);
}

static bool queue_has_timer(size_t n, Reprise__Siginfo **list, int id)
{
	siginfo_t si;

	for (size_t i = 0; i < n; i++) {
		memcpy(&si, list[i]->raw.data, sizeof(si));
		if (si.si_code == SI_TIMER && si.si_timerid == id)
			return true;
	}
	return false;
}

static bool fires_pending(const struct restart_process *p, int id)
{
	if (queue_has_timer(p->msg->n_pending, p->msg->pending, id))
		return true;
	vec_for_each (t, &p->tasks)
		if (queue_has_timer(t->msg->n_pending, t->msg->pending, id))
			return true;
	return false;
}

/* The kernel does not tell how a timer was set: by a clock that goes on, it is due when it was. */
static uint64_t time_left(const struct restart *r, const struct restart_process *p,
			  const Reprise__PosixTimer *t)
{
	uint64_t now = restart_task_clock_ns(r, p, t->clock);

	if (!t->due_ns || !restart_clocks_go_on(r, p))
		return t->value_ns;
	if (t->due_ns > now)
		return t->due_ns - now;
	return t->interval_ns ? t->interval_ns - (now - t->due_ns) % t->interval_ns : 1;
}

/*
 * Armed so that it has expired and the next expiry comes when it is due: the
 * phase of an interval timer stays, and `overruns` expiries are counted when its signal is
 * taken. Clocks of processor time cannot be set back: they expire at once.
 */
static int arm_expired(const struct restart *r, const struct restart_process *p, struct batch *b,
		       const Reprise__PosixTimer *t, uint64_t overruns, uint64_t next_ns)
{
	struct itimerspec its = {to_timespec(t->interval_ns), {0, 1}};
	uint64_t back = (overruns + 1) * t->interval_ns, at;
	int flags = 0;

	if (t->clock >= 0 && t->interval_ns) {
		at = restart_task_clock_ns(r, p, t->clock) + next_ns;
		if (at > back) {
			its.it_value = to_timespec(at - back);
			flags = TIMER_ABSTIME;
		}
	}
	return batch_call(b, SYS_timer_settime, VAL(t->id), VAL(flags),
			  DATA(batch_data(b, &its, sizeof(its))), VAL(0));
}

/* The thread that the signal of a timer goes to. */
static struct restart_task *receiver(struct restart_process *p, const Reprise__PosixTimer *t)
{
	vec_for_each (task, &p->tasks)
		if ((t->notify & SIGEV_THREAD_ID) && task->vtid == t->notify_tid)
			return task;
	return &p->tasks.v[0];
}

static bool has_overrun(const Reprise__PosixTimer *t)
{
	return t->overrun > 0 && t->interval_ns && t->signo > 0;
}

#define SOON	 500000	   /* ns */
#define WAIT_MAX 100000000 /* ns */
#define REPLAYS	 20

/*
 * One whose signal is pending has expired more often since. After a signal was taken for
 * timer_getoverrun() nothing but time makes it so again.
 */
static uint64_t expired_since(const struct restart_process *p, const Reprise__PosixTimer *t)
{
	return fires_pending(p, t->id) ? t->pending_overrun : 0;
}

/* Will waiting for the overruns of a pending signal be worth it? How long, from the expiry on. */
static bool worth_waiting(const struct restart_process *p, const Reprise__PosixTimer *t,
			  uint64_t *ret)
{
	uint64_t times = expired_since(p, t) + 1;

	if (t->interval_ns > WAIT_MAX || times > WAIT_MAX / t->interval_ns)
		return false;
	*ret = times * t->interval_ns;
	*ret -= t->value_ns < *ret ? t->value_ns : *ret;
	return true;
}

/*
 * timer_getoverrun() tells of the signal that was taken last: one is sent, and
 * taken. The next one is due as it was, or at once if it was pending.
 */
static int replay_overrun(const struct restart *r, struct restart_process *p,
			  const Reprise__PosixTimer *t, struct error *e)
{
	const uint64_t set = 1ull << (t->signo - 1);
	const struct timespec patience = {0, 100000000};
	uint64_t wait;
	int res = 0;

	/* Where the interval is short, another one may have passed before the signal was taken. */
	for (int tries = 0; tries < REPLAYS; tries++) {
		_cleanup_(batch_free) struct batch b = {};
		int told;

		arm_expired(r, p, &b, t, (uint64_t)t->overrun,
			    fires_pending(p, t->id) ? SOON : time_left(r, p, t));
		batch_call(&b, SYS_rt_sigtimedwait, DATA(batch_data(&b, &set, sizeof(set))), VAL(0),
			   DATA(batch_data(&b, &patience, sizeof(patience))), VAL(8));
		told = batch_call(&b, SYS_timer_getoverrun, VAL(t->id));
		res = agent_run(p->agent, receiver(p, t)->tid, NULL, &b, e);
		if (res < 0 || batch_result(&b, told) == t->overrun)
			break;
	}
	if (res >= 0 && expired_since(p, t) && worth_waiting(p, t, &wait))
		nanosleep(&(struct timespec){.tv_nsec = (long)(wait + SOON)}, NULL);
	return res;
}

static bool queue_has_other(size_t n, Reprise__Siginfo **list, const Reprise__PosixTimer *t)
{
	siginfo_t si;

	for (size_t i = 0; i < n; i++) {
		memcpy(&si, list[i]->raw.data, sizeof(si));
		if (si.si_signo == t->signo && (si.si_code != SI_TIMER || si.si_timerid != t->id))
			return true;
	}
	return false;
}

/* The wrong signal would be taken. */
static bool others_pending(struct restart_process *p, const Reprise__PosixTimer *t)
{
	const Reprise__Task *by = receiver(p, t)->msg;

	return queue_has_other(p->msg->n_pending, p->msg->pending, t) ||
	       queue_has_other(by->n_pending, by->pending, t);
}

/* What is yet to be told counts more than what was told already, where both cannot be had. */
static bool is_replayed(struct restart_process *p, const Reprise__PosixTimer *t)
{
	uint64_t unused;

	return has_overrun(t) && !others_pending(p, t) &&
	       (!expired_since(p, t) || worth_waiting(p, t, &unused));
}

static void arm_timer(const struct restart *r, struct batch *b, struct restart_process *p,
		      const Reprise__PosixTimer *t)
{
	struct itimerspec its = {to_timespec(t->interval_ns), to_timespec(t->value_ns)};
	int flags = 0;

	if (is_replayed(p, t))
		return; /* replay_overrun() has armed it */
	/* The kernel queues a pending signal itself: pending_restart() leaves those of timers out.
	 */
	if (fires_pending(p, t->id)) {
		batch_must(b, arm_expired(r, p, b, t, t->pending_overrun, time_left(r, p, t)));
		return;
	}
	if (!t->value_ns)
		return;
	if (t->due_ns && restart_clocks_go_on(r, p)) {
		its.it_value = to_timespec(t->due_ns);
		flags = TIMER_ABSTIME;
	}
	batch_must(b, batch_call(b, SYS_timer_settime, VAL(t->id), VAL(flags),
				 DATA(batch_data(b, &its, sizeof(its))), VAL(0)));
}

/* set_cpu_itimer() adds a tick, which would be one more with each restart. */
static uint64_t less_a_tick(size_t which, uint64_t value_us)
{
	struct timespec tick = {};
	uint64_t us;

	if (which == ITIMER_REAL || clock_getres(CLOCK_MONOTONIC_COARSE, &tick) < 0)
		return value_us;
	us = (uint64_t)tick.tv_nsec / 1000;
	return value_us > us ? value_us - us : 1;
}

static int arm_all(const struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const Reprise__Process *msg = p->msg;
	int res = 0;

	for (size_t i = 0; i < msg->n_timers && res >= 0; i++) {
		const Reprise__PosixTimer *t = msg->timers[i];

		if (is_replayed(p, t))
			res = replay_overrun(r, p, t, e);
		arm_timer(r, &b, p, t);
	}
	if (res < 0)
		return res;
	for (size_t i = 0; i < ITIMERS; i++) {
		uint64_t value_us = msg->itimers[i]->value_us;
		const struct itimerval itv = {to_timeval(msg->itimers[i]->interval_us),
					      to_timeval(value_us ? less_a_tick(i, value_us) : 0)};

		if (value_us)
			batch_must(&b, batch_call(&b, SYS_setitimer, VAL(i),
						  DATA(batch_data(&b, &itv, sizeof(itv))), VAL(0)));
	}
	if (!b.ncalls)
		return 0;
	res = agent_run(p->agent, p->tasks.v[0].tid, NULL, &b, e);
	for (uint32_t i = 0; i < b.ncalls && res >= 0; i++)
		if (batch_result(&b, (int)i) < 0)
			res = error_errno(e, (int)batch_result(&b, (int)i), E_RESTORE,
					  "cannot arm a timer");
	return res;
}

static int restore_ids(struct restart_process *p, bool on)
{
	const uint64_t args[6] = {PR_TIMER_CREATE_RESTORE_IDS, on};

	return (int)agent_syscall(p->agent, p->tasks.v[0].tid, NULL, NULL, SYS_prctl, args);
}

int timers_restart(struct restart *r, struct restart_process *p, struct error *e)
{
	int res = 0;

	if (p->msg->n_timers) {
		ignore(restore_ids(p, true), "EINVAL before 6.15: create_timer() counts up");
		/* /proc/PID/timers lists the newest first */
		for (size_t i = p->msg->n_timers; i > 0 && res >= 0; i--)
			res = create_timer(r, p, p->msg->timers[i - 1], e);
		ignore(restore_ids(p, false), "as above");
	}
	/* which is a setting of the process as well */
	if (res >= 0 && p->msg->timer_restore_ids)
		ignore(restore_ids(p, true), "a kernel without it lacks but this");
	return res < 0 ? res : arm_all(r, p, e);
}
