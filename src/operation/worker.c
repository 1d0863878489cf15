/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/crypto.h"
#include "operation/lasting.h"
#include "operation/stall.h"
#include "operation/worker.h"

/* One message a packet on a SOCK_SEQPACKET pair. */
struct message {
	enum {
		MESSAGE_PROGRESS,
		MESSAGE_TRACE,
		MESSAGE_PROBLEM,
		MESSAGE_READY,
		MESSAGE_CONTAINER,
		MESSAGE_COMPLETE,
		MESSAGE_TRACK,
		MESSAGE_FORGET,
		MESSAGE_RESULT
	} type;
	union {
		struct {
			char phase[32];
			uint64_t done, total;
		} progress;
		char line[512];
		struct reprise_error problem;
		struct reprise_restarted ready;
		struct reprise_container container;
		struct lasting_track track;
		pid_t forget;
		struct worker_result result;
	};
};

/* To what the worker asks. */
struct answer {
	int ret;
	struct reprise_container container;
};

struct report {
	int fd;
	bool progress, trace, ready, container, complete, tracks;
	struct stall_page *stall; /* NULL: nobody looks */
};

#define LOOK_MS 200  /* from one look at the worker to the next */
#define END_MS	1000 /* for one that is killed to end */

uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void error_export(const struct error *e, struct reprise_error *ret)
{
	const struct error_code_info *info = error_code_info(e->code);

	memset(ret, 0, sizeof(*ret));
	snprintf(ret->code, sizeof(ret->code), "%s", info->name);
	ret->err = e->err;
	error_format(e, ret->text, sizeof(ret->text));
}

static int send_message(const struct report *rep, const struct message *m)
{
	ssize_t n;

	do {
		n = send(rep->fd, m, sizeof(*m), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Whoever does not hear it goes on without. */
static void tell(const struct report *rep, const struct message *m)
{
	ignore(send_message(rep, m), "the caller may have gone");
}

void report_progress(struct report *rep, const char *phase, uint64_t done, uint64_t total)
{
	struct message m = {.type = MESSAGE_PROGRESS, .progress = {.done = done, .total = total}};

	if (!rep->progress)
		return;
	snprintf(m.progress.phase, sizeof(m.progress.phase), "%s", phase);
	tell(rep, &m);
}

bool report_traces(const struct report *rep)
{
	return rep->trace;
}

void report_trace(void *arg, const char *line)
{
	struct report *rep = arg;
	struct message m = {.type = MESSAGE_TRACE};

	if (!rep->trace)
		return;
	snprintf(m.line, sizeof(m.line), "%s", line);
	tell(rep, &m);
}

void report_problem(struct report *rep, const struct error *problem)
{
	struct message m = {.type = MESSAGE_PROBLEM};

	if (rep->fd < 0)
		return;
	error_export(problem, &m.problem);
	tell(rep, &m);
}

static int ask(struct report *rep, const struct message *question, struct answer *answer)
{
	ssize_t n;
	int r = send_message(rep, question);

	if (r < 0)
		return r;
	do {
		n = recv(rep->fd, answer, sizeof(*answer), 0);
	} while (n < 0 && errno == EINTR);
	return n == sizeof(*answer) ? answer->ret : -EPIPE;
}

int report_ready(struct report *rep, const struct reprise_restarted *restarted)
{
	struct message m = {.type = MESSAGE_READY, .ready = *restarted};
	struct answer answer;

	if (!rep->ready)
		return 0;
	m.ready.size = sizeof(m.ready);
	m.ready.pidfd = -1;
	return ask(rep, &m, &answer);
}

int report_container(struct report *rep, struct reprise_container *container)
{
	struct message m = {.type = MESSAGE_CONTAINER, .container = *container};
	struct answer answer;
	int r;

	if (!rep->container)
		return -ENOSYS;
	r = ask(rep, &m, &answer);
	if (r >= 0)
		*container = answer.container;
	return r;
}

int report_complete(struct report *rep)
{
	const struct message m = {.type = MESSAGE_COMPLETE};
	struct answer answer;

	return rep->complete ? ask(rep, &m, &answer) : 0;
}

void report_track(struct report *rep, const struct lasting_track *track, const int fds[2])
{
	struct message m = {.type = MESSAGE_TRACK, .track = *track};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = {};
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};

	if (!rep->tracks)
		return;
	control.head = (struct cmsghdr){CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.head), fds, 2 * sizeof(int));
	while (sendmsg(rep->fd, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
		continue;
}

void report_forget(struct report *rep, pid_t tid)
{
	const struct message m = {.type = MESSAGE_FORGET, .forget = tid};
	struct answer answer;

	if (rep->tracks)
		ignore(ask(rep, &m, &answer), "whoever has gone holds nothing");
}

void report_awake(struct report *rep, pid_t worker, int limit_ms)
{
	if (!rep->stall)
		return;
	atomic_store(&rep->stall->since, 0);
	if (!limit_ms || worker <= 0)
		return;
	atomic_store(&rep->stall->worker, worker);
	atomic_store(&rep->stall->limit_ms, limit_ms);
	atomic_store(&rep->stall->task, 0);
	atomic_store(&rep->stall->since, clock_now_ns());
}

void report_at(struct report *rep, pid_t task)
{
	if (rep->stall)
		atomic_store(&rep->stall->task, task);
}

struct report *report_mute(void)
{
	static struct report mute = {.fd = -EBADF}; /* never written to */

	return &mute;
}

/*
 * With a limit of 1 neither a file, which would be too small, nor a program gets it; with 0 a
 * program does (do_coredump()).
 */
void worker_no_core(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_CORE, &limit) < 0)
		return;
	limit.rlim_cur = 1;
	if (!limit.rlim_max)
		limit.rlim_max = 1;
	ignore(setrlimit(RLIMIT_CORE, &limit), "without privilege a hard limit of 0 stays");
}

static void worker_main(pid_t parent, int fd, worker_fn work, void *arg,
			const struct worker_callbacks *cb, struct stall_page *stall)
{
	struct report rep = {fd,
			     cb->progress != NULL,
			     cb->trace != NULL,
			     cb->ready != NULL,
			     cb->container != NULL,
			     cb->complete != NULL,
			     cb->tracks != NULL,
			     stall};
	struct message m = {.type = MESSAGE_RESULT};
	const struct sigaction quiet = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};
	struct error e = {};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	/* Tracees that stop are looked at: a signal for each stop only takes time. */
	sigaction(SIGCHLD, &quiet, NULL);
	/* A process of its own, which soon ends: memory that is given back is only faulted in
	 * again. */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	mallopt(M_TOP_PAD, 1 << 20);
	m.result.ret = work(arg, &rep, &m.result, &e);
	if (m.result.ret < 0) {
		if (e.code == ERROR_NONE)
			error_errno(&e, m.result.ret, E_INTERNAL, "the operation failed");
		error_export(&e, &m.result.error);
	}
	tell(&rep, &m);
	_exit(0);
}

