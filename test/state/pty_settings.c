/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever setting of a pseudo-terminal can be changed: each bit of its flags on a terminal of its
 * own; characters, speeds of any number, a size in pixels.
 */
#include "harness.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MOST 128

static struct one {
	int master, slave;
	struct termios2 settings;
} all[MOST];
static int count;

static tcflag_t *flags_of(struct termios2 *t, int i)
{
	return i == 0 ? &t->c_iflag : i == 1 ? &t->c_oflag : i == 2 ? &t->c_cflag : &t->c_lflag;
}

static struct one make(void)
{
	const int unlocked = 0;
	struct one x = {.master = open("/dev/ptmx", O_RDWR | O_NOCTTY)};

	CHECK(x.master >= 0 && !ioctl(x.master, TIOCSPTLCK, &unlocked));
	x.slave = ioctl(x.master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	CHECK(x.slave >= 0 && !ioctl(x.slave, TCGETS2, &x.settings));
	return x;
}

/* Keeps it as it is now. */
static void keep(struct one *x)
{
	CHECK(count < MOST);
	CHECK(!ioctl(x->slave, TCGETS2, &x->settings));
	all[count++] = *x;
}

static void try_bits(int i)
{
	struct one x = make();

	for (int bit = 0; bit < 32; bit++) {
		struct termios2 wanted = x.settings, now;

		*flags_of(&wanted, i) ^= 1u << bit;
		if (ioctl(x.slave, TCSETS2, &wanted) < 0)
			continue;
		CHECK(!ioctl(x.slave, TCGETS2, &now));
		if (*flags_of(&now, i) == *flags_of(&x.settings, i))
			continue;
		keep(&x);
		x = make();
	}
	close(x.slave);
	close(x.master);
}

static void set_up_numbers(void)
{
	struct winsize size = {11, 22, 333, 444};
	struct one x = make();

	for (int i = 0; i < NCCS; i++)
		x.settings.c_cc[i] = (cc_t)(i == VMIN || i == VTIME ? i : 128 + i);
	x.settings.c_cflag &= ~(tcflag_t)(CBAUD | CBAUD << IBSHIFT);
	x.settings.c_cflag |= BOTHER | BOTHER << IBSHIFT;
	x.settings.c_ospeed = 12345;
	x.settings.c_ispeed = 54321;
	CHECK(!ioctl(x.slave, TCSETS2, &x.settings));
	CHECK(!ioctl(x.slave, TIOCSWINSZ, &size));
	keep(&x);
}

int main(void)
{
	struct winsize size = {};
	struct termios2 now;

	test_init();
	set_up_numbers();
	for (int i = 0; i < 4; i++)
		try_bits(i);
	CHECK(count > 30);

	test_wait();
	if (test_break(1)) {
		now = all[3].settings;
		now.c_iflag ^= ICRNL;
		CHECK(!ioctl(all[3].slave, TCSETS2, &now));
	}
	CHECK(!ioctl(all[0].slave, TIOCGWINSZ, &size));
	CHECK(size.ws_row == 11 && size.ws_col == 22 && size.ws_xpixel == 333 &&
	      size.ws_ypixel == 444);
	for (int i = 0; i < count; i++) {
		const struct termios2 *was = &all[i].settings;

		CHECK(!ioctl(all[i].slave, TCGETS2, &now));
		CHECKF(!memcmp(&now, was, sizeof(now)),
		       "terminal %d: flags %o %o %o %o were %o %o %o %o, speeds %u %u were %u %u",
		       i, now.c_iflag, now.c_oflag, now.c_cflag, now.c_lflag, was->c_iflag,
		       was->c_oflag, was->c_cflag, was->c_lflag, now.c_ispeed, now.c_ospeed,
		       was->c_ispeed, was->c_ospeed);
	}
	test_pass();
}
