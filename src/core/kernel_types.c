/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kernel_types.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"

static int read_file(int fd, char *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, data + done, size - done);

		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

static int look_at(int fd, struct bpf_btf_info *info)
{
	union bpf_attr attr = {
		.info = {.bpf_fd = (uint32_t)fd,
			 .info_len = sizeof(*info),
			 .info = kernel_bpf_pointer(info)},
	};

	return kernel_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

/* Those of an application have no such name ("kernel_btf"). */
static bool is_named(int fd, const char *name, size_t *ret_size)
{
	char is[sizeof(((struct known_module *)0)->name)] = "";
	struct bpf_btf_info info = {.name = kernel_bpf_pointer(is), .name_len = sizeof(is)};

	if (look_at(fd, &info) < 0 || !info.kernel_btf || strcmp(is, name) != 0)
		return false;
	*ret_size = info.btf_size;
	return true;
}

/* Without a /sys, in the mount namespace of a container. */
static int ask(const char *name, void **ret, size_t *ret_size)
{
	struct bpf_btf_info info = {};
	_cleanup_(free_ptr) void *data = NULL;
	union bpf_attr next = {};
	int r;

	while ((r = kernel_bpf(BPF_BTF_GET_NEXT_ID, &next)) >= 0) {
		union bpf_attr get = {.btf_id = next.next_id};
		_cleanup_(close_fd) int fd = kernel_bpf(BPF_BTF_GET_FD_BY_ID, &get);

		next = (union bpf_attr){.start_id = get.btf_id};
		if (fd == -EPERM)
			return fd;
		if (fd < 0 || !is_named(fd, name, ret_size))
			continue;
		data = malloc(*ret_size + 1);
		if (!data)
			return -ENOMEM;
		info.btf = kernel_bpf_pointer(data);
		info.btf_size = (uint32_t)*ret_size;
		r = look_at(fd, &info);
		if (r < 0)
			return r;
		*ret = take_ptr(&data);
		return 0;
	}
	return r;
}

/* base: NULL for the kernel's own, "vmlinux". */
static int read_types(const char *name, const struct btf *base, struct btf **ret)
{
	char path[96];
	_cleanup_(close_fd) int fd = -EBADF;
	void *data = NULL;
	size_t size = 0;
	struct stat st;
	int r;

	snprintf(path, sizeof(path), "/sys/kernel/btf/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		r = ask(name, &data, &size);
		return r < 0 ? r : btf_new(ret, base, data, size, false);
	}
	if (fstat(fd, &st) < 0)
		return -errno;
	size = (size_t)st.st_size;
	data = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0); /* 6.16 */
	if (data != MAP_FAILED)
		return btf_new(ret, base, data, size, true);
	data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	r = read_file(fd, data, size);
	if (r >= 0)
		return btf_new(ret, base, data, size, false);
	free(data);
	return r;
}

int kernel_types_open(struct kernel_types *t)
{
	return read_types("vmlinux", NULL, &t->btf);
}

void kernel_types_free(struct kernel_types *t)
{
	vec_free(&t->members);
	vec_for_each (x, &t->enumerators)
		free(x->name);
	vec_free(&t->enumerators);
	vec_for_each (m, &t->modules)
		btf_free(m->btf);
	vec_free(&t->modules);
	btf_free(t->btf);
}

/* NULL: it is not loaded, or nothing is told of its types. */
static const struct btf *module(struct kernel_types *t, const char *name, size_t len)
{
	struct known_module *m;

	vec_for_each (x, &t->modules)
		if (strlen(x->name) == len && !memcmp(x->name, name, len))
			return x->btf;
	m = len < sizeof(m->name) ? vec_push(&t->modules) : NULL;
	if (!m)
		return NULL;
	*m = (struct known_module){};
	memcpy(m->name, name, len);
	if (read_types(m->name, t->btf, &m->btf) < 0)
		m->btf = NULL;
	return m->btf;
}

static int find(struct kernel_types *t, const char *structure, const struct btf **ret)
{
	const char *colon = strchr(structure, ':');
	int id = btf_structure(t->btf, colon ? colon + 1 : structure);

	*ret = t->btf;
	if (id >= 0 || !colon)
		return id;
	*ret = module(t, structure, (size_t)(colon - structure));
	return *ret ? btf_structure(*ret, colon + 1) : -ENOENT;
}

int kernel_types_member(struct kernel_types *t, const char *structure, const char *member,
			int *ret_size)
{
	const struct btf *types;
	struct known_member *m;
	int size = 0, offset;

	vec_for_each (known, &t->members)
		if (!strcmp(known->member, member) && !strcmp(known->structure, structure)) {
			*ret_size = known->size;
			return known->offset;
		}
	offset = find(t, structure, &types);
	if (offset >= 0)
		offset = btf_member(types, offset, member, &size);
	m = vec_push(&t->members);
	if (!m)
		return -ENOMEM;
	*m = (struct known_member){structure, member, offset, size};
	*ret_size = size;
	return offset;
}

/* Kept like a member without a name. */
int kernel_types_size(struct kernel_types *t, const char *structure)
{
	const struct btf *types;
	struct known_member *m;
	int size;

	vec_for_each (known, &t->members)
		if (!*known->member && !strcmp(known->structure, structure))
			return known->size;
	size = find(t, structure, &types);
	if (size >= 0)
		size = btf_size(types, size);
	m = vec_push(&t->members);
	if (!m)
		return -ENOMEM;
	*m = (struct known_member){structure, "", -ENOENT, size};
	return size;
}

/* It is searched for among all names that there are, 60 us, and some are asked for of every file.
 */
int kernel_types_enumerator(struct kernel_types *t, const char *name)
{
	struct known_enumerator *x;
	int value;

	vec_for_each (known, &t->enumerators)
		if (!strcmp(known->name, name))
			return known->value;
	value = btf_enumerator(t->btf, name);
	x = vec_push(&t->enumerators);
	if (!x)
		return -ENOMEM;
	*x = (struct known_enumerator){strdup(name), value};
	if (x->name)
		return value;
	t->enumerators.n--;
	return -ENOMEM;
}
