/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_STATE_H
#define REPRISE_MM_STATE_H

#include "core/scratch.h"
#include "mm/cow.h"
#include "mm/mm.h"
#include "mm/order.h"
#include "mm/pagemap.h"
#include "mm/vma.h"

/* What this room keeps while a checkpoint lasts. */

/* Contents that go into one page group, and whose memory they are read from. */
struct content_run {
	uint64_t start, end;
	size_t source; /* index of a mm_state */
	uint32_t stage;
	bool shared;	   /* copy-on-write with others: see pages_read_shared() */
	uint64_t position; /* in c->store, STORE_NONE: to be read from the task; CONTENT_LATER */
};
#define CONTENT_LATER 1 /* to be read from the copy of the address space, when the tasks run */

struct content_runs {
	struct content_run *v;
	size_t n, cap;
};

/* Pages that were copied before the tasks were stopped, and have not been written since. */
struct kept_span {
	uint64_t start, end;
	uint64_t position; /* in c->store */
};

struct kept_spans {
	struct kept_span *v; /* sorted */
	size_t n, cap;
};

/* A copy as fork makes it, of which the contents are read when the tasks run again. */
struct mm_copy {
	struct span_vec spans;				/* for these mappings; sorted */
	uint64_t bytes;					/* that are to be read */
	struct agent_advice advices[AGENT_ADVICES_MAX]; /* so that it has these, and no others */
	size_t nadvices;
	pid_t pid; /* 0: there is none */
	struct agent *agent;
};

/* One address space. */
struct mm_state {
	uint64_t id;
	size_t process; /* the first one of c->processes that has it */
	pid_t tid;
	struct scratch *scratch;      /* holds msg; of all together */
	Reprise__Mm *msg;	      /* `pages` is filled in at the end */
	struct page_spans pages;      /* what the page table holds */
	uint64_t anonymous;	      /* bytes of private memory in mappings that hold much of it */
	uint64_t untracked;	      /* of these, in mappings that are not tracked */
	struct span_vec maybe_shared; /* mappings with pages that others map too, or in swap */
	struct cow_pages shared; /* own pages that are; frame 0: unknown, for want of privilege */
	struct content_runs contents; /* by stage, then by address */
	struct mm_track *track;	      /* NULL: its memory is not tracked */
	bool known; /* flags of mappings are from before the freeze: see mm_confirm() */
	bool same;  /* and known to be the same in the freeze */
	struct kept_spans kept;
	struct mm_copy copy;
};

struct mapped_cache;

/* Address spaces, by object id: these are small numbers. */
struct mm_seen {
	VEC(bool) ids;
};
/* 1, or 0 if that id has been here before; -ENOMEM. */
int mm_first_sight(struct mm_seen *seen, uint64_t id) must_check;

struct mm_checkpoint {
	VEC(struct mm_state) mms; /* in the order of processes */
	struct scratch scratch;	  /* for records */
	struct mm_seen seen;
	struct mapped_cache *mapped;
	struct aio_checkpoint *aio;
	VEC(struct mm_registered) registered;
	uint64_t page_bytes;
	uint64_t anonymous;    /* bytes that mms hold */
	bool compat_vdso;      /* has been put into the image */
	bool pins_pages;       /* asynchronous I/O writes to pages past the page table */
	struct mm_seen looked; /* by mm_look() */
};

/* What has to be read, in pieces: that is, what has not been copied before. */
typedef int (*mm_unkept_fn)(void *arg, size_t source, uint64_t start, uint64_t end);
int mm_each_unkept(const struct checkpoint *c, mm_unkept_fn fn, void *arg) must_check;
void mm_copy_end(struct mm_copy *copy);
/* Of the copy nothing is needed any more between these addresses. */
int mm_give_up(struct mm_state *m, uint64_t start, uint64_t end, struct error *e) must_check;
/* Places for what was left for later. */
int mm_keep_later(struct checkpoint *c, struct error *e) must_check;
/* Does the memory of the machine, and of the control groups of a task, allow so much more? Where
 * the kernel would end all of a group together (memory.oom.group), it is to be `most`. */
