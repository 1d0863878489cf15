/* SPDX-License-Identifier: Apache-2.0 */
/* All registers of threads that compute: general, x87, MXCSR, AVX, AVX-512, segment bases. */
#include "harness.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

volatile int regs_go;
static volatile int spinning;

/*
 * Each thread loads registers, spins without touching them, stores them. What the spin
 * needs is one flag in memory, so all but the instruction pointer is free to be checked.
 */
struct general {
	uint64_t reg[15], flags;
};

static void spin_general(struct general *in, struct general *out)
{
	/* Inputs that the assembly overwrites. */
	struct general *rbx = in, *rcx = out;

	asm volatile("push %%rbp\n"
		     "push %%rcx\n"
		     "push %%rbx\n"
		     "pop %%r15\n" /* in; loaded last */
		     "pushq 15*8(%%r15)\n"
		     "popfq\n"
		     "mov 0*8(%%r15), %%rax\n"
		     "mov 1*8(%%r15), %%rbx\n"
		     "mov 2*8(%%r15), %%rcx\n"
		     "mov 3*8(%%r15), %%rdx\n"
		     "mov 4*8(%%r15), %%rsi\n"
		     "mov 5*8(%%r15), %%rdi\n"
		     "mov 6*8(%%r15), %%rbp\n"
		     "mov 7*8(%%r15), %%r8\n"
		     "mov 8*8(%%r15), %%r9\n"
		     "mov 9*8(%%r15), %%r10\n"
		     "mov 10*8(%%r15), %%r11\n"
		     "mov 11*8(%%r15), %%r12\n"
		     "mov 12*8(%%r15), %%r13\n"
		     "mov 13*8(%%r15), %%r14\n"
		     "mov 14*8(%%r15), %%r15\n"
		     "1: cmpl $0, regs_go(%%rip)\n"
		     "je 1b\n"
		     "push %%r15\n"
		     "mov 8(%%rsp), %%r15\n" /* out */
		     "mov %%rax, 0*8(%%r15)\n"
		     "mov %%rbx, 1*8(%%r15)\n"
		     "mov %%rcx, 2*8(%%r15)\n"
		     "mov %%rdx, 3*8(%%r15)\n"
		     "mov %%rsi, 4*8(%%r15)\n"
		     "mov %%rdi, 5*8(%%r15)\n"
		     "mov %%rbp, 6*8(%%r15)\n"
		     "mov %%r8, 7*8(%%r15)\n"
		     "mov %%r9, 8*8(%%r15)\n"
		     "mov %%r10, 9*8(%%r15)\n"
		     "mov %%r11, 10*8(%%r15)\n"
		     "mov %%r12, 11*8(%%r15)\n"
		     "mov %%r13, 12*8(%%r15)\n"
		     "mov %%r14, 13*8(%%r15)\n"
		     "popq 14*8(%%r15)\n"
		     "pushfq\n"
		     "popq 15*8(%%r15)\n"
		     "cld\n"
		     "pop %%rax\n"
		     "pop %%rbp\n"
		     : "+b"(rbx), "+c"(rcx)
		     :
		     : "rax", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		       "r15", "memory", "cc");
}

static void *general(void *arg)
{
	struct general in, out;

	test_fill(&in, sizeof(in), 5);
	in.flags = 0x202 | 0x400; /* IF, and DF: the direction flag set */
	memset(&out, 0, sizeof(out));
	__sync_fetch_and_add(&spinning, 1);
	spin_general(&in, &out);
	if (test_break(1))
		out.reg[7] ^= 1;
	for (int i = 0; i < 15; i++)
		CHECKF(in.reg[i] == out.reg[i], "general register %d is %llx, not %llx", i,
		       (long long)out.reg[i], (long long)in.reg[i]);
	CHECK_EQUAL(out.flags & 0x400, 0x400);
	return NULL;
}

/*
 * Processors of AMD save the pointers to the last x87 instruction only while an
 * exception is pending; any context switch may lose them (X86_BUG_FXSAVE_LEAK).
 * Those of Hygon are their descendants.
 */
static int forgets_x87_pointers(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid(0, &a, &b, &c, &d) && (b == signature_AMD_ebx || !memcmp(&b, "Hygo", 4));
}

/* The processor that qemu emulates does not load them by frstor. */
static bool emulated(void)
{
	unsigned int a, b, c, d;

	__cpuid(1, a, b, c, d);
	if (!(c & 1u << 31)) /* a hypervisor */
		return false;
	__cpuid(0x40000000, a, b, c, d);
	return !memcmp(&b, "TCGT", 4);
}

static void *x87(void *arg)
{
	struct {
		uint16_t control, pad0, status, pad1, tag, pad2;
		uint32_t ip, cs, dp, ds;
		unsigned char st[80];
	} before, after;
	uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8000 | 0x21, is; /* truncate, flush, PE and IE flags */
	double numbers[5] = {1.5, -2.25, 1e300, 0.1, 12345.678};
	uint16_t control = 0x0c7f; /* truncate, extended precision less, all masked */

	asm volatile("fninit; fldcw %0" : : "m"(control));
	for (int i = 0; i < 5; i++)
		asm volatile("fldl %0" : : "m"(numbers[i]));
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
	asm volatile("fnsave %0; frstor %0" : "=m"(before));
	__sync_fetch_and_add(&spinning, 1);
	asm volatile("1: cmpl $0, regs_go(%%rip)\n je 1b" : : : "cc", "memory");
	asm volatile("fnsave %0" : "=m"(after));
	asm volatile("stmxcsr %0" : "=m"(is));
	asm volatile("fninit");
	CHECK_EQUAL(after.control, before.control);
	CHECK_EQUAL(after.status, before.status);
	CHECK_EQUAL(after.tag, before.tag);
	if (!emulated() && (!forgets_x87_pointers() || after.ip))
		CHECK_EQUAL(after.ip, before.ip);
	CHECK(!memcmp(after.st, before.st, sizeof(after.st)));
	CHECK_EQUAL(is, mxcsr);
	return NULL;
}

