/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_URING_H
#define REPRISE_FS_URING_H

#include <linux/io_uring.h>
#include <sys/mman.h>

#include "core/kabi.h"
#include "core/kernel_memory.h"
#include "fs/context.h"
#include "fs/uring_numbers.h"

/* Between the files of io_uring. */

/* The kernel's array of page descriptors. */
struct uring_pages {
	uint64_t base;
	uint32_t size;
};

#define URING_GROUPS_MAX 64

/* A ring of buffers (struct io_buffer_list). */
struct uring_provided {
	uint16_t group, head;
	uint32_t entries;
	bool incremental, in_kernel;
	uint32_t min_left; /* of a buffer that is used bit by bit: with less it is used up */
	uint64_t pages;	   /* array of struct page * */
	uint32_t n_pages;
};

/* Buffers given by requests, which follow each other (struct io_buffer). */
struct uring_given {
	uint16_t group, first;
	uint32_t n, length;
	uint64_t address;
};
/* Memory of the application that the kernel holds: an array of page descriptors. */
struct uring_region {
	uint64_t pages, address;
	uint32_t n_pages;
};
#define URING_OWN_PAGES_MAX 8192

/* Credentials that are registered (struct cred). */
struct uring_personality {
	uint32_t id;
	uint64_t cred;
};

#define URING_GIVEN_MAX	   (1 << 20)
#define URING_OVERFLOW_MAX (1 << 20)

#define URING_MEMORY_MAX    (64u * 1024)
#define URING_POINTERS_MAX  2
#define URING_FUTEXES_MAX   128
#define URING_POINTER_ADDR  1u
#define URING_POINTER_ADDR2 2u

/* A part of what a request comes with, which has to stand in the memory of the task while it is
 * submitted, in place of what does. */
struct uring_patch {
	uint64_t address;
	uint32_t at, size;
};

/* A request in flight, as it can be submitted again. */
struct uring_request {
	struct io_uring_sqe sqe; /* without its file, unless that is a registered one */
	uint64_t file;		 /* struct file, 0 none */
	uint64_t task_struct;
	pid_t task;
	uint64_t timeout_ns; /* of a time-out: from now on, or of the day */
	uint64_t nofile;     /* of accept: the limit of open files when it was asked */
	bool linked;	     /* to the one before it */
	/* What it points to, with offsets where addresses within it are to stand, and in the sqe.
	 */
	uint8_t *memory;
	uint32_t memory_size;
	uint32_t pointers[URING_POINTERS_MAX];
	uint32_t n_pointers;
	uint32_t sqe_pointers; /* URING_POINTER_* */
	VEC(struct uring_patch) patches;
};

/* A file that nothing but its slot refers to, by the address of its struct file; 0: none. */
struct uring_alone {
	uint64_t file, id;
};

/* Flags that the kernel gives to a request (REQ_F_*), as they are in this one. */
struct uring_bits {
	bool known;
	uint64_t creds, buffer_node, buffer_held;
};

/* Operations by bits, and IOSQE_*. */
struct uring_restricted {
	bool registered;
	uint64_t registrations[2], operations[2];
	uint8_t allowed, required;
};

/*
 * What the kernel keeps of a ring, as far as it concerns us (struct io_ring_ctx). All but what is
 * shared with the application is told in no other way.
 */