/* A worker that cannot be answered must not wait for ever: it is told that nothing comes. */
static void reply(int fd, const struct answer *answer)
{
	ssize_t n;

	do {
		n = send(fd, answer, sizeof(*answer), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(*answer))
		shutdown(fd, SHUT_WR);
}

static void dispatch(int fd, const struct message *m, int fds[2], const struct worker_callbacks *cb,
		     struct worker_result *result)
{
	struct answer answer = {};

	switch (m->type) {
	case MESSAGE_PROGRESS:
		if (cb->progress)
			cb->progress(cb->arg, m->progress.phase, m->progress.done,
				     m->progress.total);
		break;
	case MESSAGE_TRACE:
		if (cb->trace)
			cb->trace(cb->arg, m->line);
		break;
	case MESSAGE_PROBLEM:
		if (cb->problem)
			cb->problem(cb->arg, &m->problem);
		break;
	case MESSAGE_READY:
		answer.ret = cb->ready(cb->arg, &m->ready);
		reply(fd, &answer);
		break;
	case MESSAGE_CONTAINER:
		answer.container = m->container;
		answer.ret = cb->container(cb->arg, &answer.container);
		reply(fd, &answer);
		break;
	case MESSAGE_COMPLETE:
		answer.ret = cb->complete(cb->complete_arg);
		reply(fd, &answer);
		break;
	case MESSAGE_TRACK:
		if (cb->tracks)
			lasting_take(cb->tracks, &m->track, fds);
		break;
	case MESSAGE_FORGET:
		if (cb->tracks)
			lasting_forget(cb->tracks, m->forget);
		reply(fd, &answer);
		break;
	case MESSAGE_RESULT:
		*result = m->result;
		break;
	}
}

/* With the descriptors that come along, -EBADF where there are none. */
static ssize_t receive(int fd, struct message *m, int fds[2])
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	fds[0] = fds[1] = -EBADF;
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int)))
		memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return n < 0 ? -errno : n;
}

