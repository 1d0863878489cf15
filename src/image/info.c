/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "image/image.h"

/* Up to 256 bytes getrandom() gives all of them; where a filter forbids it, time and pid have to
 * do. */
static void fill_uuid(uint8_t uuid[16])
{
	struct {
		struct timespec real, mono;
		pid_t pid;
	} seed = {};
	XXH128_canonical_t hash;

	if (getrandom(uuid, 16, 0) != 16) {
		clock_gettime(CLOCK_REALTIME, &seed.real);
		clock_gettime(CLOCK_MONOTONIC, &seed.mono);
		seed.pid = getpid();
		XXH128_canonicalFromHash(&hash, XXH3_128bits(&seed, sizeof(seed)));
		memcpy(uuid, hash.digest, 16);
	}
	uuid[6] = (uuid[6] & 0x0f) | 0x40; /* version 4: random */
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

#ifdef __x86_64__
#define CPUID_1_ECX_OSXSAVE (1u << 27)

static void fill_xstate(struct image_info *ret)
{
	unsigned int a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & CPUID_1_ECX_OSXSAVE))
		return;
	/* xgetbv by hand: the intrinsic wants the whole file compiled for XSAVE. */
	asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	ret->xfeatures = (uint64_t)d << 32 | a;
	/* EBX: size of the standard format for what XCR0 enables, as PTRACE_GETREGSET gives it. */
	if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
		ret->xstate_size = b;
}

static void fill_cpu(struct image_info *ret)
{
	unsigned int brand[12];
	char text[sizeof(brand) + 1] = {};

	for (unsigned int i = 0; i < 3; i++) {
		unsigned int *b = &brand[4 * i];

		if (!__get_cpuid(0x80000002 + i, &b[0], &b[1], &b[2], &b[3]))
			return;
	}
	memcpy(text, brand, sizeof(brand));
	snprintf(ret->cpu, sizeof(ret->cpu), "%s", text + strspn(text, " "));
}
#endif

void image_info_here(struct image_info *ret)
{
	struct utsname u = {};
	struct timespec now = {};

	*ret = (struct image_info){.version = IMAGE_VERSION};
	uname(&u);
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(ret->sysname, sizeof(ret->sysname), "%s", u.sysname);
	snprintf(ret->release, sizeof(ret->release), "%s", u.release);
	snprintf(ret->kernel_version, sizeof(ret->kernel_version), "%s", u.version);
	ret->created_ns = (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	fill_uuid(ret->uuid);
	/* Not from uname(), which speaks of i686 under a 32-bit personality. */
#ifdef __x86_64__
	snprintf(ret->arch, sizeof(ret->arch), "x86_64");
	fill_xstate(ret);
	fill_cpu(ret);
#else
	snprintf(ret->arch, sizeof(ret->arch), "%.15s", u.machine);
#endif
}
