/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_UNIX_BELOW_H
#define REPRISE_NET_UNIX_BELOW_H

#include "core/error.h"

/*
 * Names that lead to no file any more, or to a file of another name: a socket is bound to such a
 * one below a directory that nobody else can enter, where the same text is looked up, whatever it
 * has of
 * "..". It leaves that directory neither by chroot(2), if it is absolute, nor otherwise.
 */
struct unix_below {
	int begin;    /* the directory where it begins */
	char *inside; /* where the file is, from the directory of ours */
};
#define UNIX_BELOW_INIT         \
	{                       \
		.begin = -EBADF \
	}

/* Makes what the name needs in a directory that is empty. 0 or a negative errno. */
int unix_below_make(struct unix_below *b, int ours, const char *name) must_check;
void unix_below_free(struct unix_below *b);
/* Removes all that is in a directory. */
void unix_below_clear(int ours);

#endif
