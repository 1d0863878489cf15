/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fdinfo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/procfs.h"

int fdinfo_parse(const char *text, struct fdinfo *ret)
{
	uint64_t flags, mnt_id;

	*ret = (struct fdinfo){};
	if (proc_field_u64(text, "pos", 10, &ret->pos) < 0 ||
	    proc_field_u64(text, "flags", 8, &flags) < 0 ||
	    proc_field_u64(text, "mnt_id", 10, &mnt_id) < 0)
		return -EINVAL;
	if (flags > UINT32_MAX || mnt_id > INT32_MAX)
		return -EINVAL;
	ret->flags = (unsigned int)flags;
	ret->mnt_id = (int)mnt_id;
	if (proc_field_u64(text, "ino", 10, &ret->ino) < 0)
		ret->ino = 0;
	return 0;
}

void fdinfo_skip_line(const char **text)
{
	const char *end = strchr(*text, '\n');

	*text = end ? end + 1 : *text + strlen(*text);
}

void fdinfo_copy_line(const char *text, char *line, size_t size)
{
	size_t len = strcspn(text, "\n");

	if (len >= size)
		len = size - 1;
	memcpy(line, text, len);
	line[len] = '\0';
}

bool fdinfo_find_line(const char **text, const char *prefix)
{
	size_t len = strlen(prefix);

	for (; **text; fdinfo_skip_line(text))
		if (!strncmp(*text, prefix, len))
			return true;
	return false;
}

static int lock_type(const char *name, enum fdinfo_lock_type *ret)
{
	static const struct {
		const char *name;
		enum fdinfo_lock_type type;
	} types[] = {
		{"POSIX", LOCK_POSIX},
		{"FLOCK", LOCK_FLOCK},
		{"OFDLCK", LOCK_OFD},
		{"LEASE", LOCK_LEASE},
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(types[i].name, name)) {
			*ret = types[i].type;
			return 0;
		}
	return -EINVAL;
}

/* fs/locks.c, lock_get_status(): "lock:\t1: POSIX  ADVISORY  WRITE 815 fe:00:131 0 EOF". */
static int parse_lock(const char *line, struct fdinfo_lock *ret)
{
	char type[16], mode[16], access[16], end[24];
	char *stop;

	if (sscanf(line, "lock: %*[^:]: %15s %15s %15s %d %*x:%*x:%*u %" SCNu64 " %23s", type, mode,
		   access, &ret->pid, &ret->start, end) != 6)
		return -EINVAL;
	if (lock_type(type, &ret->type) < 0)
		return -EINVAL;
	/* What a lease that is being broken will become may be nothing. */
	if (strcmp(access, "READ") && strcmp(access, "WRITE") &&
	    (strcmp(access, "UNLCK") || ret->type != LOCK_LEASE))
		return -EINVAL;
	ret->write = !strcmp(access, "WRITE");
	ret->breaking = !strcmp(mode, "BREAKING");
	if (!strcmp(end, "EOF")) {
		ret->end = INT64_MAX;
		return 0;
	}
	errno = 0;
	ret->end = strtoull(end, &stop, 10);
	return errno || *stop || ret->end < ret->start ? -EINVAL : 0;
}

int fdinfo_next_lock(const char **text, struct fdinfo_lock *ret)
{
	char line[256];

	if (!fdinfo_find_line(text, "lock:"))
		return 0;
	fdinfo_copy_line(*text, line, sizeof(line));
	fdinfo_skip_line(text);
	*ret = (struct fdinfo_lock){};
	return parse_lock(line, ret) < 0 ? -EINVAL : 1;
}
