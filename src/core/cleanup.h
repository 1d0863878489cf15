/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_CLEANUP_H
#define REPRISE_CORE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Resources are released by scope: `_cleanup_(close_fd) int fd = -EBADF;`.
 * Destructors accept what was never acquired and keep errno.
 */
#define _cleanup_(destructor) __attribute__((cleanup(destructor)))

static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -EBADF;
	errno = saved;
}

static inline void free_ptr(void *pp)
{
	void *p = *(void **)pp;

	free(p);
}

static inline void close_stream(FILE **f)
{
	if (*f)
		fclose(*f);
	*f = NULL;
}

/* Closes what open_memstream() has opened: -ENOMEM, and no text, if not all of it is there. */
static inline int text_end(FILE *f, char **text)
{
	int failed = ferror(f);

	if (!fclose(f) && !failed && *text)
		return 0;
	free(*text);
	*text = NULL;
	return -ENOMEM;
}

static inline void close_directory(DIR **d)
{
	if (*d)
		closedir(*d);
	*d = NULL;
}

/* The next entry; NULL at the end, and where it cannot be read, with a negative errno in *ret. */
static inline struct dirent *next_entry(DIR *d, int *ret)
{
	struct dirent *entry;

	errno = 0;
	entry = readdir(d);
	if (!entry && errno)
		*ret = -errno;
	return entry;
}

/* Ownership moves out of a cleanup variable. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -EBADF;
	return taken;
}

#define take_ptr(pp)                       \
	({                                 \
		__auto_type _pp = (pp);    \
		__auto_type _taken = *_pp; \
		*_pp = NULL;               \
		_taken;                    \
	})

#endif
