/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kernel_watch.h"

#include <errno.h>
#include <fcntl.h>
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

static void test_calls(void **state)
{
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
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "abc", 3), 3);
	COUNTED(splice(ends[0], NULL, f.fd, &to, 3, 0));
	COUNTED(madvise(f.map, 4096, MADV_REMOVE));
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
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
