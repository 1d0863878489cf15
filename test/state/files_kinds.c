/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of each kind, held in each way: copied, inherited, held by a relative that did not get it
 * by fork, in flight in a socket; without waiting, with an owner and a signal; closed in one
 * or all places by the program that made it. All are one description afterwards as before.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST   96
#define COPY   100 /* numbers of the copies, in the one who made them */
#define SENT   200 /* and in the relative that received them */
#define ABROAD 300 /* and of those that had been in flight */

static int fds[MOST], kinds, flags[MOST], close_on_exec[MOST], carrier[2], flight[2];
static bool with_owner[MOST];
static int asked = -1, told = -1; /* of the kinds */
static aio_context_t requests;

/* Not all are for everybody, and on every kernel. */
static void may_add(int fd)
{
	if (fd >= 0) {
		CHECK(kinds < MOST);
		fds[kinds++] = fd;
	}
}

static void add(int fd)
{
	CHECK(fd >= 0 && kinds < MOST);
	fds[kinds++] = fd;
}

static int bpf_map(uint32_t type, uint32_t key, uint32_t value, uint32_t entries)
{
	union bpf_attr attr = {
		.map_type = type, .key_size = key, .value_size = value, .max_entries = entries};

	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static int bpf_types(void)
{
	static const struct {
		struct btf_header h;
		uint32_t types[4];
		char names[5];
	} all = {.h = {.magic = BTF_MAGIC,
		       .version = BTF_VERSION,
		       .hdr_len = sizeof(all.h),
		       .type_len = sizeof(all.types),
		       .str_off = sizeof(all.types),
		       .str_len = sizeof(all.names)},
		 .types = {1, BTF_KIND_INT << 24, 4, 32},
		 .names = "\0int"};
	union bpf_attr attr = {};

	attr.btf = (uintptr_t)&all;
	attr.btf_size = offsetof(typeof(all), names) + sizeof(all.names);
	return (int)syscall(SYS_bpf, BPF_BTF_LOAD, &attr, sizeof(attr));
}

static int bpf_program(void)
{
	const struct bpf_insn insns[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K},
					 {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {};

	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insns = (uintptr_t)insns;
	attr.insn_cnt = 2;
	attr.license = (uintptr_t) "GPL";
	return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
}

/* Without names and ports, which copies beside the original could not have. */
static void make_sockets(void)
{
	static const struct {
		int family, type, protocol;
	} list[] = {
		{AF_INET, SOCK_STREAM, 0},
		{AF_INET6, SOCK_STREAM, 0},
		{AF_INET, SOCK_STREAM, IPPROTO_MPTCP},
		{AF_INET, SOCK_DGRAM, 0},
		{AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE},
		{AF_INET, SOCK_RAW, 253},
		{AF_INET6, SOCK_RAW, 253},
		{AF_NETLINK, SOCK_RAW, NETLINK_ROUTE},
		{AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT},
		{AF_PACKET, SOCK_RAW, 0},
		{AF_PACKET, SOCK_DGRAM, 0},
		{AF_VSOCK, SOCK_STREAM, 0},
		{AF_UNIX, SOCK_SEQPACKET, 0},
		{AF_UNIX, SOCK_DGRAM, 0},
		{AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
	};
	int ends[2];

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		may_add(socket(list[i].family, list[i].type, list[i].protocol));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	add(ends[0]);
	add(ends[1]);
}

static void make_terminal(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);

	CHECK(master >= 0 && !grantpt(master) && !unlockpt(master));
	add(master);
	add(open(ptsname(master), O_RDWR | O_NOCTTY));
	add(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
}

/* Their names are those of the original. */
static void make_listeners(void)
{
	const struct sockaddr automatic = {.sa_family = AF_UNIX};
	int client, listener;

	if (test_mode_is("both"))
		return;
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(!bind(listener, &automatic, sizeof(automatic.sa_family)) && !listen(listener, 5));
	add(listener);
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	{
		struct sockaddr_un un;
		socklen_t len = sizeof(un);

		CHECK(!getsockname(listener, (struct sockaddr *)&un, &len));
		CHECK(!connect(client, (struct sockaddr *)&un, len));
	}
	add(client);
	add(accept(listener, NULL, NULL));
	listener = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(!listen(listener, 5));
	add(listener);
}

/* Rarer ones: paths to what cannot be opened, what is removed or closed on the other side. */
static void make_more(void)
{
	struct sockaddr_un un = {AF_UNIX, "socket file"};
	int master, ends[2], of_file = socket(AF_UNIX, SOCK_DGRAM, 0);

	CHECK(!symlink("nowhere", "link"));
	add(open("link", O_PATH | O_NOFOLLOW));
	CHECK(!bind(of_file, (struct sockaddr *)&un, sizeof(un)));
	close(of_file);
	add(open("socket file", O_PATH));
	CHECK(!mkdir("removed directory", 0700));
	add(open("removed directory", O_RDONLY | O_DIRECTORY));
	CHECK(!rmdir("removed directory"));
	add(open("/dev/zero", O_RDWR));
	add(open("/dev/full", O_WRONLY));
	add(open("/proc/self/ns/uts", O_RDONLY));
	CHECK(!pipe(ends));
	close(ends[0]);
	add(ends[1]);
	CHECK(!pipe2(ends, O_DIRECT));
	close(ends[1]);
	add(ends[0]);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
	close(ends[1]);
	add(ends[0]);
	master = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(master >= 0 && !unlockpt(master));
	add(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
	close(master);
	/* one that is locked */
	add(posix_openpt(O_RDWR | O_NOCTTY));
}

static void make_odd_files(void)
{
	struct epoll_event event = {.events = EPOLLIN};
	int inner = epoll_create1(0), outer = epoll_create1(0);
	pid_t gone = fork();

	if (!gone)
		_exit(0);
	CHECK(!epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event));
	add(inner);
	add(outer);
	add((int)syscall(SYS_pidfd_open, gone, 0));
	CHECK_EQUAL(waitpid(gone, NULL, 0), gone);
	add(open(".", O_RDWR | O_TMPFILE, 0600));
	add(open(".", O_RDONLY | O_DIRECTORY));
	add(memfd_create("sealed", MFD_ALLOW_SEALING));
	may_add(memfd_create("huge", MFD_HUGETLB));
	add(open("file", O_RDWR | O_APPEND | O_SYNC));
	add(open("/proc/version", O_RDONLY));
	add(open("/proc/self/task", O_RDONLY | O_DIRECTORY));
	add(open("/proc/self/pagemap", O_RDONLY));
	add(open("/proc/sys/kernel/hostname", O_RDONLY));
	add(open("/sys/kernel/mm", O_RDONLY | O_DIRECTORY));
	add(open("/dev/urandom", O_RDONLY));
	CHECK(!mkfifo("removed fifo", 0600));
	add(open("removed fifo", O_RDONLY | O_NONBLOCK));
	CHECK(!unlink("removed fifo"));
	make_listeners();
	make_more();
}

/* One that nobody reads; a container has none, and an ordinary user may not open it. */
static void make_console(void)
{
	may_add(open("/dev/tty55", O_RDWR | O_NOCTTY));
}

/* An interface belongs to one program at a time. */
static void make_interface(void)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd = test_mode_is("both") ? -1 : open("/dev/net/tun", O_RDWR);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "kinds%d", (int)getpid());
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr))
		close(fd);
	else
		add(fd);
}

