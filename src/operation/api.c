/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public interface (include/reprise.h): options by size, errors by value,
 * each operation in a worker process.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file.h"
#include "operation/features.h"
#include "operation/lasting.h"
#include "image/envelope.h"
#include "operation/output.h"
#include "operation/seal.h"
#include "operation/selfsave.h"
#include "operation/worker.h"

/* What the caller's structure does not have is zero, which is the default. */
static void copy_options(void *to, size_t size, const void *from)
{
	size_t given = from ? *(const size_t *)from : 0;

	memset(to, 0, size);
	if (from)
		memcpy(to, from, given < size ? given : size);
}

static void give_error(struct reprise_error *to, const struct reprise_error *from)
{
	if (to)
		*to = *from;
}

static int give(int r, struct error *e, struct reprise_error *error)
{
	if (r >= 0)
		return r;
	if (e->code == ERROR_NONE)
		error_errno(e, r, E_INTERNAL, "the operation failed");
	if (error)
		error_export(e, error);
	return r;
}

struct checkpoint_job {
	pid_t pid;
	int fd;
	struct mm_tracks *tracks;
	const char *path; /* for messages; NULL: only the descriptor is known */
	struct reprise_checkpoint_options opt;
};

static int checkpoint_work(void *arg, struct report *rep, struct worker_result *result,
			   struct error *e)
{
	struct checkpoint_job *job = arg;

	int r = operation_checkpoint(job->pid, job->fd, job->path, &job->opt, job->tracks, rep,
				     &result->stats, e);

	if (r < 0 && e->code == E_OUTPUT && job->path)
		error_object(e, r, "%s", job->path);
	return r;
}

static int checkpoint_apart(void *arg, struct report *rep, struct worker_result *result,
			    struct error *e)
{
	worker_no_core();
	return checkpoint_work(arg, rep, result, e);
}

static struct worker_callbacks callbacks(const struct reprise_checkpoint_options *opt)
{
	return (struct worker_callbacks){opt->progress, opt->trace, opt->problem, opt->arg};
}

/* What is left to be done when the worker has written the image. */
struct completion {
	struct filter *seal;
	int fd; /* of the pipe to it */
	const char *path;
	struct output *out; /* NULL: only the descriptor is known */
	int ret;
	struct error e;
};

static int complete(void *arg)
{
	struct completion *end = arg;
	int r = 0;

	if (end->seal) {
		close_fd(&end->fd);
		r = filter_end(take_ptr(&end->seal), &end->e);
	}
	if (r >= 0 && end->out && end->out->fd >= 0)
		r = output_commit(end->out, &end->e);
	else if (r < 0 && end->e.code == E_OUTPUT && end->path)
		error_object(&end->e, r, "%s", end->path);
	if (r < 0)
		end->ret = r;
	return end->ret;
}

/*
 * Where the application goes on anyway it has done so by now. What went wrong with the envelope is
 * why the rest went wrong.
 */
static int end_checkpoint(struct completion *end, int ret, struct reprise_error *error)
{
	struct output *out = take_ptr(&end->out);

	if (end->ret >= 0 && end->seal)
		complete(end);
	if (end->ret >= 0 && ret >= 0 && out && out->fd >= 0) {
		end->out = out;
		complete(end);
	}
	return end->ret < 0 ? give(end->ret, &end->e, error) : ret;
}

static int checkpoint(pid_t pid, int fd, const char *path, struct output *out,
		      const struct reprise_checkpoint_options *options, struct mm_tracks *tracks,
		      struct reprise_error *error)
{
	struct checkpoint_job job = {pid ? pid : getpid(), fd, tracks, path};
	struct completion end = {.fd = -EBADF, .path = path, .out = out};
	struct worker_callbacks cb;
	struct worker_result result;
	struct error e = {};
	int r = 0;

