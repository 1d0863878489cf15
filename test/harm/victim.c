/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is checkpointed while harm is done to the tool: it looks after itself all the time.
 *
 *	victim SIZE MIB [THING...]
 *
 * SIZE is small (3 threads) or full (11); MIB of memory are written and compared all the
 * time. THINGs: sockets (with messages in their queues), pty (with something typed).
 * A line of its standard input is a question, answered by a line: "well", or what is wrong.
 * A question that begins with a 't' is also about the ticks of a timer: they may be missing only
 *after a restart.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../unit/patient.h"

#define TICK_NS	    5000000
#define TICK	    (SIGRTMIN + 2)
#define KEPT	    (SIGRTMIN + 5) /* always pending */
#define KEPT_VALUE  4711
#define PAGE	    4096
#define PATIENCE_NS 30000000000 /* a machine may be busy */

struct page {
	uint64_t turn, sum, words[PAGE / 8 - 2];
};

/* Shared by both processes. */
static struct shared {
	_Atomic bool failed;
	char failure[200];
	_Atomic unsigned long written, fpu, talks;
} * shared;

static struct patient *threads;
static struct page *pages;
static size_t npages;
static _Atomic unsigned long ticks;
static int64_t ticking_since;
static int to_child[2], from_child[2];
static int stream[2] = {-1, -1}, datagram[2] = {-1, -1}, master = -1, slave = -1, tcp = -1;

