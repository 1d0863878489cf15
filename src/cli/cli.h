/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CLI_CLI_H
#define REPRISE_CLI_CLI_H

#include <getopt.h>
#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <termios.h>

#include "reprise.h"

/*
 * The command line, a client of reprise.h like any other. Each command is one
 * file with one `struct command`; what they share is here: options, output,
 * the progress line and the log.
 */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
};

struct cli;

struct command {
	const char *name;
	const char *arguments; /* of the usage line */
	const char *summary;   /* one line of `reprise help` */
	const char *help;      /* the rest of `reprise help COMMAND` */
	int (*run)(struct cli *cli, int argc, char **argv);
};

extern const struct command checkpoint_command, restart_command, check_command, inspect_command,
	verify_command, explain_command, help_command, run_command, ps_command, exec_command,
	attach_command, stop_command, rm_command, keygen_command, merge_command, watch_command;
extern const struct command *const commands[]; /* NULL-terminated */
const struct command *command_by_name(const char *name);
int print_command_help(const struct command *c);
int print_overview(void);

struct progress {
	bool on;
	char phase[64];
	uint64_t started_ns, drawn_ns;
	uint64_t phase_ns, phase_done; /* where the phase began, for the rate */
	int width;		       /* characters on the line now */
};

/* One run of the command. */
struct cli {
	const struct command *command;
	bool json, quiet, verbose;
	const char *log_path;
	int jobs;
	const char *image; /* that is being read; NULL: none */

	FILE *json_out; /* standard error when the image goes to standard output */
	FILE *log;
	pthread_mutex_t lock; /* callbacks come from threads of the library */
	struct progress progress;
	json_t *problems; /* what the problem callback was told */
	bool problems_are_warnings;
	void *request; /* of the command that runs, for its callbacks */
};

/* options.c */
enum { OPT_JSON = 256, OPT_LOG_FILE, OPT_HELP, OPT_OWN };
#define SHORT_OPTIONS ":hqv"
/* clang-format off */
#define COMMON_OPTIONS                                   \
	{ "json", no_argument, NULL, OPT_JSON },         \
	{ "quiet", no_argument, NULL, 'q' },             \
	{ "verbose", no_argument, NULL, 'v' },           \
	{ "log-file", required_argument, NULL, OPT_LOG_FILE }, \
	{ "help", no_argument, NULL, 'h' },              \
	{ NULL, 0, NULL, 0 }
/* clang-format on */
/* Takes an option that every command has, or reports one that none has: -1 to go on, else the exit
 * status. */
int common_option(struct cli *cli, int c, char **argv);
/* Opens the log; once all options are known. -1 to go on, else the exit status. */
int common_begin(struct cli *cli, char **argv);
int parse_number(const char *s, long min, long max, long *ret);
int parse_pid(struct cli *cli, const char *s, pid_t *ret);
/* Bytes, with a unit; processors, in thousandths. Exit status, -1 to go on. */
int parse_size(struct cli *cli, const char *option, const char *s, uint64_t *ret);
int parse_cpus(struct cli *cli, const char *s, uint64_t *ret);
int parse_jobs(struct cli *cli, const char *s);
int parse_unix(struct cli *cli, const char *s, enum reprise_peers *ret);

/* A whole number and its unit. */
int parse_duration(struct cli *cli, const char *option, const char *s, uint64_t *ret);
/* "none", "lz4", "lz4:9", "zstd:3" */
int parse_compress(struct cli *cli, const char *s, int *ret_how, int *ret_level);
/* Where the parents of an image are, from --parent and from the place of the image itself. */
struct parents {
	const char *v[66]; /* NULL at the end */
	size_t n;
};
int add_parent(struct cli *cli, struct parents *p, const char *path);

/* output.c */
/* Complains about the command line; returns EXIT_USAGE. */
int usage_error(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Reports a failure of our own, in the form in which the library reports its own; returns
 * EXIT_FAILED. */
int own_error(struct cli *cli, const char *code, int err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Reports a failure of the library, with the name of the image if it is due to that; returns
 * EXIT_FAILED. */
int library_error(struct cli *cli, const struct reprise_error *e);
void on_problem(void *arg, const struct reprise_error *problem);
void on_trace(void *arg, const char *line);
/* A string of any bytes. */
json_t *json_text(const char *s);
json_t *error_json(const struct reprise_error *e);
/* Prints a whole document, and gives up the reference. Returns EXIT_OK. */
int print_json(struct cli *cli, json_t *document);
void log_line(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "1.5 GiB"; buf has room for 16 characters at least. */
const char *human_bytes(uint64_t n, char *buf, size_t size);
const char *human_time(uint64_t ns, char *buf, size_t size);
enum figures { FIGURES_CHECKPOINT, FIGURES_RESTART };
void print_figures(const struct reprise_stats *s, enum figures what);
json_t *figures_json(const struct reprise_stats *s, enum figures what);
/* Text that may hold anything, such as a file name, without control characters. */
void print_escaped(FILE *f, const char *s);
/* Opens an image for reading, "-" being standard input; the exit status, negated, after a
 * complaint. */
int open_image(struct cli *cli, const char *path);
/* Looks at the -o of an image: -1 to go on, else the exit status. */
int check_output(struct cli *cli, const char *path);
/* Where it can only be written to as it comes: standard output, a device or a fifo. -ENOENT: make
 * a file, under another name until it is complete. */
int open_stream(struct cli *cli, const char *path);
uint64_t now_ns(void);

/* progress.c */
void progress_begin(struct cli *cli);
void on_progress(void *arg, const char *phase, uint64_t done, uint64_t total);
/* Takes the line away; also for whoever wants to print meanwhile, with the lock held. */
void progress_erase(struct cli *cli);
void progress_end(struct cli *cli);

/* job.c */
struct job {
	pid_t wait_for; /* our child: the root task, or the init of its namespace */
	pid_t root;
	int pidfd;
	pid_t pgrp; /* 0: our own */
	int tty;    /* our controlling terminal, -1 if there is none */
	struct termios ours, theirs;
	bool have_ours, have_theirs;
	bool handed_over; /* the group has had the terminal */
};
/* Before the first task runs: gives the terminal away, and from now on lets no signal end us. */
void job_begin(struct job *j, const struct reprise_restarted *r);
/* The restart failed after that. */
void job_abandon(struct job *j);
/*
 * Waits in the foreground for what was restarted, as a shell waits for a job,
 * and returns its wait status. Signals that are meant for the application are
 * passed on.
 */
int job_wait(struct job *j, int pidfd);
/* Ends as the job did: with its exit status, or killed by its signal. */
int job_end(int wait_status);

#endif
