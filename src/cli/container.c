/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/container.h"

#define PATIENCE_MS 20000 /* with those of whom all have been killed */

/* What an ordinary user's containers wrote is to outlive his session. */
static void base_directory(char path[CONTAINER_PATH / 2])
{
	const char *dir = getenv("REPRISE_DIR"), *state = getenv("XDG_STATE_HOME"),
		   *home = getenv("HOME");
	const size_t size = CONTAINER_PATH / 2;

	if (dir && *dir)
		snprintf(path, size, "%s", dir);
	else if (geteuid() == 0)
		snprintf(path, size, "/var/lib/reprise/containers");
	else if (state && *state == '/')
		snprintf(path, size, "%s/reprise", state);
	else
		snprintf(path, size, "%s/.local/state/reprise", home ? home : "");
}

/* With what leads there, in the home of a user who has nothing of the kind yet. */
static int make_base(void)
{
	char path[CONTAINER_PATH / 2];

	base_directory(path);
	for (char *s = path + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		*s = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

bool container_good_name(const char *name)
{
	if (!isalnum((unsigned char)*name) || strlen(name) > 60)
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("._-", *name))
			return false;
	return true;
}

void container_path(const char *name, const char *below, char path[CONTAINER_PATH])
{
	char base[CONTAINER_PATH / 2];

	base_directory(base);
	snprintf(path, CONTAINER_PATH, "%s/%s%s%s", base, name, *below ? "/" : "", below);
}

int container_make(const char *name)
{
	static const char *const below[] = {"root", "layers"};
	char path[CONTAINER_PATH];
	/* What a container wrote may be secret. */
	int r = make_base();

	if (r < 0)
		return r;
	container_path(name, "", path);
	if (mkdir(path, 0700) < 0)
		return -errno;
	for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
		container_path(name, below[i], path);
		if (mkdir(path, 0755) < 0)
			return -errno;
	}
	return container_lock(name, true);
}

int container_make_any(const char *wanted, char name[64])
{
	int r = -EEXIST;

	for (int i = wanted ? 1 : 2; i < 10000 && r == -EEXIST; i++) {
		if (i == 1)
			snprintf(name, 64, "%s", wanted);
		else if (wanted)
			snprintf(name, 64, "%.54s-%d", wanted, i);
		else
			snprintf(name, 64, "container-%d", i - 1);
		r = container_make(name);
	}
	return r;
}

/* The offsets that /proc shows are those of its children (timens_offsets_show()). */
static bool is_in_time_of_children(void)
{
	char own[64] = "", next[64] = "";

	return readlink("/proc/self/ns/time", own, sizeof(own) - 1) > 0 &&
	       readlink("/proc/self/ns/time_for_children", next, sizeof(next) - 1) > 0 &&
	       !strcmp(own, next);
}

/* Nothing, and a negative errno, if it cannot be read. */
static ssize_t read_file(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "re");
	size_t n;
	int r;

	text[0] = '\0';
	if (!f)
		return -errno;
	n = fread(text, 1, size - 1, f);
	r = ferror(f) ? -errno : 0;
	fclose(f);
	text[r < 0 ? 0 : n] = '\0';
	return r < 0 ? r : (ssize_t)n;
}

/*
 * /proc tells times by the clock of the reader's time namespace: how much it is ahead, in ticks.
 * Who has been executed by unshare(1) is still in that of the machine before Linux 6.3.
 */
static int clock_ahead(int64_t *ret)
{
	long long sec = 0, nsec = 0;
	char text[512], *s;
	ssize_t n;

	*ret = 0;
	if (!is_in_time_of_children())
		return 0;
	n = read_file("/proc/self/timens_offsets", text, sizeof(text));
	if (n < 0)
		return n == -ENOENT ? 0 : (int)n;
	s = strstr(text, "boottime");
	if (s)
		sscanf(s, "boottime %lld %lld", &sec, &nsec);
	*ret = (int64_t)(((double)sec + (double)nsec / 1e9) * (double)sysconf(_SC_CLK_TCK));
	return 0;
}

/* Field 22 of /proc/PID/stat, by the machine's clock; 0 when it is gone. */
static int start_time(pid_t pid, uint64_t *ret)
{
	char path[64], text[1024], *s;
	unsigned long long started = 0;
	int64_t ahead;
	ssize_t n;
	int r;

	*ret = 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	n = read_file(path, text, sizeof(text));
	if (n < 0)
		return n == -ENOENT || n == -ESRCH ? 0 : (int)n;
	s = strrchr(text, ')');
	/* A zombie has ended. */
	if (!s || s[2] == 'Z' ||
	    sscanf(s + 2,
		   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
		   &started) != 1)
		return 0;
	r = clock_ahead(&ahead);
	*ret = started - (uint64_t)ahead;
	return r;
}

