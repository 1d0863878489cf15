/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel keeps of an io_uring. fdinfo tells of requests only when they are polled for, and
 * nothing of flags, of the event descriptor or of who may use the rings: with that alone, nobody
 * could say that a ring is idle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/uring_provided.h"

enum { LIST_MAX = 1 << 20 };

/* A copy of one structure, so that its members fit each other. */
struct view {
	struct kernel_memory *k;
	const char *type;
	uint64_t at;
	uint8_t *bytes;
	uint32_t size;
	int failed; /* the first error */
};

static int unknown(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
			 "this kernel keeps its io_uring in a way that is not known");
}

static void view_free(struct view *v)
{
	free(v->bytes);
}

static int view_open(struct view *v)
{
	int size = kernel_size(v->k, v->type);

	if (size < 0)
		return size;
	v->size = (uint32_t)size;
	v->bytes = calloc(1, v->size);
	return v->bytes ? kernel_read(v->k, v->at, v->bytes, v->size) : -ENOMEM;
}

/* Address of a member; size 0: whatever its size is. */
static uint64_t member_at(struct view *v, const char *name, size_t size, uint32_t *ret_offset)
{
	int is = 0, r = kernel_offset_size(v->k, v->type, name, &is);

	if (r >= 0 && ((size && (size_t)is != size) || (size_t)r + size > v->size))
		r = -EOPNOTSUPP;
	if (r < 0) {
		v->failed = v->failed ? v->failed : r;
		return 0;
	}
	*ret_offset = (uint32_t)r;
	return v->at + (uint64_t)r;
}

static uint64_t number(struct view *v, const char *name, size_t size)
{
	uint32_t offset;
	uint64_t n = 0;

	if (member_at(v, name, size, &offset))
		memcpy(&n, v->bytes + offset, size);
	return n;
}

static uint32_t u32(struct view *v, const char *name)
{
	return (uint32_t)number(v, name, 4);
}

static uint64_t u64(struct view *v, const char *name)
{
	return number(v, name, 8);
}

static bool has(struct view *v, const char *name)
{
	return kernel_offset(v->k, v->type, name) >= 0;
}

/* Is a list (struct list_head) empty? */
static bool list_empty(struct view *v, const char *name)
{
	uint32_t offset = 0;
	uint64_t at = member_at(v, name, 16, &offset), next = 0;

	if (at)
		memcpy(&next, v->bytes + offset, sizeof(next));
	return next == at;
}

/* ---- arrays ---- */

#define SLOTS_MAX 64 /* of a node */
#define DEPTH_MAX 4  /* all have indices of 16 bits */

static bool is_node(uint64_t entry)
{
	return (entry & 3) == 2 && entry > 4096; /* xa_is_node() */
}

static int walk(struct kernel_memory *k, uint64_t entry, uint64_t index, int depth,
		uring_entry_fn *each, struct uring_seen *s)
{
	uint64_t slots[SLOTS_MAX];
	uint8_t shift;
	int size, offset, r;

	if (!entry || (!is_node(entry) && (entry & 3)))
		return 0;
	if (!is_node(entry))
		return each(k, index, entry, s);
	offset = kernel_offset_size(k, "xa_node", "slots", &size);
	if (offset < 0 || size > (int)sizeof(slots) || depth == DEPTH_MAX)
		return offset < 0 ? offset : -EOPNOTSUPP;
	r = kernel_member(k, entry - 2, "xa_node", "shift", &shift, sizeof(shift));
	if (r >= 0)
		r = kernel_read(k, entry - 2 + (uint64_t)offset, slots, (size_t)size);
	for (uint64_t i = 0; i < (uint64_t)size / 8 && r >= 0; i++)
		r = walk(k, slots[i], index + (i << (shift & 63)), depth + 1, each, s);
	return r;
}

int uring_array(struct kernel_memory *k, uint64_t head, uring_entry_fn *each, struct uring_seen *s)
{
	return walk(k, head, 0, 0, each, s);
}

/* ---- requests ---- */

/* Requests that are kept for the next use, of all that have been allocated. */
static int count_free(struct view *ctx, uint32_t *ret)
{
	uint64_t at = number(ctx, "submit_state.free_list", 8);
	uint32_t n = 0;
	int r = 0;

	/* struct io_wq_work_node: nothing but the address of the next */
	for (; at && r >= 0; n++)
		r = n < LIST_MAX ? kernel_read(ctx->k, at, &at, sizeof(at)) : -EAGAIN;
	*ret = n;
	return r;
}

