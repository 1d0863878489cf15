/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_INODE_SEARCH_H
#define REPRISE_FS_INODE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "model/checkpoint.h"

bool inode_is(int fd, dev_t dev, uint64_t ino);
/* Both give an O_PATH descriptor, or -1: of an entry of that directory, and of what the tree, or
 * that task, has to do with. */
int inode_search_directory(struct checkpoint *c, const char *path, dev_t dev, uint64_t ino);
int inode_search(struct checkpoint *c, pid_t tid, dev_t dev, uint64_t ino);
void inode_search_end(struct checkpoint *c);

#endif
