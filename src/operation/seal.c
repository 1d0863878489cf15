/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/envelope.h"
#include "operation/seal.h"
#include "operation/worker.h"

#define PIPE_SIZE (1 << 20)

struct filter {
	pid_t pid;
	int status; /* an error comes here, or nothing */
};

struct work {
	int in, out;
	bool sealing;
	struct envelope_keys signer;
	struct envelope_keys *keys, *more_keys;
	size_t n_keys, n_more_keys;
	struct envelope_seal seal;
	struct envelope_open open;
};

static void work_end(struct work *w)
{
	if (w->keys)
		sodium_memzero(w->keys, w->n_keys * sizeof(*w->keys));
	if (w->more_keys)
		sodium_memzero(w->more_keys, w->n_more_keys * sizeof(*w->more_keys));
	free(w->keys);
	free(w->more_keys);
	sodium_memzero(&w->signer, sizeof(w->signer));
}

/* *ret_n is set first, for whoever frees them. */
static int parse_all(const char *const *texts, struct envelope_keys **ret, size_t *ret_n,
		     struct error *e)
{
	size_t n = 0;
	int r = 0;

	while (texts && texts[n])
		n++;
	if (!n)
		return 0;
	*ret = calloc(n, sizeof(**ret));
	if (!*ret)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for keys");
	*ret_n = n;
	for (size_t i = 0; i < n && r >= 0; i++)
		r = envelope_parse_keys(texts[i], &(*ret)[i], e);
	return r;
}

static void __attribute__((noreturn)) filter_main(struct work *w, int status)
{
	struct error e = {};
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	r = w->sealing ? envelope_seal(w->in, w->out, &w->seal, &e)
		       : envelope_open(w->in, w->out, &w->open, &e);
	/* Who reads an image may have seen enough of it. */
	if (r == -EPIPE && !w->sealing)
		r = 0;
	if (r < 0)
		ignore(write(status, &e, sizeof(e)) == sizeof(e) ? 0 : -EPIPE, "nobody listens");
	_exit(r < 0);
}

/* Of the pipe to the filter, the caller gets the end that the filter does not use. */
static int start(struct work *w, struct filter **ret, int *ret_fd, struct error *e)
{
	struct filter *f = calloc(1, sizeof(*f));
	int data[2], status[2];

	if (!f)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the envelope");
	if (pipe2(data, O_CLOEXEC) < 0 || pipe2(status, O_CLOEXEC) < 0) {
		free(f);
		return error_errno(e, -errno, E_SYSTEM, "pipe");
	}
	fcntl(data[1], F_SETPIPE_SZ, PIPE_SIZE);
	f->pid = fork();
	if (f->pid == 0) {
		close(data[w->sealing ? 1 : 0]);
		close(status[0]);
		worker_no_core();
		w->in = w->sealing ? data[0] : w->in;
		w->out = w->sealing ? w->out : data[1];
		filter_main(w, status[1]);
	}
	close(status[1]);
	close(data[w->sealing ? 0 : 1]);
	f->status = status[0];
	*ret_fd = data[w->sealing ? 1 : 0];
	*ret = f;
	return f->pid < 0 ? error_errno(e, -errno, E_SYSTEM, "fork") : 0;
}

int seal_begin(int fd, const struct reprise_seal_options *opt, struct filter **ret, int *ret_fd,
	       struct error *e)
{
	_cleanup_(work_end) struct work w = {.sealing = true, .out = fd};
	int r = opt->sign ? envelope_parse_keys(opt->sign, &w.signer, e) : 0;

	if (r >= 0 && opt->sign && !w.signer.has_sign_secret)
		r = error_set(e, -EINVAL, E_KEY, "to sign takes a secret key");
	if (r >= 0)
		r = parse_all(opt->recipients, &w.keys, &w.n_keys, e);
	for (size_t i = 0; i < w.n_keys && r >= 0; i++)
		if (!w.keys[i].has_box_public)
			r = error_set(e, -EINVAL, E_KEY, "a recipient has no key to encrypt");
	if (r < 0)
		return r;
	w.seal = (struct envelope_seal){
		.signer = opt->sign ? &w.signer : NULL,
		.recipients = w.keys,
		.n_recipients = w.n_keys,
		.passphrase = opt->passphrase,
	};
	return start(&w, ret, ret_fd, e);
}

int open_begin(int fd, const struct reprise_open_options *opt, struct filter **ret, int *ret_fd,
	       struct error *e)
{
	_cleanup_(work_end) struct work w = {.in = fd};
	int r = parse_all(opt->trust, &w.keys, &w.n_keys, e);

	if (r >= 0)
		r = parse_all(opt->identities, &w.more_keys, &w.n_more_keys, e);
	for (size_t i = 0; i < w.n_keys && r >= 0; i++)
		if (!w.keys[i].has_sign_public)
			r = error_set(e, -EINVAL, E_KEY, "a trusted key is none that signs");
	if (r < 0)
		return r;
	w.open = (struct envelope_open){
		.trusted = w.keys,
		.n_trusted = w.n_keys,
		.identities = w.more_keys,
		.n_identities = w.n_more_keys,
		.passphrase = opt->passphrase,
	};
	return start(&w, ret, ret_fd, e);
}

int filter_end(struct filter *f, struct error *e)
{
	struct error told = {};
	ssize_t n;
	int status = 0, r = 0;

	if (!f)
		return 0;
	do {
		n = read(f->status, &told, sizeof(told));
	} while (n < 0 && errno == EINTR);
	while (waitpid(f->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (n == sizeof(told)) {
		*e = told;
		r = told.err < 0 ? told.err : -EIO;
	} else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		r = error_set(e, -EINTR, E_INTERRUPTED,
			      "the process that seals or opens the image was ended from outside");
	}
	close_fd(&f->status);
	free(f);
	return r;
}
