/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_RESIDENT_H
#define REPRISE_NS_RESIDENT_H

#include <sys/types.h>

#include "core/error.h"

/*
 * A process of ours that lives in a mount namespace, for what can be done from inside only. It ends
 * with whoever made it.
 */
struct resident {
	pid_t child; /* of ours */
	pid_t pid;   /* of the one that is there, as /proc knows it: the child, or a child of it */
	int socket;
};
#define RESIDENT_INIT                        \
	{                                    \
		.child = 0, .socket = -EBADF \
	}

struct resident_begin {
	int proc_fd;
	int pidns;	  /* to be in that pid namespace; -1: ours */
	const int *enter; /* namespaces */
	size_t n;
	int (*first)(void *arg, struct error *e); /* there, before anything else; may be NULL */
	int (*give)(void *arg, size_t i);	  /* there: a descriptor of it; may be NULL */
	void *arg;
};
int resident_begin(struct resident *ret, const struct resident_begin *how,
		   struct error *e) must_check;
/* A copy of one mount without what is mounted on it, attached nowhere: a descriptor. */
int resident_mount(struct resident *r, const char *point, struct error *e) must_check;
/* Changes the flags (MS_*) of a mount. */
int resident_flags(struct resident *r, const char *point, unsigned long flags,
		   struct error *e) must_check;
/* What `give` of resident_begin() says: a descriptor, or a negative errno. */
int resident_give(struct resident *r, size_t i);
void resident_end(struct resident *r);

#endif
