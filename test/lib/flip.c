/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flip CHANGED FROM TO STEP SEED VERIFIED [WHERE]: one byte of the file CHANGED after the other has
 * a bit flipped, and the image VERIFIED has to be found bad each time; its parents are looked for
 * at WHERE. What is not found is listed.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "operation/operation.h"

static int verify(const char *image, const char *const *where, struct error *e)
{
	_cleanup_(close_fd) int fd = open(image, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		err(1, "%s", image);
	error_clear(e);
	return operation_verify(fd, where, NULL, e);
}

static void put(int fd, off_t at, unsigned char byte)
{
	if (pwrite(fd, &byte, 1, at) != 1)
		err(1, "pwrite");
}

int main(int argc, char **argv)
{
	const char *where[] = {argc > 7 ? argv[7] : NULL, NULL};
	unsigned long flipped = 0, unseen = 0;
	unsigned int seed;
	struct error e;
	long step;
	int fd;

	if (argc < 7)
		return 2;
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", argv[1]);
	step = atol(argv[4]);
	seed = (unsigned int)atol(argv[5]);
	if (verify(argv[6], where, &e) < 0)
		errx(1, "%s is no good as it is: %s", argv[6], e.text);
	for (long at = atol(argv[2]) + (long)(seed % (unsigned int)step); at < atol(argv[3]);
	     at += step) {
		unsigned char byte;

		if (pread(fd, &byte, 1, at) != 1)
			err(1, "pread");
		put(fd, at, byte ^ (unsigned char)(1 << rand_r(&seed) % 8));
		flipped++;
		if (verify(argv[6], where, &e) >= 0 || e.code == E_INTERNAL) {
			printf("byte %ld: %s\n", at, e.text);
			unseen++;
		}
		put(fd, at, byte);
	}
	printf("%lu flipped, %lu not found\n", flipped, unseen);
	return unseen || !flipped;
}
