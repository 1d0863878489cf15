/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_INOTIFY_EVENTS_H
#define REPRISE_FS_INOTIFY_EVENTS_H

#include "fs/context.h"

/* What an inotify instance holds, and nobody has read yet. */

/* FS_OPEN_EXEC of the kernel: nobody is told, but events that differ in it are not merged. */
#define INOTIFY_OPEN_EXEC 0x1000u

/*
 * What the memory of the kernel tells of an instance of which we have a duplicate: the number of
 * its next watch and, unless we are only checking, its events. -EOPNOTSUPP if they could not be
 * made again.
 */
int inotify_events_save(struct checkpoint *c, int fd, Reprise__Inotify *m, struct scratch *s,
			struct error *e) must_check;
/* Can these events be made again? Asked before they are saved, and when they come from an image. */
int inotify_events_possible(const Reprise__Inotify *m, struct error *e) must_check;
/* Is it the first half of a rename, and the next event the second? */
bool inotify_events_pair(const Reprise__Inotify *m, size_t i);
/*
 * Of each event, what the rest of the life of its watch tells of that. To be freed. -EOPNOTSUPP:
 * the halves of a rename are apart.
 */
enum { INOTIFY_FILE = 1, INOTIFY_DIRECTORY = 2, INOTIFY_UNMOUNTED = 4 };
int inotify_events_facts(const Reprise__Inotify *m, uint8_t **ret);
/* Puts them into an instance that has neither events nor watches; the working directory is /proc.
 */
int inotify_events_restart(struct restart *r, int fd, const Reprise__Inotify *m,
			   struct error *e) must_check;

/* Is what it watches, a pipe, open nowhere? Only the memory of the kernel tells. */
bool inotify_watches_closed(struct checkpoint *c, int fd, int wd, uint64_t ino);
dev_t inotify_device_of_pipes(void);

#endif