static void complain(const char *format, ...)
{
	va_list ap;

	if (atomic_exchange(&shared->failed, true))
		return;
	va_start(ap, format);
	vsnprintf(shared->failure, sizeof(shared->failure), format, ap);
	va_end(ap);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- memory ---- */

static uint64_t sum_of(const struct page *p)
{
	uint64_t sum = p->turn * 0x9e3779b97f4a7c15;

	for (size_t i = 0; i < sizeof(p->words) / 8; i++)
		sum = (sum << 7 | sum >> 57) ^ p->words[i];
	return sum;
}

static void write_page(struct page *p, uint64_t turn)
{
	p->turn = turn;
	for (size_t i = 0; i < sizeof(p->words) / 8; i++)
		p->words[i] = turn * (i + 1) + (uintptr_t)p;
	p->sum = sum_of(p);
}

static void check_page(const struct page *p)
{
	if (p->sum != sum_of(p))
		complain("the page at %p has changed", (const void *)p);
}

static void block_all(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
}

/* What blocks everything would keep a signal that was meant for nobody. */
static void check_pending(void)
{
	sigset_t set;

	sigpending(&set);
	for (int i = 1; i < SIGRTMIN; i++)
		if (i != SIGUSR2 && sigismember(&set, i) == 1)
			complain("signal %d waits, which nobody has sent", i);
}

static void *write_memory(void *arg)
{
	unsigned int seed = 1;

	(void)arg;
	block_all();
	for (unsigned long turn = 1;; turn++) {
		struct page *p = &pages[(size_t)rand_r(&seed) % npages];

		check_page(p);
		write_page(p, turn);
		check_page(&pages[(size_t)rand_r(&seed) % npages]);
		shared->written++;
		check_pending();
		if (turn % 8 == 0)
			usleep(200);
	}
	return NULL;
}

/* ---- the x87 unit ---- */

static void check_fpu(unsigned long turn)
{
	static const uint16_t modes[] = {0x37f, 0x77f, 0xb7f, 0xf7f};
	uint16_t mode = modes[turn % 4], is = 0;
	uint64_t in[8], out[8];

	for (int i = 0; i < 8; i++)
		in[i] = turn * 8 + (uint64_t)i + 1;
	asm volatile("fninit; fldcw %[mode]\n"
		     "fildq (%[in]); fildq 8(%[in]); fildq 16(%[in]); fildq 24(%[in])\n"
		     "fildq 32(%[in]); fildq 40(%[in]); fildq 48(%[in]); fildq 56(%[in])\n"
		     "mov $20000, %%ecx; 1: dec %%ecx; jnz 1b\n"
		     "fnstcw %[is]\n"
		     "fistpq 56(%[out]); fistpq 48(%[out]); fistpq 40(%[out]); fistpq 32(%[out])\n"
		     "fistpq 24(%[out]); fistpq 16(%[out]); fistpq 8(%[out]); fistpq (%[out])\n"
		     "fninit\n"
		     : [is] "+m"(is)
		     : [in] "r"(in), [out] "r"(out), [mode] "m"(mode)
		     : "ecx", "memory", "cc");
	if (memcmp(in, out, sizeof(in)))
		complain("an x87 register has changed");
	if (is != mode)
		complain("the x87 control word is %#x instead of %#x", is, mode);
}

static void *use_fpu(void *arg)
{
	(void)arg;
	for (unsigned long turn = 0;; turn++) {
		check_fpu(turn);
		shared->fpu++;
		if (turn % 4 == 0)
			usleep(200);
	}
	return NULL;
}

/* ---- the child ---- */

static void *talk(void *arg)
{
	(void)arg;
	for (uint64_t n = 1, back = 0;; n++) {
		errno = 0;
		if (write(to_child[1], &n, sizeof(n)) != sizeof(n) ||
		    read(from_child[0], &back, sizeof(back)) != sizeof(back))
			complain("a pipe: %s", strerror(errno));
		if (back != ~n)
			complain("the child answers %lx", (unsigned long)back);
		shared->talks++;
		usleep(400);
	}
	return NULL;
}

static void child(void)
{
	struct page *own =
		mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	close(to_child[1]);
	close(from_child[0]);
	if (master >= 0)
		close(master);
	for (uint64_t turn = 1, n;; turn++) {
		ssize_t got = read(to_child[0], &n, sizeof(n));

		if (got == 0)
			_exit(0);
		if (got != sizeof(n))
			complain("the pipe of the child: %zd, %s", got, strerror(errno));
		n = ~n;
		write_page(&own[turn % 64], turn);
		check_page(&own[turn % 64]);
		/* what the parent wrote before the fork, shared with it or not */
		check_page(&pages[turn % npages]);
		check_fpu(turn);
		if (write(from_child[1], &n, sizeof(n)) != sizeof(n))
			complain("the pipe of the child: %s", strerror(errno));
	}
}

/* ---- signals and timers ---- */

static void on_tick(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	ticks += 1 + (unsigned long)info->si_overrun;
}

/* Somebody interrupts a thread while it is borrowed; it leaves something on whatever stack that is.
 */
static void on_interruption(int sig)
{
	volatile char room[2048];

	memset((char *)room, sig, sizeof(room));
	patient_interrupted();
}

static void start_timer(void)
{
	const struct sigaction act = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
	const struct itimerspec when = {{0, TICK_NS}, {0, TICK_NS}};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK};
	timer_t timer;

	ev._sigev_un._tid = getpid();
	sigaction(TICK, &act, NULL);
	ticking_since = now_ns();
	if (timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0 || timer_settime(timer, 0, &when, NULL))
		complain("timer: %s", strerror(errno));
}

static void check_ticks(bool all)
{
	unsigned long before = ticks, seen, due;
	int64_t until = now_ns() + PATIENCE_NS;

	while (ticks < before + 2 && now_ns() < until)
		usleep(1000);
	if (ticks < before + 2)
		complain("the timer has stopped");
	/* We may be held up between any two of these. */
	seen = ticks;
	due = (unsigned long)((now_ns() - ticking_since) / TICK_NS);
	if (all && ticks + 3 < due)
		complain("%lu ticks instead of %lu", (unsigned long)ticks, due);
	if (seen > due + 1)
		complain("%lu ticks instead of %lu", seen, due);
}

static void send_kept(void)
{
	siginfo_t info = {.si_signo = KEPT, .si_code = SI_QUEUE};

	info.si_pid = getpid();
	info.si_value.sival_int = KEPT_VALUE;
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), KEPT, &info) < 0)
		complain("rt_tgsigqueueinfo: %s", strerror(errno));
}

