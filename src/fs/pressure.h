/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PRESSURE_H
#define REPRISE_FS_PRESSURE_H

#include "fs/context.h"

/*
 * A file about pressure (/proc/pressure, *.pressure of control groups) that the program waits on:
 * what it has written there, in msg->pressure.
 */
int pressure_save(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		  struct scratch *s, struct error *e) must_check;
int pressure_validate(const Reprise__File *msg, struct error *e) must_check;
int pressure_restore(const struct restart *r, int fd, const Reprise__File *msg,
		     struct error *e) must_check;
/* ", waits for ..." */
void pressure_describe(const Reprise__File *msg, char *buf, size_t size);

#endif
