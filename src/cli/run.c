/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/attach.h"
#include "cli/container.h"

enum {
	OPT_NAME = OPT_OWN,
	OPT_ROOTFS,
	OPT_HOSTNAME,
	OPT_NET,
	OPT_RM,
	OPT_USER,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_PIDS,
	OPT_CGROUPS,
	OPT_INIT
};

struct request {
	const char *name;
	const char *command;
	struct cli *cli;
	bool detach, remove;
	bool complained; /* by ourselves, while the library was at work */
	char given[64];
	char rootfs[PATH_MAX];
	int lock;
	struct reprise_run_options opt;
	const char *volumes[64];
	char *env[512];
	size_t n_volumes, n_env;
};

static int add_volume(struct cli *cli, struct request *q, const char *volume)
{
	if (q->n_volumes + 1 >= sizeof(q->volumes) / sizeof(q->volumes[0]))
		return usage_error(cli, "too many volumes");
	q->volumes[q->n_volumes++] = volume;
	return -1;
}

static int add_env(struct cli *cli, struct request *q, char *setting)
{
	if (!strchr(setting, '=') || *setting == '=')
		return usage_error(cli, "--env takes NAME=VALUE, not '%s'", setting);
	if (putenv(setting))
		return own_error(cli, "no-memory", -errno, "cannot start");
	(void)q;
	return -1;
}

static int parse_net(struct cli *cli, struct request *q, const char *s)
{
	if (!strcmp(s, "host"))
		q->opt.host_network = 1;
	else if (!strncmp(s, "veth", 4))
		q->opt.net = s;
	else if (strcmp(s, "none"))
		return usage_error(cli, "--net takes none, host or veth, not '%s'", s);
	return -1;
}

static int parse_pids(struct cli *cli, struct request *q, const char *s)
{
	long n;

	if (parse_number(s, 1, 1L << 22, &n) < 0)
		return usage_error(cli, "--pids takes a number of tasks, not '%s'", s);
	q->opt.pids = (uint64_t)n;
	return -1;
}

static int parse_option(struct cli *cli, struct request *q, int c, char **argv)
{
	switch (c) {
	case OPT_NAME:
		q->name = optarg;
		return -1;
	case OPT_ROOTFS:
		q->opt.rootfs = optarg;
		return -1;
	case OPT_HOSTNAME:
		q->opt.hostname = optarg;
		return -1;
	case OPT_NET:
		return parse_net(cli, q, optarg);
	case OPT_USER:
		q->opt.user = 1;
		return -1;
	case OPT_RM:
		q->remove = true;
		return -1;
	case OPT_MEMORY:
		return parse_size(cli, "--memory", optarg, &q->opt.memory);
	case OPT_CPUS:
		return parse_cpus(cli, optarg, &q->opt.cpu_thousandths);
	case OPT_PIDS:
		return parse_pids(cli, q, optarg);
	case OPT_CGROUPS:
		q->opt.show_cgroups = 1;
		return -1;
	case OPT_INIT:
		q->opt.is_init = 1;
		return -1;
	case 'd':
		q->detach = true;
		return -1;
	case 'i':
		return -1; /* standard input is handed on in any case */
	case 't':
		q->opt.terminal = 1;
		return -1;
	case 'w':
		q->opt.workdir = optarg;
		return -1;
	case 'e':
		return add_env(cli, q, optarg);
	case 'V':
		return add_volume(cli, q, optarg);
	default:
		return common_option(cli, c, argv);
	}
}

static int find_rootfs(struct cli *cli, struct request *q)
{
	struct stat st;

	if (!realpath(q->opt.rootfs, q->rootfs) || stat(q->rootfs, &st) < 0)
		return usage_error(cli, "--rootfs takes a directory, and %s cannot be found: %s",
				   q->opt.rootfs, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return usage_error(cli, "--rootfs takes a directory, and %s is none",
				   q->opt.rootfs);
	q->opt.rootfs = q->rootfs;
	return -1;
}

static int parse(struct cli *cli, struct request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"name", required_argument, NULL, OPT_NAME},
		{"rootfs", required_argument, NULL, OPT_ROOTFS},
		{"hostname", required_argument, NULL, OPT_HOSTNAME},
		{"net", required_argument, NULL, OPT_NET},
		{"rm", no_argument, NULL, OPT_RM},
		{"user", no_argument, NULL, OPT_USER},
		{"memory", required_argument, NULL, OPT_MEMORY},
		{"cpus", required_argument, NULL, OPT_CPUS},
		{"pids", required_argument, NULL, OPT_PIDS},
		{"cgroups", no_argument, NULL, OPT_CGROUPS},
		{"init", no_argument, NULL, OPT_INIT},
		{"detach", no_argument, NULL, 'd'},
		{"workdir", required_argument, NULL, 'w'},
		{"env", required_argument, NULL, 'e'},
		{"volume", required_argument, NULL, 'V'},
		{"interactive", no_argument, NULL, 'i'},
		{"tty", no_argument, NULL, 't'},
		COMMON_OPTIONS,
	};
	int c, r;

	/* The options of the command to be run are its own. */
	while ((c = getopt_long(argc, argv, "+" SHORT_OPTIONS "dw:e:V:it", options, NULL)) != -1)
		if ((r = parse_option(cli, q, c, argv)) >= 0)
			return r;
	if (argc == optind)
		return usage_error(cli, "no command given: reprise run -- COMMAND...");
	if (q->name && !container_good_name(q->name))
		return usage_error(cli, "'%s' cannot be a name: letters, digits and . _ - only",
				   q->name);
	if (q->opt.rootfs && (r = find_rootfs(cli, q)) >= 0)
		return r;
	if (q->opt.terminal && q->opt.is_init)
		return usage_error(cli,
				   "--init and --tty exclude each other: nobody would hold the "
				   "terminal");
	if (q->opt.terminal && !q->detach && (r = attach_possible(cli)) >= 0)
		return r;
	return common_begin(cli, argv);
}

