/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CLI_CONTAINER_H
#define REPRISE_CLI_CONTAINER_H

#include "cli/cli.h"

/*
 * What the command line knows of containers: a directory for each, with the
 * writable layers, an empty directory on which the root is mounted, and a file
 * that says who runs in it. There is no daemon: a container runs as long as its first process does.
 *
 *	DIR/NAME/state		JSON, see container_save()
 *	DIR/NAME/root/		empty
 *	DIR/NAME/layers/	files that it wrote
 *	DIR/NAME/cgroups	directories of its control groups, one a line
 *
 * DIR is /var/lib/reprise/containers, or REPRISE_DIR.
 */
struct container_entry {
	char name[64];
	pid_t init, root; /* root: the command */
	uint64_t started; /* of init, in ticks: a pid may be used again */
	char *command;
	char *checkpoint; /* path of the last one; NULL: none */
	bool running;
	bool starting; /* or being removed: somebody holds its lock */
};

#define CONTAINER_PATH 1024

/* The command of one that was restarted, of which nothing else is known once it has ended. */
#define CONTAINER_RESTARTED "(restarted)"

/* Letters, digits, and "._-" behind the first. */
bool container_good_name(const char *name);
void container_path(const char *name, const char *below, char path[CONTAINER_PATH]);
/*
 * Makes the directories of a new one; -EEXIST if there is one of that name, a negative errno. Until
 * the lock that it returns is given up, nobody takes it for one that has ended.
 */
int container_make(const char *name);
/* The same under the first free one of the names NAME, NAME-2, ...; NULL: any. */
int container_make_any(const char *wanted, char name[64]);
/* -ENOENT: there is none of that name; another one: it cannot be read, and may be running. */
int container_load(const char *name, struct container_entry *ret);
/* The same for who has the lock, or does not mind that it may be about to start. */
int container_read(const char *name, struct container_entry *ret);
/* Tells so, as own_error(). */
int container_unread(struct cli *cli, const char *name, int err);
int container_save(const struct container_entry *c);
void container_entry_free(struct container_entry *c);
int container_lock(const char *name, bool wait);
void container_unlock(int *fd);

struct container_cgroups {
	uint64_t memory; /* 0: not known */
	bool frozen;
};
void container_cgroups_look(const char *name, struct container_cgroups *ret);
/* Removes its control groups, -EBUSY: somebody is in them. */
int container_cgroups_remove(const char *name, int patience_ms);
/* Removes everything that is on disk, and its control groups; a negative errno. */
int container_remove(const char *name);
/* What is to be saved: a pid, or a container that runs, by its name. Exit status, -1 to go on. */
int container_target(struct cli *cli, const char *s, pid_t *ret,
		     struct reprise_checkpoint_options *opt);
/* Fills in `started` and writes the file; complains by itself. Exit status, -1 to go on. */
int container_register(struct cli *cli, const char *name, const struct reprise_restarted *r,
		       const char *command);
/* Loads one that runs, or complains: -1 to go on, else the exit status. */
int container_running(struct cli *cli, const char *name, struct container_entry *ret);
/* All of them, sorted by name, names to be freed; a number, or a negative errno. */
int container_list(char ***ret);

#endif
