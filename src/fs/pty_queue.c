/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes in a pseudo-terminal: written by one side and not yet read by the other. Nothing here
 * takes memory or locks. What drivers/tty/n_tty.c does is relied upon throughout.
 */
#include "fs/pty_queue.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/patience.h"
#include "fs/pty_ioctl.h"

#define ROOM  4095 /* of the line discipline, N_TTY_BUF_SIZE - 1 */
#define MUCH  2048 /* from here on more may be waiting behind it */
#define CHUNK 1000 /* packs the buffers of the driver best */

static const int on = 1, off; /* constants to point to */

/*
 * From the first byte that is taken to the last that is put back, a call that fails for a reason
 * that is not the terminal's is made again: what would stay there is not what was taken, and comes
 * in front of it.
 */
#define TRIES 4
#define tried(call)                                                                  \
	({                                                                           \
		__typeof__(call) result_ = (call);                                   \
		for (int i_ = 1; result_ < 0 && errno != EAGAIN && i_ < TRIES; i_++) \
			result_ = (call);                                            \
		result_;                                                             \
	})

static void pause_ms(long ms)
{
	const struct timespec ts = {.tv_nsec = ms * 1000000};

	nanosleep(&ts, NULL);
}

static short ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return tried(poll(&p, 1, 0)) > 0 ? p.revents : 0;
}

static int set(int slave, const struct termios2 *t)
{
	return tried(ioctl(slave, TCSETS2, t)) < 0 ? -errno : 0;
}

/* ---- both sides ---- */

