/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FDINFO_H
#define REPRISE_FS_FDINFO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Parsers of /proc/PID/fdinfo/N (fs/proc/fd.c and each kind's show_fdinfo). Pure. */

struct fdinfo {
	uint64_t pos;
	unsigned int flags; /* with O_CLOEXEC, which belongs to the descriptor */
	int mnt_id;
	uint64_t ino; /* 0: the kernel does not tell */
};
/* Returns 0 or -EINVAL. */
int fdinfo_parse(const char *text, struct fdinfo *ret);

struct fdinfo_lock {
	enum fdinfo_lock_type { LOCK_POSIX = 1, LOCK_FLOCK = 2, LOCK_OFD = 3, LOCK_LEASE = 4 } type;
	bool write;
	bool breaking;	     /* a lease that is being broken */
	pid_t pid;	     /* -1 for OFD locks */
	uint64_t start, end; /* INT64_MAX: to the end of the file */
};
/*
 * The next "lock:" line at or after *text, which is moved past it. Returns 1,
 * 0 when there is none left, -EINVAL if it is not understood.
 */
int fdinfo_next_lock(const char **text, struct fdinfo_lock *ret);

/* Moves *text to the start of the next line that begins with `prefix`, at or after it; false if
 * there is none. */
bool fdinfo_find_line(const char **text, const char *prefix);
/* The line at `text` alone: sscanf() measures all of a string before it looks at it. */
void fdinfo_copy_line(const char *text, char *line, size_t size);
/* Moves *text to the start of the next line (or the end). */
void fdinfo_skip_line(const char **text);

#endif