/* One that is told when a request ends that waits for another one. */
static void make_told(void)
{
	struct iocb request = {.aio_lio_opcode = IOCB_CMD_POLL,
			       .aio_flags = IOCB_FLAG_RESFD,
			       .aio_buf = POLLIN},
		    *list = &request;

	if (geteuid() || syscall(SYS_io_setup, 4, &requests))
		return;
	request.aio_fildes = (uint32_t)eventfd(0, EFD_CLOEXEC);
	request.aio_resfd = (uint32_t)eventfd(0, EFD_CLOEXEC);
	asked = kinds;
	add((int)request.aio_fildes);
	told = kinds;
	add((int)request.aio_resfd);
	CHECK_EQUAL(syscall(SYS_io_submit, requests, 1, &list), 1);
}

static void check_told(void)
{
	struct io_event event = {};
	uint64_t n = 1;

	if (told < 0)
		return;
	CHECK(!fcntl(ABROAD + told, F_SETFL, O_NONBLOCK));
	CHECK(read(ABROAD + told, &n, sizeof(n)) < 0);
	CHECK_EQUAL(write(ABROAD + asked, &n, sizeof(n)), sizeof(n));
	CHECK_EQUAL(syscall(SYS_io_getevents, requests, 1, 1, &event, NULL), 1);
	CHECK_EQUAL(event.res, POLLIN);
	CHECK_EQUAL(read(ABROAD + told, &n, sizeof(n)), sizeof(n));
	CHECK_EQUAL(n, 1);
}