int pty_sides_open(struct pty_sides *p)
{
	int locked = 0, packet = 0;

	p->slave = -1;
	if (ioctl(p->master, TIOCGPTLCK, &locked) < 0 || ioctl(p->master, TIOCGPKT, &packet) < 0)
		return -errno;
	p->locked = locked;
	p->packet = packet;
	/* In packet mode every read begins with a byte, and changes of settings are told. */
	if ((locked && ioctl(p->master, TIOCSPTLCK, &off) < 0) ||
	    (packet && ioctl(p->master, TIOCPKT, &off) < 0))
		return -errno;
	if (p->exclusive >= 0 && ioctl(p->exclusive, TIOCNXCL) < 0)
		return -errno;
	p->slave = ioctl(p->master, TIOCGPTPEER, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return p->slave < 0 ? -errno : 0;
}

/*
 * The last close of a slave hangs up its master, but not after a failed open: pty_open() sets
 * TTY_IO_ERROR when the pair is locked, and pty_close() then does nothing. The next open clears it.
 */
void pty_sides_close(struct pty_sides *p)
{
	if (p->slave >= 0 && p->untouched && ioctl(p->master, TIOCSPTLCK, &on) == 0) {
		int fd = ioctl(p->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

		if (fd >= 0)
			close(fd);
		if (!p->locked)
			ioctl(p->master, TIOCSPTLCK, &off);
	}
	if (p->slave >= 0)
		close(p->slave);
	p->slave = -1;
	if (p->exclusive >= 0)
		ioctl(p->exclusive, TIOCEXCL);
	if (p->locked)
		ioctl(p->master, TIOCSPTLCK, &on);
	if (p->packet)
		ioctl(p->master, TIOCPKT, &on);
}

/* ---- output ---- */

static int take_output(const struct pty_sides *p, struct pty_queue *q)
{
	/* poll() waits for what is still on its way (tty_buffer_flush_work()). */
	while (ready(p->master, POLLIN) & POLLIN) {
		size_t room = sizeof(q->output) - q->output_length;
		ssize_t n = tried(read(p->master, q->output + q->output_length, room));

		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -EOVERFLOW;
		q->output_length += (uint32_t)n;
	}
	return 0;
}

/* A write of nothing lets echoes go that found no room (process_echoes()). */
static int take_echoes(const struct pty_sides *p, struct pty_queue *q)
{
	uint32_t before;
	int r = 0;

	do {
		before = q->output_length;
		if (tried(write(p->slave, "", 0)) < 0 && errno != EAGAIN)
			return -errno;
		r = take_output(p, q);
	} while (r >= 0 && q->output_length != before);
	return r;
}

/*
 * With an empty queue only a terminal that is stopped takes nothing (pty_write_room()). What TCOON
 * cannot start was stopped by a character; TCOOFF makes that its own.
 */
static int take_stopped(const struct pty_sides *p, struct pty_queue *q)
{
	if (ready(p->slave, POLLOUT) & POLLOUT)
		return 0;
	if (tried(ioctl(p->slave, TCXONC, TCOON)) < 0)
		return -errno;
	q->stopped = PTY_STOPPED_BY_CALL;
	if (ready(p->slave, POLLOUT) & POLLOUT)
		return 0;
	q->stopped = PTY_STOPPED_BY_CHAR;
	if (tried(ioctl(p->slave, TCXONC, TCOOFF)) < 0 || tried(ioctl(p->slave, TCXONC, TCOON)) < 0)
		return -errno;
	return ready(p->slave, POLLOUT) & POLLOUT ? 0 : -EIO;
}

/* All of it; for a while as long as the kernel moves what was written. */
static int write_all(int fd, const uint8_t *data, size_t length)
{
	int waited = 0;

	while (length) {
		ssize_t n = tried(write(fd, data, length < CHUNK ? length : CHUNK));

		if (n > 0) {
			data += n;
			length -= (size_t)n;
		} else if (n == 0 || errno != EAGAIN || waited++ == PATIENCE_MS) {
			return n < 0 && errno != EAGAIN ? -errno : -ENOBUFS;
		} else {
			patience_pause();
		}
	}
	return 0;
}

/* ---- input ---- */

static bool by_lines(const struct termios2 *t)
{
	return (t->c_lflag & (ICANON | EXTPROC)) == ICANON;
}

/*
 * What is written arrives as it is, without echo. IXON stays: to clear it would start a terminal
 * that is stopped.
 */
static struct termios2 transparent(const struct termios2 *t)
{
	struct termios2 now = *t;

	now.c_iflag &= (tcflag_t)(IGNBRK | BRKINT | IGNPAR | INPCK | IXON | IMAXBEL | IUTF8);
	now.c_oflag &= ~(tcflag_t)OPOST;
	now.c_lflag &= (tcflag_t)(TOSTOP | NOFLSH | EXTPROC);
	if (by_lines(t))
		now.c_lflag |= ICANON;
	memset(now.c_cc, 0, sizeof(now.c_cc)); /* _POSIX_VDISABLE */
	now.c_cc[VMIN] = 1;
	return now;
}

static int add_line(struct pty_queue *q, uint32_t length, enum pty_end end)
{
	if (q->n_lines == PTY_LINES_MAX)
		return -EOVERFLOW;
	q->lines[q->n_lines++] = (struct pty_line){length, end};
	q->input_length += length;
	return 0;
}

static enum pty_end end_of_line(const struct termios2 *t, const uint8_t *line, ssize_t n)
{
	uint8_t last = n ? line[n - 1] : 0;

	if (n && (last == '\n' || (t->c_cc[VEOL] && last == t->c_cc[VEOL]) ||
		  (t->c_lflag & IEXTEN && t->c_cc[VEOL2] && last == t->c_cc[VEOL2])))
		return PTY_END_DELIMITER;
	return PTY_END_EOF;
}

/* One read(2) is one line. */
static int take_lines(int slave, const struct termios2 *t, struct pty_queue *q)
{
	ssize_t n;
	int r = 0;

	while (r >= 0) {
		uint8_t *line = q->input + q->input_length;

		if (q->input_length > sizeof(q->input) - ROOM - 2)
			return -EOVERFLOW;
		n = tried(read(slave, line, sizeof(q->input) - q->input_length));
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		r = add_line(q, (uint32_t)n, end_of_line(t, line, n));
	}
	return r;
}

static int take_bytes(int slave, struct pty_queue *q)
{
	uint32_t length = 0;

	for (;;) {
		uint32_t at = q->input_length + length;
		ssize_t n = tried(read(slave, q->input + at, sizeof(q->input) - at));

		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n <= 0) /* with VMIN 0 that is the answer */
			break;
		length += (uint32_t)n;
	}
	if (q->input_length + length == sizeof(q->input))
		return -EOVERFLOW;
	return length ? add_line(q, length, PTY_END_NONE) : 0;
}

/* What comes behind the first `room` bytes has waited outside the line discipline. */
static int divide(struct pty_queue *q, uint32_t room)
{
	/* The newline of a line that fills everything is let in (overflow). */
	uint32_t more = q->n_lines && q->lines[0].end == PTY_END_DELIMITER;
	uint32_t used = 0, length = 0, i;

	for (i = 0; i < q->n_lines; i++) {
		uint32_t takes = q->lines[i].length + (q->lines[i].end == PTY_END_EOF);

		if (used + takes > room + (i == 0 ? more : 0))
			break;
		used += takes;
		length += q->lines[i].length;
	}
	if (i == q->n_lines)
		return 0;
	if (i > PTY_LINES_MAX - 2)
		return -EOVERFLOW;
	q->n_lines = i;
	if (room > used) {
		q->lines[q->n_lines++] = (struct pty_line){room - used, PTY_END_NONE};
		length += room - used;
	}
	q->lines[q->n_lines++] = (struct pty_line){q->input_length - length, PTY_END_RAW};
	return 0;
}

static int take_input(const struct pty_sides *p, const struct termios2 *t, struct pty_queue *q)
{
	struct termios2 bytes = transparent(t);
	int held = 0, r = 0;
	bool much;

	/* Waits for what is on its way, unless there is something already. */
	ready(p->slave, POLLIN);
	if (tried(ioctl(p->slave, FIONREAD, &held)) < 0)
		return -errno;
	much = held >= MUCH;
	if (much) {
		/* What is still outside must not be looked at twice. */
		pause_ms(20);
		if (tried(ioctl(p->slave, FIONREAD, &held)) < 0)
			return -errno;
		r = set(p->slave, &bytes);
	}
	if (r >= 0 && by_lines(t))
		r = take_lines(p->slave, t, q);
	/* Without ICANON a half typed line can be read as well (n_tty_set_termios()). */
	bytes.c_lflag &= ~(tcflag_t)ICANON;
	if (r >= 0 && (by_lines(t) || t->c_lflag & ICANON))
		r = set(p->slave, &bytes);
	if (r >= 0)
		r = take_bytes(p->slave, q);
	if (r >= 0 && much)
		r = divide(q, by_lines(t) ? ROOM : (uint32_t)held);
	return r;
}

int pty_queue_take(const struct pty_sides *p, struct pty_queue *q)
{
	struct termios2 t;
	int r, undo;

	q->stopped = PTY_RUNS;
	q->n_lines = q->input_length = q->output_length = 0;
	if (tried(ioctl(p->slave, TCGETS2, &t)) < 0)
		return -errno;
	/* What is on its way to the slave may be echoed. */
	ready(p->slave, POLLIN);
	r = take_output(p, q);
	if (r >= 0)
		r = take_stopped(p, q);
	if (r >= 0)
		r = take_echoes(p, q);
	if (r >= 0)
		r = take_input(p, &t, q);
	if (r >= 0)
		r = take_echoes(p, q);
	undo = set(p->slave, &t);
	return r < 0 ? r : undo;
}

/* ---- putting it back ---- */

static int wait_stopped(int slave)
{
	for (int i = 0; i < PATIENCE_MS; i++) {
		if (!(ready(slave, POLLOUT) & POLLOUT))
			return 0;
		patience_pause();
	}
	return -ETIMEDOUT;
}

static int put_stopped(const struct pty_sides *p, const struct termios2 *t, uint32_t stopped)
{
	struct termios2 now = transparent(t);
	const uint8_t stop = 1;
	int r;

	if (stopped == PTY_RUNS)
		return 0;
	if (stopped == PTY_STOPPED_BY_CALL)
		return tried(ioctl(p->slave, TCXONC, TCOOFF)) < 0 ? -errno : 0;
	now.c_iflag |= IXON;
	now.c_cc[VSTOP] = stop;
	r = set(p->slave, &now);
	if (r >= 0)
		r = write_all(p->master, &stop, 1);
	return r < 0 ? r : wait_stopped(p->slave);
}

/* Characters with a meaning while lines are written: none that ends a line of the application. */
struct special {
	uint8_t lnext, eof, stop;
};

static bool is_special(const struct special *s, const struct termios2 *t, uint8_t c)
{
	return c == s->lnext || c == s->eof || c == s->stop || c == '\n' || c == t->c_cc[VEOL] ||
	       c == t->c_cc[VEOL2];
}

static void choose(struct special *s, const struct termios2 *t)
{
	uint8_t *const chosen[] = {&s->lnext, &s->eof, &s->stop};
	uint8_t c = 1;

	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < 3; i++) {
		while (is_special(s, t, c))
			c++;
		*chosen[i] = c;
	}
}

