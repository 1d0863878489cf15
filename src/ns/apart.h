/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_APART_H
#define REPRISE_NS_APART_H

#include "core/error.h"

/*
 * For root who restarts what is not trusted: enters a user namespace in which all ids below 65536
 * are there, none of which is anybody outside. Whatever is opened, made or set from now on is done
 * with no more right than that. The caller has one thread.
 */
int apart_enter(int proc_fd, struct error *e) must_check;

#endif
