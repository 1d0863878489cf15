/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_RECORDS_H
#define REPRISE_MODEL_RECORDS_H

#include "core/error.h"
#include "image/image.h"
#include "model/record.h"

/*
 * The state part of an image, unpacked: every record as its message, by id and
 * by position among those of its type. Ids are unique over all types.
 */
struct restart_records;

/* What a record type is called and which message it carries; NULL for an unknown type. */
struct record_schema {
	uint32_t type;
	const char *name;
	const ProtobufCMessageDescriptor *descriptor;
};
const struct record_schema *record_schema(uint32_t type);

/* Unpacks everything; unknown mandatory types are refused (E_IMAGE_NEWER). */
int records_load(struct restart_records **ret, const struct image_reader *image,
		 struct error *e) must_check;
void records_free(struct restart_records *rs); /* accepts NULL */

const void *records_find(const struct restart_records *rs, uint32_t type, uint64_t id);
const void *records_nth(const struct restart_records *rs, uint32_t type, size_t i,
			uint64_t *ret_id);

#endif
