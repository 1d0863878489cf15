/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNT_TABLE_H
#define REPRISE_NS_MOUNT_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"
#include "core/vec.h"

/* One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), unescaped. */
struct mount_line {
	int id, parent;
	dev_t dev;
	char *root, *point, *options;
	int shared, master; /* peer groups; 0: none */
	bool unbindable;
	char *type, *source, *super;
	size_t height; /* how many lie below it at the same place */
};

struct mount_table {
	VEC(struct mount_line);
};

/* Parses the whole text; -EINVAL for what is not understood. Pure. */
int mount_table_parse(const char *text, struct mount_table *ret);
/* The mounts that a task of that /proc sees. */
int mount_table_read(int proc_fd, pid_t pid, struct mount_table *ret, struct error *e) must_check;
void mount_table_free(struct mount_table *t);

/* The number of the mount on which a file is; flags: as of statx(2). 0: it is not there. */
int mount_id_at(int dir, const char *path, int flags);

/* Is it the directory, or in it? */
bool mount_is_below(const char *path, const char *dir);
/* The value of `name=` in a list of options, to be freed; NULL if it is not there. */
char *mount_option(const char *options, const char *name);
bool mount_has_option(const char *options, const char *name);
/* MS_* of the options of a mount. */
unsigned long mount_flags(const char *options);

#endif