static int look_at_requests(struct view *ctx, struct uring_seen *s)
{
	uint32_t allocated = u32(ctx, "nr_req_allocated"), unused = 0;
	int r = count_free(ctx, &unused);

	if (r >= 0)
		r = uring_flight(ctx->k, ctx->at, s);
	if (r < 0 || ctx->failed)
		return r < 0 ? r : ctx->failed;
	if (unused > allocated)
		return -EAGAIN;
	s->in_flight = allocated - unused;
	s->waiting = u64(ctx, "cancelable_uring_cmd") != 0;
	/* messages of other rings, and what else was left for the task to do */
	if (u64(ctx, "work_llist") || u64(ctx, "retry_llist") || u64(ctx, "fallback_llist"))
		s->in_flight++;
	return 0;
}

/* ---- what is set and registered ---- */

/* A bit field. */
static bool flag(struct view *v, const char *name)
{
	int bit = kernel_bit(v->k, v->type, name);

	if (bit < 0 || (uint32_t)bit / 8 >= v->size) {
		v->failed = v->failed ? v->failed : bit < 0 ? bit : -EOPNOTSUPP;
		return false;
	}
	return v->bytes[bit / 8] >> bit % 8 & 1;
}

static uint64_t dropped_bit(struct kernel_memory *k)
{
	int bit = kernel_enumerator(k, "IO_CHECK_CQ_DROPPED_BIT");

	return bit >= 0 && bit < 64 ? 1ull << bit : 0;
}

static const char *find_obstacle(struct view *ctx, uint32_t flags)
{
	if (flags & ~(URING_FLAGS | IORING_SETUP_ATTACH_WQ))
		return "it was made with flags of io_uring_setup() that cannot be set anew";
	if ((flags & URING_SETUP_NO_MMAP) && (flags & IORING_SETUP_SQPOLL))
		return "its rings are in memory of the application (IORING_SETUP_NO_MMAP), and a "
		       "thread of the kernel submits (IORING_SETUP_SQPOLL), which might look "
		       "while they are filled";
	if ((flags & URING_LARGE_CQES) && !list_empty(ctx, "cq_overflow_list"))
		return "completions of other sizes (IORING_SETUP_CQE32) wait outside of the ring, which is "
		       "full";
	if (has(ctx, "zcrx_ctxs") && number(ctx, "zcrx_ctxs.xa_head", 8))
		return "a queue of a network interface is registered";
	if (u64(ctx, "cq_wait_arg") || number(ctx, "param_region.ptr", 8))
		return "memory for its parameters is registered";
	if (flag(ctx, "drain_next"))
		return "the next request waits for all before it (IOSQE_IO_DRAIN in a chain)";
	if (u64(ctx, "check_cq") & dropped_bit(ctx->k))
		return "a completion was lost for want of memory, and the application is still to "
		       "be told";
	return NULL;
}

/* napi_track_mode */
#define NAPI_DYNAMIC  0
#define NAPI_INACTIVE 255

static void look_at_napi(struct view *ctx, struct uring_seen *s)
{
	uint64_t mode = NAPI_INACTIVE;

	if (has(ctx, "napi_track_mode"))
		mode = number(ctx, "napi_track_mode", 1);
	if (mode == NAPI_INACTIVE)
		return;
	s->napi = true;
	s->napi_us = (uint32_t)(number(ctx, "napi_busy_poll_dt", 8) / 1000);
	s->napi_prefer = number(ctx, "napi_prefer_busy_poll", 1);
	if (mode != NAPI_DYNAMIC)
		s->obstacle = "busy polling is registered for certain queues of interfaces (NAPI)";
}

static int look_at_eventfd(struct view *ctx, struct uring_seen *s)
{
	uint64_t at = u64(ctx, "io_ev_fd");
	uint32_t async = 0;
	int r = 0;

	if (!at)
		return 0;
	r = kernel_member(ctx->k, at, "io_ev_fd", "cq_ev_fd", &s->eventfd, 8);
	if (r >= 0)
		r = kernel_member(ctx->k, at, "io_ev_fd", "eventfd_async", &async, 4);
	s->eventfd_async = async != 0;
	return r;
}

static void look_at_memory(struct view *ctx, struct uring_seen *s)
{
	static const char *const names[2][2] = {{"ring_region.pages", "ring_region.nr_pages"},
						{"sq_region.pages", "sq_region.nr_pages"}};

	for (int i = 0; i < 2 && s->flags & URING_SETUP_NO_MMAP; i++) {
		s->own[i].pages = u64(ctx, names[i][0]);
		s->own[i].n_pages = u32(ctx, names[i][1]);
	}
}

static int look_at_resources(struct view *ctx, struct uring_seen *s)
{
	s->n_files = (uint32_t)number(ctx, "file_table.data.nr", 4);
	s->files = number(ctx, "file_table.data.nodes", 8);
	s->n_buffers = (uint32_t)number(ctx, "buf_table.nr", 4);
	s->buffers = number(ctx, "buf_table.nodes", 8);
	if (s->n_files > URING_SLOTS_MAX || s->n_buffers > URING_SLOTS_MAX)
		return -EOPNOTSUPP;
	return ctx->failed;
}

