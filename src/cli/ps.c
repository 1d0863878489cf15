/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/container.h"

struct usage {
	int processes;
	uint64_t memory; /* of its control group, else the sum of Pss */
	bool frozen;
};

static const char *state(const struct container_entry *c, const struct usage *u)
{
	if (c->running)
		return u->frozen ? "frozen" : "running";
	return c->starting ? "starting" : "ended";
}

static bool in_namespace(const char *pid, const struct stat *ns)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%s/ns/pid", pid);
	return stat(path, &st) == 0 && st.st_ino == ns->st_ino && st.st_dev == ns->st_dev;
}

static uint64_t pss(const char *pid)
{
	unsigned long long kib = 0;
	char path[300], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/smaps_rollup", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

static void measure(const char *name, pid_t init, struct usage *u)
{
	struct container_cgroups groups;
	char path[64];
	struct dirent *d;
	struct stat ns;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", init);
	if (stat(path, &ns) < 0 || !(dir = opendir("/proc")))
		return;
	container_cgroups_look(name, &groups);
	u->frozen = groups.frozen;
	u->memory = groups.memory;
	while ((d = readdir(dir)))
		if (atoi(d->d_name) > 0 && in_namespace(d->d_name, &ns)) {
			u->processes++;
			if (!groups.memory)
				u->memory += pss(d->d_name);
		}
	closedir(dir);
}

static json_t *as_json(const struct container_entry *c, const struct usage *u)
{
	json_t *j = json_pack("{s:s, s:s, s:o}", "name", c->name, "state", state(c, u), "command",
			      json_text(c->command ? c->command : ""));

	if (j && c->running)
		json_object_update_new(j, json_pack("{s:i, s:i, s:i, s:I}", "pid", (int)c->root,
						    "init", (int)c->init, "processes", u->processes,
						    "memory", (json_int_t)u->memory));
	if (j && c->checkpoint)
		json_object_set_new(j, "checkpoint", json_text(c->checkpoint));
	return j;
}

static void print(const struct container_entry *c, const struct usage *u)
{
	char bytes[32] = "-", pid[16] = "-", number[16] = "-";

	if (c->running) {
		snprintf(pid, sizeof(pid), "%d", c->root);
		snprintf(number, sizeof(number), "%d", u->processes);
		human_bytes(u->memory, bytes, sizeof(bytes));
	}
	printf("%-20s %-8s %8s %6s %10s  ", c->name, state(c, u), pid, number, bytes);
	print_escaped(stdout, c->checkpoint ? c->checkpoint : "-");
	printf("  ");
	print_escaped(stdout, c->command ? c->command : "?");
	putchar('\n');
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {COMMON_OPTIONS};
	json_t *list = json_array();
	char **names;
	int c, r, n, status = EXIT_OK;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1)
		if ((r = common_option(cli, c, argv)) >= 0)
			return r;
	if (argc > optind)
		return usage_error(cli, "ps takes no argument");
	r = common_begin(cli, argv);
	if (r >= 0)
		return r;
	n = container_list(&names);
	if (n < 0)
		return own_error(cli, "output", n, "cannot list the containers: %s",
				 strerrordesc_np(-n));
	if (n && !cli->json)
		printf("%-20s %-8s %8s %6s %10s  %s  %s\n", "NAME", "STATE", "PID", "TASKS",
		       "MEMORY", "CHECKPOINT", "COMMAND");
	for (int i = 0; i < n; i++) {
		struct container_entry e;
		struct usage u = {};

		r = container_load(names[i], &e);
		/* It may just have been removed. */
		if (r < 0 && r != -ENOENT)
			status = container_unread(cli, names[i], r);
		if (r >= 0) {
			if (e.running)
				measure(e.name, e.init, &u);
			if (cli->json)
				json_array_append_new(list, as_json(&e, &u));
			else
				print(&e, &u);
			container_entry_free(&e);
		}
		free(names[i]);
	}
	free(names);
	if (cli->json && status == EXIT_OK)
		return print_json(cli, json_pack("{s:o}", "containers", list));
	json_decref(list);
	return status;
}

const struct command ps_command = {
	.name = "ps",
	.arguments = "",
	.summary = "List the containers",
	.help = "Name, state (running, frozen or ended), pid of the command, processes, memory (of its control\n"
		"group, or of its processes with shared pages in parts), and the last checkpoint of each.\n",
	.run = run,
};
