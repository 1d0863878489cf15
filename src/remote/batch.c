/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "remote/agent.h"

#define DATA_ALIGN 16

static bool grow(void **v, uint32_t *cap, uint32_t need, size_t size)
{
	uint32_t want = *cap ? *cap : 16;
	void *p;

	if (need <= *cap)
		return true;
	while (want < need) {
		if (want > UINT32_MAX / 2)
			return false;
		want *= 2;
	}
	p = reallocarray(*v, want, size);
	if (!p)
		return false;
	*v = p;
	*cap = want;
	return true;
}

uint32_t batch_data(struct batch *b, const void *init, uint32_t len)
{
	uint32_t at = b->data_len, end = at + ((len + DATA_ALIGN - 1) & ~(DATA_ALIGN - 1U));

	if (b->failed)
		return 0;
	/* So small a bound that no sum of offsets can overflow. */
	if (len > AGENT_ROOM || end > AGENT_ROOM) {
		b->failed = -E2BIG;
		return 0;
	}
	if (!grow((void **)&b->data, &b->data_cap, end, 1)) {
		b->failed = -ENOMEM;
		return 0;
	}
	if (end > at)
		memset(b->data + at, 0, end - at);
	if (init)
		memcpy(b->data + at, init, len);
	b->data_len = end;
	return at;
}

void *batch_at(struct batch *b, uint32_t offset)
{
	return b->failed || offset >= b->data_len ? NULL : b->data + offset;
}

void batch_pointer(struct batch *b, uint32_t at, uint32_t target)
{
	if (b->failed)
		return;
	if (!grow((void **)&b->pointers, &b->pointers_cap, b->npointers + 1,
		  sizeof(*b->pointers))) {
		b->failed = -ENOMEM;
		return;
	}
	b->pointers[b->npointers++] = (struct batch_pointer){at, target};
}

int batch_call_(struct batch *b, long nr, const struct batch_arg *args, unsigned int nargs)
{
	struct batch_wire_call *call;

	if (b->failed)
		return 0;
	if (nargs > 6) {
		b->failed = -EINVAL;
		return 0;
	}
	if (!grow((void **)&b->calls, &b->calls_cap, b->ncalls + 1, sizeof(*b->calls))) {
		b->failed = -ENOMEM;
		return 0;
	}
	call = &b->calls[b->ncalls];
	*call = (struct batch_wire_call){.nr = nr};
	for (unsigned int i = 0; i < nargs; i++) {
		call->args[i] = args[i].v;
		switch (args[i].kind) {
		case BATCH_VAL:
			break;
		case BATCH_DATA:
			call->kinds[i] = WIRE_KIND_DATA;
			break;
		case BATCH_RESULT:
			if (args[i].v >= b->ncalls)
				b->failed = -EINVAL;
			call->kinds[i] = WIRE_KIND_RESULT;
			break;
		}
	}
	return (int)b->ncalls++;
}

void batch_compat(struct batch *b, int call)
{
	if (!b->failed && (uint32_t)call < b->ncalls)
		b->calls[call].compat = 1;
}

void batch_must(struct batch *b, int call)
{
	if (!b->failed && (uint32_t)call < b->ncalls)
		b->calls[call].must = 1;
}

long batch_result(const struct batch *b, int call)
{
	if (b->failed)
		return b->failed;
	return (uint32_t)call < b->ncalls ? b->calls[call].result : -EINVAL;
}

static bool is_failure(int64_t result)
{
	return result < 0 && result >= -4095;
}

int batch_failed(const struct batch *b)
{
	for (uint32_t i = 0; i < b->ncalls; i++)
		if (b->calls[i].must && is_failure(b->calls[i].result))
			return (int)i;
	return -1;
}

long batch_number(const struct batch *b, int call)
{
	return (uint32_t)call < b->ncalls ? (long)b->calls[call].nr : -1;
}

int batch_prepare(struct batch *b, uint64_t data_at, struct error *e)
{
	if (b->failed == -ENOMEM)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot build a list of system calls");
	if (b->failed || b->ncalls * (uint64_t)WIRE_CALL_SIZE + b->data_len > AGENT_ROOM)
		return error_set(
			e, b->failed ? b->failed : -E2BIG, E_INTERNAL,
			"a list of system calls is wrong or too large (%u calls, %u bytes)",
			b->ncalls, b->data_len);
	for (uint32_t i = 0; i < b->ncalls; i++)
		b->calls[i].result = -ECANCELED;
	for (uint32_t i = 0; i < b->npointers; i++) {
		uint64_t target = data_at + b->pointers[i].target;

		if (b->pointers[i].at + sizeof(target) > b->data_len ||
		    b->pointers[i].target > b->data_len)
			return error_set(e, -EINVAL, E_INTERNAL,
					 "a list of system calls has a pointer outside its data");
		memcpy(b->data + b->pointers[i].at, &target, sizeof(target));
	}
	return 0;
}

int batch_run_here(struct batch *b, struct error *e)
{
	int r = batch_prepare(b, (uintptr_t)b->data, e);

	for (uint32_t i = 0; i < b->ncalls && r >= 0; i++) {
		struct batch_wire_call *call = &b->calls[i];
		uint64_t args[6];

		for (int k = 0; k < 6; k++)
			args[k] = call->kinds[k] == WIRE_KIND_DATA
					  ? (uintptr_t)b->data + call->args[k]
				  : call->kinds[k] == WIRE_KIND_RESULT
					  ? (uint64_t)b->calls[call->args[k]].result
					  : call->args[k];
		call->result =
			syscall(call->nr, args[0], args[1], args[2], args[3], args[4], args[5]);
		if (call->result < 0)
			call->result = -errno;
		if (call->must && is_failure(call->result))
			break;
	}
	return r;
}

void batch_reset(struct batch *b)
{
	b->ncalls = 0;
	b->data_len = 0;
	b->npointers = 0;
	b->failed = 0;
}

void batch_free(struct batch *b)
{
	free(b->calls);
	free(b->data);
	free(b->pointers);
	*b = (struct batch){};
}
