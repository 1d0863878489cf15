/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says about a task may be chosen by the task: its command, names of files, marks of
 * its watches. The first byte chooses the parser of the rest.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "core/scratch.h"
#include "fs/fdinfo.h"
#include "fs/watch.h"
#include "inside.h"
#include "kernel/cred.h"
#include "kernel/rlimit.h"
#include "kernel/timer.h"
#include "mm/vma.h"
#include "ns/mount_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_stat(char *text)
{
	struct proc_stat st;

	if (proc_stat_parse(text, &st) == 0 && memchr(st.comm, '\0', sizeof(st.comm)) == NULL)
		__builtin_trap();
}

static void fuzz_fields(char *text)
{
	static const char *const names[] = {"Pid", "SigCgt", "", "VmSize", "flags"};
	size_t size = strlen(text);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t n;
		size_t len = 0;
		const char *value = proc_field(text, names[i], &len);

		if (value && (value < text || value + len > text + size))
			__builtin_trap();
		for (int base = 8; base <= 16; base += 2)
			(void)proc_field_u64(text, names[i], base, &n);
	}
}

static void fuzz_smaps(char *text)
{
	struct vma_list list = {.text = text};

	if (vma_parse(text, &list) == 0)
		vec_for_each (v, &list.vmas)
			ignore(vma_classify(v, NULL), "either will do");
	list.text = NULL;
	vma_list_free(&list);
}

static void fuzz_status(char *text)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Credentials c = REPRISE__CREDENTIALS__INIT;

	ignore(cred_parse(text, &c, &s, NULL), "either will do");
}

static void fuzz_limits(char *text)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Process p = REPRISE__PROCESS__INIT;

	ignore(rlimits_parse(text, &p, &s, NULL), "either will do");
}

static void fuzz_timers(char *text)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__PosixTimer **timers;
	size_t n = 0;

	/* how many there may be is for those who ask */
	if (timers_parse(text, &n, &timers, &s, NULL) >= 0 && n > strlen(text) / strlen("ID: "))
		__builtin_trap();
}

static void fuzz_fdinfo(char *text)
{
	const char *at = text;
	struct fdinfo_lock lock;
	struct fdinfo info;

	ignore(fdinfo_parse(text, &info), "either will do");
	while (fdinfo_next_lock(&at, &lock) > 0)
		if (at < text || at > text + strlen(text))
			__builtin_trap();
}

static void fuzz_mountinfo(char *text)
{
	_cleanup_(mount_table_free) struct mount_table t = {};

	if (mount_table_parse(text, &t) < 0)
		return;
	vec_for_each (m, &t) {
		free(mount_option(m->super, "upperdir"));
		(void)mount_has_option(m->options, "ro");
		(void)mount_flags(m->options);
	}
}

static void (*const parsers[])(char *text) = {
	fuzz_stat,	fuzz_fields, fuzz_smaps, fuzz_status,  fuzz_limits,
	fuzz_timers,	fuzz_fdinfo, fuzz_epoll, fuzz_inotify, fuzz_fanotify,
	fuzz_mountinfo, fuzz_igmp,   fuzz_igmp6, fuzz_sysv,    fuzz_agent_maps,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 1 || data[0] - 'A' >= (int)(sizeof(parsers) / sizeof(parsers[0])) ||
	    data[0] < 'A')
		return -1;
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	parsers[data[0] - 'A'](text);
	free(text);
	return 0;
}
