/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/attach.h"
#include "cli/container.h"
#include "cli/keys.h"
#include "cli/replace.h"

enum {
	OPT_DETACH = OPT_OWN,
	OPT_PIDFILE,
	OPT_PIDNS,
	OPT_CHANGED_FILES,
	OPT_PLAN,
	OPT_NAME,
	OPT_MAP_MOUNT,
	OPT_UNIX,
	OPT_NET,
	OPT_PARENT,
	OPT_LAZY,
	OPT_REPLACE,
	OPT_PRIVILEGED
};

struct request {
	const char *image;
	const char *pidfile;
	const char *name;   /* for a container */
	char container[64]; /* what it was given; "" while there is none */
	int lock;	    /* of that */
	const char *map_mounts[64];
	struct keys keys;
	struct parents parents;
	struct replacements replacements;
	size_t n_map_mounts;
	char pidfile_tmp[PATH_MAX];
	int pidfile_fd;
	bool pidfile_written;
	bool detach, plan;
	bool complained; /* by ourselves, while the library was at work */
	bool job_begun;
	struct job job;
	struct cli *cli;
	struct reprise_restart_options opt;
	struct reprise_stats stats;
	struct reprise_restarted result;
};

static int add_map_mount(struct cli *cli, struct request *q, const char *pair)
{
	if (*pair != '/' || !strstr(pair, "=/"))
		return usage_error(cli, "--map-mount takes /PATH=/OTHER, not '%s'", pair);
	if (q->n_map_mounts + 1 >= sizeof(q->map_mounts) / sizeof(q->map_mounts[0]))
		return usage_error(cli, "too many --map-mount");
	q->map_mounts[q->n_map_mounts++] = pair;
	return -1;
}

static int parse_changed_files(struct cli *cli, struct request *q, const char *s)
{
	if (!strcmp(s, "refuse"))
		q->opt.changed_files = REPRISE_CHANGED_REFUSE;
	else if (!strcmp(s, "allow"))
		q->opt.changed_files = REPRISE_CHANGED_ALLOW;
	else
		return usage_error(cli, "--changed-files takes refuse or allow, not '%s'", s);
	return -1;
}

static int parse_peers(struct cli *cli, struct request *q, const char *s)
{
	int r = parse_unix(cli, s, &q->opt.peers);

	if (r < 0 && q->opt.peers == REPRISE_PEERS_REFUSE)
		return usage_error(cli, "--unix of a restart takes reconnect or disconnect");
	return r;
}

static int parse_net(struct cli *cli, struct request *q, const char *s)
{
	if (strcmp(s, "veth") != 0 && strncmp(s, "veth=", 5) != 0)
		return usage_error(
			cli,
			"--net of a restart takes veth or veth=ADDRESS/LENGTH,GATEWAY, not '%s'",
			s);
	q->opt.net = s;
	return -1;
}

static int parse_option(struct cli *cli, struct request *q, int c, char **argv)
{
	switch (c) {
	case 'i':
		q->image = optarg;
		return -1;
	case 'j':
		return parse_jobs(cli, optarg);
	case 'd':
		q->detach = true;
		q->opt.own_group = 1;
		return -1;
	case OPT_PIDFILE:
		q->pidfile = optarg;
		return -1;
	case OPT_PIDNS:
		q->opt.pidns = 1;
		return -1;
	case OPT_PLAN:
		q->plan = true;
		return -1;
	case OPT_LAZY:
		q->opt.lazy = 1;
		return -1;
	case OPT_CHANGED_FILES:
		return parse_changed_files(cli, q, optarg);
	case OPT_NAME:
		q->name = optarg;
		return -1;
	case OPT_MAP_MOUNT:
		return add_map_mount(cli, q, optarg);
	case OPT_PARENT:
		return add_parent(cli, &q->parents, optarg);
	case OPT_REPLACE:
		q->opt.replacements = q->replacements.v;
		return add_replacement(cli, &q->replacements, optarg);
	case OPT_UNIX:
		return parse_peers(cli, q, optarg);
	case OPT_NET:
		return parse_net(cli, q, optarg);
	case OPT_PRIVILEGED:
		q->opt.privileged = 1;
		return -1;
	default:
		return common_option(cli, c, argv);
	}
}

