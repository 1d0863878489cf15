/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps whose values belong to tasks, also threads and children, to files and to sockets; some
 * of which are left without a value.
 */
/*
 * not-in: both: the port is taken
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_value.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define THREAD O_EXCL /* PIDFD_THREAD, 6.9 */

static int of_tasks, of_files, of_sockets, clones, empty, frozen;
static int plain, deleted, other_plain, directory, nothing;
static int pair[2], listening, unbound;
static pid_t child, tid;
static int *finished;
static bool threads;

static void wait_for_end(void)
{
	while (!__atomic_load_n(finished, __ATOMIC_ACQUIRE))
		test_sleep(0.001);
}

static void set(int map, int key, uint64_t number)
{
	struct value v = {.number = number, .text = "some text"};

	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, map, &key, &v, 0));
}

static void has(int map, int key, uint64_t number)
{
	struct value v = {};

	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, map, &key, &v, 0));
	CHECK_EQUAL(v.number, number);
	CHECK(!strcmp(v.text, "some text"));
}

static void has_none(int map, int key)
{
	struct value v = {};

	CHECK(map_do(BPF_MAP_LOOKUP_ELEM, map, &key, &v, 0) < 0 && errno == ENOENT);
}

static int task(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		fd = (int)syscall(SYS_pidfd_open, pid, THREAD);
	CHECK(fd >= 0);
	return fd;
}

static void *wait_in_thread(void *unused)
{
	(void)unused;
	__atomic_store_n(&tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	wait_for_end();
	return NULL;
}

static int wait_in_child(void *unused)
{
	(void)unused;
	wait_for_end();
	return 3;
}

static void tasks_set_up(void)
{
	int fd = task(getpid());

	set(of_tasks, fd, 10);
	CHECK(!close(fd));
	fd = task(child);
	set(of_tasks, fd, 11);
	set(frozen, fd, 12);
	CHECK(!close(fd));
	map_freeze(frozen);
	fd = (int)syscall(SYS_pidfd_open, tid, THREAD);
	threads = fd >= 0;
	if (!threads)
		return;
	set(of_tasks, fd, 13);
	CHECK(!close(fd));
}

static void tasks_check(void)
{
	int fd = task(getpid());

	has(of_tasks, fd, 10);
	has_none(frozen, fd);
	has_none(empty, fd);
	CHECK(!close(fd));
	fd = task(child);
	has(of_tasks, fd, 11);
	has(frozen, fd, 12);
	CHECK(map_do(BPF_MAP_UPDATE_ELEM, frozen, &fd, &(struct value){}, 0) < 0 && errno == EPERM);
	CHECK(!close(fd));
	if (!threads)
		return;
	fd = task(tid);
	has(of_tasks, fd, 13);
	CHECK(!close(fd));
}

static void files_set_up(void)
{
	plain = open("plain", O_RDWR | O_CREAT, 0600);
	other_plain = open("plain", O_RDONLY);
	nothing = open("nothing", O_RDWR | O_CREAT, 0600);
	deleted = open("deleted", O_RDWR | O_CREAT, 0600);
	directory = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(plain >= 0 && deleted >= 0 && directory >= 0 && !unlink("deleted"));
	set(of_files, plain, 20);
	set(of_files, deleted, 21);
	set(of_files, directory, 22);
}

static void files_check(void)
{
	has(of_files, plain, 20);
	has(of_files, other_plain, 20);
	has(of_files, deleted, 21);
	has(of_files, directory, 22);
	has_none(of_files, nothing);
}

/* One that is nowhere but in the queue of another one. */
static void queue(int fd)
{
	char data = 'q';
	struct iovec vec = {&data, 1};
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)),
			      .cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS}};
	struct msghdr msg = {.msg_iov = &vec,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	CHECK_EQUAL(sendmsg(pair[0], &msg, 0), 1);
	CHECK(!close(fd));
}

static int queued(void)
{
	char data, control[CMSG_SPACE(sizeof(int))];
	struct iovec vec = {&data, 1};
	struct msghdr msg = {.msg_iov = &vec,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	int fd;

	CHECK_EQUAL(recvmsg(pair[1], &msg, 0), 1);
	CHECK(CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static void sockets_set_up(void)
{
	int in_queue = socket(AF_UNIX, SOCK_DGRAM, 0);

	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	listening = socket(AF_INET, SOCK_STREAM, 0);
	unbound = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(!bind(listening, (void *)&at, sizeof(at)) && !listen(listening, 3));
	set(of_sockets, pair[0], 30);
	set(of_sockets, listening, 31);
	set(of_sockets, in_queue, 34);
	queue(in_queue);
	set(clones, listening, 32);
	set(clones, unbound, 33);
}

static void sockets_check(void)
{
	struct sockaddr_in at;
	socklen_t length = sizeof(at);
	int peer = socket(AF_INET, SOCK_STREAM, 0), accepted;

	has(of_sockets, pair[0], 30);
	has_none(of_sockets, pair[1]);
	has(of_sockets, listening, 31);
	has(clones, listening, 32);
	has(clones, unbound, 33);
	has(of_sockets, queued(), 34);
	/* a value that who is accepted gets, too */
	CHECK(!getsockname(listening, (void *)&at, &length));
	CHECK(!connect(peer, (void *)&at, length));
	accepted = accept(listening, NULL, NULL);
	CHECK(accepted >= 0);
	has(clones, accepted, 32);
	has_none(of_sockets, accepted);
	CHECK(!close(peer) && !close(accepted));
}

int main(void)
{
	pthread_t thread;
	int types;

	test_init();
	finished = test_shared(sizeof(*finished));
	types = value_describe();
	of_tasks = made(storage_make(types, BPF_MAP_TYPE_TASK_STORAGE, 0));
	frozen = made(storage_make(types, BPF_MAP_TYPE_TASK_STORAGE, 0));
	empty = made(storage_make(types, BPF_MAP_TYPE_TASK_STORAGE, 0));
	of_files = made(storage_make(types, BPF_MAP_TYPE_INODE_STORAGE, 0));
	of_sockets = made(storage_make(types, BPF_MAP_TYPE_SK_STORAGE, 0));
	clones = made(storage_make(types, BPF_MAP_TYPE_SK_STORAGE, BPF_F_CLONE));
	child = test_fork(wait_in_child, NULL);
	CHECK(!pthread_create(&thread, NULL, wait_in_thread, NULL));
	while (!__atomic_load_n(&tid, __ATOMIC_ACQUIRE))
		test_sleep(0.001);
	tasks_set_up();
	files_set_up();
	sockets_set_up();
	test_wait();
	if (test_break(1))
		set(of_files, nothing, 1);
	if (test_break(2))
		set(of_sockets, pair[0], 31);
	if (test_break(3))
		set(clones, listening, 30);
	files_check();
	sockets_check();
	tasks_check();
	__atomic_store_n(finished, 1, __ATOMIC_RELEASE);
	test_reap(child, 3);
	CHECK(!pthread_join(thread, NULL));
	test_pass();
}
