/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_SEAL_H
#define REPRISE_OPERATION_SEAL_H

#include "core/error.h"
#include "reprise.h"

/*
 * Envelopes are made and opened by a process of their own, between the image
 * and the file: the operations know nothing of them, and keys are not in the process that deals
 * with the application.
 */
struct filter;

/* What is written to *ret_fd goes to fd as an envelope. */
int seal_begin(int fd, const struct reprise_seal_options *opt, struct filter **ret, int *ret_fd,
	       struct error *e) must_check;
int open_begin(int fd, const struct reprise_open_options *opt, struct filter **ret, int *ret_fd,
	       struct error *e) must_check;
/* Waits for its end, once the other side of its pipe is closed; frees it. Accepts NULL. */
int filter_end(struct filter *f, struct error *e) must_check;

#endif