static int parse(struct cli *cli, struct request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"input", required_argument, NULL, 'i'},
		{"jobs", required_argument, NULL, 'j'},
		{"detach", no_argument, NULL, 'd'},
		{"pidfile", required_argument, NULL, OPT_PIDFILE},
		{"pidns", no_argument, NULL, OPT_PIDNS},
		{"changed-files", required_argument, NULL, OPT_CHANGED_FILES},
		{"plan", no_argument, NULL, OPT_PLAN},
		{"lazy", no_argument, NULL, OPT_LAZY},
		OPEN_OPTIONS,
		{"name", required_argument, NULL, OPT_NAME},
		{"map-mount", required_argument, NULL, OPT_MAP_MOUNT},
		{"unix", required_argument, NULL, OPT_UNIX},
		{"replace", required_argument, NULL, OPT_REPLACE},
		{"net", required_argument, NULL, OPT_NET},
		{"parent", required_argument, NULL, OPT_PARENT},
		{"privileged", no_argument, NULL, OPT_PRIVILEGED},
		COMMON_OPTIONS,
	};
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS "i:j:d", options, NULL)) != -1)
		if ((r = key_option(cli, &q->keys, c)) > 0 ||
		    (r == 0 && (r = parse_option(cli, q, c, argv)) >= 0))
			return r;
	if (argc > optind)
		return usage_error(cli, "'%s' is one argument too many: the image is given with -i",
				   argv[optind]);
	if (!q->image)
		return usage_error(cli, "no image given: say -i FILE, or -i - for standard input");
	if (q->plan && (q->detach || q->pidfile))
		return usage_error(cli,
				   "--plan restarts nothing: --detach and --pidfile make no sense");
	if (q->name && !container_good_name(q->name))
		return usage_error(cli, "'%s' cannot be a name: letters, digits and . _ - only",
				   q->name);
	q->opt.map_mounts = q->map_mounts;
	q->opt.parents = q->parents.v;
	if (strcmp(q->image, "-") != 0 && q->parents.n + 1 < sizeof(q->parents.v) / sizeof(char *))
		q->parents.v[q->parents.n++] = q->image; /* beside it */
	if (q->pidfile && !*q->pidfile)
		return usage_error(cli, "the name of the pidfile is empty");
	return common_begin(cli, argv);
}

static int print_plan(struct cli *cli, struct request *q, int fd)
{
	int r;
	struct reprise_error e = {};
	char *text = NULL, *save = NULL;
	json_t *steps;

	r = reprise_plan(fd, &text, &e);
	if (keys_explain(&q->keys, fd, &e) || r < 0)
		return library_error(cli, &e);
	if (!cli->json) {
		fputs(text, stdout);
		free(text);
		return EXIT_OK;
	}
	steps = json_array();
	for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save))
		json_array_append_new(steps, json_text(s));
	free(text);
	return print_json(cli, json_pack("{s:o}", "plan", steps));
}

/* Made before the restart, so that a place that cannot be written to is found while it is harmless.
 */
