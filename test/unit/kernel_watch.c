/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kernel_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#define SIZE (1ul << 20)

struct fixture {
	struct kernel_memory *k;
	struct kernel_watch *w;
	int fd, other;
	uint64_t key, before;
	char *map;
};

static bool begin(struct fixture *f)
{
	struct error e = {};

	*f = (struct fixture){};
	if (kernel_memory_open(-EBADF, &f->k, &e) < 0)
		return false;
	if (kernel_watch_new(&f->w, f->k, 16, &e) < 0) {
		kernel_memory_free(f->k);
		return false;
	}
	f->fd = memfd_create("watched", MFD_CLOEXEC);
	f->other = memfd_create("other", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->fd, SIZE), 0);
	assert_int_equal(ftruncate(f->other, SIZE), 0);
	f->map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	assert_true(f->map != MAP_FAILED);
	assert_int_equal(kernel_watch_file(f->w, f->k, f->fd, &f->key), 0);
	assert_int_equal(kernel_watch_space(f->w, f->k, getpid()), 0);
	return true;
}

static void end(struct fixture *f)
{
	munmap(f->map, SIZE);
	close(f->fd);
	close(f->other);
	kernel_watch_free(f->w);
	kernel_memory_free(f->k);
}

/* Others on the machine may add to it. */
static bool counted(struct fixture *f)
{
	uint64_t now;
	bool r;

	assert_int_equal(kernel_watch_count(f->w, f->key, &now), 0);
	r = now > f->before;
	f->before = now;
	return r;
}

#define COUNTED(call)                     \
	do {                              \
		(void)counted(&f);        \
		assert_true((call) >= 0); \
		assert_true(counted(&f)); \
	} while (0)

#define BEGIN(f)          \
	struct fixture f; \
	if (!begin(&f))   \
		skip();   \
	(void)state

/* Of oneself any advice is taken since 6.13. */
static void test_process_advice(struct fixture *f)
{
	struct iovec v = {f->map, 4096};
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	(void)counted(f);
	if (syscall(SYS_process_madvise, pidfd, &v, 1, MADV_REMOVE, 0) >= 0)
		assert_true(counted(f));
	close(pidfd);
}

static void test_calls(void **state)
{
	char path[] = "/proc/self/fd/000000000";
	struct iovec v = {(char[]){"x"}, 1};
	loff_t from = 0, to = 0;
	int ends[2];
	BEGIN(f);

	COUNTED(write(f.fd, "x", 1));
	COUNTED(pwrite(f.fd, "x", 1, 0));
	COUNTED(writev(f.fd, &v, 1));
	COUNTED(pwritev(f.fd, &v, 1, 0));
	COUNTED(pwritev2(f.fd, &v, 1, 0, 0));
	COUNTED(sendfile(f.fd, f.other, NULL, 10));
	COUNTED(fallocate(f.fd, 0, 0, 4096));
	COUNTED(ftruncate(f.fd, SIZE));
	COUNTED(copy_file_range(f.other, &from, f.fd, &to, 10, 0));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f.fd);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "abc", 3), 3);
	COUNTED(splice(ends[0], NULL, f.fd, &to, 3, 0));
	COUNTED(madvise(f.map, 4096, MADV_REMOVE));
	test_process_advice(&f);
	COUNTED(truncate(path, SIZE));
	close(ends[0]);
	close(ends[1]);
	end(&f);
}

/* What a child does is counted as if its parent had done it. */
static void test_child(void **state)
{
	int ends[2], status;
	pid_t pid;
	char byte;
	BEGIN(f);

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0)
		_exit(read(ends[0], &byte, 1) == 1 && madvise(f.map, 4096, MADV_REMOVE) == 0 ? 0
											     : 1);
	(void)counted(&f);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(counted(&f));
	close(ends[0]);
	close(ends[1]);
	end(&f);
}

static void test_mappings(void **state)
{
	char *second;
	pid_t pid;
	int n = 0, id;
	BEGIN(f);

	assert_int_equal(kernel_writable_mappings(f.k, f.fd, &n), 0);
	assert_int_equal(n, 1);
	(void)counted(&f);
	second = mmap(NULL, 4096, PROT_READ, MAP_SHARED, f.fd, 0);
	assert_true(counted(&f));
	assert_int_equal(kernel_writable_mappings(f.k, f.fd, &n), 0);
	assert_int_equal(n, 2);
	munmap(second, 4096);
	second = mremap(f.map, 0, SIZE, MREMAP_MAYMOVE);
	assert_true(second != MAP_FAILED && counted(&f));
	munmap(second, SIZE);
	pid = fork();
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(counted(&f));
	id = shmget(IPC_PRIVATE, 4096, 0600);
	assert_int_equal(kernel_watch_segment(f.w, id), 0);
	second = shmat(id, NULL, 0);
	assert_true(counted(&f));
	shmdt(second);
	shmctl(id, IPC_RMID, NULL);
	end(&f);
}

/* A mapping gets longer where it is, or another one beside it. */
static void test_growing(void **state)
{
	char *at, *other;
	BEGIN(f);

	at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	assert_true(at != MAP_FAILED);
	munmap(at + SIZE / 2, SIZE / 2); /* so much room is there */
	assert_int_equal(kernel_watch_mapping(f.w, (uintptr_t)at + SIZE / 2), 0);
	(void)counted(&f);
	assert_true(mremap(at, SIZE / 2 - 1, SIZE, 0) == at);
	assert_true(counted(&f));
	other = mremap(at, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	if (other != MAP_FAILED) {
		assert_true(counted(&f));
		munmap(other, SIZE);
	}
	munmap(at, SIZE);
	end(&f);
}

/* write(2) as a 32-bit program calls it, from 64-bit code. */
static void write_narrow(int fd, const char *low)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(4), "b"(fd), "c"(low), "d"(1)
			 : "memory", "r8", "r9", "r10", "r11");
}

/* By a child, which dies where the kernel knows no such calls. */
static void test_narrow(void **state)
{
	int ends[2], status;
	char byte, *low;
	pid_t pid;
	BEGIN(f);

	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1,
		   0);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (read(ends[0], &byte, 1) == 1)
			write_narrow(f.fd, low);
		_exit(0);
	}
	(void)counted(&f);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(counted(&f) || WIFSIGNALED(status));
	close(ends[0]);
	close(ends[1]);
	munmap(low, 4096);
	end(&f);
}

/* What has nothing to do with it. Others on the machine may attach a segment in this moment. */
static void test_others(void **state)
{
	bool quiet = false;
	BEGIN(f);

	for (int i = 0; i < 20 && !quiet; i++) {
		char *at, byte;
		pid_t pid;

		(void)counted(&f);
		at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, f.fd, 0);
		munmap(at, 4096);
		at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, f.other, 0);
		munmap(at, 4096);
		at = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		munmap(at, 4096);
		assert_int_equal(pwrite(f.other, "x", 1, 0), 1);
		assert_int_equal(pread(f.fd, &byte, 1, 0), 1);
		f.map[1] = 1;
		pid = vfork();
		if (pid == 0)
			_exit(0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		quiet = !counted(&f);
	}
	assert_true(quiet);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),  cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_child),  cmocka_unit_test(test_growing),
		cmocka_unit_test(test_narrow), cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
