/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor that comes with an event of fanotify makes no events itself (FMODE_NONOTIFY): else
 * whoever looks at each file that is opened would be told of his own looks, for ever. There is no
 * other way to such a descriptor than an event, so we have one of our own.
 */
#include "fs/unwatched.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "core/cleanup.h"

/* FMODE_NONOTIFY was the second of these; since 6.14 the two are one number of four meanings, and
 * the first alone is that (FMODE_FSNOTIFY_NONE()). */
#define MODE_FIRST  (1u << 25)
#define MODE_SECOND (1u << 26)

/* What fanotify_init() takes for the descriptors of its events. */
#define EVENT_FLAGS \
	(O_ACCMODE | O_APPEND | O_NONBLOCK | KERNEL_O_LARGEFILE | O_SYNC | O_DSYNC | O_NOATIME)

bool unwatched_is(struct kernel_memory *k, uint32_t mode)
{
	/* It came with the change. */
	const bool four = kernel_enumerator(k, "FSNOTIFY_EVENT_FILE_RANGE") >= 0;

	return (mode & (MODE_FIRST | MODE_SECOND)) == (four ? MODE_FIRST : MODE_SECOND);
}

/* Whoever opens the file meanwhile makes an event that serves as well. */
static int open_by_event(const struct restart *r, int fd, unsigned int flags)
{
	_cleanup_(close_fd) int opened = -EBADF;
	_cleanup_(close_fd) int group =
		fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, flags & EVENT_FLAGS);
	struct fanotify_event_metadata event;
	char path[32];

	snprintf(path, sizeof(path), "self/fd/%d", fd);
	if (group < 0 ||
	    fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN | FAN_ONDIR, r->proc_fd, path) < 0)
		return -errno;
	opened = openat(r->proc_fd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (opened < 0 || read(group, &event, sizeof(event)) != sizeof(event))
		return -errno;
	/* With O_CLOEXEC among the flags of the group, F_GETFL would show it for ever. */
	if (event.fd >= 0 && fcntl(event.fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return event.fd;
}

void unwatched_take_over(struct restart *r, const Reprise__File *msg, int *fd)
{
	struct error warning = {};
	int fresh = open_by_event(r, *fd, msg->flags);

	if (fresh >= 0) {
		close_fd(fd);
		*fd = fresh;
		return;
	}
	error_errno(&warning, fresh, E_RESTORE,
		    "a file that came with an event of fanotify is opened like any other: what is "
		    "done through it makes events");
	if (r->warn)
		r->warn(r->warn_arg, &warning);
}
