/* SPDX-License-Identifier: Apache-2.0 */
#include "core/btf.h"

#include <errno.h>
#include <linux/btf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define DEPTH_MAX 16 /* of unnamed members and typedefs */

struct btf {
	void *data;
	size_t mapped; /* bytes; 0: allocated */
	const char *types, *types_end;
	const char *names;
	uint32_t names_len;
	const struct btf *base;
	const struct btf_type **own; /* own[0] of the kernel's is void: NULL */
	uint32_t first, n;	     /* ids, those of the base with them */
};

/* Bytes behind the common part. */
static int extra_bytes(const struct btf_type *t)
{
	uint32_t n = BTF_INFO_VLEN(t->info);

	switch (BTF_INFO_KIND(t->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return (int)(n * sizeof(struct btf_member));
	case BTF_KIND_ENUM:
		return (int)(n * sizeof(struct btf_enum));
	case BTF_KIND_FUNC_PROTO:
		return (int)(n * sizeof(struct btf_param));
	case BTF_KIND_DATASEC:
		return (int)(n * sizeof(struct btf_var_secinfo));
	case BTF_KIND_ENUM64:
		return (int)(n * 12);
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG:
		return 0;
	default:
		return -EINVAL; /* its size is unknown, and with it the place of the next */
	}
}

static int index_types(struct btf *b)
{
	uint32_t cap = 0, n = b->base ? 0 : 1;

	for (const char *at = b->types; at < b->types_end;) {
		const struct btf_type *t = (const struct btf_type *)at;
		int extra;

		if (n >= cap) {
			const struct btf_type **more;

			cap = cap ? cap * 2 : b->base ? 1 << 10 : 1 << 16;
			more = reallocarray(b->own, cap, sizeof(*more));
			if (!more)
				return -ENOMEM;
			b->own = more;
			b->own[0] = NULL;
		}
		if ((size_t)(b->types_end - at) < sizeof(*t))
			return -EINVAL;
		extra = extra_bytes(t);
		if (extra < 0 || (size_t)(b->types_end - at) < sizeof(*t) + (size_t)extra)
			return -EINVAL;
		b->own[n++] = t;
		at += sizeof(*t) + (size_t)extra;
	}
	b->first = b->base ? b->base->n : 0;
	b->n = b->first + n;
	return 0;
}

static int parse(struct btf *b, size_t size)
{
	const struct btf_header *h = b->data;
	const char *body;

	if (size < sizeof(*h) || h->magic != BTF_MAGIC || h->hdr_len > size || h->type_off % 4 ||
	    (uint64_t)h->type_off + h->type_len > size - h->hdr_len ||
	    (uint64_t)h->str_off + h->str_len > size - h->hdr_len || !h->str_len)
		return -EINVAL;
	body = (const char *)b->data + h->hdr_len;
	b->types = body + h->type_off;
	b->types_end = b->types + h->type_len;
	b->names = body + h->str_off;
	b->names_len = h->str_len;
	return b->names[b->names_len - 1] ? -EINVAL : index_types(b);
}

static void let_go(void *data, size_t mapped)
{
	if (mapped)
		munmap(data, mapped);
	else
		free(data);
}

int btf_new(struct btf **ret, const struct btf *base, void *data, size_t size, bool mapped)
{
	struct btf *b = calloc(1, sizeof(*b));
	int r;

	if (!b) {
		let_go(data, mapped ? size : 0);
		return -ENOMEM;
	}
	b->base = base;
	b->data = data;
	b->mapped = mapped ? size : 0;
	r = parse(b, size);
	if (r < 0) {
		btf_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void btf_free(struct btf *b)
{
	if (!b)
		return;
	let_go(b->data, b->mapped);
	free(b->own);
	free(b);
}

static const char *name_at(const struct btf *b, uint32_t offset)
{
	const uint32_t before = b->base ? b->base->names_len : 0;

	if (offset < before)
		return name_at(b->base, offset);
	return offset - before < b->names_len ? b->names + (offset - before) : "";
}

/* NULL: void. */
static const struct btf_type *type_at(const struct btf *b, uint32_t id)
{
	return id < b->first ? b->base->own[id] : b->own[id - b->first];
}

static const struct btf_type *type_of(const struct btf *b, uint32_t id)
{
	for (int depth = 0; depth < DEPTH_MAX && id && id < b->n; depth++) {
		const struct btf_type *t = type_at(b, id);

		switch (BTF_INFO_KIND(t->info)) {
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_CONST:
		case BTF_KIND_TYPE_TAG:
			id = t->type;
			break;
		default:
			return t;
		}
	}
	return NULL;
}

/*
 * Names are stored once (pahole sees to it), so that numbers are compared, and not the names of
 * some hundred thousand types. A tool that does otherwise costs us what it stored twice: it is not
 * found.
 */
static uint32_t offset_of_name(const struct btf *b, const char *name)
{
	const uint32_t before = b->base ? b->base->names_len : 0;
	const uint32_t known = b->base ? offset_of_name(b->base, name) : 0;
	size_t len = strlen(name) + 1;
	const char *at = b->names, *end = b->names + b->names_len;

	while (!known && (at = memmem(at, (size_t)(end - at), name, len))) {
		if (at > b->names ? !at[-1] : before)
			return before + (uint32_t)(at - b->names);
		at++;
	}
	return known;
}

static bool is_structure(const struct btf_type *t)
{
	return t && (BTF_INFO_KIND(t->info) == BTF_KIND_STRUCT ||
		     BTF_INFO_KIND(t->info) == BTF_KIND_UNION);
}

static int find(const struct btf *b, const char *name, bool structure)
{
	uint32_t offset = offset_of_name(b, name);

	for (uint32_t i = 1; i < b->n && offset; i++) {
		const struct btf_type *t = type_at(b, i);

		if (t->name_off == offset &&
		    (structure ? is_structure(t) : BTF_INFO_KIND(t->info) == BTF_KIND_FUNC))
			return (int)i;
	}
	return -ENOENT;
}

int btf_enumerator(const struct btf *b, const char *name)
{
	uint32_t offset = offset_of_name(b, name);

	for (uint32_t i = 1; i < b->n && offset; i++) {
		const struct btf_type *t = type_at(b, i);
		const struct btf_enum *v = (const struct btf_enum *)(t + 1);

		if (BTF_INFO_KIND(t->info) != BTF_KIND_ENUM)
			continue;
		for (uint32_t k = 0; k < BTF_INFO_VLEN(t->info); k++)
			if (v[k].name_off == offset)
				return v[k].val;
	}
	return -ENOENT;
}

int btf_function(const struct btf *b, const char *name)
{
	return find(b, name, false);
}

int btf_structure(const struct btf *b, const char *name)
{
	return find(b, name, true);
}

int btf_size(const struct btf *b, int structure)
{
	const struct btf_type *t = structure > 0 ? type_of(b, (uint32_t)structure) : NULL;

	return is_structure(t) ? (int)t->size : -ENOENT;
}

static int bit_offset(const struct btf_type *t, const struct btf_member *m)
{
	return (int)(BTF_INFO_KFLAG(t->info) ? BTF_MEMBER_BIT_OFFSET(m->offset) : m->offset);
}

/* In bits; *ret_type is the type of the member. */
static int find_member(const struct btf *b, const struct btf_type *t, const char *name, size_t len,
		       int depth, uint32_t *ret_type)
{
	const struct btf_member *m = (const struct btf_member *)(t + 1);

	for (uint32_t i = 0; i < BTF_INFO_VLEN(t->info); i++, m++) {
		const char *is = name_at(b, m->name_off);
		const struct btf_type *inner;
		int at;

		if (*is) {
			if (strlen(is) != len || memcmp(is, name, len))
				continue;
			*ret_type = m->type;
			return bit_offset(t, m);
		}
		inner = type_of(b, m->type);
		if (!is_structure(inner) || depth >= DEPTH_MAX)
			continue;
		at = find_member(b, inner, name, len, depth + 1, ret_type);
		if (at >= 0)
			return at + bit_offset(t, m);
	}
	return -ENOENT;
}

static uint32_t size_of(const struct btf *b, uint32_t id)
{
	uint32_t times = 1;

	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		const struct btf_type *t = type_of(b, id);
		const struct btf_array *array = (const struct btf_array *)(t + 1);

		if (!t)
			return 0;
		switch (BTF_INFO_KIND(t->info)) {
		case BTF_KIND_PTR:
			return times * (uint32_t)sizeof(void *);
		case BTF_KIND_ARRAY:
			times *= array->nelems;
			id = array->type;
			break;
		default:
			return times * t->size;
		}
	}
	return 0;
}

int btf_offset(const struct btf *b, int structure, const char *member)
{
	int unused;

	return btf_member(b, structure, member, &unused);
}

/* In bits. */
static int find_path(const struct btf *b, int structure, const char *member, int *ret_size)
{
	const struct btf_type *t = structure > 0 ? type_of(b, (uint32_t)structure) : NULL;
	uint32_t type = 0;
	int bits = 0;

	for (;;) {
		size_t len = strcspn(member, ".");
		int at;

		if (!is_structure(t))
			return -ENOENT;
		at = find_member(b, t, member, len, 0, &type);
		if (at < 0)
			return at;
		bits += at;
		if (!member[len])
			break;
		member += len + 1;
		t = type_of(b, type);
	}
	*ret_size = (int)size_of(b, type);
	return bits;
}

int btf_member(const struct btf *b, int structure, const char *member, int *ret_size)
{
	int bits = find_path(b, structure, member, ret_size);

	return bits < 0 ? bits : bits % 8 ? -ENOENT : bits / 8;
}

int btf_bit(const struct btf *b, int structure, const char *member)
{
	int unused;

	return find_path(b, structure, member, &unused);
}

/* Variables are listed by the section in which they stand. */
int btf_variable(const struct btf *b, const char *section, const char *name)
{
	for (uint32_t i = 1; i < b->n; i++) {
		const struct btf_type *t = type_at(b, i);
		const struct btf_var_secinfo *v = (const struct btf_var_secinfo *)(t + 1);

		if (BTF_INFO_KIND(t->info) != BTF_KIND_DATASEC ||
		    strcmp(name_at(b, t->name_off), section) != 0)
			continue;
		for (uint32_t k = 0; k < BTF_INFO_VLEN(t->info); k++)
			if (v[k].type < b->n && v[k].type &&
			    !strcmp(name_at(b, type_at(b, v[k].type)->name_off), name))
				return (int)v[k].offset;
	}
	return -ENOENT;
}
