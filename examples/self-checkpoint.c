/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that saves itself: self-checkpoint IMAGE
 *
 * reprise_checkpoint(0, ...) returns twice, as fork() does: a positive number in
 * the program that goes on, and 0 in the one that a restart of the image makes.
 * Whoever restarts it may do so as often as he likes:
 *
 *	$ self-checkpoint image
 *	computed 42, saved in image
 *	$ reprise restart -i image --pidns
 *	restarted: still know that it was 42
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <reprise.h>

/* Something that took long to compute. */
static int compute(void)
{
	return 42;
}

int main(int argc, char **argv)
{
	struct reprise_error error = {0};
	int fd, r, answer;

	if (argc != 2) {
		fprintf(stderr, "usage: self-checkpoint IMAGE\n");
		return 2;
	}
	answer = compute();
	fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	r = reprise_checkpoint(0, fd, NULL, &error);
	if (r < 0) {
		fprintf(stderr, "%s\n", error.text);
		return 1;
	}
	if (r > 0)
		printf("computed %d, saved in %s\n", answer, argv[1]);
	else
		printf("restarted: still know that it was %d\n", answer);
	close(fd);
	return 0;
}
