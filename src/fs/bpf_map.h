/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_MAP_H
#define REPRISE_FS_BPF_MAP_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/kabi.h"
#include "core/kernel_memory.h"
#include "core/scratch.h"
#include "fs.pb-c.h"

/* BPF maps, between the files of this subject. All return a negative errno. */

/* What can be set anew. */
#define BPF_MAP_FLAGS                                                                              \
	(BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_ZERO_SEED | \
	 BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG | BPF_F_MMAPABLE | BPF_F_INNER_MAP | BPF_F_CLONE |  \
	 BPF_SEGV_ON_FAULT | BPF_NO_USER_CONV)

enum bpf_shape {
	SHAPE_NONE,
	SHAPE_HASH,
	SHAPE_ARRAY,
	SHAPE_QUEUE,
	SHAPE_RING,
	SHAPE_STORAGE,
	SHAPE_ARENA
};

enum bpf_shape bpf_map_shape(uint32_t type);
bool bpf_map_is_per_cpu(uint32_t type);
/* Its values are other maps, or programs: read as their numbers, written as descriptors. */
bool bpf_map_refers(uint32_t type);
bool bpf_map_of_maps(uint32_t type);
/* Of one entry. */
uint64_t bpf_map_value_bytes(uint32_t type, uint32_t value_size, uint32_t cpus);

int bpf_map_element(int command, int fd, const void *key, const void *value);
int bpf_map_info(int fd, struct bpf_map_info *ret);
/* Another description of a map. access: O_RDWR, O_RDONLY or O_WRONLY. */
int bpf_map_open(uint32_t id, unsigned int access);
int bpf_map_freeze(int fd);
/* Its struct bpf_map. */
int bpf_map_address(struct kernel_memory *k, int fd, uint64_t *ret);

/* Where processes have mapped them (bpf_mapped.c). */
struct checkpoint;
struct restart;
int bpf_mapped_save(struct checkpoint *c, struct error *e) must_check;
int bpf_mapped_restore(struct restart *r, struct error *e) must_check;

/* Those whose values belong to tasks, files, sockets or control groups (bpf_storage.c). */
int bpf_storage_save(struct checkpoint *c, int fd, Reprise__BpfMap *m, struct scratch *s,
		     struct error *e) must_check;
int bpf_storage_resolve(struct checkpoint *c, struct error *e) must_check;
bool bpf_storage_valid(const struct restart *r, const Reprise__BpfMap *m);
int bpf_storage_restore(struct restart *r, struct error *e) must_check;

/* Memory that programs and processes share (bpf_arena.c); filled when it is mapped. */
struct file_entry;
int bpf_arena_save(struct checkpoint *c, int fd, Reprise__BpfMap *m, struct scratch *s,
		   struct error *e) must_check;
int bpf_arena_check(struct checkpoint *c, const struct file_entry *f, struct error *e) must_check;
bool bpf_arena_valid(const Reprise__BpfMap *m);
int bpf_arena_restore(struct restart *r, struct error *e) must_check;

/* ---- making one ---- */

struct bpf_frame {
	uint32_t type, key_size, value_size, max_entries, flags;
};

struct bpf_map_make {
	struct bpf_frame frame;
	const struct bpf_frame *inner; /* of a map of maps: what those in it are like */
	const char *name;	       /* may be NULL */
	uint64_t extra;		       /* map_extra */
	int types;		       /* BTF; -1: none */
	uint32_t key_type, value_type;
};

int bpf_map_make(const struct bpf_map_make *what);
struct bpf_frame bpf_map_frame(const struct bpf_map_info *info);
/* What those in a map of maps are like; -EOPNOTSUPP if that is more than a frame. */
int bpf_map_inner(struct kernel_memory *k, int fd, struct bpf_frame *ret);

/* ---- contents ---- */

#define BPF_KEY_MAX	 4096u
#define BPF_CONTENTS_MAX (256ull << 20)

/* Keys and values as they are found, one after the other. */
struct bpf_contents {
	uint32_t key_size;
	uint64_t value_size, count, room;
	uint8_t *keys, *values;
};

/* Of queues the memory of the kernel tells. */
int bpf_contents_read(struct bpf_contents *c, struct kernel_memory *k, int fd,
		      const struct bpf_map_info *info, uint32_t cpus);
void bpf_contents_free(struct bpf_contents *c);

/* Maps that give up entries; they are put in until all are there. -ENOSPC: they do not stay. */
bool bpf_map_gives_up(uint32_t type);
int bpf_lru_fill(int fd, const struct bpf_contents *all, uint32_t flags);

#endif
