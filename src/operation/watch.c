/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of an application that goes on running, one after the other, each based on the one
 * before. What is older than the last `keep` stays as long as newer images need it: then the oldest
 * of those that are kept is merged with all before it, in a process of its own, and they are
 * removed. At every instant all images that are there can be restarted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "core/vec.h"
#include "operation/lasting.h"

/* Old images are merged when they take half as much as the complete one, or are so many. */
#define OLD_MAX		 100
#define KEEP_MAX	 100
#define LOCK_PATIENCE_MS 3000
/* Failures in a row after which nothing will change, and how much longer each is waited for than
 * the one before: what is in the way for some seconds ends nothing. */
#define FAILURES	 10
#define FAILED_PAUSE_NS	 200000000ULL

struct watched {
	unsigned long number;
	uint64_t bytes;
};

struct watch {
	pid_t pid;
	int pidfd;
	const char *dir;
	int dir_fd; /* locked: one watch at a time */
	struct reprise_watch_options opt;
	struct reprise_checkpoint_options how;
	VEC(struct watched) images; /* from the one that is complete on */
	unsigned long next;
	pid_t merging; /* the process, 0: none */
	size_t merged; /* the image that it makes complete */
	int failures;
	struct mm_tracks tracks; /* what is not written since the last image */
};

static char *image_path(const struct watch *w, unsigned long number)
{
	char *path;

	return asprintf(&path, "%s/%08lu.rp", w->dir, number) < 0 ? NULL : path;
}

/* Two would take each other's numbers. Of one that was killed, a worker may still be there for a
 * moment. A file system without locks is nobody's fault. */
static int lock_directory(struct watch *w, struct error *e)
{
	w->dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dir_fd < 0)
		return error_errno(e, -errno, E_OUTPUT, "the directory %s cannot be opened",
				   w->dir);
	for (int ms = 0; flock(w->dir_fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK; ms++) {
		if (ms >= LOCK_PATIENCE_MS)
			return error_set(e, -EBUSY, E_OUTPUT,
					 "another watch puts its images into the directory %s",
					 w->dir);
		patience_pause();
	}
	return 0;
}

/* Numbers go on where those of an earlier watch ended. */
static int find_next(struct watch *w, struct error *e)
{
	DIR *dir = opendir(w->dir);
	const struct dirent *d;
	int ended = 0;

	if (!dir)
		return error_errno(e, -errno, E_OUTPUT, "the directory %s cannot be opened",
				   w->dir);
	w->next = 1;
	while ((d = next_entry(dir, &ended))) {
		unsigned long number;
		int end = 0;

		if (sscanf(d->d_name, "%8lu.rp%n", &number, &end) == 1 && end && !d->d_name[end] &&
		    number >= w->next)
			w->next = number + 1;
	}
	closedir(dir);
	return ended < 0
		       ? error_errno(e, ended, E_OUTPUT, "the directory %s cannot be read", w->dir)
		       : 0;
}

/* 1: the end was asked for, or the application has come to its own. */
static int is_over(const struct watch *w, int timeout_ms)
{
	struct pollfd p[2] = {{.fd = w->pidfd, .events = POLLIN},
			      {.fd = w->opt.use_stop_fd ? w->opt.stop_fd : -1, .events = POLLIN}};
	int r = poll(p, 2, timeout_ms);

	return r > 0;
}

static int sleep_until(const struct watch *w, uint64_t when)
{
	for (;;) {
		uint64_t now = clock_now_ns();

		if (is_over(w, now >= when ? 0 : (int)((when - now) / 1000000) + 1))
			return 1;
		if (clock_now_ns() >= when)
			return 0;
	}
}

/* ---- old ones ---- */

static void forget_old(struct watch *w)
{
	for (size_t i = 0; i < w->merged; i++) {
		_cleanup_(free_ptr) char *path = image_path(w, w->images.v[i].number);

		if (path)
			unlink(path);
	}
	memmove(w->images.v, w->images.v + w->merged,
		(w->images.n - w->merged) * sizeof(*w->images.v));
	w->images.n -= w->merged;
}

