/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_PARENTS_H
#define REPRISE_OPERATION_PARENTS_H

#include "image/chain.h"
#include "operation/pass.h"

/*
 * The images on which an incremental one is based. They are looked for only among what the user
 * named: files, and the directories of these or that were named themselves. What an image says of
 * its parent is a name without a directory, an identity and a digest, and all of it must be right.
 */

/* The parents of an image that is being read; *ret stays NULL if it has none. */
int parents_find(const struct image_reader *image, const char *const *where,
		 struct page_chain **ret, struct error *e) must_check;
/* For a new image: the first of `where` is to be its parent. *ret_name points into it. */
int parents_open(const char *const *where, struct page_chain **ret, const char **ret_name,
		 struct error *e) must_check;
/* None of them may be the file that the new image is to replace. */
int parents_keep(const struct page_chain *chain, const char *path, struct error *e) must_check;
/* Which objects of the parent are probably those that are being saved? */
struct same_keys;
int same_keys_new(const struct page_chain *parents, struct same_keys **ret,
		  struct error *e) must_check;
void same_keys_free(struct same_keys *k); /* accepts NULL */
/* The address space that a process had there, 0: none. */
uint64_t same_mm(const struct same_keys *k, pid_t pid);
/* A file by device and inode number. */
uint64_t same_inode(const struct same_keys *k, uint64_t dev, uint64_t ino);
/* Tells the image, when all objects have been met. */
int same_put(struct pass *p, struct error *e) must_check;

#endif
