/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

#define REDRAW_NS 100000000ULL
/* What is over in less than this is not worth a line. */
#define QUIET_NS  300000000ULL

void progress_begin(struct cli *cli)
{
	cli->progress = (struct progress){
		.on = !cli->quiet && isatty(STDERR_FILENO),
		.started_ns = now_ns(),
	};
}

void progress_erase(struct cli *cli)
{
	if (!cli->progress.width)
		return;
	/* Blanks rather than an escape sequence: every terminal knows them. */
	fprintf(stderr, "\r%*s\r", cli->progress.width, "");
	fflush(stderr);
	cli->progress.width = 0;
}

void progress_end(struct cli *cli)
{
	pthread_mutex_lock(&cli->lock);
	progress_erase(cli);
	cli->progress.on = false;
	pthread_mutex_unlock(&cli->lock);
}

static void draw(struct progress *p, uint64_t done, uint64_t total, uint64_t now)
{
	char line[256], a[32], b[32], rate[32];
	struct winsize size;
	uint64_t speed = 0;
	int n, width = 80;

	if (done > p->phase_done && now > p->phase_ns)
		speed = (uint64_t)((double)(done - p->phase_done) * 1e9 /
				   (double)(now - p->phase_ns));
	n = snprintf(line, sizeof(line), "%s", p->phase);
	if (total)
		n += snprintf(
			line + n, sizeof(line) - (size_t)n, "  %s of %s  %u%%",
			human_bytes(done, a, sizeof(a)), human_bytes(total, b, sizeof(b)),
			(unsigned int)(done >= total ? 100 : (double)done * 100 / (double)total));
	else if (done)
		n += snprintf(line + n, sizeof(line) - (size_t)n, "  %s",
			      human_bytes(done, a, sizeof(a)));
	if (speed)
		n += snprintf(line + n, sizeof(line) - (size_t)n, "  %s/s",
			      human_bytes(speed, rate, sizeof(rate)));
	if (speed && total > done) {
		uint64_t left = (total - done) / speed;

		n += snprintf(line + n, sizeof(line) - (size_t)n, "  %" PRIu64 ":%02u left",
			      left / 60, (unsigned int)(left % 60));
	}
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
		width = size.ws_col;
	/* The last column stays free: some terminals wrap when it is written. */
	if (n > width - 1)
		n = width - 1;
	fprintf(stderr, "\r%.*s%*s", n, line, p->width > n ? p->width - n : 0, "");
	fflush(stderr);
	p->width = n;
}

void on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct cli *cli = arg;
	struct progress *p = &cli->progress;
	uint64_t now = now_ns();
	pid_t foreground;

	pthread_mutex_lock(&cli->lock);
	if (!p->on)
		goto out;
	if (strncmp(p->phase, phase, sizeof(p->phase) - 1) != 0) {
		snprintf(p->phase, sizeof(p->phase), "%s", phase);
		p->phase_ns = now;
		p->phase_done = done;
	}
	if (now - p->started_ns < QUIET_NS || now - p->drawn_ns < REDRAW_NS)
		goto out;
	/* A job in the background would be stopped, or write over what the user types. */
	foreground = tcgetpgrp(STDERR_FILENO);
	if (foreground >= 0 && foreground != getpgrp())
		goto out;
	p->drawn_ns = now;
	draw(p, done, total, now);
out:
	pthread_mutex_unlock(&cli->lock);
}
