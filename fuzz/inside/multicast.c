/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/net/multicast.c"

#include "../inside.h"

void fuzz_igmp(char *text)
{
	struct multicast_groups g = {};

	(void)parse_igmp(&g, text);
	vec_free(&g.v);
}

void fuzz_igmp6(char *text)
{
	struct multicast_groups g = {};

	(void)parse_igmp6(&g, text);
	vec_free(&g.v);
}