bool mm_has_room(struct checkpoint *c, pid_t tid, uint64_t bytes, uint64_t most);

/*
 * The inode behind a file mapping, by whatever way there is to its descriptor.
 */
int mapped_cache_new(struct mapped_cache **ret) must_check;
void mapped_cache_free(struct mapped_cache *cache);
int mapped_inode(struct checkpoint *c, const struct checkpoint_process *p,
		 const struct vma_list *list, const struct vma *v, uint64_t *ret_id,
		 struct error *e) must_check;
int mapped_exe(struct checkpoint *c, const struct checkpoint_process *p, uint64_t *ret_id,
	       struct error *e) must_check;

/* Whether all of such memory can be seen through the mappings of that task. */
int mm_shadow_check(const struct vma_list *list, const struct vma *v, struct error *e) must_check;
/*
 * A copy of shared anonymous memory, as far as the mappings of a task show it: *ret_covered
 * (offsets). For users who may not open it.
 */
int mm_shadow(struct checkpoint *c, const struct checkpoint_process *p, const struct vma_list *list,
	      const struct vma *v, struct span_vec *ret_covered, int *ret_fd,
	      struct error *e) must_check;
/* /proc/TID/smaps or maps, which lacks what does not stand in the header lines. */
int vmas_read(int proc_fd, pid_t tid, const char *file, struct vma_list *ret,
	      struct error *e) must_check;
/* Of mappings as maps tells them: what is known of the same ones from smaps. false: not of all. */
bool vmas_take_over(struct vma_list *list, const struct vma_list *known);
/* Does smaps cost more than reading it? */
bool vmas_costly(int proc_fd, pid_t tid);
/* smaps, and if it costs much the flags as the kernel has them. */
int vmas_read_raw(struct checkpoint *c, pid_t tid, struct vma_list *ret,
		  struct error *e) must_check;
/* Can the letters of a mapping be those of flags of the kernel? */
bool vma_agrees(const struct vma *v, uint64_t flags);
/* Are they still the same? false: they need not be. */
bool vmas_same_raw(struct checkpoint *c, pid_t tid, const struct vma_list *list);
/* The mappings of a process, by whatever costs least (src/mm/known.c). */
int mm_read_vmas(struct checkpoint *c, const struct checkpoint_process *p, struct mm_state *m,
		 struct vma_list *ret, struct error *e) must_check;

/*
 * Calls fn for every mapping of a kind, once all have been looked at. What it refuses is about the
 * mapping, which `what` names.
 */
int mm_for_each_vma(struct checkpoint *c, uint32_t kind, const char *what,
		    int (*fn)(struct checkpoint *c, Reprise__Vma *v, struct error *e),
		    struct error *e) must_check;

/* What the page table holds: m->pages; and which of the tracked pages have not been written. fd: of
 * /proc/PID/pagemap. */
int mm_scan(struct checkpoint *c, int fd, struct mm_state *m, struct span_vec *ret_unwritten,
	    struct error *e) must_check;
/* Which of the pages are mapped more than once: m->shared. fd: of /proc/PID/pagemap. */
int mm_frames(int fd, struct mm_state *m, struct error *e) must_check;

/* For each process the index of its real parent in c->processes, -1: none of them. Parents come
 * first. */
int mm_process_parents(const struct checkpoint *c, ssize_t *ret) must_check;
/* Their sessions, to be freed; -ENOMEM. */
int mm_process_sessions(const struct checkpoint *c, const ssize_t *parents,
			struct order_session **ret) must_check;

/* Pages shared between relatives: sets parents, stages, contents and page ranges of all records
 * (src/mm/share.c). */
int mm_share(struct checkpoint *c, struct error *e) must_check;

#endif