	copy_options(&job.opt, sizeof(job.opt), options);
	cb = callbacks(&job.opt);
	cb.complete = complete;
	cb.complete_arg = &end;
	cb.tracks = tracks;
	if (pid == 0 && job.opt.seal)
		return give(
			error_set(&e, -EINVAL, E_USAGE, "a program cannot seal its own checkpoint"),
			&e, error);
	if (job.opt.seal && job.opt.parents && job.opt.parents[0])
		return give(error_set(&e, -EINVAL, E_PARENT,
				      "an incremental image is neither signed nor encrypted"),
			    &e, error);
	if (pid == 0) {
		r = selfsave(checkpoint_work, &job, job.opt.stats, error);
		/* A restarted copy of ourselves (0) has nothing to do with the file. */
		return r > 0 ? end_checkpoint(&end, r, error) : r;
	}
	if (job.opt.seal) {
		r = seal_begin(fd, job.opt.seal, &end.seal, &job.fd, &e);
		end.fd = job.fd;
	}
	if (r < 0)
		return give(r, &e, error);
	worker_run(checkpoint_apart, &job, &cb, &result);
	give_error(error, &result.error);
	if (job.opt.stats)
		*job.opt.stats = result.stats;
	return end_checkpoint(&end, result.ret, error);
}

struct check_job {
	pid_t pid;
	struct reprise_checkpoint_options opt;
};

static int check_work(void *arg, struct report *rep, struct worker_result *result, struct error *e)
{
	const struct check_job *job = arg;
	int kernel = features_check(rep);

	(void)result;
	return job->pid && kernel >= 0 ? operation_check(job->pid, &job->opt, rep, e) + kernel
				       : kernel;
}

int reprise_check(pid_t pid, const struct reprise_checkpoint_options *options,
		  struct reprise_error *error)
{
	struct check_job job = {pid};
	struct worker_callbacks cb;
	struct worker_result result;

	copy_options(&job.opt, sizeof(job.opt), options);
	cb = callbacks(&job.opt);
	worker_run(check_work, &job, &cb, &result);
	give_error(error, &result.error);
	return result.ret;
}

struct restart_job {
	int fd, messages;
	struct reprise_restart_options opt;
};

static int restart_work(void *arg, struct report *rep, struct worker_result *result,
			struct error *e)
{
	struct restart_job *job = arg;

	worker_no_core();
	return operation_restart(job->fd, &job->opt, job->messages, rep, &result->stats,
				 &result->restarted, e);
}

/* Stubs of a restart that failed are children of ours, killed already. */
static void reap_failed(const struct reprise_restarted *failed)
{
	if (failed->init > 0)
		waitpid(failed->init, NULL, __WALL);
	else if (failed->pid > 0)
		waitpid(failed->pid, NULL, __WALL);
}

static void give_restarted(struct reprise_restarted *to, const struct reprise_restarted *from,
			   int *lazy_fd)
{
	struct reprise_restarted full = *from;
	size_t size = to->size && to->size < sizeof(full) ? to->size : sizeof(full);

	full.lazy_fd = -1;
	if (size == sizeof(full))
		full.lazy_fd = take_fd(lazy_fd);

	full.size = size;
	full.pidfd = (int)syscall(SYS_pidfd_open, full.pid, 0);
	if (full.pidfd >= 0)
		fcntl(full.pidfd, F_SETFD, FD_CLOEXEC);
	memcpy(to, &full, size);
}

int reprise_restart(int fd, const struct reprise_restart_options *options,
		    struct reprise_restarted *restarted, struct reprise_error *error)
{
	_cleanup_(close_fd) int lazy_fd = -EBADF;
	struct restart_job job = {fd, -1};
	struct worker_callbacks cb;
	struct worker_result result;
	struct error e = {};
	int pair[2];

	copy_options(&job.opt, sizeof(job.opt), options);
	if (job.opt.lazy) {
		if (pipe2(pair, O_CLOEXEC) < 0)
			return give(error_errno(&e, -errno, E_SYSTEM, "pipe"), &e, error);
		lazy_fd = pair[0];
		job.messages = pair[1];
	}
	cb = (struct worker_callbacks){job.opt.progress, job.opt.trace, job.opt.problem,
				       job.opt.arg,	 job.opt.ready, job.opt.container};
	worker_run(restart_work, &job, &cb, &result);
	close_fd(&job.messages);
	give_error(error, &result.error);
	if (result.ret < 0) {
		reap_failed(&result.restarted);
		return result.ret;
	}
	if (job.opt.stats)
		*job.opt.stats = result.stats;
	if (restarted)
		give_restarted(restarted, &result.restarted, &lazy_fd);
	return 0;
}

