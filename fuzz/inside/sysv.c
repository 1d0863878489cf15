/* SPDX-License-Identifier: Apache-2.0 */
#include "../../src/ipc/sysv.c"

#include "../inside.h"

void fuzz_sysv(char *text)
{
	struct sysv_object o = {};

	(void)parse_sem(text, &o);
	(void)parse_msg(text, &o);
	(void)parse_shm(text, &o);
}
