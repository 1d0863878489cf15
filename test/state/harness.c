/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char control[PATH_MAX];
static char go_path[PATH_MAX + 8];
static char directory[PATH_MAX];
static char mode[32];
static int broken;

void test_move_control(const char *path)
{
	snprintf(control, sizeof(control), "%s", path);
	snprintf(go_path, sizeof(go_path), "%s/go", control);
}

void test_init(void)
{
	const char *value = getenv("TEST_CONTROL");

	if (!value) {
		fprintf(stderr, "to be started by test/run\n");
		_exit(2);
	}
	test_move_control(value);
	value = getenv("TEST_MODE");
	snprintf(mode, sizeof(mode), "%s", value ? value : "plain");
	value = getenv("TEST_BREAK");
	broken = value ? atoi(value) : 0;
	if (!getcwd(directory, sizeof(directory)))
		directory[0] = '\0';
}

const char *test_dir(void)
{
	return directory;
}

double test_duration(void)
{
	const char *value = getenv("TEST_DURATION");

	return value ? atof(value) : 40;
}

bool test_mode_is(const char *name)
{
	return !strcmp(mode, name);
}

bool test_break(int n)
{
	return broken == n;
}

void test_ready(void)
{
	char path[PATH_MAX + 8];

	/* mknod, since it needs no descriptor. */
	snprintf(path, sizeof(path), "%s/ready", control);
	if (mknod(path, S_IFREG | 0644, 0) < 0)
		CHECK(!"mknod of the ready file");
}

bool test_going(void)
{
	return access(go_path, F_OK) == 0;
}

void test_hold(void)
{
	while (!test_going())
		usleep(3000);
}

void test_wait(void)
{
	test_ready();
	test_hold();
}

/* Makes room where the descriptor table is full: the program is over. */
static int open_anyhow(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0 && errno == EMFILE) {
		close(0);
		fd = open(path, flags | O_CLOEXEC, 0644);
	}
	return fd;
}

/*
 * The go file names the verdict; each of several copies that run at once
 * takes the next free number.
 */
static void verdict(const char *text)
{
	char path[PATH_MAX + 64], draft[PATH_MAX + 64], name[32] = "early";
	ssize_t n;
	int fd;

	fd = open_anyhow(go_path, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, name, sizeof(name) - 1);
		name[n > 0 ? n : 0] = '\0';
		close(fd);
	}
	/* Complete before it has its name: another task may end the process at any time. */
	snprintf(draft, sizeof(draft), "%s/verdict-.%d.%p", control, getpid(), (void *)draft);
	for (int i = 0; i < 1000; i++) {
		fd = open_anyhow(draft, O_WRONLY | O_CREAT | O_EXCL);
		if (fd >= 0)
			break;
		/* A copy of ours is about to say the same. */
		usleep(1000);
	}
	n = write(fd, text, strlen(text));
	close(fd);
	for (int i = 0; i < 1000; i++) {
		snprintf(path, sizeof(path), "%s/verdict-%s.%d", control, name, i);
		if (!link(draft, path) || errno != EEXIST)
			break;
	}
	unlink(draft);
}

_Noreturn void test_pass(void)
{
	verdict("PASS");
	_exit(0);
}

_Noreturn void test_skip(const char *format, ...)
{
	char text[1024] = "SKIP: ";
	va_list args;

	va_start(args, format);
	vsnprintf(text + 6, sizeof(text) - 6, format, args);
	va_end(args);
	verdict(text);
	_exit(77);
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
	const char *base = strrchr(file, '/');
	char text[1024];
	va_list args;
	int n;

	n = snprintf(text, sizeof(text), "FAIL: %s:%d: pid %d: ", base ? base + 1 : file, line,
		     (int)syscall(SYS_gettid));
	va_start(args, format);
	vsnprintf(text + n, sizeof(text) - n, format, args);
	va_end(args);
	verdict(text);
	_exit(1);
}

_Noreturn void test_fail_equal(const char *file, int line, const char *what, long long is,
			       long long should_be)
{
	test_fail(file, line, "%s is %lld (0x%llx), not %lld (0x%llx)", what, is, is, should_be,
		  should_be);
}

pid_t test_fork(int (*fn)(void *), void *arg)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		_exit(fn(arg));
	return pid;
}

void test_reap(pid_t pid, int status)
{
	int is = -1;

	CHECK_EQUAL(TEMP_FAILURE_RETRY(waitpid(pid, &is, __WALL)), pid);
	CHECKF(WIFEXITED(is) && WEXITSTATUS(is) == status,
	       "child %d: wait status 0x%x, expected exit %d", pid, is, status);
}

size_t test_read(const char *path, char *buf, size_t size)
{
	size_t done = 0;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECKF(fd >= 0, "%s: %s", path, strerror(errno));
	while (done < size - 1 && (n = read(fd, buf + done, size - 1 - done)) > 0)
		done += n;
	close(fd);
	buf[done] = '\0';
	return done;
}

void test_line(const char *path, const char *name, char *value, size_t size)
{
	char buf[16384], *at = buf;
	size_t length = strlen(name);

	test_read(path, buf, sizeof(buf));
	while (at && (strncmp(at, name, length) || at[length] != ':')) {
		at = strchr(at, '\n');
		if (at)
			at++;
	}
	CHECKF(at, "%s: no line %s", path, name);
	at += length + 1;
	while (*at == ' ' || *at == '\t')
		at++;
	snprintf(value, size, "%.*s", (int)strcspn(at, "\n"), at);
}

