/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_OPERATION_H
#define REPRISE_OPERATION_OPERATION_H

#include "core/error.h"
#include "reprise.h"

/*
 * The operations, alone in seeing every kind of object. Each runs in a worker
 * process of its own (worker.c): it traces tasks and waits for them, enters namespaces and forks,
 * none of which a library may do to the program that uses it.
 */

/* What a worker tells the caller while it works. All may be called on any thread of the worker. */
struct report;
void report_progress(struct report *rep, const char *phase, uint64_t done, uint64_t total);
void report_trace(void *rep, const char *line);
void report_problem(struct report *rep, const struct error *problem);
/* Asks the caller of a restart whether to let the tasks run: 0, or a negative errno. */
int report_ready(struct report *rep, const struct reprise_restarted *restarted) must_check;
/* Asks for the places of a container: 0, or a negative errno; -ENOSYS: there is nobody to ask. */
int report_container(struct report *rep, struct reprise_container *container) must_check;
/*
 * What is to be killed or stopped must not be before its image is safe: the caller completes it
 * now. 0, or a negative errno: the application goes on then, and the caller knows why.
 */
int report_complete(struct report *rep) must_check;
bool report_traces(const struct report *rep);
/* What lasts beyond the worker (operation/lasting.h): two descriptors go along. */
struct lasting_track;
void report_track(struct report *rep, const struct lasting_track *track, const int fds[2]);
/* The caller is to close what it holds of this task; 0: of all. */
void report_forget(struct report *rep, pid_t tid);

/*
 * From now on this worker, whose process the caller knows as `worker`, does not sleep for that long
 * in one call unless somebody does not answer (see operation/stall.h); 0: it may.
 */
void report_awake(struct report *rep, pid_t worker, int limit_ms);
/* It looks at this task. */
void report_at(struct report *rep, pid_t task);

uint64_t clock_now_ns(void); /* CLOCK_MONOTONIC */
void error_export(const struct error *e, struct reprise_error *ret);

/*
 * path: the name that the image gets; NULL: not known
 * tracks: those of the checkpoint before, taken over; NULL: nothing lasts.
 */
struct mm_tracks;
int operation_checkpoint(pid_t pid, int fd, const char *path,
			 const struct reprise_checkpoint_options *opt, struct mm_tracks *tracks,
			 struct report *rep, struct reprise_stats *stats,
			 struct error *e) must_check;
/* Returns the number of problems. */
int operation_check(pid_t pid, const struct reprise_checkpoint_options *opt, struct report *rep,
		    struct error *e) must_check;
/* messages: where whoever fills memory later says what went wrong; -1: nowhere. */
int operation_restart(int fd, const struct reprise_restart_options *opt, int messages,
		      struct report *rep, struct reprise_stats *stats,
		      struct reprise_restarted *result, struct error *e) must_check;
/* A new container, and a further command in one. result: pid and init, children of our parent. */
int operation_run(char *const argv[], const struct reprise_run_options *opt, struct report *rep,
		  struct reprise_restarted *result, struct error *e) must_check;
int operation_exec(pid_t init, char *const argv[], const struct reprise_run_options *opt,
		   struct reprise_restarted *result, struct error *e) must_check;
int operation_plan(int fd, char **text, struct error *e) must_check;
int operation_inspect(int fd, char **json, struct error *e) must_check;
int operation_merge(const char *path, int out, const struct reprise_merge_options *opt,
		    struct reprise_stats *stats, struct error *e) must_check;
/* where: places of parents, NULL at the end; NULL: the image alone. */
struct image_totals;
int operation_verify(int fd, const char *const *where, struct image_totals *totals,
		     struct error *e) must_check;

#endif
