/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_SETOWN_H
#define REPRISE_FS_SETOWN_H

#include "model/restart.h"

/* Who gets signals from a description, and which one. The tasks exist. */
int file_set_owner(struct restart *r, int fd, const Reprise__File *msg, struct error *e) must_check;

#endif
