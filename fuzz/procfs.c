/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says about a task may be chosen by the task: its command, for instance. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/procfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"Pid", "SigCgt", "", "VmSize", "flags"};
	char *text = malloc(size + 1);
	struct proc_stat st;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (proc_stat_parse(text, &st) == 0 && memchr(st.comm, '\0', sizeof(st.comm)) == NULL)
		__builtin_trap();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t n;
		size_t len = 0;
		const char *value = proc_field(text, names[i], &len);

		if (value && (value < text || value + len > text + size))
			__builtin_trap();
		for (int base = 8; base <= 16; base += 2)
			(void)proc_field_u64(text, names[i], base, &n);
	}
	free(text);
	return 0;
}
