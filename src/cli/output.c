/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void print_escaped(FILE *f, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 0x20 || c == 0x7f)
			fprintf(f, "\\x%02x", c);
		else
			putc(c, f);
	}
}

json_t *json_text(const char *s)
{
	json_t *text = json_string(s);
	char *ascii;

	/* A file name need not be UTF-8; a JSON string must be. */
	if (text || !(ascii = strdup(s)))
		return text;
	for (char *c = ascii; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	text = json_string(ascii);
	free(ascii);
	return text;
}

json_t *error_json(const struct reprise_error *e)
{
	return json_pack("{s:s, s:o, s:i}", "code", e->code, "text", json_text(e->text), "errno",
			 -e->err);
}

int print_json(struct cli *cli, json_t *document)
{
	json_dumpf(document, cli->json_out, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putc('\n', cli->json_out);
	fflush(cli->json_out);
	json_decref(document);
	return EXIT_OK;
}

/* A refused checkpoint lists all that stands in its way, and returns one of it. */
static bool told_already(const struct cli *cli, const char *text)
{
	const char *known;
	const json_t *p;
	size_t i;

	json_array_foreach (cli->problems, i, p) {
		known = json_string_value(json_object_get(p, "text"));
		if (known && !strcmp(known, text))
			return true;
	}
	return false;
}

/* The one place where a failure is shown. */
static void show_error(struct cli *cli, const struct reprise_error *e)
{
	pthread_mutex_lock(&cli->lock);
	progress_erase(cli);
	if (cli->json) {
		json_t *document = json_pack("{s:o}", "error", error_json(e));

		if (cli->problems && json_array_size(cli->problems))
			json_object_set(document, "problems", cli->problems);
		print_json(cli, document);
	} else if (!told_already(cli, e->text)) {
		fputs("reprise: ", stderr);
		print_escaped(stderr, e->text);
		putc('\n', stderr);
	}
	pthread_mutex_unlock(&cli->lock);
	log_line(cli, "error: %s", e->text);
}

/* Makes the error text as the library does: reason, advice of the code, code. */
static void compose(struct reprise_error *e, const char *code, int err, const char *advice,
		    const char *fmt, va_list ap)
{
	const char *ignored;
	size_t n;

	*e = (struct reprise_error){.err = err};
	snprintf(e->code, sizeof(e->code), "%s", code);
	vsnprintf(e->text, sizeof(e->text) - 256, fmt, ap);
	n = strlen(e->text);
	if (!advice && reprise_explain(code, &advice, &ignored) < 0)
		advice = "";
	snprintf(e->text + n, sizeof(e->text) - n, "%s%s [%s]", advice[0] ? "; " : "", advice,
		 code);
}

int usage_error(struct cli *cli, const char *fmt, ...)
{
	struct reprise_error e;
	char advice[64];
	va_list ap;

	if (!cli->command || cli->command == &help_command)
		snprintf(advice, sizeof(advice), "see `reprise help`");
	else
		snprintf(advice, sizeof(advice), "see `reprise help %s`", cli->command->name);
	va_start(ap, fmt);
	compose(&e, "usage", -EINVAL, advice, fmt, ap);
	va_end(ap);
	show_error(cli, &e);
	return EXIT_USAGE;
}

int own_error(struct cli *cli, const char *code, int err, const char *fmt, ...)
{
	struct reprise_error e;
	va_list ap;

	va_start(ap, fmt);
	compose(&e, code, err, NULL, fmt, ap);
	va_end(ap);
	show_error(cli, &e);
	return EXIT_FAILED;
}

int library_error(struct cli *cli, const struct reprise_error *e)
{
	struct reprise_error named = *e;

	if (!cli->image || strncmp(e->code, "image-", 6) != 0 ||
	    snprintf(named.text, sizeof(named.text), "%s: %s",
		     strcmp(cli->image, "-") ? cli->image : "standard input",
		     e->text) >= (int)sizeof(named.text))
		named = *e;
	show_error(cli, &named);
	return EXIT_FAILED;
}

void on_problem(void *arg, const struct reprise_error *problem)
{
	struct cli *cli = arg;
	bool kept;

	pthread_mutex_lock(&cli->lock);
	progress_erase(cli);
	kept = json_array_append_new(cli->problems, error_json(problem)) == 0;
	if (cli->json && kept) {
		/* They are part of the document to come. */
	} else if (!cli->problems_are_warnings) {
		fputs("reprise: ", stderr);
		print_escaped(stderr, problem->text);
		putc('\n', stderr);
	} else if (!cli->quiet) {
		fputs("reprise: warning: ", stderr);
		print_escaped(stderr, problem->text);
		putc('\n', stderr);
	}
	pthread_mutex_unlock(&cli->lock);
	log_line(cli, "problem: %s", problem->text);
}

static void log_text(struct cli *cli, const char *text)
{
	struct timespec t;
	struct tm tm;
	char stamp[32];

	clock_gettime(CLOCK_REALTIME, &t);
	localtime_r(&t.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	flockfile(cli->log);
	fprintf(cli->log, "%s.%06ld ", stamp, t.tv_nsec / 1000);
	print_escaped(cli->log, text);
	putc('\n', cli->log);
	funlockfile(cli->log);
}

void log_line(struct cli *cli, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	if (!cli->log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_text(cli, text);
}

void on_trace(void *arg, const char *line)
{
	log_text(arg, line);
}

const char *human_bytes(uint64_t n, char *buf, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double d = (double)n;
	size_t i = 0;

	while (d >= 1023.95 && i + 1 < sizeof(units) / sizeof(units[0])) {
		d /= 1024;
		i++;
	}
	snprintf(buf, size, i ? "%.1f %s" : "%.0f %s", d, units[i]);
	return buf;
}

const char *human_time(uint64_t ns, char *buf, size_t size)
{
	if (ns < 10000000)
		snprintf(buf, size, "%.2f ms", (double)ns / 1e6);
	else if (ns < 1000000000)
		snprintf(buf, size, "%.0f ms", (double)ns / 1e6);
	else
		snprintf(buf, size, "%.2f s", (double)ns / 1e9);
	return buf;
}

static double bytes_per_second(const struct reprise_stats *s, enum figures what)
{
	uint64_t ns = what == FIGURES_CHECKPOINT ? s->durable_ns : s->resumed_ns;

	return ns ? (double)s->memory_bytes * 1e9 / (double)ns : 0;
}

void print_figures(const struct reprise_stats *s, enum figures what)
{
	char a[32], b[32];

	if (what == FIGURES_CHECKPOINT) {
		fprintf(stderr, "stood still    %s\n", human_time(s->frozen_ns, a, sizeof(a)));
		if (s->resumed_ns)
			fprintf(stderr, "caller went on %s\n",
				human_time(s->resumed_ns, a, sizeof(a)));
		fprintf(stderr, "durable        %s\n", human_time(s->durable_ns, a, sizeof(a)));
		if (s->copied_later)
			fprintf(stderr, "copied on write %s\n",
				human_bytes(s->copied_later, a, sizeof(a)));
	} else {
		fprintf(stderr, "running after  %s\n", human_time(s->resumed_ns, a, sizeof(a)));
	}
	fprintf(stderr,
		"tasks          %" PRIu64 " in %" PRIu64 " processes, %" PRIu64 " descriptors\n",
		s->tasks, s->processes, s->descriptors);
	fprintf(stderr, "pages          %" PRIu64 ", and %" PRIu64 " of zeros\n", s->pages,
		s->zero_pages);
	fprintf(stderr, "memory         %s at %s/s\n", human_bytes(s->memory_bytes, a, sizeof(a)),
		human_bytes((uint64_t)bytes_per_second(s, what), b, sizeof(b)));
	fprintf(stderr, "image          %s, ratio %.2f\n",
		human_bytes(s->image_bytes, a, sizeof(a)),
		s->image_bytes ? (double)s->memory_bytes / (double)s->image_bytes : 0.0);
}

json_t *figures_json(const struct reprise_stats *s, enum figures what)
{
	json_t *o = json_object();

	if (what == FIGURES_CHECKPOINT) {
		json_object_set_new(o, "stood_still_ns", json_integer((json_int_t)s->frozen_ns));
		json_object_set_new(o, "caller_resumed_ns",
				    json_integer((json_int_t)s->resumed_ns));
		json_object_set_new(o, "durable_ns", json_integer((json_int_t)s->durable_ns));
		json_object_set_new(o, "copied_on_write_bytes",
				    json_integer((json_int_t)s->copied_later));
	} else {
		json_object_set_new(o, "running_ns", json_integer((json_int_t)s->resumed_ns));
	}
	json_object_set_new(o, "tasks", json_integer((json_int_t)s->tasks));
	json_object_set_new(o, "processes", json_integer((json_int_t)s->processes));
	json_object_set_new(o, "descriptors", json_integer((json_int_t)s->descriptors));
	json_object_set_new(o, "pages", json_integer((json_int_t)s->pages));
	json_object_set_new(o, "zero_pages", json_integer((json_int_t)s->zero_pages));
	json_object_set_new(o, "memory_bytes", json_integer((json_int_t)s->memory_bytes));
	json_object_set_new(o, "image_bytes", json_integer((json_int_t)s->image_bytes));
	json_object_set_new(
		o, "ratio",
		json_real(s->image_bytes ? (double)s->memory_bytes / (double)s->image_bytes : 0.0));
	json_object_set_new(o, "bytes_per_second", json_real(bytes_per_second(s, what)));
	return o;
}

int open_image(struct cli *cli, const char *path)
{
	struct stat st;
	int fd, err = 0;

	if (!*path)
		return -own_error(cli, "image-open", -ENOENT, "the name of the image is empty");
	cli->image = path;
	if (!strcmp(path, "-")) {
		if (isatty(STDIN_FILENO))
			return -usage_error(cli,
					    "standard input is a terminal, which holds no image");
		fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	} else {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		err = errno;
	else if (S_ISDIR(st.st_mode))
		err = EISDIR;
	if (err) {
		if (fd >= 0)
			close(fd);
		return -own_error(cli, "image-open", -err, "cannot open the image %s: %s", path,
				  strerrordesc_np(err));
	}
	return fd;
}

int check_output(struct cli *cli, const char *path)
{
	if (!path || !*path)
		return usage_error(
			cli, "no destination given: say -o FILE, or -o - for standard output");
	if (strcmp(path, "-") != 0)
		return -1;
	/* Standard output holds the image and nothing else. */
	cli->json_out = stderr;
	if (isatty(STDOUT_FILENO))
		return usage_error(cli, "standard output is a terminal, which can hold no image");
	return -1;
}

/* Only a file can be made under another name and renamed. */
static bool is_special(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode));
}

int open_stream(struct cli *cli, const char *path)
{
	int fd;

	if (!strcmp(path, "-"))
		fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else if (is_special(path))
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	else
		return -ENOENT;
	if (fd >= 0)
		return fd;
	fd = -errno;
	own_error(cli, "output", fd, "cannot open %s: %s", path, strerrordesc_np(-fd));
	return fd == -ENOENT ? -EIO : fd;
}
