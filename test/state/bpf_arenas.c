/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arenas of BPF: one whose pages come when they are touched, which a child has mapped, too; one
 * whose pages a program has given, at an address that was chosen; some that nobody has mapped.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ARENA	      33 /* BPF_MAP_TYPE_ARENA, 6.9 */
#define SEGV_ON_FAULT (1u << 17)
#define CHOSEN	      0x610000000000ul
#define PAGES	      64u
#define PAGE	      4096ul

static int touched, given = -1;
static int giver; /* a function of the kernel; 0: it has none */
static volatile uint64_t *at;
static char *chosen;

static int arena(uint32_t flags, uint64_t where)
{
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = ARENA;
	attr.max_entries = PAGES;
	attr.map_flags = BPF_F_MMAPABLE | flags;
	attr.map_extra = where;
	fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0 && errno == EINVAL)
		test_skip("no arenas here");
	return made(fd);
}

static void *map_it(int fd, void *where)
{
	void *got = mmap(where, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECKF(got != MAP_FAILED, "%s", strerror(errno));
	return got;
}

/* What follows a type in the description of the kernel. */
static size_t more(uint32_t info)
{
	static const uint8_t fixed[32] = {[BTF_KIND_INT] = 4,
					  [BTF_KIND_ARRAY] = 12,
					  [BTF_KIND_VAR] = 4,
					  [BTF_KIND_DECL_TAG] = 4};
	static const uint8_t each[32] = {
		[BTF_KIND_STRUCT] = 12,	   [BTF_KIND_UNION] = 12,   [BTF_KIND_ENUM] = 8,
		[BTF_KIND_FUNC_PROTO] = 8, [BTF_KIND_DATASEC] = 12, [BTF_KIND_ENUM64] = 12};

	return fixed[BTF_INFO_KIND(info)] + each[BTF_INFO_KIND(info)] * BTF_INFO_VLEN(info);
}

/* The number by which programs call a function of the kernel; 0: it has none. */
static int function(const char *name)
{
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY), found = 0, n = 1;
	struct btf_header *h;
	struct stat st;
	const char *names;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	h = malloc((size_t)st.st_size);
	CHECK(h);
	/* a page at a time */
	for (off_t got = 0, some; got < st.st_size; got += some) {
		some = read(fd, (char *)h + got, (size_t)(st.st_size - got));
		CHECK(some > 0);
	}
	CHECK(!close(fd));
	names = (char *)h + h->hdr_len + h->str_off;
	for (size_t i = 0; i < h->type_len && !found; n++) {
		const struct btf_type *t = (void *)((char *)h + h->hdr_len + h->type_off + i);

		if (BTF_INFO_KIND(t->info) == BTF_KIND_FUNC && !strcmp(names + t->name_off, name))
			found = n;
		i += sizeof(*t) + more(t->info);
	}
	free(h);
	return found;
}

/* Page i; a program that is loaded may not be saved. */
static void give(int map, uint32_t i)
{
	const struct bpf_insn insns[] = {
		I(BPF_LD | BPF_IMM | BPF_DW, 2, 0, 0, (int)(i * PAGE)),
		I(0, 0, 0, 0, CHOSEN >> 32),
		MAP(1, map),
		SET(3, 1),
		SET(4, -1),
		SET(5, 0),
		I(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, giver),
		SET(0, 0),
		EXIT,
	};
	union bpf_attr attr;
	int program;

	memset(&attr, 0, sizeof(attr));
	attr.prog_flags = BPF_F_SLEEPABLE;
	program = load_with(&attr, BPF_PROG_TYPE_SYSCALL, insns, N(insns));
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)program;
	CHECKF(!bpf(BPF_PROG_TEST_RUN, &attr), "%s", strerror(errno));
	CHECK(!close(program));
}

/* Is there such a page? To look makes none. */
static bool is_there(const void *where)
{
	int fds[2], n;

	CHECK(!pipe(fds));
	n = (int)write(fds[1], where, 1);
	CHECK(n == 1 || errno == EFAULT);
	CHECK(!close(fds[0]) && !close(fds[1]));
	return n == 1;
}

static int child(void *arg)
{
	volatile uint64_t *here = map_it(touched, (void *)at);

	CHECK(here == at && at[0] == 10);
	at[1] = 11;
	test_hold();
	CHECK_EQUAL(at[5 * PAGE / 8], 55);
	at[2] = 12;
	return 5;
}

/* Which of them a child has by itself: newer kernels leave them out. */
static int inherits(void *arg)
{
	return is_there((void *)at) | is_there(chosen + 3 * PAGE) << 1;
}

static int inherited(void)
{
	int status;

	CHECK(waitpid(test_fork(inherits, NULL), &status, 0) > 0 && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void check_given(void)
{
	CHECK(is_there(chosen + 3 * PAGE) && !strcmp(chosen + 3 * PAGE, "third"));
	CHECK(is_there(chosen + 10 * PAGE) && !chosen[10 * PAGE]);
	CHECK(is_there(chosen + 63 * PAGE) && !strcmp(chosen + 63 * PAGE, "last"));
	CHECK(!is_there(chosen) && !is_there(chosen + 4 * PAGE) && !is_there(chosen + 9 * PAGE) &&
	      !is_there(chosen + 62 * PAGE));
}

int main(void)
{
	struct bpf_map_info info = {};
	int unmapped, placed, again, inherit;
	pid_t pid;

	test_init();
	touched = arena(0, 0);
	unmapped = arena(0, 0);
	placed = arena(0, CHOSEN + (1ul << 32));
	at = map_it(touched, NULL);
	at[0] = 10;
	at[5 * PAGE / 8] = 55;
	info_of(touched, &info, sizeof(info));
	again = by_number(BPF_MAP_GET_FD_BY_ID, info.id);
	giver = function("bpf_arena_alloc_pages");
	if (giver) {
		given = arena(SEGV_ON_FAULT, CHOSEN);
		chosen = map_it(given, (void *)CHOSEN);
		give(given, 3);
		give(given, 10);
		give(given, 63);
		strcpy(chosen + 3 * PAGE, "third");
		strcpy(chosen + 63 * PAGE, "last");
		check_given();
		CHECK(!madvise(chosen, PAGES * PAGE, MADV_DOFORK));
	}
	inherit = inherited();
	CHECK(given < 0 || inherit & 2);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		at[0] = 9;
	if (test_break(2))
		at[5 * PAGE / 8] = 5;
	if (test_break(3))
		CHECK(mmap((void *)at, PAGES * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)at);
	CHECK_EQUAL(at[0], 10);
	CHECK_EQUAL(at[1], 11);
	CHECK_EQUAL(at[5 * PAGE / 8], 55);
	CHECK_EQUAL(at[6 * PAGE / 8], 0);
	test_reap(pid, 5);
	CHECK_EQUAL(at[2], 12);
	CHECK_EQUAL(inherited(), inherit);
	if (given >= 0) {
		check_given();
		give(given, 4);
		CHECK(is_there(chosen + 4 * PAGE));
	}
	/* all know where it is: nowhere else */
	CHECK(!munmap((void *)at, PAGES * PAGE));
	CHECK(mmap(NULL, PAGES * PAGE, PROT_READ, MAP_SHARED, again, 0) == MAP_FAILED);
	CHECK(map_it(again, (void *)at) == at);
	CHECK_EQUAL(at[0], 10);
	CHECK(mmap((void *)CHOSEN, PAGES * PAGE, PROT_READ, MAP_SHARED, placed, 0) == MAP_FAILED);
	map_it(placed, (void *)(CHOSEN + (1ul << 32)));
	map_it(unmapped, NULL);
	test_pass();
}