static int pidfile_begin(struct cli *cli, struct request *q)
{
	struct stat st;
	int n, err;

	q->pidfile_fd = -1;
	if (!q->pidfile)
		return -1;
	/* It takes the place of a file, and of nothing else. */
	if (lstat(q->pidfile, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return own_error(cli, "output", -EEXIST,
				 "the pidfile %s exists, and is no regular file", q->pidfile);
	n = snprintf(q->pidfile_tmp, sizeof(q->pidfile_tmp), "%s", q->pidfile);
	if (n < (int)sizeof(q->pidfile_tmp))
		q->pidfile_fd = open(dirname(q->pidfile_tmp), O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
	else
		errno = ENAMETOOLONG;
	/* Without a name it cannot be left behind; some file systems know no such files. */
	q->pidfile_tmp[0] = '\0';
	n = snprintf(q->pidfile_tmp, sizeof(q->pidfile_tmp), "%s.XXXXXX", q->pidfile);
	if (q->pidfile_fd >= 0)
		q->pidfile_tmp[0] = '\0';
	else if ((errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL) &&
		 n < (int)sizeof(q->pidfile_tmp))
		q->pidfile_fd = mkostemp(q->pidfile_tmp, O_CLOEXEC);
	if (q->pidfile_fd < 0) {
		err = -errno;
		q->pidfile_tmp[0] = '\0';
		return own_error(cli, "output", err, "cannot write the pidfile %s: %s", q->pidfile,
				 strerrordesc_np(-err));
	}
	return -1;
}

static void pidfile_abandon(struct request *q)
{
	if (q->pidfile_fd >= 0) {
		close(q->pidfile_fd);
		if (*q->pidfile_tmp)
			unlink(q->pidfile_tmp);
		q->pidfile_fd = -1;
	}
	if (q->pidfile_written)
		unlink(q->pidfile);
}

/* linkat() does not replace: what an earlier one has left goes first. */
static int pidfile_name(const struct request *q)
{
	char self[64];

	if (*q->pidfile_tmp)
		return rename(q->pidfile_tmp, q->pidfile);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", q->pidfile_fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, q->pidfile, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno != EEXIST || unlink(q->pidfile) < 0)
		return -1;
	return linkat(AT_FDCWD, self, AT_FDCWD, q->pidfile, AT_SYMLINK_FOLLOW);
}

static int pidfile_commit(struct request *q, pid_t pid)
{
	int err = 0;

	if (!q->pidfile)
		return 0;
	if (fchmod(q->pidfile_fd, 0644) < 0 || dprintf(q->pidfile_fd, "%d\n", pid) < 0 ||
	    pidfile_name(q) < 0)
		err = -errno;
	if (err)
		return own_error(q->cli, "output", err, "cannot write the pidfile %s: %s",
				 q->pidfile, strerrordesc_np(-err));
	close(q->pidfile_fd);
	q->pidfile_fd = -1;
	q->pidfile_written = true;
	return 0;
}

/* The image is of a container: it gets directories of its own. */
static int on_container(void *arg, struct reprise_container *c)
{
	struct request *q = ((struct cli *)arg)->request;
	const char *wanted = q->name ? q->name : container_good_name(c->name) ? c->name : NULL;
	int r;

	if (q->name) {
		snprintf(q->container, sizeof(q->container), "%s", q->name);
		r = container_make(q->name);
	} else {
		r = container_make_any(wanted, q->container);
	}
	if (r < 0) {
		if (r == -EEXIST)
			own_error(q->cli, "container-exists", r,
				  "there is a container '%s' already; choose another --name, or "
				  "remove it with reprise rm",
				  q->container);
		else
			own_error(q->cli, "output", r,
				  "cannot make the directories of container %s: %s", q->container,
				  strerrordesc_np(-r));
		q->complained = true;
		q->container[0] = '\0';
		return r;
	}
	q->lock = r;
	container_path(q->container, "root", c->root);
	container_path(q->container, "layers", c->layers);
	container_path(q->container, "cgroups", c->cgroups);
	return 0;
}

/* Everything is made and nothing runs: what must be in place when it does, is done here. */
static int on_ready(void *arg, const struct reprise_restarted *r)
{
	struct request *q = ((struct cli *)arg)->request;

	if (pidfile_commit(q, r->pid) != 0) {
		q->complained = true;
		return -EIO;
	}
	if (q->name && !q->container[0]) {
		usage_error(q->cli, "--name: the image is of no container that reprise lists");
		q->complained = true;
		return -EINVAL;
	}
	if (q->container[0] &&
	    container_register(q->cli, q->container, r, CONTAINER_RESTARTED) >= 0) {
		q->complained = true;
		return -EIO;
	}
	if (!q->detach) {
		job_begin(&q->job, r);
		q->job_begun = true;
	}
	return 0;
}

static int restart_failed(struct cli *cli, struct request *q, const struct reprise_error *e)
{
	if (q->job_begun)
		job_abandon(&q->job);
	pidfile_abandon(q);
	if (q->container[0])
		container_remove(q->container);
	return q->complained ? EXIT_FAILED : library_error(cli, e);
}

/* The terminal that is left for reading when the image itself came by standard input. */
static int terminal_for_input(void)
{
	for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++)
		if (isatty(fd) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
			return fd;
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void hand_over_streams(struct request *q)
{
	q->opt.use_stdio = 1;
	q->opt.stdio[0] = strcmp(q->image, "-") ? STDIN_FILENO : terminal_for_input();
	q->opt.stdio[1] = STDOUT_FILENO;
	q->opt.stdio[2] = STDERR_FILENO;
}

static void report(struct cli *cli, const struct request *q)
{
	if (cli->json)
		print_json(cli, json_pack("{s:i, s:i, s:O, s:o}", "pid", (int)q->result.pid, "init",
					  (int)q->result.init, "warnings", cli->problems, "figures",
					  figures_json(&q->stats, FIGURES_RESTART)));
	else if (cli->verbose)
		print_figures(&q->stats, FIGURES_RESTART);
}

/* Were the tasks ended because their memory did not come? That was said before. */
static void lazy_explain(struct cli *cli, const struct request *q)
{
	struct reprise_error e = {.err = -EIO};
	const char *code, *end;
	ssize_t n = -1;

	if (q->opt.lazy && fcntl(q->result.lazy_fd, F_SETFL, O_NONBLOCK) == 0)
		n = read(q->result.lazy_fd, e.text, sizeof(e.text) - 1);
	if (n <= 0)
		return;
	code = strrchr(e.text, '[');
	end = code ? strchr(code, ']') : NULL;
	if (end)
		snprintf(e.code, sizeof(e.code), "%.*s", (int)(end - code - 1), code + 1);
	library_error(cli, &e);
}

/* Until it ends; the terminal of a container is attached to ours, as it was. */
static int foreground(struct cli *cli, struct request *q)
{
	pid_t init = q->result.init ? q->result.init : q->result.pid;
	int master = isatty(STDIN_FILENO) && q->container[0] ? attach_master(init) : -1;
	int status;

	if (master >= 0 && attach(master, q->result.pidfd) == ATTACH_DETACHED) {
		attach_say_detached(cli, q->container);
		job_abandon(&q->job);
		return EXIT_OK;
	}
	status = job_wait(&q->job, q->result.pidfd);
	lazy_explain(cli, q);
	return job_end(status);
}

static int restart(struct cli *cli, struct request *q, int fd)
{
	struct reprise_error e = {}, why = {};
	int r;

	r = keys_open(cli, &q->keys, fd, &fd);
	if (r < 0 && q->opt.lazy && q->keys.opening) {
		keys_explain(&q->keys, fd, &why);
		r = usage_error(cli, "--lazy is for images that are neither signed nor encrypted");
	}
	if (r >= 0)
		return r;
	if (q->plan)
		return print_plan(cli, q, fd);
	r = pidfile_begin(cli, q);
	if (r >= 0)
		return r;
	hand_over_streams(q);
	r = start_replacements(cli, &q->replacements);
	if (r >= 0)
		return r;
	/* Nothing comes out of the envelope that is not signed by one of these keys. */
	if (q->keys.n_trust)
		q->opt.privileged = 1;
	progress_begin(cli);
	r = reprise_restart(fd, &q->opt, &q->result, &e);
	progress_end(cli);
	close_replacements(&q->replacements);
	container_unlock(&q->lock);
	if (!q->keys.opening)
		close(fd);
	/* All that was used has been verified; what may follow it does not matter any more. */
	keys_explain(&q->keys, fd, &why);
	if (r < 0)
		return restart_failed(cli, q, why.code[0] ? &why : &e);
	log_line(cli, "running: root task %d, init %d, process group %d", q->result.pid,
		 q->result.init, q->result.pgrp);
	report(cli, q);
	return q->detach ? EXIT_OK : foreground(cli, q);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct request q = {
		.opt =
			{
				.size = sizeof(q.opt),
				.progress = on_progress,
				.problem = on_problem,
				.arg = cli,
				.stats = &q.stats,
				.ready = on_ready,
				.container = on_container,
			},
		.cli = cli,
		.lock = -1,
		.result = {.size = sizeof(q.result), .pidfd = -1},
	};
	int r = parse(cli, &q, argc, argv), fd;

	if (r >= 0)
		return r;
	cli->request = &q;
	q.opt.jobs = cli->jobs;
	q.opt.trace = cli->log ? on_trace : NULL;
	cli->problems_are_warnings = true;
	fd = open_image(cli, q.image);
	return fd < 0 ? -fd : restart(cli, &q, fd);
}

const struct command restart_command = {
	.name = "restart",
	.arguments = "-i FILE",
	.summary = "Bring back what an image holds",
	.help = "Waits until the first of the processes ends, and ends with its exit status.\n"
		"\n"
		"  -i, --input FILE    the image; - is standard input\n"
		"  -d, --detach        return as soon as everything runs\n"
		"  --pidfile FILE      write the pid of the first process there\n"
		"  --pidns             in a new pid namespace: the same pids inside, never a collision\n"
		"  --changed-files=HOW what to do if a file has changed since: refuse (the default) or allow\n"
		"  --unix HOW          Unix sockets that were saved to be connected anew to what is\n"
		"                      outside: reconnect (the default), or leave them disconnected\n"
		"  --replace OBJECT=WITH  put something in the place of an open file: fd:N, a descriptor of\n"
		"                      this command; file:PATH; unix:NAME, connected to; exec:COMMAND, its\n"
		"                      standard input and output; or null\n"
		"  --name NAME         of a container: what to call it; the old name or the next free one\n"
		"                      if not given\n"
		"  --map-mount A=B     of a container: B takes the place of directory A of the host\n"
		"  --net HOW           of a container with an interface to the host: veth, or\n"
		"                      veth=ADDRESS/LENGTH,GATEWAY: another address than it had\n"
		"  --parent PATH       of an incremental image: where its parents are, a file or a directory;\n"
		"                      they are found beside the image as well\n"
		"  --lazy              run at once; memory follows, on demand and in the background\n"
		"  --privileged        as root: also an image that was not made by root of this machine, and\n"
		"                      that is not signed (--trust), is restarted with all rights\n"
		"  --plan              print the steps and do nothing\n" OPEN_HELP
		"  -j, --jobs N        threads that fill memory; one a core is the default\n",
	.run = run,
};