struct run_job {
	pid_t init; /* to be entered; 0: a new one */
	char *const *argv;
	struct reprise_run_options opt;
};

static int run_work(void *arg, struct report *rep, struct worker_result *result, struct error *e)
{
	struct run_job *job = arg;

	if (job->init)
		return operation_exec(job->init, job->argv, &job->opt, &result->restarted, e);
	return operation_run(job->argv, &job->opt, rep, &result->restarted, e);
}

static int run(struct run_job *job, const struct reprise_run_options *options,
	       struct reprise_restarted *restarted, struct reprise_error *error)
{
	struct worker_callbacks cb = {};
	struct worker_result result;

	copy_options(&job->opt, sizeof(job->opt), options);
	cb.ready = job->opt.ready;
	cb.arg = job->opt.arg;
	worker_run(run_work, job, &cb, &result);
	give_error(error, &result.error);
	if (result.ret < 0) {
		reap_failed(&result.restarted);
		return result.ret;
	}
	if (restarted)
		give_restarted(restarted, &result.restarted, &(int){-EBADF});
	return 0;
}

int reprise_run(char *const argv[], const struct reprise_run_options *options,
		struct reprise_restarted *restarted, struct reprise_error *error)
{
	struct run_job job = {.argv = argv};

	return run(&job, options, restarted, error);
}

int reprise_exec(pid_t init, char *const argv[], const struct reprise_run_options *options,
		 struct reprise_restarted *restarted, struct reprise_error *error)
{
	struct run_job job = {.init = init, .argv = argv};

	return run(&job, options, restarted, error);
}

int reprise_checkpoint(pid_t pid, int fd, const struct reprise_checkpoint_options *options,
		       struct reprise_error *error)
{
	return checkpoint(pid, fd, NULL, NULL, options, NULL, error);
}

static int checkpoint_file(pid_t pid, const char *path, int replace,
			   const struct reprise_checkpoint_options *options,
			   struct mm_tracks *tracks, struct reprise_error *error)
{
	struct error e = {};
	struct output out = OUTPUT_INIT;
	uint64_t begun = clock_now_ns();
	int r = output_open(&out, path, replace != 0, &e);

	if (r < 0)
		return give(r, &e, error);
	r = checkpoint(pid, out.fd, path, &out, options, tracks, error);
	output_abandon(&out);
	if (r < 0 || (pid == 0 && r == 0))
		return r;
	if (options && options->size >= sizeof(*options) && options->stats)
		options->stats->durable_ns = clock_now_ns() - begun;
	return r;
}

int reprise_checkpoint_file(pid_t pid, const char *path, int replace,
			    const struct reprise_checkpoint_options *options,
			    struct reprise_error *error)
{
	return checkpoint_file(pid, path, replace, options, NULL, error);
}

int checkpoint_file_tracked(pid_t pid, const char *path,
			    const struct reprise_checkpoint_options *options,
			    struct mm_tracks *tracks, struct reprise_error *error)
{
	int r = checkpoint_file(pid, path, 0, options, tracks, error);

	/* nothing has what was written before */
	if (r < 0)
		lasting_forget(tracks, 0);
	return r;
}

struct reprise_opening {
	struct filter *filter;
};

int reprise_open_begin(int fd, const struct reprise_open_options *options,
		       struct reprise_opening **opening, int *image_fd, struct reprise_error *error)
{
	struct reprise_opening *o = calloc(1, sizeof(*o));
	struct reprise_open_options opt;
	struct error e = {};
	int r;

	copy_options(&opt, sizeof(opt), options);
	r = o ? open_begin(fd, &opt, &o->filter, image_fd, &e)
	      : error_set(&e, -ENOMEM, E_NO_MEMORY, "no memory for the envelope");
	if (r < 0) {
		free(o);
		return give(r, &e, error);
	}
	*opening = o;
	return 0;
}