/* It is taken, and sent again. */
static void check_kept(void)
{
	siginfo_t info = {};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KEPT);
	if (sigtimedwait(&set, &info, &(struct timespec){}) != KEPT)
		complain("a pending signal is lost");
	else if (info.si_value.sival_int != KEPT_VALUE)
		complain("a pending signal has changed");
	if (sigtimedwait(&set, &info, &(struct timespec){}) == KEPT)
		complain("a pending signal is there twice");
	send_kept();
}

/* ---- what waits in sockets and terminals ---- */

/* A connection that was reset, with data to be read and an offset for looks at them (6.9). */
static void make_tcp(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), server, error, offset = 2;
	const struct linger now = {1, 0};
	socklen_t len = sizeof(at);
	struct pollfd p = {.events = POLLIN};

	if (bind(listener, (void *)&at, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (void *)&at, &len) < 0)
		complain("tcp: %s", strerror(errno));
	tcp = p.fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(tcp, (void *)&at, len) < 0)
		complain("tcp: %s", strerror(errno));
	server = accept(listener, NULL, NULL);
	if (write(server, "tcpdata", 7) != 7 || poll(&p, 1, 5000) != 1)
		complain("tcp: no data");
	setsockopt(server, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(server);
	close(listener);
	p.events = 0;
	if (poll(&p, 1, 5000) != 1)
		complain("tcp: no reset");
	len = sizeof(error);
	getsockopt(tcp, SOL_SOCKET, SO_ERROR, &error, &len);
	if (setsockopt(tcp, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0) {
		close(tcp);
		tcp = -1;
	}
}

static void make_sockets(void)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, stream) < 0 ||
	    socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram) < 0)
		complain("socketpair: %s", strerror(errno));
	for (int i = 0; i < 3; i++)
		if (write(stream[0], "stream", 6) != 6 || write(datagram[0], "datagram", 8) != 8)
			complain("socket: %s", strerror(errno));
	make_tcp();
}

static void check_option(int fd, int name, int should)
{
	int is = -4711;
	socklen_t len = sizeof(is);

	if (getsockopt(fd, SOL_SOCKET, name, &is, &len) == 0 && is != should)
		complain("option %d of a socket is %d", name, is);
}

static void check_sockets(void)
{
	char buf[32];
	ssize_t n;

	if (stream[1] < 0)
		return;
	for (int i = 0; i < 2; i++) {
		int fd = i ? stream[1] : datagram[1];

		check_option(fd, SO_PEEK_OFF, -1);
		check_option(fd, SO_PASSCRED, 0);
	}
	if (tcp >= 0)
		check_option(tcp, SO_PEEK_OFF, 2);
	n = recv(stream[1], buf, sizeof(buf), MSG_DONTWAIT);
	if (n != 18 || memcmp(buf, "streamstreamstream", 18))
		complain("a stream has %zd bytes", n);
	for (int i = 0; i < 3; i++) {
		n = recv(datagram[1], buf, sizeof(buf), MSG_DONTWAIT);
		if (n != 8 || memcmp(buf, "datagram", 8))
			complain("a datagram has %zd bytes", n);
	}
	n = recv(datagram[1], buf, sizeof(buf), MSG_DONTWAIT);
	if (n >= 0)
		complain("there is one more datagram");
	for (int i = 0; i < 3; i++)
		if (write(stream[0], "stream", 6) != 6 || write(datagram[0], "datagram", 8) != 8)
			complain("socket: %s", strerror(errno));
}

static void type(void)
{
	if (write(master, "typed\nhalf", 10) != 10)
		complain("pty: %s", strerror(errno));
}

static void make_pty(void)
{
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
		complain("pty: %s", strerror(errno));
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	if (slave < 0)
		complain("pty: %s", strerror(errno));
	type();
}

