/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/verdict.h"

#include <string.h>

static int parse_tcp(struct cli *cli, const char *s, struct reprise_checkpoint_options *opt)
{
	if (!strcmp(s, "closed"))
		opt->tcp = REPRISE_TCP_CLOSED;
	else if (!strcmp(s, "refuse"))
		opt->tcp = REPRISE_TCP_REFUSE;
	else
		return usage_error(cli, "--tcp takes refuse or closed, not '%s'", s);
	return -1;
}

static int parse_deleted(struct cli *cli, const char *s, struct reprise_checkpoint_options *opt)
{
	if (!strcmp(s, "refuse"))
		opt->deleted = REPRISE_DELETED_REFUSE;
	else if (!strcmp(s, "save"))
		opt->deleted = REPRISE_DELETED_SAVE;
	else if (!strcmp(s, "link"))
		opt->deleted = REPRISE_DELETED_LINK;
	else
		return usage_error(cli, "--deleted takes refuse, save or link, not '%s'", s);
	return -1;
}

static int parse_fs(struct cli *cli, const char *s, struct reprise_checkpoint_options *opt)
{
	if (strcmp(s, "image") && strcmp(s, "none"))
		return usage_error(cli, "--fs takes image or none, not '%s'", s);
	opt->fs_none = !strcmp(s, "none");
	return -1;
}

static int parse_inotify(struct cli *cli, const char *s, struct reprise_checkpoint_options *opt)
{
	if (!strcmp(s, "refuse"))
		opt->inotify = REPRISE_INOTIFY_REFUSE;
	else if (!strcmp(s, "overflow"))
		opt->inotify = REPRISE_INOTIFY_OVERFLOW;
	else
		return usage_error(cli, "--inotify takes refuse or overflow, not '%s'", s);
	return -1;
}

static bool is_leak(const char *s)
{
	static const char *const kinds[] = {"pipe",	 "socket",  "file", "memory",
					    "namespace", "program", "all",  NULL};

	for (const char *const *k = kinds; *k; k++)
		if (!strcmp(s, *k))
			return true;
	return strchr(s, '/') || strchr(s, ':');
}

static int add_allow_leak(struct cli *cli, struct named *leaks, const char *s,
			  struct reprise_checkpoint_options *opt)
{
	if (!is_leak(s))
		return usage_error(
			cli,
			"--allow-leak takes pipe, socket, file, memory, namespace, program, all "
			"or an object such as pipe:[123], not '%s'",
			s);
	if (leaks->n + 1 >= sizeof(leaks->v) / sizeof(leaks->v[0]))
		return usage_error(cli, "too many --allow-leak");
	leaks->v[leaks->n++] = s;
	opt->allow_leaks = leaks->v;
	return -1;
}

static int add_external(struct cli *cli, struct named *x, const char *object,
			struct reprise_checkpoint_options *opt)
{
	if (!*object)
		return usage_error(cli, "--external names nothing");
	if (x->n + 1 >= sizeof(x->v) / sizeof(x->v[0]))
		return usage_error(cli, "too many --external");
	x->v[x->n++] = object;
	opt->externals = x->v;
	return -1;
}

int verdict_option(struct cli *cli, struct verdict *v, int c, char **argv,
		   struct reprise_checkpoint_options *opt)
{
	switch (c) {
	case OPT_TCP:
		return parse_tcp(cli, optarg, opt);
	case OPT_UNIX:
		return parse_unix(cli, optarg, &opt->peers);
	case OPT_EXTERNAL:
		return add_external(cli, &v->externals, optarg, opt);
	case OPT_DELETED:
		return parse_deleted(cli, optarg, opt);
	case OPT_INOTIFY:
		return parse_inotify(cli, optarg, opt);
	case OPT_ALLOW_LEAK:
		return add_allow_leak(cli, &v->leaks, optarg, opt);
	case OPT_FS:
		return parse_fs(cli, optarg, opt);
	default:
		return common_option(cli, c, argv);
	}
}