static int put_quoted(int master, const struct special *s, const struct termios2 *t,
		      const uint8_t *data, size_t length)
{
	uint8_t buf[CHUNK];
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < length && r >= 0; i++) {
		if (data[i] && is_special(s, t, data[i]))
			buf[n++] = s->lnext;
		buf[n++] = data[i];
		if (n >= sizeof(buf) - 1) {
			r = write_all(master, buf, n);
			n = 0;
		}
	}
	return r < 0 ? r : write_all(master, buf, n);
}

static int put_line(int master, const struct special *s, const struct termios2 *t,
		    const uint8_t *data, const struct pty_line *line)
{
	bool delimited = line->end == PTY_END_DELIMITER;
	int r = put_quoted(master, s, t, data, line->length - delimited);

	if (r >= 0 && delimited)
		r = write_all(master, data + line->length - 1, 1);
	if (r >= 0 && line->end == PTY_END_EOF)
		r = write_all(master, &s->eof, 1);
	return r;
}

/*
 * Until the line discipline has looked at all that was written. A character that stops output
 * tells when it is its turn; there must be room for it, and output must not be stopped.
 */
static int wait_lines(const struct pty_sides *p, const struct special *s, bool mark)
{
	int r;

	if (!mark) {
		pause_ms(50);
		return 0;
	}
	r = write_all(p->master, &s->stop, 1);
	if (r >= 0)
		r = wait_stopped(p->slave);
	if (r >= 0 && (tried(ioctl(p->slave, TCXONC, TCOOFF)) < 0 ||
		       tried(ioctl(p->slave, TCXONC, TCOON)) < 0))
		r = -errno;
	return r;
}