static void check_pty(void)
{
	char buf[64];
	struct termios t;
	ssize_t n;

	if (master < 0)
		return;
	if (tcgetattr(slave, &t) < 0 || !(t.c_lflag & ICANON) || !(t.c_lflag & ECHO))
		complain("the terminal has other settings");
	if (write(master, "way\n", 4) != 4)
		complain("pty: %s", strerror(errno));
	n = read(slave, buf, sizeof(buf));
	if (n != 6 || memcmp(buf, "typed\n", 6))
		complain("the first line of the terminal has %zd bytes", n);
	n = read(slave, buf, sizeof(buf));
	if (n != 8 || memcmp(buf, "halfway\n", 8))
		complain("the second line of the terminal has %zd bytes", n);
	for (n = 0; n < 16;) {
		ssize_t more = read(master, buf + n, sizeof(buf) - (size_t)n);

		if (more <= 0)
			break;
		n += more;
	}
	if (n != 16 || memcmp(buf, "typed\r\nhalfway\r\n", 16))
		complain("the terminal has echoed %zd bytes", n);
	type();
}

/* ---- questions ---- */

static void check_progress(_Atomic unsigned long *counter, const char *what)
{
	unsigned long before = *counter;
	int64_t until = now_ns() + PATIENCE_NS;

	while (*counter < before + 2 && now_ns() < until)
		usleep(300);
	if (*counter < before + 2)
		complain("%s does not go on", what);
}

static void answer(bool all)
{
	char text[600];

	check_progress(&shared->written, "the one that writes memory");
	check_progress(&shared->fpu, "the one that computes");
	check_progress(&shared->talks, "the talk with the child");
	check_ticks(all);
	check_kept();
	check_sockets();
	check_pty();
	if (!patient_is_well(threads))
		complain("%s", threads->failed ? threads->failure : "a thread does not go on");
	if (waitpid(-1, NULL, WNOHANG) != 0)
		complain("the child has ended");
	snprintf(text, sizeof(text), "%s\n", shared->failed ? shared->failure : "well");
	if (write(1, text, strlen(text)) < 0)
		_exit(1);
}

static void answer_all(void)
{
	char question;

	for (;;) {
		ssize_t n = read(0, &question, 1);

		if (n == 0)
			_exit(0);
		if (n < 0)
			complain("standard input: %s", strerror(errno));
		else if (question != '\n')
			answer(question == 't');
	}
}

static void start_threads(void)
{
	static void *(*const jobs[])(void *) = {write_memory, use_fpu, talk};
	pthread_t t;

	for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
		if (pthread_create(&t, NULL, jobs[i], NULL))
			complain("no thread");
}

/* Of a private mapping of a file nothing is copied in advance. */
static void *map_pages(bool private)
{
	int fd = private ? memfd_create("private", 0) : -1;
	void *p;

	if (private && (fd < 0 || ftruncate(fd, (off_t)(npages * PAGE)) < 0))
		return MAP_FAILED;
	p = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | (private ? 0 : MAP_ANONYMOUS), fd, 0);
	if (private)
		close(fd);
	return p;
}

int main(int argc, char **argv)
{
	const struct sigaction interruption = {.sa_handler = on_interruption};
	bool private = argc > 3 && !strcmp(argv[3], "private");
	sigset_t set;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	npages = argc > 2 ? (size_t)atoi(argv[2]) * 256 : 256;
	pages = map_pages(private);
	if (pages == MAP_FAILED || pipe(to_child) < 0 || pipe(from_child) < 0)
		return 1;
	for (size_t i = 0; i < npages; i++)
		write_page(&pages[i], 0);
	for (int i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "sockets"))
			make_sockets();
		else if (!strcmp(argv[i], "pty"))
			make_pty();
	}
	sigaction(SIGUSR2, &interruption, NULL);
	if (fork() == 0)
		child();
	/* what a fork leaves out is forked for a moment */
	if (private && madvise(pages + npages / 2, npages / 2 * PAGE, MADV_DONTFORK) < 0)
		return 1;
	close(to_child[0]);
	close(from_child[1]);
	sigemptyset(&set);
	sigaddset(&set, KEPT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	threads = patient_inhabit(argc > 1 && !strcmp(argv[1], "full") ? PATIENT_FULL
								       : PATIENT_SMALL);
	if (!threads)
		return 1;
	start_threads();
	start_timer();
	send_kept();
	answer_all();
}