/* The low bits of the address say what kind of file it is (FFS_MASK). */
#define FILE_MASK (~3ull)

int uring_node(struct kernel_memory *k, uint64_t array, uint32_t slot, bool file,
	       struct uring_node *ret, struct error *e)
{
	uint32_t length = 0;
	uint64_t node, what;
	uint8_t kernels = 0;
	int r = kernel_read(k, array + 8ull * slot, &node, sizeof(node));

	*ret = (struct uring_node){};
	if (r >= 0 && !node)
		return 0;
	if (r >= 0)
		r = kernel_member(k, node, "io_rsrc_node", "tag", &ret->tag, 8);
	if (r >= 0)
		r = kernel_member(k, node, "io_rsrc_node", file ? "file_ptr" : "buf", &what, 8);
	if (r >= 0 && file) {
		ret->file = what & FILE_MASK;
	} else if (r >= 0) {
		ret->buffer = what;
		r = kernel_member(k, what, "io_mapped_ubuf", "ubuf", &ret->address, 8);
		if (r >= 0)
			r = kernel_member(k, what, "io_mapped_ubuf", "len", &length, 4);
		if (r >= 0)
			r = kernel_member(k, what, "io_mapped_ubuf", "is_kbuf", &kernels, 1);
		ret->length = length;
		if (r >= 0 && kernels)
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "buffer %u that is registered belongs to the kernel",
					 slot);
	}
	return r < 0 ? unknown(e) : 1;
}

/* ---- who uses it ---- */

/* The id of a task in the pid namespace that stands at `level` around it. */
static int tid_of(struct kernel_memory *k, uint64_t task, int level, uint64_t ns, uint64_t *ret_ns,
		  pid_t *ret)
{
	struct {
		int32_t nr;
		uint32_t unused;
		uint64_t ns;
	} upid;
	uint32_t own;
	uint64_t pid;
	int numbers = kernel_offset(k, "pid", "numbers");
	int r = kernel_member(k, task, "task_struct", "thread_pid", &pid, 8);

	*ret = 0;
	if (r < 0 || !pid) /* it has ended */
		return r;
	r = kernel_member(k, pid, "pid", "level", &own, 4);
	if (r >= 0 && numbers < 0)
		r = numbers;
	if (r >= 0 && level < 0)
		level = (int)own;
	if (r < 0 || (uint32_t)level > own)
		return r;
	r = kernel_read(k, pid + (uint64_t)numbers + sizeof(upid) * (uint32_t)level, &upid,
			sizeof(upid));
	if (r >= 0 && (!ns || upid.ns == ns))
		*ret = upid.nr;
	if (r >= 0 && ret_ns)
		*ret_ns = upid.ns;
	return r < 0 ? r : level;
}

/* The rings that a thread knows by numbers of its own. */
static int look_at_numbers(struct kernel_memory *k, uint64_t task, pid_t tid, struct uring_seen *s)
{
	uint64_t at, rings[URING_NUMBERS];
	int r = kernel_member(k, task, "task_struct", "io_uring", &at, 8);

	if (r < 0 || !at)
		return r;
	r = kernel_member(k, at, "io_uring_task", "registered_rings", rings, sizeof(rings));
	for (uint32_t i = 0; i < URING_NUMBERS && r >= 0; i++) {
		struct ring_number *n = rings[i] ? vec_push(&s->numbers) : NULL;

		if (n)
			*n = (struct ring_number){tid, i, rings[i]};
		else if (rings[i])
			r = -ENOMEM;
	}
	return r;
}

static int add_user(struct kernel_memory *k, uint64_t task, int level, uint64_t ns, uint64_t mm,
		    struct uring_seen *s)
{
	uint64_t own = 0;
	pid_t tid, *slot;
	int r = tid_of(k, task, level, ns, NULL, &tid);

	if (r < 0 || !tid)
		return r;
	r = kernel_member(k, task, "task_struct", "mm", &own, 8);
	if (r >= 0)
		r = look_at_numbers(k, task, tid, s);
	if (r < 0)
		return r;
	slot = vec_push(&s->users);
	if (!slot)
		return -ENOMEM;
	*slot = tid;
	if (own == mm) {
		*slot = s->users.v[s->n_makers];
		s->users.v[s->n_makers++] = tid;
	}
	return 0;
}