static int put_lines(const struct pty_sides *p, const struct termios2 *t, const struct pty_queue *q)
{
	struct termios2 now = transparent(t);
	const uint8_t *data = q->input;
	uint32_t used = 0;
	struct special s;
	int r;

	choose(&s, t);
	now.c_lflag |= IEXTEN;
	now.c_iflag |= IXON;
	now.c_cc[VLNEXT] = s.lnext;
	now.c_cc[VEOF] = s.eof;
	now.c_cc[VEOL] = t->c_cc[VEOL];
	now.c_cc[VEOL2] = t->c_cc[VEOL2];
	now.c_cc[VSTOP] = q->stopped ? 0 : s.stop;
	r = set(p->slave, &now);
	for (uint32_t i = 0; i < q->n_lines && q->lines[i].end != PTY_END_RAW && r >= 0; i++) {
		r = put_line(p->master, &s, t, data, &q->lines[i]);
		data += q->lines[i].length;
		used += q->lines[i].length + 1;
	}
	return r < 0 ? r : wait_lines(p, &s, used < ROOM && !q->stopped);
}

static int put_bytes(const struct pty_sides *p, const struct termios2 *t, const struct pty_queue *q)
{
	struct termios2 now = transparent(t);
	int held = 0, length = q->n_lines ? (int)q->lines[0].length : 0;
	int r = set(p->slave, &now);

	if (!q->n_lines || q->lines[0].end == PTY_END_RAW)
		return r;
	if (r >= 0)
		r = write_all(p->master, q->input, (size_t)length);
	for (int i = 0; r >= 0 && i < PATIENCE_MS; i++) {
		if (tried(ioctl(p->slave, FIONREAD, &held)) < 0)
			return -errno;
		if (held >= length || held >= ROOM)
			return 0;
		patience_pause();
	}
	return r < 0 ? r : -ETIMEDOUT;
}

int pty_queue_put(const struct pty_sides *p, const struct pty_queue *q)
{
	const struct pty_line *last = q->n_lines ? &q->lines[q->n_lines - 1] : NULL;
	struct termios2 t, now;
	int r, undo;

	if (!last && !q->output_length && !q->stopped)
		return 0;
	if (tried(ioctl(p->slave, TCGETS2, &t)) < 0)
		return -errno;
	now = transparent(&t);
	r = set(p->slave, &now);
	if (r >= 0)
		r = write_all(p->slave, q->output, q->output_length);
	if (r >= 0)
		r = put_stopped(p, &t, q->stopped);
	if (r >= 0 && last)
		r = by_lines(&t) ? put_lines(p, &t, q) : put_bytes(p, &t, q);
	undo = set(p->slave, &t);
	if (r >= 0 && undo >= 0 && last && last->end == PTY_END_RAW)
		r = write_all(p->master, q->input + q->input_length - last->length, last->length);
	return r < 0 ? r : undo;
}
