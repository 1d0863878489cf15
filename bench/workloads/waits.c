/* SPDX-License-Identifier: Apache-2.0 */
/* waits READY N: one process with an epoll set of N eventfds. */
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "workload.h"

static int intact(void *arg)
{
	const struct waits *w = arg;
	struct epoll_event event;

	return eventfd_write(w->last, 1) == 0 && epoll_wait(w->set, &event, 1, 0) == 1 &&
	       event.data.fd == w->last;
}

int main(int argc, char **argv)
{
	struct waits waits;

	need(argc == 3);
	raise_descriptors();
	answer_later();
	waits = open_waits(parse_size(argv[2]));
	sleep_and_answer(argv[1], intact, &waits);
}