static void make_bpf(void)
{
	may_add(bpf_map(BPF_MAP_TYPE_ARRAY, 4, 4, 2));
	may_add(bpf_map(BPF_MAP_TYPE_HASH, 4, 4, 2));
	may_add(bpf_map(BPF_MAP_TYPE_QUEUE, 0, 4, 2));
	may_add(bpf_map(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096));
	may_add(bpf_map(BPF_MAP_TYPE_USER_RINGBUF, 0, 0, 4096));
	may_add(bpf_types());
	may_add(bpf_program());
}

static void make_privileged(void)
{
	char name[64];

	may_add((int)syscall(SYS_userfaultfd, 0));
	may_add(open("/dev/kmsg", O_RDONLY | O_NONBLOCK));
	may_add(open("/dev/net/tun", O_RDWR));
	snprintf(name, sizeof(name), "/reprise-%d", (int)getpid());
	if (!geteuid()) {
		may_add(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL));
		mq_unlink(name);
		make_bpf();
	}
	make_console();
	make_interface();
	make_told();
}

static void make_all(void)
{
	int ends[2];
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	add(eventfd(3, 0));
	add(eventfd(0, EFD_SEMAPHORE));
	add(timerfd_create(CLOCK_MONOTONIC, 0));
	add(signalfd(-1, &set, 0));
	add(epoll_create1(0));
	add(inotify_init1(0));
	add((int)syscall(SYS_pidfd_open, getpid(), 0));
	add(memfd_create("memory", 0));
	CHECK(!pipe(ends));
	add(ends[0]);
	add(ends[1]);
	CHECK(!mkfifo("fifo", 0600));
	add(open("fifo", O_RDWR));
	add(test_file("file", 100, 1));
	add(open("file", O_RDONLY | O_DIRECT));
	add(open(".", O_PATH));
	add(test_file("removed", 100, 2));
	CHECK(!unlink("removed"));
	add(open("/dev/null", O_RDWR));
	add(open("/proc/self/stat", O_RDONLY));
	may_add(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY));
	make_sockets();
	make_terminal();
	make_odd_files();
	make_privileged();
}

static void send_all(int to)
{
	for (int i = 0; i < kinds; i++) {
		char byte = 0, room[CMSG_SPACE(sizeof(int))] = {};
		struct iovec io = {&byte, 1};
		struct msghdr msg = {.msg_iov = &io,
				     .msg_iovlen = 1,
				     .msg_control = room,
				     .msg_controllen = sizeof(room)};
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fds[i], sizeof(int));
		CHECK_EQUAL(sendmsg(to, &msg, 0), 1);
	}
}

static void receive_all(int from, int base)
{
	for (int i = 0; i < kinds; i++) {
		char byte, room[CMSG_SPACE(sizeof(int))];
		struct iovec io = {&byte, 1};
		struct msghdr msg = {.msg_iov = &io,
				     .msg_iovlen = 1,
				     .msg_control = room,
				     .msg_controllen = sizeof(room)};
		int fd;

		CHECK_EQUAL(recvmsg(from, &msg, 0), 1);
		CHECK(CMSG_FIRSTHDR(&msg));
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
		CHECK_EQUAL(dup3(fd, base + i, O_CLOEXEC), base + i);
		close(fd);
	}
}

/* Was there before any of them was opened. */
static int relative(void *arg)
{
	char byte;

	close(carrier[0]);
	CHECK_EQUAL(read(carrier[1], &byte, 1), 1);
	kinds = byte;
	receive_all(carrier[1], SENT);
	test_write("received", "", 0);
	for (;;)
		pause();
	return 0;
}

/* A ring of requests that came by fork belongs to nobody here, and is refused. */
static int heir(void *arg)
{
	const struct {
		uint32_t id, events;
	} *ring = (void *)requests; /* struct aio_ring: 32 bytes, as each event has */

	if (ring)
		CHECK(!munmap((void *)requests, ((size_t)ring->events + 1) * 32));
	test_write("inherited", "", 0);
	for (;;)
		pause();
	return 0;
}

/* A nameless file does not keep O_TMPFILE. */
static int flags_of(int fd)
{
	int is = fcntl(fd, F_GETFL);

	return (is & O_TMPFILE) == O_TMPFILE ? is & ~O_TMPFILE : is;
}