/* The list of struct io_tctx_node: one for each task that has used it and lives. */
static int look_at_users(struct view *ctx, uint64_t leader, struct uring_seen *s)
{
	uint64_t submitter = u64(ctx, "submitter_task"), mm = u64(ctx, "mm_account");
	uint64_t current, at, ns = 0;
	uint32_t offset = 0;
	uint64_t list = member_at(ctx, "tctx_list", 16, &offset);
	pid_t self;
	int level, r = kernel_task(ctx->k, (pid_t)syscall(SYS_gettid), &current);

	if (r < 0 || ctx->failed)
		return r < 0 ? r : ctx->failed;
	level = tid_of(ctx->k, current, -1, 0, &ns, &self);
	if (level < 0)
		return level;
	memcpy(&at, ctx->bytes + offset, sizeof(at));
	for (int i = 0; at != list; i++) {
		uint64_t task;

		r = i < LIST_MAX ? kernel_member(ctx->k, at, "io_tctx_node", "task", &task, 8)
				 : -EAGAIN;
		if (r >= 0 && task != s->poller)
			r = add_user(ctx->k, task, level, ns, mm, s);
		if (r >= 0)
			r = kernel_read(ctx->k, at, &at, sizeof(at));
		if (r < 0)
			return r;
	}
	if (submitter) {
		r = tid_of(ctx->k, submitter, level, ns, NULL, &s->submitter);
		if (r >= 0 && !s->submitter)
			s->obstacle = "the thread that alone may use it has ended";
	}
	if (leader && r >= 0)
		r = tid_of(ctx->k, leader, level, ns, NULL, &s->poller_leader);
	vec_for_each (f, &s->flight)
		if (r >= 0 && s->poller && f->task_struct == s->poller)
			f->task = s->submitter ? s->submitter : s->poller_leader;
		else if (r >= 0)
			r = tid_of(ctx->k, f->task_struct, level, ns, NULL, &f->task);
	return r < 0 ? r : 0;
}

/* ---- all of it ---- */

void uring_seen_free(struct uring_seen *s)
{
	vec_for_each (f, &s->flight) {
		free(f->memory);
		vec_free(&f->patches);
	}
	vec_free(&s->users);
	vec_free(&s->given);
	vec_free(&s->overflow);
	vec_free(&s->flight);
	vec_free(&s->numbers);
	vec_free(&s->personalities);
}

static int look(struct view *ctx, struct uring_seen *s)
{
	uint32_t offset = 0;
	uint64_t leader = 0;
	int r = view_open(ctx);

	if (r < 0)
		return r;
	s->flags = u32(ctx, "flags");
	s->sq_entries = u32(ctx, "sq_entries");
	s->cq_entries = u32(ctx, "cq_entries");
	s->sq_head = u32(ctx, "cached_sq_head");
	s->cq_tail = u32(ctx, "cached_cq_tail");
	s->cq_timeouts = u32(ctx, "cq_timeouts");
	s->alloc_start = u32(ctx, "file_alloc_start");
	s->alloc_end = u32(ctx, "file_alloc_end");
	s->clock = (int32_t)u32(ctx, "clockid");
	if (member_at(ctx, "iowq_limits", sizeof(s->workers), &offset))
		memcpy(s->workers, ctx->bytes + offset, sizeof(s->workers));
	s->obstacle = find_obstacle(ctx, s->flags);
	look_at_napi(ctx, s);
	look_at_memory(ctx, s);
	s->drain_disabled = flag(ctx, "drain_disabled");
	r = look_at_resources(ctx, s);
	if (r >= 0)
		r = uring_personality_look(ctx->k, ctx->at, s);
	if (r >= 0)
		r = look_at_requests(ctx, s);
	if (r >= 0)
		r = uring_provided_look(ctx->k, ctx->at, s);
	if (r >= 0 && !list_empty(ctx, "cq_overflow_list"))
		r = uring_overflow_look(ctx->k, member_at(ctx, "cq_overflow_list", 16, &offset), s);
	if (r >= 0)
		r = look_at_eventfd(ctx, s);
	if (r >= 0 && s->flags & IORING_SETUP_SQPOLL)
		r = uring_poll_look(ctx->k, ctx->at, u64(ctx, "rings"), s, &leader);
	if (r >= 0)
		r = look_at_users(ctx, leader, s);
	if (r >= 0)
		r = uring_restrict_look(ctx->k, ctx->at, &s->restricted);
	return ctx->failed ? ctx->failed : r;
}

int uring_look(struct kernel_memory *k, int fd, struct uring_seen *ret, struct error *e)
{
	_cleanup_(view_free) struct view ctx = {.k = k, .type = "io_ring_ctx"};
	uint64_t file;
	int r = kernel_file(k, fd, &file);

	*ret = (struct uring_seen){};
	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &ctx.at, sizeof(ctx.at));
	ret->ctx = ctx.at;
	if (r >= 0)
		r = look(&ctx, ret);
	if (r >= 0)
		return 0;
	uring_seen_free(ret);
	if (r == -ENOMEM)
		return error_set(e, r, E_NO_MEMORY, "no memory for an io_uring");
	/* What moves under our eyes moves in a check only, where it does not matter. */
	return r == -EAGAIN || r == -EFAULT ? -EAGAIN : unknown(e);
}
