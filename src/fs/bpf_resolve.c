/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/bpf_resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>

#include "core/kernel_bpf.h"
#include "fs/bpf_map.h"
#include "fs/bpf_types.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"

static int open_map(uint32_t id)
{
	return bpf_map_open(id, O_RDWR);
}

static int open_program(uint32_t id)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_id = id;
	return kernel_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
}

struct referred {
	const char *what, *link;
	int (*open)(uint32_t id);
};

static const struct referred maps = {"map", "anon_inode:bpf-map", open_map};
static const struct referred programs = {"program", "anon_inode:bpf-prog", open_program};
static const struct referred types = {"type information (BTF)", "anon_inode:btf", bpf_types_open};

static bool is_first(const struct file_entry *f)
{
	const Reprise__File *m = f->msg;

	/* Of one that was refused, while checking, no more is to be said. */
	return !f->ops || !((m->bpf_map && m->bpf_map->same_as) ||
			    (m->bpf_program && m->bpf_program->same_as) ||
			    (m->bpf_types && m->bpf_types->same_as));
}

/* *id: its number, and then the open file. */
static int find(struct checkpoint *c, const struct file_entry *by, const struct referred *kind,
		uint64_t *id, struct error *e)
{
	int fd;

	if (!*id)
		return 0;
	vec_for_each (f, &c->files->files)
		if ((*f)->private == *id && is_first(*f) && !strcmp((*f)->link, kind->link)) {
			*id = (*f)->id;
			return 0;
		}
	fd = kind->open((uint32_t)*id);
	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_PERMISSION : E_FILE_STATE,
				   "the %s of BPF with number %u, which it uses, cannot be opened",
				   kind->what, (unsigned int)*id);
	return file_in_flight(c, by, fd, id, e);
}

static int find_all(struct checkpoint *c, const struct file_entry *by, const struct referred *kind,
		    uint64_t *ids, size_t n, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i++)
		r = find(c, by, kind, &ids[i], e);
	return r;
}

static int resolve(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	Reprise__BpfProgram *p = f->ops == &bpf_program_file_ops ? f->msg->bpf_program : NULL;
	Reprise__BpfMap *m = f->ops == &bpf_map_file_ops ? f->msg->bpf_map : NULL;
	int r = 0;

	if (p) {
		r = find(c, f, &types, &p->types, e);
		if (r >= 0)
			r = find_all(c, f, &maps, p->maps, p->n_maps, e);
		p->numbered = true;
	}
	if (m && r >= 0)
		r = find(c, f, &types, &m->types, e);
	if (m && r >= 0)
		r = find_all(c, f, bpf_map_of_maps(m->type) ? &maps : &programs, m->entries,
			     m->n_entries, e);
	return r;
}

int bpf_resolve(struct checkpoint *c, struct error *e)
{
	/* There are more and more of them. */
	for (size_t i = 0; i < c->files->files.n; i++) {
		const struct file_entry *f = c->files->files.v[i];
		int r = resolve(c, f, e);

		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, f), e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int64_t count(const uint64_t *ids, size_t n, uint64_t id)
{
	int64_t found = 0;

	for (size_t i = 0; i < n; i++)
		found += ids[i] == id;
	return found;
}

int64_t bpf_references(const struct checkpoint *c, const struct file_entry *f)
{
	int64_t n = 0;

	vec_for_each (x, &c->files->files) {
		const Reprise__File *m = (*x)->ops ? (*x)->msg : NULL;

		if (m && m->bpf_program)
			n += count(m->bpf_program->maps, m->bpf_program->n_maps, f->id);
		if (m && m->bpf_map)
			n += count(m->bpf_map->entries, m->bpf_map->n_entries, f->id);
	}
	return n;
}
