/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is registered with a userfaultfd and let go again all the time: nobody else may have
 * registered it meanwhile.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES  16
#define FILLED (24ul << 20)

static int fd;
static char *at;
static volatile unsigned long turns;
static volatile int failed, end;

static void *turn(void *arg)
{
	struct uffdio_register reg = {.range = {(uintptr_t)at, PAGES * 4096ul},
				      .mode = UFFDIO_REGISTER_MODE_WP};

	while (!end) {
		if (ioctl(fd, UFFDIO_REGISTER, &reg) || ioctl(fd, UFFDIO_UNREGISTER, &reg.range)) {
			failed = errno;
			return NULL;
		}
		turns++;
		usleep(200);
	}
	return NULL;
}

int main(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	char *filled =
		mmap(NULL, FILLED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned long before;
	pthread_t thread;

	test_init();
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		test_skip("no userfaultfd with write protection: %s", strerror(errno));
	at = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(filled != MAP_FAILED && at != MAP_FAILED);
	test_fill(filled, FILLED, 7);
	test_fill(at, PAGES * 4096, 8);
	CHECK(!pthread_create(&thread, NULL, turn, NULL));
	while (turns < 3)
		usleep(1000);
	test_wait();
	before = turns;
	if (test_break(1))
		failed = EBUSY;
	while (turns < before + 3 && !failed)
		usleep(1000);
	end = 1;
	pthread_join(thread, NULL);
	CHECK_EQUAL(failed, 0);
	CHECK_FILLED(filled, FILLED, 7);
	CHECK_FILLED(at, PAGES * 4096, 8);
	test_pass();
}
