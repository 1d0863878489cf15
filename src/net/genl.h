/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_GENL_H
#define REPRISE_NET_GENL_H

#include <stdint.h>

#include "core/error.h"
#include "core/vec.h"

/* Groups of generic netlink: each boot numbers them anew. */
struct genl_group {
	uint32_t id;
	char name[40]; /* "FAMILY/GROUP", each of up to 15 characters */
};

struct genl_groups {
	VEC(struct genl_group) list;
};

int genl_groups_read(struct genl_groups *ret, struct error *e) must_check;
const char *genl_group_name(const struct genl_groups *g, uint32_t id); /* NULL: none */
uint32_t genl_group_id(const struct genl_groups *g, const char *name); /* 0: none */
void genl_groups_free(struct genl_groups *g);

#endif
