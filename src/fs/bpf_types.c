/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Type information of BPF (BTF): what was loaded, byte by byte. It never changes, so who else has
 * it does not matter.
 */
#include "fs/bpf_types.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"

#define SIZE_MAX_BTF (16u << 20) /* BTF_MAX_SIZE */

int bpf_types_open(uint32_t id)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.btf_id = id;
	return kernel_bpf(BPF_BTF_GET_FD_BY_ID, &attr);
}

int bpf_types_load(const void *data, size_t size)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.btf = kernel_bpf_pointer(data);
	attr.btf_size = (uint32_t)size;
	return kernel_bpf(BPF_BTF_LOAD, &attr);
}

static int get_info(int fd, void *data, uint32_t size, struct bpf_btf_info *ret)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	memset(ret, 0, sizeof(*ret));
	ret->btf = kernel_bpf_pointer(data);
	ret->btf_size = size;
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = kernel_bpf_pointer(ret);
	attr.info.info_len = sizeof(*ret);
	return kernel_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

static int get_data(int fd, uint8_t **ret, struct bpf_btf_info *info)
{
	_cleanup_(free_ptr) uint8_t *data = NULL;
	uint32_t size;
	int r = get_info(fd, NULL, 0, info);

	if (r < 0)
		return r;
	size = info->btf_size;
	if (!size || size > SIZE_MAX_BTF)
		return -EFBIG;
	data = malloc(size);
	if (!data)
		return -ENOMEM;
	r = get_info(fd, data, size, info);
	if (r < 0 || info->btf_size != size)
		return r < 0 ? r : -EIO;
	*ret = take_ptr(&data);
	return 0;
}

/* Names stand one after the other, each with a zero at its end. */
int bpf_types_special(uint32_t id, const char **ret)
{
	static const char *const special[] = {
		"bpf_timer", "bpf_wq",	       "bpf_list_head", "bpf_rb_root", "bpf_task_work",
		"kptr",	     "kptr_untrusted", "percpu_kptr",	"kptr_ref",    "uptr",
		NULL};
	_cleanup_(close_fd) int fd = bpf_types_open(id);
	_cleanup_(free_ptr) uint8_t *data = NULL;
	struct bpf_btf_info info;
	int r = fd < 0 ? fd : get_data(fd, &data, &info);

	if (r < 0)
		return r;
	for (const char *const *name = special; *name; name++) {
		size_t len = strlen(*name) + 1;

		for (uint8_t *at = data;
		     (at = memmem(at, info.btf_size - (size_t)(at - data), *name, len)); at++)
			if (at > data && !at[-1]) {
				*ret = *name;
				return 1;
			}
	}
	return 0;
}

/* ---- checkpoint ---- */

static bool types_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:btf");
}

static uint64_t find_same(const struct checkpoint *c, const struct file_seen *f, uint32_t id)
{
	vec_for_each (other, &c->files->files)
		if ((*other)->ops == &bpf_types_file_ops && (*other)->id != f->id &&
		    (*other)->private == id && !(*other)->msg->bpf_types->same_as)
			return (*other)->id;
	return 0;
}

static int types_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			    struct scratch *s, struct error *e)
{
	Reprise__BpfTypes *m = scratch_message(s, Reprise__BpfTypes, reprise__bpf_types__init);
	_cleanup_(free_ptr) uint8_t *data = NULL;
	struct bpf_btf_info info;
	int r;

	msg->bpf_types = m;
	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for types of BPF");
	r = get_info(f->local, NULL, 0, &info);
	if (r >= 0 && info.kernel_btf)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "it is the type information (BTF) of this kernel or of one of its "
				 "modules");
	if (r >= 0)
		r = get_data(f->local, &data, &info);
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM,
				   "cannot read this type information of BPF (BTF)");
	f->entry->private = info.id;
	m->same_as = find_same(c, f, info.id);
	if (m->same_as)
		return 0;
	m->data.len = info.btf_size;
	m->data.data = scratch_copy(s, data, info.btf_size);
	return m->data.data ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for types of BPF");
}

/* ---- restart ---- */

static const Reprise__BpfTypes *types_at(const struct restart *r, uint64_t file)
{
	const Reprise__File *msg = file ? restart_find(r, RECORD_FILE, file) : NULL;

	return msg && msg->kind == FILE_BPF_TYPES ? msg->bpf_types : NULL;
}

bool bpf_types_valid(const struct restart *r, uint64_t file)
{
	return !file || types_at(r, file);
}

static int types_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__BpfTypes *m = msg->bpf_types;
	const Reprise__BpfTypes *same = m ? types_at(r, m->same_as) : NULL;

	if (!m || (m->same_as && (!same || same->same_as)) ||
	    (!m->same_as && (!m->data.len || m->data.len > SIZE_MAX_BTF)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "types of BPF that are nothing");
	return 0;
}

int bpf_types_of(struct restart *r, uint64_t file, int *ret, struct error *e)
{
	struct file_open *f = file ? file_open_find(r, file) : NULL;
	int res = f && f->fd < 0 ? file_open_now(r, f, e) : 0;

	*ret = f ? f->fd : -1;
	return res;
}

static int types_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			 struct error *e)
{
	struct bpf_btf_info info;
	int fd = -1, res;

	if (!msg->bpf_types->same_as) {
		fd = bpf_types_load(msg->bpf_types->data.data, msg->bpf_types->data.len);
	} else {
		res = bpf_types_of(r, msg->bpf_types->same_as, &fd, e);
		if (res < 0)
			return res;
		res = get_info(fd, NULL, 0, &info);
		fd = res < 0 ? res : bpf_types_open(info.id);
	}
	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot load types of BPF (BTF)");
	*ret_fd = fd;
	return 0;
}

static void types_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__BpfTypes *m = msg->bpf_types;

	if (m && m->same_as)
		snprintf(buf, size, "those of open file %llu", (unsigned long long)m->same_as);
	else if (m)
		snprintf(buf, size, "%zu bytes", m->data.len);
}

const struct file_ops bpf_types_file_ops = {
	.kind = FILE_BPF_TYPES,
	.name = "BPF types (BTF)",
	.support = "as they were loaded; not those of the kernel and its modules; by root",
	.match = types_match,
	.checkpoint = types_checkpoint,
	.validate = types_validate,
	.restart = types_restart,
	.describe = types_describe,
};