void test_write(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	CHECKF(fd >= 0, "%s: %s", path, strerror(errno));
	CHECK_EQUAL(write(fd, data, size), (ssize_t)size);
	close(fd);
}

/* /proc/TID finds any task of the namespace, also those that are not leaders. */
static char *stat_text(pid_t tid, char *buf, size_t size)
{
	char path[64], *end;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	test_read(path, buf, size);
	end = strrchr(buf, ')');
	CHECKF(end, "%s: no name", path);
	return end + 2;
}

char test_state(pid_t tid)
{
	char buf[2048];

	return *stat_text(tid, buf, sizeof(buf));
}

long long test_stat(pid_t tid, int field)
{
	char buf[2048], *at = stat_text(tid, buf, sizeof(buf));

	for (int i = 3; i < field && at; i++) {
		at = strchr(at, ' ');
		if (at)
			at++;
	}
	CHECKF(at, "stat of %d has no field %d", tid, field);
	return strtoll(at, NULL, 10);
}

void test_until_state(pid_t tid, char state)
{
	for (int i = 0; i < 5000; i++) {
		if (test_state(tid) == state)
			return;
		usleep(1000);
	}
	test_fail(__FILE__, __LINE__, "task %d never came to state %c: it is %c", tid, state,
		  test_state(tid));
}

void test_until_in(pid_t tid, long nr)
{
	char path[64], buf[256] = "";

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	for (int i = 0; i < 5000; i++) {
		test_read(path, buf, sizeof(buf));
		if (isdigit((unsigned char)buf[0]) && atol(buf) == nr && test_state(tid) == 'S')
			return;
		usleep(1000);
	}
	test_fail(__FILE__, __LINE__, "task %d never came to system call %ld: %s", tid, nr, buf);
}

static uint64_t mix(uint64_t value)
{
	value *= 0x9e3779b97f4a7c15;
	value ^= value >> 29;
	return value * 0xbf58476d1ce4e5b9;
}

void test_fill(void *at, size_t size, uint64_t seed)
{
	unsigned char *to = at;
	uint64_t word;

	for (size_t i = 0; i < size; i += 8) {
		word = mix(seed * 0x10001 + i);
		memcpy(to + i, &word, size - i < 8 ? size - i : 8);
	}
}

ssize_t test_differs(const void *at, size_t from, size_t size, uint64_t seed)
{
	const unsigned char *bytes = at;
	uint64_t word;
	size_t skip;

	for (size_t i = from & ~7UL; i < size; i += 8) {
		word = mix(seed * 0x10001 + i);
		skip = i < from ? from - i : 0;
		if (memcmp(bytes + i + skip, (char *)&word + skip,
			   (size - i < 8 ? size - i : 8) - skip))
			return i;
	}
	return -1;
}

/* Calls fn for the lines of smaps that belong to the mapping at the address, until it says true. */
static void smaps(const void *at, bool (*fn)(const char *line, void *arg), void *arg)
{
	unsigned long start, end;
	bool inside = false, done = false;
	char *line = NULL;
	size_t size = 0;
	FILE *file = fopen("/proc/self/smaps", "r");

	CHECK(file);
	while (!done && getline(&line, &size, file) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr(line, '-'))
			inside = (uintptr_t)at >= start && (uintptr_t)at < end;
		if (inside)
			done = fn(line, arg);
	}
	free(line);
	fclose(file);
	CHECKF(done, "%p is not mapped, or smaps lacks a line", at);
}

struct wanted {
	const char *name;
	char *to;
	size_t size;
};

static bool take(const char *line, void *arg)
{
	struct wanted *wanted = arg;
	size_t length = strlen(wanted->name);

	if (strncmp(line, wanted->name, length))
		return false;
	snprintf(wanted->to, wanted->size, "%s", line + length);
	return true;
}

void test_vm_flags(const void *at, char *flags, size_t size)
{
	struct wanted wanted = {"VmFlags:", flags, size};

	smaps(at, take, &wanted);
}

bool test_vm_flag(const void *at, const char *flag)
{
	char flags[256], padded[8];

	test_vm_flags(at, flags, sizeof(flags));
	snprintf(padded, sizeof(padded), " %s ", flag);
	return strstr(flags, padded);
}

long test_smaps(const void *at, const char *name)
{
	char text[64], with_colon[64];
	struct wanted wanted = {with_colon, text, sizeof(text)};

	snprintf(with_colon, sizeof(with_colon), "%s:", name);
	smaps(at, take, &wanted);
	return atol(text);
}

void test_map(const void *at, char *line, size_t size)
{
	struct wanted wanted = {"", line, size};

	smaps(at, take, &wanted);
}

bool test_populated(const void *at)
{
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQUAL(pread(fd, &entry, 8, (uintptr_t)at / 4096 * 8), 8);
	close(fd);
	/* A guard page has the bit of a swapped one, too. */
	return entry >> 62 && !(entry >> 58 & 1);
}

int test_file(const char *name, size_t size, uint64_t seed)
{
	char *data = malloc(size + 1);
	int fd;

	CHECK(data);
	test_fill(data, size, seed);
	test_write(name, data, size);
	free(data);
	fd = open(name, O_RDWR);
	CHECK(fd >= 0);
	return fd;
}

void *test_shared(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

double test_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

void test_sleep(double seconds)
{
	double end = test_now() + seconds;

	while (test_now() < end)
		usleep(1000);
}