int reprise_open_end(struct reprise_opening *opening, struct reprise_error *error)
{
	struct error e = {};
	int r = filter_end(opening ? opening->filter : NULL, &e);

	free(opening);
	return give(r, &e, error);
}

int reprise_is_sealed(int fd)
{
	char magic[ENVELOPE_MAGIC_SIZE];

	return pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	       !memcmp(magic, ENVELOPE_MAGIC, sizeof(magic));
}

int reprise_new_keys(char **secret, char **public_keys, struct reprise_error *error)
{
	struct error e = {};

	return give(envelope_new_keys(secret, public_keys, &e), &e, error);
}

/* Reading an image needs no worker: nothing is traced, made or entered. */
int reprise_plan(int fd, char **text, struct reprise_error *error)
{
	struct error e = {};

	return give(operation_plan(fd, text, &e), &e, error);
}

int reprise_inspect(int fd, char **json, struct reprise_error *error)
{
	struct error e = {};

	return give(operation_inspect(fd, json, &e), &e, error);
}

int reprise_verify(int fd, struct reprise_error *error)
{
	struct error e = {};

	return give(operation_verify(fd, NULL, NULL, &e), &e, error);
}

int reprise_verify_parents(int fd, const char *const *parents, struct reprise_error *error)
{
	return reprise_verify_digest(fd, parents, NULL, error);
}

int reprise_verify_digest(int fd, const char *const *parents, struct reprise_verified *result,
			  struct reprise_error *error)
{
	static const char *const none[] = {NULL};
	struct reprise_verified v = {};
	struct image_totals t = {};
	struct error e = {};
	int r = operation_verify(fd, parents ? parents : none, &t, &e);

	if (r >= 0 && result) {
		size_t size = result->size < sizeof(v) ? result->size : sizeof(v);

		v.size = result->size;
		v.covers = t.strong ? REPRISE_DIGEST_ALL : REPRISE_DIGEST_STATE;
		memcpy(v.digest, t.digest, sizeof(v.digest));
		memcpy(result, &v, size);
	}
	return give(r, &e, error);
}

int reprise_merge(const char *image, const char *path, int replace,
		  const struct reprise_merge_options *options, struct reprise_error *error)
{
	struct reprise_merge_options opt;
	struct output out = OUTPUT_INIT;
	struct reprise_stats stats = {};
	struct error e = {};
	int r = output_open(&out, path, replace != 0, &e);

	copy_options(&opt, sizeof(opt), options);
	if (r >= 0) {
		r = operation_merge(image, out.fd, &opt, &stats, &e);
		if (e.code == E_OUTPUT)
			error_object(&e, r, "%s", path);
	}
	if (r >= 0)
		r = output_commit(&out, &e);
	output_abandon(&out);
	if (opt.stats)
		*opt.stats = stats;
	return give(r, &e, error);
}

int reprise_merge_fd(const char *image, int fd, const struct reprise_merge_options *options,
		     struct reprise_error *error)
{
	struct reprise_merge_options opt;
	struct reprise_stats stats = {};
	struct error e = {};
	int r;

	copy_options(&opt, sizeof(opt), options);
	r = operation_merge(image, fd, &opt, &stats, &e);
	if (opt.stats)
		*opt.stats = stats;
	return give(r, &e, error);
}

int reprise_kernel_features(char **text)
{
	return features_list(text);
}

int reprise_explain(const char *code, const char **advice, const char **explanation)
{
	enum error_code c = error_code_by_name(code);

	if (c == ERROR_NONE)
		return -ENOENT;
	*advice = error_code_info(c)->advice;
	*explanation = error_code_info(c)->explanation;
	return 0;
}

const char *reprise_code(unsigned int i)
{
	return i + 1 < ERROR_CODE_COUNT ? error_code_info((enum error_code)(i + 1))->name : NULL;
}

int reprise_kind(unsigned int i, const char **name, const char **support)
{
	for (unsigned int k = 0; file_kinds[k]; k++)
		if (k == i) {
			*name = file_kinds[k]->name;
			*support = file_kinds[k]->support;
			return 0;
		}
	return -ENOENT;
}

const char *reprise_version(void)
{
	return REPRISE_VERSION;
}
