/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

int parse_number(const char *s, long min, long max, long *ret)
{
	char *end;
	long n;

	/* strtol would let a sign and white space pass. */
	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	n = strtol(s, &end, 10);
	if (errno || *end || n < min || n > max)
		return -EINVAL;
	*ret = n;
	return 0;
}

int parse_pid(struct cli *cli, const char *s, pid_t *ret)
{
	long n;

	const char *digits = s + strspn(s, "0123456789");

	if (!*s || *digits)
		return usage_error(cli, "'%s' is not a pid", s);
	if (parse_number(s, 1, INT_MAX, &n) < 0)
		return own_error(cli, "pid-none", -ESRCH, "task %s: no pid can have this number",
				 s);
	/* The library takes it for a program that saves itself. */
	if (n == getpid())
		return own_error(cli, "pid-self", -EDEADLK, "task %ld: is reprise itself", n);
	*ret = (pid_t)n;
	return -1;
}

int parse_jobs(struct cli *cli, const char *s)
{
	long n;

	if (parse_number(s, 1, 1024, &n) < 0)
		return usage_error(cli, "--jobs takes a number from 1 to 1024, not '%s'", s);
	cli->jobs = (int)n;
	return -1;
}

int parse_unix(struct cli *cli, const char *s, enum reprise_peers *ret)
{
	if (!strcmp(s, "disconnect"))
		*ret = REPRISE_PEERS_DISCONNECT;
	else if (!strcmp(s, "reconnect"))
		*ret = REPRISE_PEERS_RECONNECT;
	else if (!strcmp(s, "refuse"))
		*ret = REPRISE_PEERS_REFUSE;
	else
		return usage_error(cli, "--unix takes refuse, disconnect or reconnect, not '%s'",
				   s);
	return -1;
}

static int unknown_option(struct cli *cli, char **argv)
{
	const char *arg = argv[optind - 1];

	/* A cluster of short options: optind still points to it, or just behind. */
	if (optopt && optopt < OPT_JSON && strncmp(arg, "--", 2) != 0) {
		if (argv[optind] && argv[optind][0] == '-' && strchr(argv[optind], optopt))
			arg = argv[optind];
		if (arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9')
			return usage_error(cli, "'%s' is not a pid", arg);
		return usage_error(cli, "there is no option -%c", optopt);
	}
	if (optopt >= OPT_JSON || strchr(arg, '='))
		return usage_error(
			cli, "option '%s' is not understood (a value where none belongs?)", arg);
	return usage_error(cli, "there is no option '%s'", arg);
}

int common_option(struct cli *cli, int c, char **argv)
{
	switch (c) {
	case OPT_JSON:
		cli->json = true;
		return -1;
	case 'q':
		cli->quiet = true;
		return -1;
	case 'v':
		cli->verbose = true;
		return -1;
	case OPT_LOG_FILE:
		cli->log_path = optarg;
		return -1;
	case 'h':
		return print_command_help(cli->command);
	case ':':
		return usage_error(cli, "option '%s' needs a value", argv[optind - 1]);
	default:
		return unknown_option(cli, argv);
	}
}

int common_begin(struct cli *cli, char **argv)
{
	int fd;

	if (cli->quiet && cli->verbose)
		return usage_error(cli, "-q and -v exclude each other");
	cli->problems = json_array();
	if (!cli->problems)
		return own_error(cli, "no-memory", -ENOMEM, "cannot start");
	if (!cli->log_path)
		return -1;
	/* A trace tells what is in memory and in files: for the eyes of its owner only. */
	fd = open(cli->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (fd >= 0)
		cli->log = fdopen(fd, "a");
	if (!cli->log) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return own_error(cli, "output", err, "cannot open the log file %s: %s",
				 cli->log_path, strerrordesc_np(-err));
	}
	setvbuf(cli->log, NULL, _IOLBF, 0);
	log_line(cli, "reprise %s, pid %d", reprise_version(), getpid());
	for (int i = 0; argv[i]; i++)
		log_line(cli, "argument %d: %s", i, argv[i]);
	return -1;
}

int parse_compress(struct cli *cli, const char *s, int *ret_how, int *ret_level)
{
	static const struct {
		const char *name;
		long levels;
	} ways[] = {{"none", 0}, {"lz4", 12}, {"zstd", 22}};
	const char *colon = strchrnul(s, ':');
	long level = 0;

	for (int i = 0; i < (int)(sizeof(ways) / sizeof(*ways)); i++) {
		if (strlen(ways[i].name) != (size_t)(colon - s) ||
		    memcmp(s, ways[i].name, colon - s) || (*colon && !ways[i].levels))
			continue;
		if (*colon && parse_number(colon + 1, 1, ways[i].levels, &level) < 0)
			return usage_error(cli, "a level of %s is a number from 1 to %ld, not '%s'",
					   ways[i].name, ways[i].levels, colon + 1);
		*ret_how = i;
		*ret_level = (int)level;
		return -1;
	}
	return usage_error(cli, "--compress takes none, lz4[:LEVEL] or zstd[:LEVEL], not '%s'", s);
}

int add_parent(struct cli *cli, struct parents *p, const char *path)
{
	if (!*path)
		return usage_error(cli, "the name of the parent is empty");
	if (p->n + 1 >= sizeof(p->v) / sizeof(p->v[0]))
		return usage_error(cli, "too many --parent");
	p->v[p->n++] = path;
	return -1;
}

int parse_duration(struct cli *cli, const char *option, const char *s, uint64_t *ret)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} units[] = {{"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
	size_t digits = strspn(s, "0123456789");
	char number[8] = "";
	long n;

	if (digits < sizeof(number))
		memcpy(number, s, digits);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(s + digits, units[i].unit) &&
		    parse_number(number, 1, 9999999, &n) == 0) {
			*ret = (uint64_t)n * units[i].ns;
			return -1;
		}
	return usage_error(cli, "%s takes a time such as 5ms, 500us or 1s, not '%s'", option, s);
}
