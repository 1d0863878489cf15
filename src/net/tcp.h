/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_TCP_H
#define REPRISE_NET_TCP_H

#include "model/checkpoint.h"

/*
 * Before the tasks are killed: their connections, saved as closed ones, are to be reset instead of
 * shut down, so that nothing of them keeps the ports in use; nor do copies of ours, also of those
 * that are about to be connected. (A restart that reads a stream may already wait for the ports.)
 * The other end learns that the connection is broken, where an orderly end could look like the end
 * of the data.
 */
void inet_tcp_abort(struct checkpoint *c);

/* This open file, if it is a socket that is about to be connected, will be by who asks: it is saved
 * as it was before. Before inet_connecting_check(). */
int inet_connecting_claim(struct checkpoint *c, uint64_t id, struct error *e) must_check;

#endif