/* Its size tells how much can come together until the next time. */
static void merge_ended(struct watch *w, int status)
{
	struct stat st;

	w->merging = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return;
	forget_old(w);
	_cleanup_(free_ptr) char *path = image_path(w, w->images.v[0].number);
	if (path && stat(path, &st) == 0)
		w->images.v[0].bytes = (uint64_t)st.st_size;
}

static bool worth_merging(const struct watch *w)
{
	size_t old = w->images.n > (size_t)w->opt.keep ? w->images.n - (size_t)w->opt.keep : 0;
	uint64_t bytes = 0;

	for (size_t i = 1; i <= old && i < w->images.n; i++)
		bytes += w->images.v[i].bytes;
	return old && (old >= OLD_MAX || bytes >= w->images.v[0].bytes / 2);
}

static void __attribute__((noreturn)) merge_main(struct watch *w, const char *path, int held)
{
	const struct reprise_merge_options opt = {.size = sizeof(opt),
						  .jobs = 1,
						  .compress = w->how.compress,
						  .compress_level = w->how.compress_level};

	/* whose descriptors would keep them, should they be given up */
	lasting_forget(&w->tracks, 0);
	close(held);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	ignore(nice(10), "it is not urgent");
	_exit(reprise_merge(path, path, 1, &opt, NULL) < 0);
}

static void begin_merging(struct watch *w, const char *path)
{
	int held[2];
	char byte;

	if (pipe2(held, O_CLOEXEC) < 0)
		return;
	fflush(NULL);
	w->merging = fork();
	if (w->merging == 0)
		merge_main(w, path, held[1]);
	if (w->merging < 0)
		w->merging = 0;
	close(held[1]);
	ignore((int)read(held[0], &byte, 1), "it tells by its end that nothing is held");
	close(held[0]);
}

static void look_at_old(struct watch *w)
{
	int status;

	if (w->merging && waitpid(w->merging, &status, WNOHANG) == w->merging)
		merge_ended(w, status);
	if (w->merging || !worth_merging(w))
		return;
	w->merged = w->images.n - (size_t)w->opt.keep;
	_cleanup_(free_ptr) char *path = image_path(w, w->images.v[w->merged].number);
	if (path)
		begin_merging(w, path);
}

/* ---- one more ---- */

static void give(struct reprise_error *error, const struct error *e)
{
	if (error)
		error_export(e, error);
}

static int no_memory(struct reprise_error *error)
{
	struct error e = {};
	int r = error_set(&e, -ENOMEM, E_NO_MEMORY, "no memory to watch");

	give(error, &e);
	return r;
}

/* There is room for it. */
static void add_image(struct watch *w, const char *path, const struct reprise_stats *stats)
{
	w->images.v[w->images.n++] = (struct watched){w->next++, stats->image_bytes};
	w->failures = 0;
	if (w->opt.image)
		w->opt.image(w->opt.arg, path, stats);
}

static int checkpoint_once(struct watch *w, bool based, struct reprise_error *error)
{
	struct reprise_stats stats = {};
	_cleanup_(free_ptr) char *path = image_path(w, w->next), *last = NULL;
	const char *parents[2] = {};
	int r;

	if (based)
		last = image_path(w, w->images.v[w->images.n - 1].number);
	/* room first: an image that nobody knows of would be in the way of the next one */
	if (!path || (based && !last) || !vec_push(&w->images))
		return no_memory(error);
	w->images.n--;
	parents[0] = last;
	w->how.parents = based ? parents : NULL;
	w->how.stats = &stats;
	r = checkpoint_file_tracked(w->pid, path, &w->how, &w->tracks, error);
	w->how.parents = NULL;
	if (r >= 0)
		add_image(w, path, &stats);
	return r;
}

/* If the image before is not there any more, or damaged: a complete one, with which all begins
 * anew. */
static int checkpoint_next(struct watch *w, struct reprise_error *error)
{
	bool based = w->images.n > 0;
	int r = checkpoint_once(w, based, error);
	struct watched last;

	if (r >= 0 || !based || is_over(w, 0) ||
	    (strncmp(error->code, "parent", 6) != 0 && strncmp(error->code, "image-", 6) != 0))
		return r;
	r = checkpoint_once(w, false, error);
	if (r < 0)
		return r;
	last = w->images.v[w->images.n - 1];
	w->images.n = 1;
	w->images.v[0] = last;
	if (w->merging) {
		kill(w->merging, SIGKILL);
		waitpid(w->merging, NULL, 0);
		w->merging = 0;
	}
	return r;
}