/* It may have been rounded otherwise. */
static bool is_same_start(uint64_t a, uint64_t b)
{
	return a && b && a <= b + 1 && b <= a + 1;
}

/* The pid of a process in its own namespace: the last of its line; 0 when it is gone. */
static int inner_pid(long pid)
{
	char path[64], text[4096], *line, *end;

	snprintf(path, sizeof(path), "/proc/%ld/status", pid);
	read_file(path, text, sizeof(text));
	line = strstr(text, "\nNSpid:");
	if (!line)
		return 0;
	end = strchrnul(line + 1, '\n');
	*end = '\0';
	return atoi(strrchr(line, '\t') + 1);
}

/* After a restart only the first process is known, whose argument is the pid of the command inside.
 */
static pid_t command_of(pid_t init)
{
	char path[64], text[4096], *s = text;
	int wanted;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", init);
	if (read_file(path, text, sizeof(text)) < 14 || strcmp(text, "reprise-init"))
		return init;
	wanted = atoi(text + sizeof("reprise-init"));
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", init, init);
	read_file(path, text, sizeof(text));
	while (*s) {
		long pid = strtol(s, &s, 10);

		if (pid <= 0)
			break;
		if (inner_pid(pid) == wanted)
			return (pid_t)pid;
		s += strspn(s, " ");
	}
	return init;
}

void container_entry_free(struct container_entry *c)
{
	free(c->command);
	free(c->checkpoint);
	c->command = c->checkpoint = NULL;
}

/* The line of its arguments need not be there yet (restart --lazy). */
static void name_restarted(struct container_entry *c)
{
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", c->root);
	f = fopen(path, "re");
	if (f && fgets(comm, sizeof(comm), f))
		comm[strcspn(comm, "\n")] = '\0';
	if (f)
		fclose(f);
	if (*comm) {
		free(c->command);
		c->command = strdup(comm);
	}
}

/* NULL: it was not started. What cannot be read may be running. */
static int load_state(const char *path, json_t **ret)
{
	FILE *f = fopen(path, "re");
	json_error_t error;
	int r = 0;

	*ret = NULL;
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	errno = 0;
	*ret = json_loadf(f, 0, &error);
	if (!*ret && (ferror(f) || json_error_code(&error) == json_error_out_of_memory))
		r = errno ? -errno : -ENOMEM;
	fclose(f);
	return r;
}

static int is_still(struct container_entry *c)
{
	uint64_t started;
	int r = start_time(c->init, &started);

	c->running = is_same_start(started, c->started);
	return r;
}

int container_read(const char *name, struct container_entry *ret)
{
	const char *command = "", *checkpoint = NULL;
	char path[CONTAINER_PATH];
	json_int_t init = 0, root = 0, started = 0;
	struct stat st;
	json_t *j;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!container_good_name(name))
		return -ENOENT;
	container_path(name, "", path);
	if (stat(path, &st) < 0)
		return -errno;
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	container_path(name, "state", path);
	r = load_state(path, &j);
	if (r < 0)
		return r;
	if (j &&
	    json_unpack(j, "{s:I, s:I, s:I, s:s, s?s}", "init", &init, "root", &root, "started",
			&started, "command", &command, "checkpoint", &checkpoint) == 0) {
		ret->init = (pid_t)init;
		ret->root = (pid_t)root;
		ret->started = (uint64_t)started;
		ret->command = strdup(command);
		ret->checkpoint = checkpoint ? strdup(checkpoint) : NULL;
		r = is_still(ret);
		if (ret->running && ret->root == ret->init)
			ret->root = command_of(ret->init);
		if (ret->running && !strcmp(command, CONTAINER_RESTARTED))
			name_restarted(ret);
	}
	json_decref(j);
	if (r < 0)
		container_entry_free(ret);
	return r < 0 ? r : 0;
}

int container_load(const char *name, struct container_entry *ret)
{
	int r = container_read(name, ret), lock;

	if (r < 0 || ret->running)
		return r;
	lock = container_lock(name, false);
	if (lock < 0) {
		ret->starting = lock == -EWOULDBLOCK;
		return 0;
	}
	/* It may have been started since it was looked at; nobody does so now. */
	container_entry_free(ret);
	r = container_read(name, ret);
	if (r >= 0 && !ret->running)
		container_cgroups_remove(name, 0);
	container_unlock(&lock);
	return r;
}

