/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_REMAKE_H
#define REPRISE_TEST_REMAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/records.h"

/* A record of an image that is made again, which may be changed; `copies` 0: it is left out. */
struct remade {
	uint32_t type;
	uint64_t id;
	const char *name;
	ProtobufCMessage *msg;
	int copies;
	uint64_t copy_id; /* of the second copy */
};

/*
 * Writes `out` like the image `in`, with lengths, checksums and digests that fit, as anybody can
 * make them, after `change` has seen each record. Exits on any error; out NULL: only looks.
 */
void remake(const char *in, const char *out, void (*change)(void *, struct remade *), void *arg);

#endif
