/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_LAYER_H
#define REPRISE_NS_LAYER_H

#include <linux/fs.h>

#include "core/scratch.h"
#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * Files that a container brings along: what it wrote over the files of the host
 * (the upper directory of an overlay), or a tmpfs of its own. All of a directory
 * tree on one file system is saved: directories, files with their holes, hard links, symbolic
 * links, fifos, sockets, devices (an overlay marks what was removed with one), and
 * extended attributes.
 */
struct layer;

/* Flags of chattr(1) that are kept (FS_*_FL). An overlay keeps two of
 * them (i, a) in an attribute of its own (trusted.overlay.protattr). */
#define LAYER_FLAGS                                                                              \
	((uint32_t)(FS_SYNC_FL | FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL | \
		    FS_DIRSYNC_FL))

/* Takes stock of the tree below dir_fd, which stays the caller's. The record gets *ret_id. */
/* outside: who sees all attributes (ns/outsider.h); NULL: we do. */
struct outpost;
int layer_checkpoint(struct checkpoint *c, int dir_fd, const char *what, struct outpost *outside,
		     struct layer **ret, uint64_t *ret_id, struct error *e) must_check;
uint64_t layer_id(const struct layer *l);
/* A restart fills it when all others are filled. */
void layer_set_last(struct layer *l);
bool layer_is_last(const struct layer *l);
uint64_t layer_page_bytes(const struct layer *l);
int layer_save_pages(struct checkpoint *c, struct layer *l, struct error *e) must_check;
void layer_free(struct layer *l); /* accepts NULL */

int layer_validate(const Reprise__Layer *msg, struct error *e) must_check;
/* Makes it all below dir_fd. No path leads out of there, whatever the image says. */
int layer_restart(struct restart *r, uint64_t id, int dir_fd, struct error *e) must_check;

#endif
