/* SPDX-License-Identifier: Apache-2.0 */
#include <asm/ldt.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "kernel/ldt.h"

#define MODIFY_LDT_READ	 0
#define MODIFY_LDT_WRITE 0x11 /* the new format, which knows not-present entries */

void ldt_query(struct batch *b, struct ldt_query *q)
{
	q->data = batch_data(b, NULL, LDT_ENTRIES_MAX * LDT_ENTRY_SIZE);
	q->call = batch_call(b, SYS_modify_ldt, VAL(MODIFY_LDT_READ), DATA(q->data),
			     VAL(LDT_ENTRIES_MAX * LDT_ENTRY_SIZE));
}

int ldt_too_large(struct error *e)
{
	return error_set(e, -E2BIG, E_TASK_STATE,
			 "has a local descriptor table of %d entries or more", LDT_ENTRIES_MAX);
}

int ldt_collect(struct batch *b, const struct ldt_query *q, Reprise__Process *msg,
		struct scratch *s, struct error *e)
{
	/* int, widened: modify_ldt() returns an unsigned 32-bit value on some kernels */
	int len = (int)batch_result(b, q->call);

	if (len <= 0) /* ENOSYS without CONFIG_MODIFY_LDT_SYSCALL */
		return 0;
	if (len >= LDT_ENTRIES_MAX * LDT_ENTRY_SIZE)
		return ldt_too_large(e);
	msg->ldt.data = scratch_copy(s, batch_at(b, q->data), (size_t)len);
	if (!msg->ldt.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a descriptor table");
	msg->ldt.len = (size_t)len;
	return 0;
}

int ldt_validate(const Reprise__Process *msg, struct error *e)
{
	if (msg->ldt.len % LDT_ENTRY_SIZE || msg->ldt.len > LDT_ENTRIES_MAX * LDT_ENTRY_SIZE)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a local descriptor table of %zu bytes", msg->ldt.len);
	return 0;
}

/* The reverse of fill_ldt() in arch/x86/include/asm/desc.h. */
struct user_desc ldt_decode(unsigned int index, uint64_t d)
{
	uint64_t limit = (d & 0xffff) | ((d >> 32) & 0xf0000);

	return (struct user_desc){
		.entry_number = index,
		.base_addr = (unsigned int)(((d >> 16) & 0xffffff) | ((d >> 32) & 0xff000000)),
		.limit = (unsigned int)limit,
		.seg_32bit = (d >> 54) & 1,
		.contents = (d >> 42) & 3,
		.read_exec_only = !((d >> 41) & 1),
		.limit_in_pages = (d >> 55) & 1,
		.seg_not_present = !((d >> 47) & 1),
		.useable = (d >> 52) & 1,
	};
}

void ldt_restart(struct batch *b, const Reprise__Process *msg)
{
	for (unsigned int i = 0; i < msg->ldt.len / LDT_ENTRY_SIZE; i++) {
		struct user_desc desc;
		uint64_t d;

		memcpy(&d, msg->ldt.data + i * LDT_ENTRY_SIZE, sizeof(d));
		if (!d)
			continue;
		desc = ldt_decode(i, d);
		batch_must(b,
			   batch_call(b, SYS_modify_ldt, VAL(MODIFY_LDT_WRITE),
				      DATA(batch_data(b, &desc, sizeof(desc))), VAL(sizeof(desc))));
	}
}
