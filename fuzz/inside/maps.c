/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/remote/maps.c"

#include "../inside.h"

void fuzz_agent_maps(char *text)
{
	struct maps maps = {};

	ignore(parse(text, 0x7ffffffde000, &maps), "either will do");
	maps_free(&maps);
}