#define VECTOR(load, store, reg, i) load " " #i "*64(%0), %%" reg #i "\n"
#define STORE(load, store, reg, i)  store " %%" reg #i ", " #i "*64(%1)\n"
#define SIXTEEN(what, load, store, reg)                                                       \
	what(load, store, reg, 0) what(load, store, reg, 1) what(load, store, reg, 2)         \
		what(load, store, reg, 3) what(load, store, reg, 4) what(load, store, reg, 5) \
			what(load, store, reg, 6) what(load, store, reg, 7)                   \
				what(load, store, reg, 8) what(load, store, reg, 9)           \
					what(load, store, reg, 10) what(load, store, reg, 11) \
						what(load, store, reg, 12)                    \
							what(load, store, reg, 13)            \
								what(load, store, reg, 14)    \
									what(load, store, reg, 15)
#define UPPER(what, load, store, reg)                                                            \
	what(load, store, reg, 16) what(load, store, reg, 17) what(load, store, reg, 18)         \
		what(load, store, reg, 19) what(load, store, reg, 20) what(load, store, reg, 21) \
			what(load, store, reg, 22) what(load, store, reg, 23)                    \
				what(load, store, reg, 24) what(load, store, reg, 25)            \
					what(load, store, reg, 26) what(load, store, reg, 27)    \
						what(load, store, reg, 28)                       \
							what(load, store, reg, 29)               \
								what(load, store, reg, 30)       \
									what(load, store, reg, 31)
#define SPIN "1: cmpl $0, regs_go(%%rip)\nje 1b\n"

typedef void (*spin_fn)(const void *in, void *out);

static void spin_sse(const void *in, void *out)
{
	asm volatile(SIXTEEN(VECTOR, "movups", "movups", "xmm")
			     SPIN SIXTEEN(STORE, "movups", "movups", "xmm")
		     :
		     : "r"(in), "r"(out)
		     : "memory", "cc");
}

__attribute__((target("avx"))) static void spin_avx(const void *in, void *out)
{
	asm volatile(SIXTEEN(VECTOR, "vmovups", "vmovups", "ymm")
			     SPIN SIXTEEN(STORE, "vmovups", "vmovups", "ymm") "vzeroupper\n"
		     :
		     : "r"(in), "r"(out)
		     : "memory", "cc");
}

#define MASKS(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
#define LOAD_K(i)   "kmovq 2048+8*" #i "(%0), %%k" #i "\n"
#define STORE_K(i)  "kmovq %%k" #i ", 2048+8*" #i "(%1)\n"

__attribute__((target("avx512f,avx512bw"))) static void spin_avx512(const void *in, void *out)
{
	asm volatile(SIXTEEN(VECTOR, "vmovups", "vmovups", "zmm")
			     UPPER(VECTOR, "vmovups", "vmovups", "zmm") MASKS(LOAD_K)
				     SPIN SIXTEEN(STORE, "vmovups", "vmovups", "zmm")
					     UPPER(STORE, "vmovups", "vmovups", "zmm")
						     MASKS(STORE_K) "vzeroupper\n"
		     :
		     : "r"(in), "r"(out)
		     : "memory", "cc");
}

static void vectors(spin_fn spin, int count, int width, int masks)
{
	unsigned char in[2048 + 64], out[2048 + 64];

	test_fill(in, sizeof(in), width);
	memset(out, 0, sizeof(out));
	__sync_fetch_and_add(&spinning, 1);
	spin(in, out);
	for (int i = 0; i < count; i++)
		CHECKF(!memcmp(in + i * 64, out + i * 64, width), "vector register %d of %d bytes",
		       i, width);
	CHECKF(!memcmp(in + 2048, out + 2048, masks * 8), "mask registers");
}

static void *sse(void *arg)
{
	vectors(spin_sse, 16, 16, 0);
	return NULL;
}

static void *avx(void *arg)
{
	vectors(spin_avx, 16, 32, 0);
	return NULL;
}

static void *avx512(void *arg)
{
	vectors(spin_avx512, 32, 64, 8);
	return NULL;
}

static void *bases(void *arg)
{
	uint64_t words[2] = {0x1122334455667788, 42}, value, fs, gs;

	CHECK(!syscall(SYS_arch_prctl, ARCH_SET_GS, words));
	CHECK(!syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	__sync_fetch_and_add(&spinning, 1);
	asm volatile("1: cmpl $0, regs_go(%%rip)\n je 1b" : : : "cc", "memory");
	asm volatile("mov %%gs:8, %0" : "=r"(value));
	CHECK_EQUAL(value, 42);
	CHECK(!syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	CHECK_EQUAL(gs, (uintptr_t)words);
	CHECK(!syscall(SYS_arch_prctl, ARCH_GET_FS, &value));
	CHECK_EQUAL(value, fs);
	return NULL;
}

int main(void)
{
	void *(*functions[6])(void *) = {general, x87, sse, bases};
	pthread_t threads[6];
	int count = 4;

	test_init();
	if (__builtin_cpu_supports("avx"))
		functions[count++] = avx;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
		functions[count++] = avx512;
	for (int i = 0; i < count; i++)
		CHECK(!pthread_create(&threads[i], NULL, functions[i], NULL));
	while (spinning < count)
		usleep(1000);
	usleep(5000);
	test_wait();
	regs_go = 1;
	for (int i = 0; i < count; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
