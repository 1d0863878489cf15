/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each security module has a part of one allocation (struct lsm_blob_sizes), and where that begins
 * is in a variable whose address nobody tells. So a thread of ours puts itself under rules
 * and ends: what they changed in its part of the allocation is the place.
 */
#include "kernel/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"

#define WORDS 16 /* of the allocation; all modules together have less */

struct search {
	struct kernel_memory *kernel;
	int result;
	int offset;
	uint64_t own;
};

static int read_words(struct kernel_memory *k, uint64_t task, uint64_t *words)
{
	uint64_t cred = 0, at = 0;
	int r = kernel_member(k, task, "task_struct", "cred", &cred, sizeof(cred));

	if (r >= 0)
		r = kernel_member(k, cred, "cred", "security", &at, sizeof(at));
	return r < 0 ? r : kernel_read(k, at, words, WORDS * sizeof(*words));
}

/* How many layers of rules are there? -1: that is something else. */
static int64_t layers(struct kernel_memory *k, uint64_t at)
{
	uint32_t n = 0;

	if (!at)
		return 0;
	if ((int64_t)at >= 0 ||
	    kernel_member(k, at, "landlock_ruleset", "num_layers", &n, sizeof(n)) < 0)
		return -1;
	return n;
}

static int restrict_thread(void)
{
	const struct landlock_ruleset_attr rules = {.handled_access_fs =
							    LANDLOCK_ACCESS_FS_EXECUTE};
	_cleanup_(close_fd) int fd = (int)syscall(SYS_landlock_create_ruleset, &rules,
						  sizeof(rules.handled_access_fs), 0);

	if (fd < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return -errno;
	return 0;
}

static int search(struct search *s)
{
	uint64_t before[WORDS], after[WORDS], task;
	int r = kernel_task(s->kernel, (pid_t)syscall(SYS_gettid), &task);

	if (r >= 0)
		r = read_words(s->kernel, task, before);
	if (r >= 0)
		r = restrict_thread();
	if (r >= 0)
		r = read_words(s->kernel, task, after);
	for (int i = 0; r >= 0 && i < WORDS; i++) {
		int64_t now = after[i] == before[i] ? -1 : layers(s->kernel, after[i]);

		if (now <= 0 || layers(s->kernel, before[i]) != now - 1)
			continue;
		s->offset = i * (int)sizeof(*after);
		s->own = before[i];
		return 0;
	}
	return r < 0 ? r : -ENOENT;
}

static void *run(void *arg)
{
	struct search *s = arg;

	s->result = search(s);
	return NULL;
}

bool landlock_available(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 0;
}

int landlock_place(struct kernel_memory *k, int *ret, uint64_t *ret_own)
{
	struct search s = {.kernel = k};
	pthread_t thread;

	if (!landlock_available())
		return -errno;
	if (pthread_create(&thread, NULL, run, &s) != 0)
		return -EAGAIN;
	pthread_join(thread, NULL);
	if (s.result < 0)
		return s.result;
	*ret = s.offset;
	*ret_own = s.own;
	return 0;
}
