/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load SOCKET KEYS: fills a redis with so many values of 1000 bytes.
 * load SOCKET KEYS SECONDS SETS: asks for some of them, one after the other, and sets so many a
 * second all over; prints questions a second and the 99th percentile of the time of an answer, ns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "workload.h"

enum { VALUE = 1000, HOT = 100, TOGETHER = 64, SAMPLES = 1 << 23 };

static char value[VALUE + 1];

static size_t put_set(char *to, unsigned long key)
{
	return (size_t)sprintf(to, "*3\r\n$3\r\nSET\r\n$12\r\nkey:%08lu\r\n$%d\r\n%s\r\n", key,
			       VALUE, value);
}

static void send_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		need(n > 0);
		data += n;
		size -= (size_t)n;
	}
}

static void receive(int fd, size_t size)
{
	static char answer[1 << 16];

	while (size) {
		ssize_t n = read(fd, answer, size < sizeof(answer) ? size : sizeof(answer));

		need(n > 0);
		need(answer[0] != '-');
		size -= (size_t)n;
	}
}

static void set_some(int fd, unsigned long keys, unsigned long first, unsigned long n)
{
	static char many[TOGETHER * (VALUE + 100)];
	size_t size = 0;

	for (unsigned long i = 0; i < n; i++)
		size += put_set(many + size, (first + i) % keys);
	send_all(fd, many, size);
	receive(fd, n * 5); /* +OK */
}

static int by_size(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void ask(int fd, unsigned long keys, double seconds, unsigned long sets)
{
	uint32_t *samples = malloc(SAMPLES * sizeof(*samples));
	uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now = begin;
	unsigned long done = 0, random = 1;
	size_t n = 0;

	need(samples);
	while (now < end && n < SAMPLES) {
		char question[64];
		uint64_t asked;
		int size = sprintf(question, "*2\r\n$3\r\nGET\r\n$12\r\nkey:%08zu\r\n", n % HOT);

		/* each somewhere else */
		for (; done < (now - begin) * 1e-9 * sets; done++) {
			random = random * 6364136223846793005ul + 1442695040888963407ul;
			set_some(fd, keys, (random >> 33) % keys, 1);
		}
		asked = now_ns();
		send_all(fd, question, (size_t)size);
		receive(fd, 5 + 2 + VALUE + 2); /* $1000 and the value */
		now = now_ns();
		samples[n++] = (uint32_t)(now - asked);
	}
	qsort(samples, n, sizeof(*samples), by_size);
	printf("{\"requests\": %zu, \"rate\": %.0f, \"p99\": %u, \"most\": %u}\n", n,
	       (double)n / ((double)(now - begin) / 1e9), samples[n * 99 / 100], samples[n - 1]);
}

int main(int argc, char **argv)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	unsigned long keys;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	need(argc == 3 || argc == 5);
	keys = parse_size(argv[2]);
	memset(value, 'v', VALUE);
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", argv[1]);
	need(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
	if (argc == 5) {
		ask(fd, keys, atof(argv[3]), parse_size(argv[4]));
		return 0;
	}
	for (unsigned long i = 0; i < keys; i += TOGETHER)
		set_some(fd, keys, i, TOGETHER);
	return 0;
}
