/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_KEYS_H
#define REPRISE_MM_KEYS_H

#include "mm/calls.h"
#include "model/restart.h"
#include "remote/batch.h"

/*
 * Protection keys (pkeys(7)): which ones a process has allocated, and which its mappings have. Key
 * 0 is that of everything else; what each thread may do with a key is in its register PKRU.
 */
#define KEYS 16

struct keys_query {
	int calls[KEYS];
	bool asked;
};

void keys_query(struct checkpoint *c, struct batch *b, struct keys_query *q);
uint32_t keys_collect(const struct batch *b, const struct keys_query *q); /* a bit each */

bool keys_valid(uint32_t keys, const Reprise__Mm *mm);
/* Of any process: a child begins with the keys that its parent has just then. */
bool keys_in_image(const struct restart *r);
/* Before anything is mapped: the next mapping that is only executable gets the key it had. */
void keys_build(struct calls *c);
/* When all is mapped and filled, and all children have been forked. */
void keys_finish(struct calls *c);

#endif