struct uring_seen {
	uint64_t ctx;
	uint32_t flags;
	uint32_t sq_entries, cq_entries;
	uint32_t sq_head, cq_tail; /* the kernel's own counters */
	uint32_t cq_timeouts;	   /* completions that do not count for time-outs with a number */
	uint32_t in_flight;	   /* requests that are under way, of whatever kind */
	uint32_t waiting;	   /* lists of those that wait for somebody: may be for ever */
	VEC(struct uring_request) flight; /* those that can be submitted again, but for */
	bool holds;			  /* of these: the last wait for all before them */
	uint32_t n_notices;		  /* requests of the kernel's own that belong to these */
	uint32_t strange;		  /* of these: cannot */
	const char *why;		  /* that is, if it can be said of one; else NULL */
	struct uring_bits bits;
	uint64_t poller;      /* struct task_struct of the thread of the kernel that submits */
	pid_t poller_leader;  /* of its process */
	uint64_t poller_data; /* struct io_sq_data, of so many rings */
	uint32_t poller_users;
	int32_t poller_cpu;
	uint32_t poller_idle; /* jiffies */
	uint32_t sq_tail;     /* with a poller: what it is going to take */
	pid_t submitter;      /* the only thread that may use it; 0 no such */
	VEC(pid_t)
	users; /* threads that have used it; first those of the address space in which it
		  was made */
	uint32_t n_makers;
	VEC(struct ring_number) numbers; /* of those threads, for any rings */
	const struct ring_number *kept;	 /* the same, for later */
	size_t n_kept;
	uint64_t eventfd; /* struct eventfd_ctx */
	bool eventfd_async;
	bool drain_disabled; /* IOSQE_IO_DRAIN is refused since one asked for no completion */
	const struct uring_alone *alone; /* by slot */
	uint32_t n_files, n_buffers;
	uint64_t files, buffers; /* arrays of struct io_rsrc_node * */
	uint32_t alloc_start, alloc_end;
	int32_t clock;
	bool napi, napi_prefer; /* busy polling */
	uint32_t napi_us;
	uint32_t workers[2];
	struct uring_provided provided[URING_GROUPS_MAX];
	uint32_t n_provided;
	VEC(struct uring_given) given;
	VEC(struct io_uring_cqe) overflow; /* completions for which there was no room */
	struct uring_restricted restricted;
	VEC(struct uring_personality) personalities;
	uint32_t personality_next;
	struct uring_region own[2]; /* with IORING_SETUP_NO_MMAP: rings, requests */
	struct uring_pages pages;   /* if buffers are registered or provided */
	const char *obstacle; /* something registered or set that cannot be set anew; NULL none */
};

struct uring_node {
	uint64_t tag;
	uint64_t file; /* struct file */
	uint64_t address, length;
	uint64_t buffer; /* struct io_mapped_ubuf */
};

/* -EOPNOTSUPP, with a sentence, where this kernel has other structures than are known. */
int uring_look(struct kernel_memory *k, int fd, struct uring_seen *ret, struct error *e) must_check;
void uring_seen_free(struct uring_seen *s);
/* Adds those that wait, to s->flight. */
int uring_flight(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s) must_check;
/* What is registered in a slot: 0 if it is empty, else 1. */
int uring_node(struct kernel_memory *k, uint64_t array, uint32_t slot, bool file,
	       struct uring_node *ret, struct error *e) must_check;
/* Found out by means of a ring of ours. */
int uring_page_base(struct checkpoint *c, struct kernel_memory *k, struct uring_pages *ret,
		    struct error *e) must_check;
/* Where an array of page descriptors is found one behind the other in the memory of a task, by its
 * maps and pagemap; *ret 0: nowhere. */
int uring_find_pages(struct kernel_memory *k, const struct uring_pages *base, uint64_t array,
		     uint32_t n, const char *maps, int pagemap, uint64_t *ret) must_check;
/* The page frame at an address, or of an entry of pagemap; 0: none. */
int uring_frame_at(int pagemap, uint64_t address, uint64_t *ret) must_check;
uint64_t uring_frame_of(uint64_t entry);
/* Is the buffer what the task has at its address? -EFAULT: no. pagemap: /proc/PID/pagemap. */
int uring_buffer_check(struct kernel_memory *k, const struct uring_pages *p, int pagemap,
		       const struct uring_node *node) must_check;

/* Where the parts of the shared memory are, and how large. */
struct uring_layout {
	struct io_sqring_offsets sq;
	struct io_cqring_offsets cq;
	uint64_t rings_size, sqes_size;
};
#define URING_LAYOUT_BYTES (sizeof(struct io_sqring_offsets) + sizeof(struct io_cqring_offsets))
void uring_layout(uint32_t flags, uint32_t sq_entries, uint32_t cq_entries,
		  const struct io_sqring_offsets *sq, const struct io_cqring_offsets *cq,
		  struct uring_layout *ret);

/* What may be mapped: whole, from its beginning. */
static inline bool uring_offset_known(uint64_t offset)
{
	uint64_t group = (offset - URING_OFF_PBUF_RING) >> URING_OFF_PBUF_SHIFT;

	if (offset >= URING_OFF_PBUF_RING)
		return group < URING_OFF_PBUF_GROUPS &&
		       offset == URING_OFF_PBUF_RING + (group << URING_OFF_PBUF_SHIFT);
	return offset == IORING_OFF_SQ_RING || offset == IORING_OFF_CQ_RING ||
	       offset == IORING_OFF_SQES;
}

/* What can be restored of IORING_SETUP_*. */
#define URING_FLAGS                                                                              \
	(IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_IOPOLL | IORING_SETUP_CQSIZE | \
	 IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL |                \
	 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 |           \
	 IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |          \
	 IORING_SETUP_NO_SQARRAY | URING_SETUP_NO_MMAP | URING_SETUP_HYBRID_IOPOLL |             \
	 URING_SETUP_CQE_MIXED)
