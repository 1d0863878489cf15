/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is taken out of a pseudo-terminal and put back, or put into another one, is read like what
 * was never touched: random bytes under random settings.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "fs/pty_queue.h"
#include "unit.h"

#define CASES 100

struct pair {
	int master, slave;
};

static struct pair new_pair(const struct termios *t)
{
	struct pair p = {.master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)};

	assert_true(p.master >= 0);
	assert_int_equal(unlockpt(p.master), 0);
	p.slave = ioctl(p.master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(p.slave >= 0);
	assert_int_equal(tcsetattr(p.slave, TCSANOW, t), 0);
	return p;
}

static void close_pair(struct pair p)
{
	close(p.slave);
	close(p.master);
}

static struct termios random_settings(void)
{
	static const tcflag_t input[] = {ICRNL, INLCR, IGNCR, ISTRIP, IXON, IXANY, IUTF8, PARMRK};
	static const tcflag_t local[] = {ICANON, ECHO, ECHOE, ECHOK, ECHOCTL, IEXTEN, ECHOKE};
	struct termios t = {.c_cflag = CS8 | CREAD, .c_oflag = rand() % 2 ? OPOST | ONLCR : 0};

	for (size_t i = 0; i < sizeof(input) / sizeof(input[0]); i++)
		if (rand() % 3 == 0)
			t.c_iflag |= input[i];
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if (rand() % 2)
			t.c_lflag |= local[i];
	for (int i = 0; i < 19; i++) /* those that the kernel has */
		t.c_cc[i] = rand() % 4 ? (cc_t)(rand() % 40) : 0;
	t.c_cc[VMIN] = (cc_t)(rand() % 3);
	t.c_cc[VTIME] = (cc_t)(rand() % 2);
	/* Those of the test itself: two cases at once would need two terminals that stop. */
	t.c_cc[VSTOP] = 0;
	t.c_cc[VSTART] = 0;
	return t;
}

static size_t random_bytes(uint8_t *data, size_t max)
{
	size_t n = (size_t)rand() % max;

	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(rand() % 3 ? rand() % 45 : rand());
	return n;
}

/* One read after the other, until there is nothing left: a read that finds nothing has waited. */
struct reads {
	int n;
	ssize_t length[10000];
	size_t total;
	uint8_t data[70000];
};

static void read_all(int fd, struct reads *r)
{
	ssize_t n = 0;
	int ends = 0;

	r->n = 0;
	r->total = 0;
	/* Of bytes a read that finds nothing may give zero; of a line that is an end of file. */
	while (n >= 0 && ends < 1000 && r->n < 10000) {
		n = read(fd, r->data + r->total, sizeof(r->data) - r->total);
		ends = n == 0 ? ends + 1 : 0;
		r->length[r->n++] = n;
		r->total += n > 0 ? (size_t)n : 0;
	}
}

/* What a master reads comes in whatever pieces. */
static void same_bytes(const struct reads *a, const struct reads *b, const char *what,
		       unsigned int seed)
{
	if (a->total != b->total || memcmp(a->data, b->data, a->total) != 0)
		fail_msg("case %u, %s: %zu bytes, not %zu", seed, what, b->total, a->total);
}

static void same(const struct reads *a, const struct reads *b, const char *what, unsigned int seed)
{
	for (int i = 0; i < a->n && i < b->n; i++)
		if (a->length[i] != b->length[i])
			fail_msg("case %u, %s: read %d gives %zd bytes, not %zd", seed, what, i,
				 b->length[i], a->length[i]);
	if (a->n != b->n)
		fail_msg("case %u, %s: %d reads, not %d", seed, what, b->n, a->n);
	same_bytes(a, b, what, seed);
}

static void compare(struct pair a, struct pair others[2], unsigned int seed)
{
	static struct reads input, output, is;

	/* Echoes come as long as there is input to be looked at. */
	read_all(a.slave, &input);
	read_all(a.master, &output);
	for (int i = 0; i < 2; i++) {
		read_all(others[i].slave, &is);
		same(&input, &is, i ? "input of another" : "input", seed);
		read_all(others[i].master, &is);
		same_bytes(&output, &is, i ? "output of another" : "output", seed);
	}
}

static void fill(struct pair p, const uint8_t *in, size_t n, const uint8_t *out, size_t m)
{
	if (m)
		assert_true(write(p.slave, out, m) > 0);
	if (n)
		assert_int_equal(write(p.master, in, n), n);
}

static void one_case(unsigned int seed)
{
	static uint8_t in[4500], out[3000];
	static struct pty_queue q;
	struct termios t, partial;
	struct pty_sides sides = {.exclusive = -1};
	struct pair left, taken, fresh;
	size_t n, m;

	srand(seed);
	t = random_settings();
	n = random_bytes(in, seed % 10 ? 600 : 4500);
	m = random_bytes(out, 1000);
	left = new_pair(&t);
	taken = new_pair(&t);
	fill(left, in, n, out, m);
	fill(taken, in, n, out, m);
	sides.master = taken.master;
	assert_int_equal(pty_sides_open(&sides), 0);
	assert_int_equal(pty_queue_take(&sides, &q), 0);
	assert_int_equal(pty_queue_put(&sides, &q), 0);
	pty_sides_close(&sides);
	fresh = new_pair(&t);
	sides = (struct pty_sides){.master = fresh.master, .slave = fresh.slave, .exclusive = -1};
	assert_int_equal(pty_queue_put(&sides, &q), 0);
	assert_int_equal(tcgetattr(taken.slave, &partial), 0);
	assert_memory_equal(&partial, &t, offsetof(struct termios, c_cc) + sizeof(t.c_cc));
	compare(left, (struct pair[2]){taken, fresh}, seed);
	close_pair(left);
	close_pair(taken);
	close_pair(fresh);
}

static void test_random(void **state)
{
	for (unsigned int seed = 1; seed <= CASES; seed++)
		one_case(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