static int make(struct cli *cli, struct request *q)
{
	int r;

	if (q->name) {
		snprintf(q->given, sizeof(q->given), "%s", q->name);
		r = container_make(q->name);
	} else {
		r = container_make_any(NULL, q->given);
	}
	q->lock = r;
	if (r == -EEXIST)
		return own_error(cli, "container-exists", r,
				 "there is a container '%s' already; choose another name, or say "
				 "reprise rm %s",
				 q->given, q->given);
	return r < 0 ? own_error(cli, "output", r,
				 "cannot make the directories of container %s: %s", q->given,
				 strerrordesc_np(-r))
		     : -1;
}

static int foreground(struct cli *cli, struct request *q, const struct reprise_restarted *result)
{
	struct job job;
	int status, master;

	job_begin(&job, result);
	master = q->opt.terminal ? attach_master(result->init) : -1;
	if (master >= 0 && attach(master, result->pidfd) == ATTACH_DETACHED) {
		attach_say_detached(cli, q->given);
		job_abandon(&job);
		return EXIT_OK;
	}
	status = job_wait(&job, result->pidfd);
	if (q->remove)
		container_remove(q->given);
	return job_end(status);
}

/* The command has not begun: were it to run before this is noted, nobody could find it. */
static int on_ready(void *arg, const struct reprise_restarted *r)
{
	struct request *q = arg;

	q->complained = container_register(q->cli, q->given, r, q->command) >= 0;
	return q->complained ? -EIO : 0;
}

static int start(struct cli *cli, struct request *q, char **argv)
{
	struct reprise_restarted result = {.size = sizeof(result), .pidfd = -1};
	char root[CONTAINER_PATH], layers[CONTAINER_PATH], cgroups[CONTAINER_PATH];
	struct reprise_error e = {};
	int r;

	container_path(q->given, "root", root);
	container_path(q->given, "layers", layers);
	container_path(q->given, "cgroups", cgroups);
	q->opt.cgroups = cgroups;
	q->opt.root = root;
	q->opt.layers = layers;
	q->opt.ready = on_ready;
	q->opt.arg = q;
	q->cli = cli;
	q->command = argv[0];
	q->opt.volumes = q->volumes;
	if (!q->opt.hostname)
		q->opt.hostname = q->given;
	r = reprise_run(argv, &q->opt, &result, &e);
	container_unlock(&q->lock);
	if (r < 0) {
		container_remove(q->given);
		return q->complained ? EXIT_FAILED : library_error(cli, &e);
	}
	if (cli->json)
		print_json(cli, json_pack("{s:s, s:i, s:i}", "name", q->given, "pid",
					  (int)result.pid, "init", (int)result.init));
	else if (q->detach && !cli->quiet)
		printf("%s\n", q->given);
	return q->detach ? EXIT_OK : foreground(cli, q, &result);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct request q = {.opt = {.size = sizeof(q.opt)}};
	int r = parse(cli, &q, argc, argv);

	if (r >= 0)
		return r;
	argv += optind;
	r = make(cli, &q);
	return r >= 0 ? r : start(cli, &q, argv);
}

const struct command run_command = {
	.name = "run",
	.arguments = "[--name NAME] -- COMMAND...",
	.summary = "Start a command in a container of its own",
	.help = "The container sees the files of the host; what it writes stays its own. Waits for the\n"
		"command, and ends with its exit status.\n"
		"\n"
		"  --name NAME         what to call it; container-1, container-2, ... if not given\n"
		"  -it, --tty          give it a terminal of its own, and attach this one to it;\n"
		"                      Ctrl-P Ctrl-Q detaches\n"
		"  -d, --detach        return as soon as the command runs; prints the name\n"
		"  --rm                remove the container when the command has ended\n"
		"  --rootfs DIR        see the files of this directory instead\n"
		"  -V, --volume A:B[:ro]\n"
		"                      show the directory or file A of the host as B\n"
		"  -w, --workdir DIR   working directory of the command\n"
		"  -e, --env N=VALUE   set a variable of its environment\n"
		"  --hostname NAME     the host name inside; that of the container if not given\n"
		"  --memory SIZE       how much memory it may use at most, as 512M or 2G\n"
		"  --cpus N            how many processors, as 0.5 or 2\n"
		"  --pids N            how many tasks\n"
		"  --cgroups           show its control groups on /sys/fs/cgroup, writable: for systemd\n"
		"  --init              the command is the first process itself, as systemd must be\n"
		"  --user              in a user namespace: root there, and no power over what is outside\n"
		"  --net HOW           none (the default: a loopback interface only), host, veth or\n"
		"                      veth=ADDRESS/LENGTH,GATEWAY: an interface to the host\n",
	.run = run,
};