/* Completions may be of twice the size. */
#define URING_LARGE_CQES     (IORING_SETUP_CQE32 | URING_SETUP_CQE_MIXED)
#define URING_ENTRIES_MAX    32768u
#define URING_CQ_ENTRIES_MAX (2 * URING_ENTRIES_MAX)
#define URING_SLOTS_MAX	     (1u << 20)

/*
 * The kernel's counters of new rings are zero, and move by requests alone: empty ones are submitted
 * until they stand where they stood. Bounded by the time that it takes.
 */
#define URING_COUNT_MAX (1u << 27)
#define URING_ROUND_MAX (1u << 21)

static inline bool uring_can_count(uint32_t sq_entries, uint32_t sq_head, uint32_t cq_tail)
{
	return cq_tail <= URING_COUNT_MAX && sq_head <= URING_COUNT_MAX &&
	       sq_head / sq_entries <= URING_ROUND_MAX && cq_tail / sq_entries <= URING_ROUND_MAX;
}

/* The last completions of a ring that is full, of which the kernel knows that it is. */
static inline uint32_t uring_full(const Reprise__IoUring *m)
{
	return m->overflow.len ? m->cq_entries : 0;
}

/* What we and a task see of the rings. */
struct uring_shared {
	const Reprise__IoUring *m;
	struct uring_layout layout;
	uint8_t *rings, *sqes;
	/* With IORING_SETUP_NO_MMAP these are copies of the memory of this task, and of what was
	 * there at first. */
	const struct restart_task *there;
	uint8_t *kept;
};

static inline volatile uint32_t *uring_word(const struct uring_shared *x, uint32_t offset)
{
	return (volatile uint32_t *)(void *)(x->rings + offset);
}

/* Rings in memory of the application: see uring_own.c. */
int uring_own_find(struct checkpoint *c, struct kernel_memory *k, struct uring_seen *s, pid_t owner,
		   struct error *e) must_check;
void uring_own_save(const struct uring_seen *s, struct uring_layout *l);
bool uring_own_fits(const Reprise__IoUring *m, const struct uring_layout *l);
int uring_own_open(struct uring_shared *x, struct error *e) must_check;
void uring_own_close(struct uring_shared *x);
/* As new rings are; as it was when it was opened. */
int uring_own_clear(struct uring_shared *x, struct error *e) must_check;
int uring_own_put_back(struct uring_shared *x, struct error *e) must_check;
uint64_t uring_own_rings(const struct uring_shared *x);
/* What the kernel has done is seen; it sees what we have: requests, and the rings as a whole or
 * what stands in them of requests. Where the memory is mapped there is nothing to do. */
int uring_pull(struct uring_shared *x, struct error *e) must_check;
int uring_push(struct uring_shared *x, bool completions, struct error *e) must_check;
int uring_push_word(struct uring_shared *x, uint32_t offset, struct error *e) must_check;

/* A kind of which a request in flight can be submitted again, with these IOSQE_*? */
bool uring_kind_fits(uint8_t opcode, uint8_t flags);
bool uring_kind_has_file(uint8_t opcode);

bool uring_in_tree(const struct checkpoint *c, pid_t tid);
int uring_requests_save(const struct checkpoint *c, const struct uring_seen *seen,
			Reprise__IoUring *m, struct scratch *s, struct error *e) must_check;
bool uring_requests_fit(const struct restart *r, const Reprise__IoUring *m);
int uring_requests_check(struct restart *r, const Reprise__IoUring *m, struct error *e) must_check;
bool uring_requests_of(struct restart *r, const Reprise__IoUring *m, uint64_t table);
/* Those of tasks that have the table of t, in the rings of `fd`, which have their contents. What
 * was done with them is to be undone. */
int uring_submit_all(struct restart *r, struct restart_task *t, struct uring_shared *x, int fd,
		     struct error *e) must_check;

/* All entries of an array (struct xarray), by its xa_head, in their order. */
typedef int uring_entry_fn(struct kernel_memory *k, uint64_t index, uint64_t entry,
			   struct uring_seen *s);
int uring_array(struct kernel_memory *k, uint64_t head, uring_entry_fn *each,
		struct uring_seen *s) must_check;

int uring_personality_look(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s) must_check;
/* The number of these credentials; 0: they are not registered. */
uint32_t uring_personality_of(const struct uring_seen *s, uint64_t cred);
/* Refuses those that cannot be had again. */
int uring_personality_save(struct kernel_memory *k, const struct uring_seen *s, Reprise__IoUring *m,
			   struct scratch *scratch, struct error *e) must_check;
