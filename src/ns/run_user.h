/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_RUN_USER_H
#define REPRISE_NS_RUN_USER_H

#include "ns/run.h"

/*
 * The root of a container of an ordinary user. What is mounted below / cannot be taken off in a
 * user namespace, so that / cannot be the lower layer of an overlay: each directory in it is, by
 * itself.
 */
int run_user_root(const struct run *run, struct error *e) must_check;
/* Devices cannot be made there either: those of the host are bound. */
int run_user_device(const struct run *run, const char *name, struct error *e) must_check;

#endif
