/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/keys.h"

/*
 * Prints for people what reprise_inspect() returns for programs: doc/inspect.md
 * describes the document. What is not there is left out, so that this command
 * and an older library get along.
 */
enum { OPT_TREE = OPT_OWN, OPT_MAPS, OPT_FILES };
enum view { VIEW_SUMMARY, VIEW_TREE, VIEW_MAPS, VIEW_FILES };

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static uint64_t number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* "1 process", "2 processes". */
static void print_count(size_t n, const char *one, const char *more)
{
	printf("%zu %s", n, n == 1 ? one : more);
}

static size_t threads_of(const json_t *process)
{
	return json_array_size(json_object_get(process, "threads"));
}

static void print_made(const json_t *doc)
{
	const json_t *image = json_object_get(doc, "image"),
		     *parent = json_object_get(doc, "parent");
	time_t t = (time_t)(number(image, "created_ns") / 1000000000);
	char when[64];
	struct tm tm;

	localtime_r(&t, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S %z", &tm);
	printf("made       %s on %s, %s %s %s\n", when, text(image, "hostname"),
	       text(image, "sysname"), text(image, "release"), text(image, "arch"));
	if (*text(image, "cpu"))
		printf("processor  %s\n", text(image, "cpu"));
	printf("format     %" PRIu64 ", uuid %s\n", number(image, "version"), text(image, "uuid"));
	if (json_is_object(parent)) {
		fputs("parent     ", stdout);
		print_escaped(stdout, text(parent, "name"));
		printf(", uuid %s: %" PRIu64 " pages are there\n", text(parent, "uuid"),
		       number(json_object_get(doc, "sizes"), "parent_pages"));
	}
}

static void print_digest(const json_t *doc)
{
	bool all = !strcmp(text(doc, "digest_covers"), "all");

	printf("digest     %s, BLAKE2b-256 of %s\n", text(doc, "digest"),
	       all ? "all" : "the state (contents of memory: XXH3 only)");
}

static const json_t *process_by_pid(const json_t *doc, uint64_t pid)
{
	const json_t *p;
	size_t i;

	json_array_foreach (json_object_get(doc, "processes"), i, p)
		if (number(p, "pid") == pid)
			return p;
	return NULL;
}

static void print_summary(const json_t *doc)
{
	const json_t *sizes = json_object_get(doc, "sizes"), *p, *table;
	const json_t *root = process_by_pid(doc, number(doc, "root_pid"));
	size_t i, threads = 0, fds = 0, tables = 0;
	char a[32], b[32];

	print_made(doc);
	json_array_foreach (json_object_get(doc, "processes"), i, p)
		threads += threads_of(p);
	json_array_foreach (json_object_get(doc, "descriptor_tables"), i, table) {
		fds += json_array_size(json_object_get(table, "fds"));
		tables++;
	}
	printf("root       %" PRIu64 " (", number(doc, "root_pid"));
	print_escaped(stdout, root ? text(root, "comm") : "");
	printf(")");
	if (root && *text(root, "exe")) {
		printf(" ");
		print_escaped(stdout, text(root, "exe"));
	}
	printf("\ntasks      %zu in ", threads);
	print_count(json_array_size(json_object_get(doc, "processes")), "process\n", "processes\n");
	printf("memory     %s in %" PRIu64 " pages, and %" PRIu64 " pages of zeros\n",
	       human_bytes(number(sizes, "memory_bytes"), a, sizeof(a)), number(sizes, "pages"),
	       number(sizes, "zero_pages"));
	printf("files      ");
	print_count(fds, "descriptor in ", "descriptors in ");
	print_count(tables, "table, ", "tables, ");
	print_count(json_array_size(json_object_get(doc, "open_files")), "open file\n",
		    "open files\n");
	if (json_array_size(json_object_get(doc, "ipc_objects"))) {
		printf("ipc        ");
		print_count(json_array_size(json_object_get(doc, "ipc_objects")),
			    "System V object\n", "System V objects\n");
	}
	printf("size       %s", human_bytes(number(sizes, "total_bytes"), a, sizeof(a)));
	printf(": %s of state, %s of pages\n",
	       human_bytes(number(sizes, "state_bytes"), a, sizeof(a)),
	       human_bytes(number(sizes, "page_bytes"), b, sizeof(b)));
	print_digest(doc);
}

static void print_process(const json_t *p, int depth)
{
	char id[32];

	snprintf(id, sizeof(id), "%" PRIu64, number(p, "pid"));
	printf("%*s%-*s ", depth * 2, "", 8, id);
	print_escaped(stdout, text(p, "comm"));
	if (threads_of(p) > 1)
		printf(", %zu threads", threads_of(p));
	if (strcmp(text(p, "state"), "running") != 0)
		printf(", %s", text(p, "state"));
	if (*text(p, "exe")) {
		printf("  ");
		print_escaped(stdout, text(p, "exe"));
	}
	putchar('\n');
}

/*
 * Children stand behind their parents in the document, as they do in an image;
 * looking only at what follows ends also when the document says something else.
 */
static void print_subtree(const json_t *processes, size_t at, int depth)
{
	const json_t *parent = json_array_get(processes, at);

	print_process(parent, depth);
	for (size_t i = at + 1; i < json_array_size(processes); i++) {
		const json_t *p = json_array_get(processes, i);

		if (number(p, "ppid") == number(parent, "pid"))
			print_subtree(processes, i, depth + 1);
	}
}

static void print_tree(const json_t *doc)
{
	const json_t *processes = json_object_get(doc, "processes");

	if (json_array_size(processes))
		print_subtree(processes, 0, 0);
}

/* "4242 (redis-server), 4243 (redis-server)": who uses an object. */
static void print_users(const json_t *doc, const char *key, uint64_t id)
{
	const char *separator = "";
	const json_t *p;
	size_t i;

	json_array_foreach (json_object_get(doc, "processes"), i, p) {
		if (!json_object_get(p, key) || number(p, key) != id)
			continue;
		printf("%s%" PRIu64 " (", separator, number(p, "pid"));
		print_escaped(stdout, text(p, "comm"));
		putchar(')');
		separator = ", ";
	}
}

static void print_maps(const json_t *doc)
{
	const json_t *mm, *vma;
	size_t i, j;
	char a[32];

	json_array_foreach (json_object_get(doc, "address_spaces"), i, mm) {
		print_users(doc, "mm", number(mm, "id"));
		printf(": %s\n", human_bytes(number(mm, "memory_bytes"), a, sizeof(a)));
		json_array_foreach (json_object_get(mm, "vmas"), j, vma) {
			printf("%18s-%-18s %s %10" PRIx64 " %-14s ", text(vma, "start"),
			       text(vma, "end"), text(vma, "prot"), number(vma, "offset"),
			       text(vma, "kind"));
			print_escaped(stdout, text(vma, "path"));
			putchar('\n');
		}
	}
}

static const json_t *by_id(const json_t *objects, uint64_t id)
{
	const json_t *o;
	size_t i;

	json_array_foreach (objects, i, o)
		if (number(o, "id") == id)
			return o;
	return NULL;
}

static void print_files(const json_t *doc)
{
	const json_t *table, *fd, *file;
	size_t i, j;

	json_array_foreach (json_object_get(doc, "descriptor_tables"), i, table) {
		print_users(doc, "files", number(table, "id"));
		puts(":");
		json_array_foreach (json_object_get(table, "fds"), j, fd) {
			file = by_id(json_object_get(doc, "open_files"), number(fd, "file"));
			printf("%6" PRIu64 "  #%-6" PRIu64 " %-12s %#10" PRIo64 " %10" PRIu64 " ",
			       number(fd, "fd"), number(fd, "file"),
			       file ? text(file, "kind") : "?", file ? number(file, "flags") : 0,
			       file ? number(file, "pos") : 0);
			print_escaped(stdout, file ? text(file, "path") : "");
			if (file && *text(file, "path") && *text(file, "detail"))
				printf(", ");
			print_escaped(stdout, file ? text(file, "detail") : "");
			puts(json_is_true(json_object_get(fd, "cloexec")) ? " (close-on-exec)"
									  : "");
		}
	}
}

static int show(struct cli *cli, const char *path, enum view view, struct keys *keys)
{
	static void (*const printers[])(const json_t *) = {
		[VIEW_SUMMARY] = print_summary,
		[VIEW_TREE] = print_tree,
		[VIEW_MAPS] = print_maps,
		[VIEW_FILES] = print_files,
	};
	struct reprise_error e = {};
	char *document = NULL;
	json_error_t why;
	json_t *doc;
	int fd, r;

	fd = open_image(cli, path);
	if (fd < 0)
		return -fd;
	r = keys_open(cli, keys, fd, &fd);
	if (r >= 0)
		return r;
	r = reprise_inspect(fd, &document, &e);
	if (!keys->opening)
		close(fd);
	if (keys_explain(keys, fd, &e) || r < 0)
		return library_error(cli, &e);
	doc = json_loads(document, JSON_REJECT_DUPLICATES, &why);
	free(document);
	if (!doc)
		return own_error(cli, "internal", -EINVAL,
				 "the description of the image is no JSON: %s", why.text);
	if (cli->json)
		return print_json(cli, doc);
	printers[view](doc);
	json_decref(doc);
	return EXIT_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"tree", no_argument, NULL, OPT_TREE},
		{"maps", no_argument, NULL, OPT_MAPS},
		{"files", no_argument, NULL, OPT_FILES},
		OPEN_OPTIONS,
		COMMON_OPTIONS,
	};
	enum view view = VIEW_SUMMARY;
	struct keys keys = {};
	int c, r;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1) {
		if (c >= OPT_TREE && c <= OPT_FILES) {
			if (view != VIEW_SUMMARY)
				return usage_error(cli,
						   "one of --tree, --maps and --files at a time");
			view = VIEW_TREE + (c - OPT_TREE);
		} else if ((r = key_option(cli, &keys, c)) > 0 ||
			   (r == 0 && (r = common_option(cli, c, argv)) >= 0)) {
			return r;
		}
	}
	if ((r = common_begin(cli, argv)) >= 0)
		return r;
	if (argc - optind != 1)
		return usage_error(cli, argc == optind ? "no image given" : "one image at a time");
	return show(cli, argv[optind], view, &keys);
}

const struct command inspect_command = {
	.name = "inspect",
	.arguments = "FILE",
	.summary = "Show what is in an image",
	.help = "FILE may be - for standard input. Without an option, a summary: when and where the\n"
		"image was made, tasks, memory, files, sizes.\n"
		"\n"
		"  --tree              the processes, children below their parents\n"
		"  --maps              the address spaces: range, protection, offset, kind, file\n"
		"  --files             the descriptors: number, open file, kind, flags, position, path\n" OPEN_HELP,
	.run = run,
};