bool uring_personality_fits(const Reprise__IoUring *m);
/* A ring that only one task may use once it is enabled, which has to be made disabled. */
bool uring_personality_first(const Reprise__IoUring *m);
int uring_personality_restart(const struct restart *r, const Reprise__IoUring *m, int fd,
			      struct error *e) must_check;

int uring_restrict_look(struct kernel_memory *k, uint64_t ctx,
			struct uring_restricted *ret) must_check;
/* What keeps them from being registered anew; NULL: nothing. */
const char *uring_restrict_obstacle(const struct uring_seen *s);
int uring_restrict_save(const struct uring_seen *s, Reprise__IoUring *m, struct scratch *scratch,
			struct error *e) must_check;
bool uring_restrict_fits(const Reprise__IoUring *m);
/* With everything else registered: restricts the ring, and enables it if it was. */
int uring_restrict_restart(const struct restart_task *t, const Reprise__IoUring *m, int ring,
			   struct error *e) must_check;

/* Two struct cred: the same ids, capabilities and namespace? */
int uring_same_credentials(struct kernel_memory *k, uint64_t a, uint64_t b, bool *ret) must_check;
/* ret_leader: struct task_struct of the process of the thread that submits. */
int uring_poll_look(struct kernel_memory *k, uint64_t ctx, uint64_t rings, struct uring_seen *s,
		    uint64_t *ret_leader) must_check;
int uring_poll_save(struct kernel_memory *k, const struct uring_seen *s, Reprise__IoUring *m,
		    struct error *e) must_check;
/* Has it done anything since? All that requests may have come from has been saved by now. */
int uring_poll_check(struct kernel_memory *k, const struct uring_seen *s,
		     struct error *e) must_check;
int uring_poll_share(struct checkpoint *c, const struct file_entry *ring,
		     struct error *e) must_check;
/* Wakes that thread. */
void uring_poll_wake(int fd);
/* Refuses where what a thread of the kernel does for it (`what`) would be done with other
 * credentials than those that the task had. */
int uring_poll_may(struct restart *r, const struct restart_task *t, const char *what,
		   struct error *e) must_check;
/* Lets it take requests until so many have been taken. */
int uring_poll_submit(struct uring_shared *x, int fd, uint32_t count, struct error *e) must_check;

/* A duplicate of a ring that a task has under the number `remote`. */
int uring_take_over(const struct restart_task *t, int remote, int *ret, struct error *e) must_check;
/* Before a request of this task may wait for a futex. */
int uring_make_worker(const struct restart_task *t, struct error *e) must_check;

/* Completions that wait outside of the rings, in their order: of a list of the kernel. */
int uring_overflow_look(struct kernel_memory *k, uint64_t list, struct uring_seen *s) must_check;
int uring_overflow_restart(struct uring_shared *x, int fd, const struct restart_task *t, int remote,
			   struct error *e) must_check;
/* Posts n completions to the rings of `fd`, number `remote` in the task, and takes them if told to.
 */
int uring_post(struct uring_shared *x, int fd, const struct restart_task *t, int remote, uint32_t n,
	       bool take, struct error *e) must_check;

/* Adds the numbers to the rings that they are of; id_of(arg, file): of the open file. */
int uring_numbers_resolve(struct checkpoint *c, const struct ring_number *numbers, size_t n,
			  uint64_t (*id_of)(const void *arg, uint64_t file), const void *arg,
			  struct error *e) must_check;
/* Refuses those that a thread has told of, and that have not been found. */
int uring_numbers_check(const struct checkpoint *c, struct error *e) must_check;
int uring_numbers_restart(struct restart *r, const Reprise__IoUring *m, int fd,
			  struct error *e) must_check;

/* Files that only rings have: see uring_alone.c. */
int uring_checkpoint_queues(struct checkpoint *c, struct error *e);
uint64_t uring_alone_id(const struct uring_seen *s, uint32_t slot, uint64_t file);
int uring_checkpoint_all(struct checkpoint *c, struct error *e);
int uring_validate(const struct restart *r, const Reprise__File *msg, struct error *e);
int uring_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		  struct error *e);
int uring_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd, struct error *e);
int uring_restart_all(struct restart *r, struct error *e);
int uring_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			struct error *e);
/* Maps the memory of all rings in all processes. */
int uring_map_all(struct restart *r, struct error *e) must_check;
/* Registers files, buffers and the like, by the task that it belongs to. */
int uring_register_all(struct restart *r, struct restart_task *t, const Reprise__IoUring *m, int fd,
		       struct error *e) must_check;

#endif
