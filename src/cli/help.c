/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/cli.h"

int print_overview(void)
{
	puts("usage: reprise COMMAND ...\n"
	     "\n"
	     "Saves running applications as images and brings them back.\n");
	for (const struct command *const *c = commands; *c; c++)
		printf("  %-12s%s\n", (*c)->name, (*c)->summary);
	puts("\n"
	     "  reprise help COMMAND   more about a command\n"
	     "  reprise help kinds     what can be saved\n"
	     "  reprise --version");
	return EXIT_OK;
}

int print_command_help(const struct command *c)
{
	printf("usage: reprise %s %s\n\n%s.\n\n%s", c->name, c->arguments, c->summary, c->help);
	if (c != &help_command)
		puts("  --json              everything, errors too, as one JSON object\n"
		     "  -q, --quiet         no progress, no warnings\n"
		     "  -v, --verbose       figures\n"
		     "  --log-file FILE     append a trace, with time stamps (mode 0600)\n"
		     "  -h, --help          this text");
	return EXIT_OK;
}

static int print_kinds(bool markdown)
{
	const char *name, *support;

	if (markdown)
		puts("| kind | support |\n|---|---|");
	for (unsigned int i = 0; reprise_kind(i, &name, &support) == 0; i++)
		printf(markdown ? "| %s | %s |\n" : "%-28s %s\n", name, support);
	return EXIT_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	/* For the documentation, which a test compares with this. */
	bool markdown = argc == 3 && !strcmp(argv[1], "kinds") && !strcmp(argv[2], "--markdown");
	const struct command *c;

	if (argc == 1)
		return print_overview();
	if (!strcmp(argv[1], "kinds") && (argc == 2 || markdown))
		return print_kinds(markdown);
	if (argc > 2)
		return usage_error(cli, "one command at a time");
	c = command_by_name(argv[1]);
	if (!c)
		return usage_error(cli, "there is no command '%s'", argv[1]);
	return print_command_help(c);
}

const struct command help_command = {
	.name = "help",
	.arguments = "[COMMAND | kinds]",
	.summary = "Tell about the commands, or about the kinds of objects that can be saved",
	.help = "",
	.run = run,
};
