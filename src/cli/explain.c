/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

enum { OPT_MARKDOWN = OPT_OWN };

static int list(struct cli *cli, bool markdown)
{
	const char *advice, *explanation, *code;
	json_t *all = json_array();

	if (markdown)
		puts("# Error codes\n"
		     "\n"
		     "Every failure is one line, which ends with a code in brackets. A code is stable: scripts may\n"
		     "rely on it. `reprise explain CODE` prints what is listed here.");
	for (unsigned int i = 0; (code = reprise_code(i)); i++) {
		if (reprise_explain(code, &advice, &explanation) < 0)
			continue;
		if (markdown)
			printf("\n## %s\n\n%s%s%s%s\n", code, explanation,
			       advice[0] ? "\n\nAdvice: " : "", advice, advice[0] ? "." : "");
		else if (cli->json)
			json_array_append_new(all,
					      json_pack("{s:s, s:s, s:s}", "code", code, "advice",
							advice, "explanation", explanation));
		else
			printf("%-22s%s\n", code, advice);
	}
	if (cli->json)
		return print_json(cli, json_pack("{s:o}", "codes", all));
	json_decref(all);
	return EXIT_OK;
}

static int explain(struct cli *cli, const char *arg)
{
	const char *advice, *explanation;
	char code[64];
	size_t n;

	/* As it stands at the end of a message, brackets and all. */
	snprintf(code, sizeof(code), "%s", arg[0] == '[' ? arg + 1 : arg);
	n = strlen(code);
	if (arg[0] == '[' && n && code[n - 1] == ']')
		code[n - 1] = '\0';
	if (reprise_explain(code, &advice, &explanation) < 0)
		return usage_error(cli, "there is no error code '%s'", code);
	if (cli->json)
		return print_json(cli, json_pack("{s:s, s:s, s:s}", "code", code, "advice", advice,
						 "explanation", explanation));
	printf("%s\n\n%s\n", code, explanation);
	if (advice[0])
		printf("\nAdvice: %s.\n", advice);
	return EXIT_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"markdown", no_argument, NULL, OPT_MARKDOWN},
		COMMON_OPTIONS,
	};
	bool markdown = false;
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1) {
		if (c == OPT_MARKDOWN)
			markdown = true;
		else if ((r = common_option(cli, c, argv)) >= 0)
			return r;
	}
	if ((r = common_begin(cli, argv)) >= 0)
		return r;
	if (argc - optind > 1 || (markdown && argc > optind))
		return usage_error(cli, "one code at a time");
	return argc > optind ? explain(cli, argv[optind]) : list(cli, markdown);
}

const struct command explain_command = {
	.name = "explain",
	.arguments = "[CODE]",
	.summary = "Say what an error code means and what to do",
	.help = "Without a code all of them are listed.\n\n",
	.run = run,
};