/* Returns -ETIMEDOUT if nobody answers the worker. */
static int await_message(int fd, const struct stall_page *page)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct stall stall = {};
	int n;

	/* A caller with signal handlers is not kept from looking by them. */
	while (page && ((n = poll(&p, 1, LOOK_MS)) == 0 || (n < 0 && errno == EINTR)))
		if (stall_seen(page, &stall))
			return -ETIMEDOUT;
	return 0;
}

/* The worker may leave children that hold its end of the socket: the result ends the conversation.
 */
static int relay(int fd, const struct worker_callbacks *cb, const struct stall_page *page,
		 struct worker_result *result)
{
	struct message m = {.type = MESSAGE_PROGRESS};

	while (m.type != MESSAGE_RESULT) {
		int fds[2];
		ssize_t n = await_message(fd, page);

		if (n >= 0)
			n = receive(fd, &m, fds);
		if (n == -ETIMEDOUT)
			return (int)n;

		if (n == -EINTR)
			continue;
		if (n == sizeof(m))
			dispatch(fd, &m, fds, cb, result);
		close_fd(&fds[0]);
		close_fd(&fds[1]);
		if (n != sizeof(m))
			return n < 0 ? (int)n : 0;
	}
	return 0;
}

static int fail(struct worker_result *result, int r, const char *what)
{
	struct error e = {};

	result->ret = error_errno(&e, r, E_SYSTEM, "%s", what);
	error_export(&e, &result->error);
	return r;
}

/* There is no result: the worker was killed, or it has crashed. */
static void tell_end(int heard, int status, struct worker_result *result)
{
	struct error e = {};

	if (heard < 0)
		error_errno(&e, heard, E_SYSTEM, "nothing is heard of the operation");
	else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM)
		error_set(&e, -EINTR, E_INTERNAL, "the operation was ended by signal %d (%s)",
			  WTERMSIG(status), sigdescr_np(WTERMSIG(status)) ?: "unknown");
	else
		error_set(&e, -EINTR, E_INTERRUPTED, "the operation was ended from outside");
	error_export(&e, &result->error);
}

static void free_stall(struct stall_page **page)
{
	stall_page_free(*page);
}

static void tell_stall(const struct stall_page *page, struct worker_result *result)
{
	pid_t task = atomic_load(&page->task);
	int ms = atomic_load(&page->limit_ms);
	struct error e = {};

	if (task)
		error_set(
			&e, -EBUSY, E_NO_ANSWER,
			"task %d: what it uses does not answer: a look at it has waited for %d ms",
			task, ms);
	else
		error_set(&e, -EBUSY, E_NO_ANSWER,
			  "something that the tasks use does not answer: a look at it has waited "
			  "for %d ms",
			  ms);
	result->ret = e.err;
	error_export(&e, &result->error);
}

/* It may sleep where not even that ends it: then it ends when it is answered, and so does what is
 * below it. */
static void end_stalled(pid_t pid, const struct stall_page *page)
{
	const struct timespec pause = {0, 10000000};

	kill(atomic_load(&page->worker), SIGKILL);
	kill(pid, SIGKILL);
	for (int ms = 0; ms < END_MS && waitpid(pid, NULL, WNOHANG) == 0; ms += 10)
		nanosleep(&pause, NULL);
}

int worker_run(worker_fn work, void *arg, const struct worker_callbacks *cb,
	       struct worker_result *result)
{
	_cleanup_(close_fd) int ours = -EBADF;
	_cleanup_(free_stall) struct stall_page *page = NULL;
	pid_t pid, parent = getpid();
	int pair[2], status, heard;

	memset(result, 0, sizeof(*result));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail(result, -errno, "socketpair");
	ours = pair[0];
	/* The program may have threads. */
	if (crypto_ready() < 0) {
		close_fd(&pair[1]);
		return fail(result, -EIO, "libsodium");
	}
	fflush(NULL);
	page = stall_page_new();
	pid = fork();
	if (pid < 0) {
		close_fd(&pair[1]);
		return fail(result, -errno, "fork");
	}
	if (pid == 0) {
		close_fd(&ours);
		worker_main(parent, pair[1], work, arg, cb, page);
	}
	close_fd(&pair[1]);
	result->ret = -EINTR;
	heard = relay(ours, cb, page, result);
	if (heard == -ETIMEDOUT) {
		tell_stall(page, result);
		end_stalled(pid, page);
		return result->ret;
	}
	/* It may wait for an answer that we cannot give; what it holds is let go with it. */
	if (heard < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (result->ret == -EINTR && !result->error.code[0])
		tell_end(heard, status, result);
	return result->ret;
}
