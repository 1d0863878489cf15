/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/keys.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mm/layout.h"
#include "mm/mm.h"
#include "mm/vma.h"

/* Above all that a process may map: a call that gets as far as looking for a mapping there fails
 * with ENOMEM. */
#define NOWHERE 0x7ffffffff000

/* A key that was not allocated is refused before anything is looked for (do_mprotect_pkey()). */
static bool machine_has_keys(void)
{
	int key = (int)syscall(SYS_pkey_alloc, 0, 0);

	if (key >= 0)
		syscall(SYS_pkey_free, key);
	return key >= 0;
}

void keys_query(struct checkpoint *c, struct batch *b, struct keys_query *q)
{
	if (c->has_keys == NOT_ASKED)
		c->has_keys = machine_has_keys() ? ANSWER_YES : ANSWER_NO;
	q->asked = c->has_keys == ANSWER_YES;
	for (uint64_t i = 1; q->asked && i < KEYS; i++)
		q->calls[i] = batch_call(b, SYS_pkey_mprotect, VAL(NOWHERE), VAL(4096),
					 VAL(PROT_NONE), VAL(i));
}

uint32_t keys_collect(const struct batch *b, const struct keys_query *q)
{
	uint32_t keys = 0;

	for (uint32_t i = 1; q->asked && i < KEYS; i++)
		if (batch_result(b, q->calls[i]) == -ENOMEM)
			keys |= 1u << i;
	return keys;
}

/*
 * A mapping that may only be executed gets a key by itself (execute_only_pkey()), one for all of
 * them, which is not counted as allocated. It has to be the kernel's again, since it is taken away
 * when the protection changes.
 */
static bool given_by_kernel(uint32_t keys, const Reprise__Vma *v)
{
	return v->pkey && v->prot == PROT_EXEC && !(keys & 1u << v->pkey);
}

bool keys_valid(uint32_t keys, const Reprise__Mm *mm)
{
	uint32_t kernels = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		if (v->pkey >= KEYS || (v->pkey && (v->kind == VMA_VVAR || v->kind == VMA_VDSO)))
			return false;
		if (!given_by_kernel(keys, v))
			continue;
		if (kernels && kernels != v->pkey)
			return false;
		kernels = v->pkey;
	}
	return keys < 1u << KEYS && !(keys & 1);
}

static uint32_t kernels_key(uint32_t keys, const Reprise__Mm *mm)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (given_by_kernel(keys, mm->vmas[i]))
			return mm->vmas[i]->pkey;
	return 0;
}

bool keys_in_image(const struct restart *r)
{
	const Reprise__Process *p;
	const Reprise__Mm *mm;

	for (size_t i = 0; (p = restart_nth(r, RECORD_PROCESS, i, NULL)); i++)
		if (p->protection_keys)
			return true;
	for (size_t i = 0; (mm = restart_nth(r, RECORD_MM, i, NULL)); i++)
		for (size_t k = 0; k < mm->n_vmas; k++)
			if (mm->vmas[k]->pkey)
				return true;
	return false;
}

void keys_build(struct calls *c)
{
	uint32_t kernels = kernels_key(c->p->msg->protection_keys, c->p->mm);

	if (!c->r->mm->keys)
		return;
	/* All of them; in a child of one that has them it finds none left. */
	for (int i = 1; i < KEYS; i++)
		calls_try(c, "pkey_alloc", 0, 0, -ENOSPC, SYS_pkey_alloc, VAL(0), VAL(0));
	/* The kernel takes the lowest that is free; one that the parent's mappings have got already
	 * is not given back. */
	if (kernels)
		calls_try(c, "pkey_free", 0, 0, -EINVAL, SYS_pkey_free, VAL(kernels));
}

void keys_finish(struct calls *c)
{
	uint32_t keys = c->p->msg->protection_keys;

	if (!c->r->mm->keys)
		return;
	for (size_t i = 0; i < c->p->mm->n_vmas; i++) {
		const Reprise__Vma *v = c->p->mm->vmas[i];

		if (v->pkey && !given_by_kernel(keys, v))
			calls_add(c, "pkey_mprotect", v->start, v->end, SYS_pkey_mprotect,
				  VAL(v->start), VAL(v->end - v->start), VAL(v->prot),
				  VAL(v->pkey));
	}
	for (uint32_t i = 1; i < KEYS; i++)
		if (!(keys & 1u << i))
			calls_try(c, "pkey_free", 0, 0, -EINVAL, SYS_pkey_free, VAL(i));
}
