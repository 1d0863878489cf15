/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/attach.h"
#include "cli/container.h"

#define DETACH_1 ('P' & 0x1f)
#define DETACH_2 ('Q' & 0x1f)
/* Nobody has the other side open: that is told by no event, and ends when somebody opens it. */
#define LOOK_MS	 100

struct relay {
	int master, pidfd, signals;
	bool escaped; /* the first of the two keys has been typed */
	bool detached, ended, nobody;
};

int attach_possible(struct cli *cli)
{
	return isatty(STDIN_FILENO)
		       ? -1
		       : usage_error(cli, strcmp(cli->command->name, "attach")
						  ? "standard input is no terminal; leave -t out"
						  : "standard input is no terminal");
}

int attach_master(pid_t init)
{
	int pidfd = (int)syscall(SYS_pidfd_open, init, 0), fd, number;

	if (pidfd < 0)
		return -1;
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, REPRISE_TERMINAL, 0);
	close(pidfd);
	if (fd >= 0 && ioctl(fd, TIOCGPTN, &number) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int attach_new(pid_t init, int *ret_slave)
{
	char path[64];
	int master, unlock = 0, err;

	/* Of the devpts that is mounted there. */
	snprintf(path, sizeof(path), "/proc/%d/root/dev/pts/ptmx", init);
	master = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0)
		return -errno;
	if (ioctl(master, TIOCSPTLCK, &unlock) == 0)
		*ret_slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	else
		*ret_slave = -1;
	if (*ret_slave >= 0)
		return master;
	err = -errno;
	close(master);
	return err;
}

void attach_resize(int master)
{
	struct winsize size;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row)
		ioctl(master, TIOCSWINSZ, &size);
}

static void write_all(int fd, const char *text, size_t n)
{
	while (n) {
		ssize_t done = write(fd, text, n);

		if (done < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (done > 0) {
			text += done;
			n -= (size_t)done;
		}
	}
}

static void typed(struct relay *r)
{
	char text[4096], out[4097];
	ssize_t n = read(STDIN_FILENO, text, sizeof(text));
	size_t len = 0;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		r->detached = true; /* our terminal is gone */
		return;
	}
	for (ssize_t i = 0; i < n && !r->detached; i++) {
		if (r->escaped && text[i] == DETACH_2) {
			r->detached = true;
		} else if (!r->escaped && text[i] == DETACH_1) {
			r->escaped = true;
			continue;
		} else {
			if (r->escaped)
				out[len++] = DETACH_1;
			out[len++] = text[i];
		}
		r->escaped = false;
	}
	write_all(r->master, out, len);
}

/* False when there is nothing more for the moment. */
static bool shown(struct relay *r)
{
	char text[4096];
	ssize_t n = read(r->master, text, sizeof(text));

	r->nobody = n < 0 && errno == EIO;
	if (n <= 0)
		return false;
	write_all(STDOUT_FILENO, text, (size_t)n);
	return true;
}

static void signalled(struct relay *r)
{
	struct signalfd_siginfo info;

	if (read(r->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGWINCH)
		attach_resize(r->master);
	else
		r->detached = true;
}

static void show_rest(struct relay *r)
{
	struct pollfd p = {.fd = r->master, .events = POLLIN};

	while (poll(&p, 1, 0) > 0 && p.revents & POLLIN && shown(r))
		continue;
}

static void go_on(struct relay *r)
{
	while (!r->detached && !r->ended) {
		struct pollfd p[] = {{.fd = r->pidfd, .events = POLLIN},
				     {.fd = r->signals, .events = POLLIN},
				     {.fd = STDIN_FILENO, .events = POLLIN},
				     {.fd = r->nobody ? -1 : r->master, .events = POLLIN}};

		if (poll(p, 4, r->nobody ? LOOK_MS : -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			signalled(r);
		if (p[2].revents)
			typed(r);
		if (p[3].revents || r->nobody)
			shown(r);
		r->ended = p[0].revents != 0;
	}
	if (r->ended)
		show_rest(r);
}

enum attached attach(int master, int pidfd)
{
	static const int watched[] = {SIGWINCH, SIGTERM, SIGHUP, SIGINT, SIGQUIT};
	struct relay r = {.master = master, .pidfd = pidfd};
	struct termios ours, raw;
	sigset_t set, before;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
		sigaddset(&set, watched[i]);
	sigprocmask(SIG_BLOCK, &set, &before);
	r.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	tcgetattr(STDIN_FILENO, &ours);
	raw = ours;
	cfmakeraw(&raw);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	attach_resize(master);
	go_on(&r);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &ours);
	close(r.signals);
	close(master);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r.ended ? ATTACH_ENDED : ATTACH_DETACHED;
}

void attach_say_detached(const struct cli *cli, const char *name)
{
	if (!cli->quiet)
		fprintf(stderr, "\nreprise: detached; reprise attach %s comes back\n", name);
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {COMMON_OPTIONS};
	struct container_entry entry;
	int c, r, master, pidfd;
	pid_t init;

	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, options, NULL)) != -1)
		if ((r = common_option(cli, c, argv)) >= 0)
			return r;
	if (argc - optind != 1)
		return usage_error(cli, "say which container: reprise attach NAME");
	r = common_begin(cli, argv);
	if (r < 0)
		r = attach_possible(cli);
	if (r < 0)
		r = container_running(cli, argv[optind], &entry);
	if (r >= 0)
		return r;
	init = entry.init;
	container_entry_free(&entry);
	pidfd = (int)syscall(SYS_pidfd_open, init, 0);
	master = attach_master(init);
	if (pidfd < 0 || master < 0)
		return own_error(cli, "container-state", -ENOTTY,
				 "container %s has no terminal; it was not started with -t",
				 argv[optind]);
	if (attach(master, pidfd) == ATTACH_DETACHED)
		attach_say_detached(cli, argv[optind]);
	return EXIT_OK;
}

const struct command attach_command = {
	.name = "attach",
	.arguments = "NAME",
	.summary = "Attach this terminal to that of a container",
	.help = "For containers that were started with -t, and restarted ones. Ctrl-P Ctrl-Q detaches; so does\n"
		"the end of this command. The container goes on.\n",
	.run = run,
};