int container_save(const struct container_entry *c)
{
	char path[CONTAINER_PATH], draft[CONTAINER_PATH];
	json_t *j = json_pack("{s:I, s:I, s:I, s:o}", "init", (json_int_t)c->init, "root",
			      (json_int_t)c->root, "started", (json_int_t)c->started, "command",
			      json_text(c->command ? c->command : ""));
	int r = -ENOMEM;

	if (j && c->checkpoint &&
	    json_object_set_new(j, "checkpoint", json_text(c->checkpoint)) < 0) {
		json_decref(j);
		return r;
	}
	container_path(c->name, "state", path);
	container_path(c->name, "state.new", draft);
	errno = EIO;
	if (j)
		r = json_dump_file(j, draft, 0) == 0 && rename(draft, path) == 0 ? 0 : -errno;
	json_decref(j);
	return r;
}

int container_register(struct cli *cli, const char *name, const struct reprise_restarted *r,
		       const char *command)
{
	struct container_entry c = {.init = r->init ? r->init : r->pid, .root = r->pid};
	int ret;

	snprintf(c.name, sizeof(c.name), "%s", name);
	ret = start_time(c.init, &c.started);
	c.command = strdup(command);
	if (ret >= 0)
		ret = c.command ? container_save(&c) : -ENOMEM;
	container_entry_free(&c);
	return ret < 0 ? own_error(cli, "output", ret, "cannot note the container %s: %s", name,
				   strerrordesc_np(-ret))
		       : -1;
}

int container_unread(struct cli *cli, const char *name, int err)
{
	if (err == -ENOENT)
		return own_error(cli, "container-none", err, "there is no container '%s'", name);
	return own_error(cli, "container-state", err,
			 "what is noted of the container %s cannot be read: %s", name,
			 strerrordesc_np(-err));
}

int container_running(struct cli *cli, const char *name, struct container_entry *ret)
{
	int r = container_load(name, ret);

	if (r < 0)
		return container_unread(cli, name, r);
	if (!ret->running) {
		container_entry_free(ret);
		return own_error(cli, "container-state", -ESRCH, "container %s has ended", name);
	}
	return -1;
}

int container_target(struct cli *cli, const char *s, pid_t *ret,
		     struct reprise_checkpoint_options *opt)
{
	struct container_entry c;
	int r;

	if ((*s >= '0' && *s <= '9') || !container_good_name(s))
		return parse_pid(cli, s, ret);
	r = container_running(cli, s, &c);
	if (r >= 0)
		return r;
	*ret = c.init;
	opt->container = s;
	container_entry_free(&c);
	return -1;
}

#define REMOVE_FLAGS (FTW_DEPTH | FTW_PHYS | FTW_MOUNT)

/* A directory of an ordinary user may forbid him what root of the container was allowed. */
static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	char above[CONTAINER_PATH];

	(void)st;
	if (remove(path) == 0 || errno == ENOENT)
		return 0;
	if (errno == EACCES && ftw->base > 1 && (size_t)ftw->base < sizeof(above)) {
		memcpy(above, path, (size_t)ftw->base);
		above[ftw->base - 1] = '\0';
		if (chmod(above, 0700) == 0 && (remove(path) == 0 || errno == ENOENT))
			return 0;
	}
	if ((type != FTW_DNR && type != FTW_NS) || (errno != ENOTEMPTY && errno != EEXIST) ||
	    chmod(path, 0700) < 0)
		return -1;
	return nftw(path, remove_one, 32, REMOVE_FLAGS);
}

int container_remove(const char *name)
{
	char path[CONTAINER_PATH];
	int r = container_cgroups_remove(name, PATIENCE_MS);

	if (r < 0)
		return r;
	container_path(name, "", path);
	return nftw(path, remove_one, 32, REMOVE_FLAGS) < 0 ? -errno : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(char ***names, int n, const char *name)
{
	char **more = realloc(*names, ((size_t)n + 1) * sizeof(**names));

	if (more)
		*names = more;
	if (!more || !(more[n] = strdup(name)))
		return -ENOMEM;
	return n + 1;
}

int container_list(char ***ret)
{
	char base[CONTAINER_PATH / 2];
	struct dirent *d;
	DIR *dir;
	int n = 0, r = 0;

	base_directory(base);
	dir = opendir(base);
	*ret = NULL;
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	for (errno = 0; r >= 0 && (d = readdir(dir)); errno = 0)
		if (container_good_name(d->d_name) && (r = add_name(ret, n, d->d_name)) >= 0)
			n = r;
	if (r >= 0 && errno)
		r = -errno;
	closedir(dir);
	if (r < 0) {
		while (n)
			free((*ret)[--n]);
		free(*ret);
		*ret = NULL;
		return r;
	}
	if (n)
		qsort(*ret, (size_t)n, sizeof(**ret), by_name);
	return n;
}