/* What the application, or somebody else, is likely to end by itself: then even the first image is
 * tried again. With all else the user has to do something, and is to know at once. */
static bool passes(const struct reprise_error *error)
{
	static const enum error_code codes[] = {
		E_NO_MEMORY, E_NO_ANSWER, E_TASK_TRACED, E_TASK_UNINTERRUPTIBLE, E_TASK_VFORK,
		E_TASK_GONE, E_TASK_BUSY, E_FILE_EVENTS, E_TCP_CONNECTION,
	};

	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
		if (!strcmp(error->code, error_code_info(codes[i])->name))
			return true;
	return false;
}

/* A checkpoint has failed. 0: the next one is tried. */
static int failed(struct watch *w, int r, const struct reprise_error *error)
{
	struct error unused = {};

	if ((!w->images.n && !passes(error)) || ++w->failures >= FAILURES)
		return r;
	if (w->how.problem)
		w->how.problem(w->how.arg, error);
	/* a file that somebody else has put there */
	if (r == -EEXIST)
		ignore(find_next(w, &unused), "then the next one fails");
	return 0;
}

/* Returns 0 when it is over. */
static int watch_loop(struct watch *w, struct reprise_error *error)
{
	uint64_t when = clock_now_ns();
	int r = 0;

	while (r >= 0 && !sleep_until(w, when)) {
		uint64_t earliest;

		r = checkpoint_next(w, error);
		if (r < 0 && is_over(w, 0))
			return 0;
		if (r < 0)
			r = failed(w, r, error);
		look_at_old(w);
		/* what could not be kept up with is left out */
		when += w->opt.every_ns;
		earliest = clock_now_ns() + (uint64_t)w->failures * FAILED_PAUSE_NS;
		if (when < earliest)
			when = earliest;
	}
	return r;
}

static int check_options(const struct watch *w, struct error *e)
{
	if (w->opt.keep < 1 || w->opt.keep > KEEP_MAX || !w->opt.every_ns)
		return error_set(e, -EINVAL, E_USAGE, "a number of images to keep is from 1 to %d",
				 KEEP_MAX);
	if (w->how.after != REPRISE_AFTER_RUN || w->how.seal)
		return error_set(e, -EINVAL, E_USAGE,
				 "what is watched goes on running, and is not sealed");
	return 0;
}

static void watch_end(struct watch *w)
{
	if (w->merging) {
		kill(w->merging, SIGKILL);
		waitpid(w->merging, NULL, 0);
	}
	lasting_forget(&w->tracks, 0);
	vec_free(&w->tracks.v);
	vec_free(&w->images);
	close_fd(&w->pidfd);
	close_fd(&w->dir_fd);
}

int reprise_watch(pid_t pid, const char *dir, const struct reprise_watch_options *options,
		  struct reprise_error *error)
{
	_cleanup_(watch_end) struct watch w = {
		.pid = pid, .pidfd = -EBADF, .dir = dir, .dir_fd = -EBADF};
	struct reprise_error unused;
	struct error e = {};
	size_t size = options->size;
	int r;

	memcpy(&w.opt, options, size < sizeof(w.opt) ? size : sizeof(w.opt));
	if (w.opt.checkpoint) {
		size = w.opt.checkpoint->size;
		memcpy(&w.how, w.opt.checkpoint, size < sizeof(w.how) ? size : sizeof(w.how));
	}
	w.how.size = sizeof(w.how);
	w.tracks.last = !w.opt.no_track;
	r = check_options(&w, &e);
	if (r >= 0)
		r = lock_directory(&w, &e);
	if (r >= 0)
		r = find_next(&w, &e);
	if (r >= 0) {
		w.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (w.pidfd < 0)
			r = error_set(&e, -errno, E_PID_NONE, "there is no process %d", pid);
	}
	if (r < 0) {
		give(error, &e);
		return r;
	}
	return watch_loop(&w, error ? error : &unused);
}