static void set_up(int i)
{
	struct f_owner_ex owner = {.type = F_OWNER_PID, .pid = getpid()};
	struct stat st;

	if (i % 2 && !(fcntl(fds[i], F_GETFL) & O_PATH))
		CHECK(!fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK));
	/* Where a kind takes them; signals that come are blocked. */
	if (i % 3 == 0)
		(void)!fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_APPEND);
	if (i % 5 == 0)
		(void)!fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_ASYNC);
	/* Of a directory it may mean F_NOTIFY, which an ordinary user cannot tell. */
	CHECK(!fstat(fds[i], &st));
	if (!S_ISDIR(st.st_mode) || !geteuid())
		with_owner[i] = !fcntl(fds[i], F_SETOWN_EX, &owner);
	if (with_owner[i])
		CHECK(!fcntl(fds[i], F_SETSIG, SIGRTMIN + i % 8));
	CHECK_EQUAL(fcntl(fds[i], F_DUPFD_CLOEXEC, COPY + i), COPY + i);
	flags[i] = flags_of(fds[i]);
	close_on_exec[i] = fcntl(fds[i], F_GETFD);
}

static void check_same(pid_t pid, int fd, int there, int i, const char *who)
{
	long r = syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, fd, there);

	CHECKF(r == 0, "kind %d is another for the %s: %ld (%s)", i, who, r, strerror(errno));
}

/* Of every four, two lose the number that they were made with, and one of these its copy. */
static void close_some(void)
{
	for (int i = 0; i < kinds; i++) {
		if (i % 4 >= 2)
			close(fds[i]);
		if (i % 4 == 3)
			close(COPY + i);
	}
}

static void check(int i, pid_t child, pid_t other)
{
	struct f_owner_ex owner = {};
	int fd = ABROAD + i;

	CHECKF(flags_of(fd) == flags[i], "kind %d: its flags are %o and were %o", i, flags_of(fd),
	       flags[i]);
	if (i % 4 < 2) {
		CHECK_EQUAL(fcntl(fds[i], F_GETFD), close_on_exec[i]);
		check_same(getpid(), fd, fds[i], i, "itself");
	}
	if (i % 4 < 3) {
		CHECK_EQUAL(fcntl(COPY + i, F_GETFD), FD_CLOEXEC);
		check_same(getpid(), fd, COPY + i, i, "copy");
	}
	check_same(child, fd, fds[i], i, "heir");
	check_same(other, fd, SENT + i, i, "relative");
	for (int k = 0; k < i; k++)
		CHECK(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fd, ABROAD + k) != 0);
	if (!with_owner[i])
		return;
	CHECK(!fcntl(fd, F_GETOWN_EX, &owner));
	CHECK_EQUAL(owner.pid, getpid());
	CHECK_EQUAL(owner.type, F_OWNER_PID);
	CHECK_EQUAL(fcntl(fd, F_GETSIG), SIGRTMIN + i % 8);
}

int main(void)
{
	pid_t child, other;
	sigset_t set;
	char byte;

	test_init();
	sigemptyset(&set);
	for (int i = 0; i < 8; i++)
		sigaddset(&set, SIGRTMIN + i);
	sigaddset(&set, SIGIO);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, carrier));
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, flight));
	other = test_fork(relative, NULL);
	close(carrier[1]);
	make_all();
	for (int i = 0; i < kinds; i++)
		set_up(i);
	byte = (char)kinds;
	CHECK_EQUAL(write(carrier[0], &byte, 1), 1);
	send_all(carrier[0]);
	send_all(flight[0]);
	child = test_fork(heir, NULL);
	while (access("received", F_OK) || access("inherited", F_OK))
		usleep(1000);
	close_some();

	test_wait();
	if (test_break(1))
		CHECK(dup2(fds[1], COPY) == COPY);
	if (test_break(2))
		CHECK(!fcntl(fds[1], F_SETFL, 0));
	receive_all(flight[1], ABROAD);
	for (int i = 0; i < kinds; i++)
		check(i, child, other);
	check_told();
	kill(other, SIGKILL);
	kill(child, SIGKILL);
	CHECK_EQUAL(waitpid(other, NULL, 0), other);
	CHECK_EQUAL(waitpid(child, NULL, 0), child);
	test_pass();
}
