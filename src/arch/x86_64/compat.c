/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/arch.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* 32-bit programs on this kernel: how they are told, how they begin, and calls that only they make.
 */

#define CODE_AT 4096 /* in the file */

#define I386_GETPID	     20
#define I386_OPENAT	     295
#define I386_GET_ROBUST_LIST 312

enum arch_program arch_program(const void *header, size_t len)
{
	Elf32_Ehdr h; /* up to e_machine the same for both */

	if (len < ARCH_PROGRAM_HEADER)
		return ARCH_PROGRAM_OTHER;
	memcpy(&h, header, ARCH_PROGRAM_HEADER);
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0)
		return ARCH_PROGRAM_OTHER;
	if (h.e_ident[EI_CLASS] == ELFCLASS32 && h.e_machine == EM_386)
		return ARCH_PROGRAM_32;
	return h.e_ident[EI_CLASS] == ELFCLASS64 && h.e_machine == EM_X86_64 ? ARCH_PROGRAM_64
									     : ARCH_PROGRAM_OTHER;
}

/* Without PT_GNU_STACK all memory of a 32-bit program could be executed (elf_read_implies_exec()).
 */
#define BUILD(bits, machine, buf, at, len)                                                         \
	do {                                                                                       \
		Elf##bits##_Ehdr h = {                                                             \
			.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS##bits,            \
				    ELFDATA2LSB, EV_CURRENT},                                      \
			.e_type = ET_EXEC,                                                         \
			.e_machine = (machine),                                                    \
			.e_version = EV_CURRENT,                                                   \
			.e_entry = (Elf##bits##_Addr)(at),                                         \
			.e_phoff = sizeof(h),                                                      \
			.e_ehsize = sizeof(h),                                                     \
			.e_phentsize = sizeof(Elf##bits##_Phdr),                                   \
			.e_phnum = 2,                                                              \
		};                                                                                 \
		const Elf##bits##_Phdr ph[2] = {{.p_type = PT_LOAD,                                \
						 .p_flags = PF_R | PF_X,                           \
						 .p_offset = CODE_AT,                              \
						 .p_vaddr = (Elf##bits##_Addr)(at),                \
						 .p_filesz = (Elf##bits##_Word)(len),              \
						 .p_memsz = (Elf##bits##_Word)(len),               \
						 .p_align = CODE_AT},                              \
						{.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W}}; \
		memcpy((buf), &h, sizeof(h));                                                      \
		memcpy((buf) + sizeof(h), ph, sizeof(ph));                                         \
	} while (0)

size_t arch_program_build(enum arch_program kind, uint64_t at, const void *code, size_t len,
			  uint8_t buf[ARCH_PROGRAM_MAX])
{
	memset(buf, 0, ARCH_PROGRAM_MAX);
	if (len > ARCH_PROGRAM_MAX - CODE_AT)
		return 0;
	if (kind == ARCH_PROGRAM_32)
		BUILD(32, EM_386, buf, at, len);
	else
		BUILD(64, EM_X86_64, buf, at, len);
	memcpy(buf + CODE_AT, code, len);
	return CODE_AT + len;
}

/* ---- calls of 32-bit tasks ---- */

static long call(long nr, long a, long b, long c, long d)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d)
			 : "memory", "cc", "r8", "r9", "r10", "r11");
	return (int)r;
}

/* Where there are no such calls the instruction is a fault, which a child may take. */
bool arch_compat_available(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		const struct rlimit none = {0, 0};

		signal(SIGSEGV, SIG_DFL);
		setrlimit(RLIMIT_CORE, &none);
		_exit(call(I386_GETPID, 0, 0, 0, 0) > 0 ? 0 : 1);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return pid > 0 && status == 0;
}

/* What such a call is given has to be where a 32-bit task could have it. */
static void *low_page(void)
{
	void *p = mmap(NULL, CODE_AT, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int arch_compat_robust_list(pid_t tid, uint64_t *head, uint64_t *len)
{
	uint32_t *ret = low_page();
	int r;

	if (!ret)
		return -ENOMEM;
	r = (int)call(I386_GET_ROBUST_LIST, tid, (long)(uintptr_t)ret, (long)(uintptr_t)(ret + 1),
		      0);
	*head = ret[0];
	*len = ret[1];
	munmap(ret, CODE_AT);
	return r;
}

int arch_compat_openat(int dir, const char *path, int flags)
{
	size_t len = strlen(path) + 1;
	char *low;
	int r;

	if (len > CODE_AT)
		return -ENAMETOOLONG;
	low = low_page();
	if (!low)
		return -ENOMEM;
	memcpy(low, path, len);
	r = (int)call(I386_OPENAT, dir, (long)(uintptr_t)low, flags, 0);
	munmap(low, CODE_AT);
	return r;
}
