/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into the tool: one of its allocations fails.
 *
 *	ALLOC_FILE=COUNT LD_PRELOAD=liballoc.so COMMAND...
 *
 * COUNT is a file that holds a struct counting. Allocations are counted over the command, its
 *threads and what it forks, but not over what it executes. mmap() of the C library's own (large
 *allocations, stacks of threads) is not seen here; inject.c makes that fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define SITES  (1 << 16)

/* harm.py knows this layout. */
struct counting {
	_Atomic uint64_t calls;
	uint64_t n;    /* the one that fails, from 1; 0: none */
	uint64_t last; /* and all behind it up to this one */
	_Atomic uint64_t failed;
	/* Of each call, where it comes from, so that each place can be tried once. */
	uint64_t places[SITES];
};

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static struct counting *counting;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("ALLOC_FILE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED
			 : mmap(NULL, sizeof(*counting), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		_exit(125);
	close(fd);
	unsetenv("LD_PRELOAD");
	unsetenv("ALLOC_FILE");
	counting = p;
}

static int fails(const void *place)
{
	uint64_t now;

	if (!counting)
		return 0;
	now = atomic_fetch_add(&counting->calls, 1) + 1;
	if (!counting->n) {
		if (now <= SITES)
			counting->places[now - 1] = (uintptr_t)place;
		return 0;
	}
	if (now < counting->n || now > counting->last)
		return 0;
	counting->failed++; /* a place for a breakpoint */
	errno = ENOMEM;
	return 1;
}

EXPORT void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t n, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

EXPORT int posix_memalign(void **ret, size_t alignment, size_t size)
{
	void *p = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);

	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
	size_t all;

	if (__builtin_mul_overflow(n, size, &all) || fails(__builtin_return_address(0))) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_realloc(p, all);
}
