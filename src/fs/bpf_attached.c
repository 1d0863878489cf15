/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket has a struct sk_filter, which refers to the program, and which the sockets that it
 * accepts share with it. SO_GET_FILTER refuses to tell of a program that is no classic one; the
 * kernel's memory has its number, by which it is opened and saved like any other.
 */
#include "fs/bpf_attached.h"

#include <errno.h>
#include <sys/socket.h>
#include <linux/bpf.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_rewrite.h"
#include "fs/file_private.h"

/* ---- checkpoint ---- */

static int find(struct kernel_memory *k, int fd, uint64_t *ret_filter, uint32_t *ret_number)
{
	const int to_filter[] = {kernel_offset(k, "file", "private_data"),
				 kernel_offset(k, "socket", "sk"),
				 kernel_offset(k, "sock", "sk_filter")};
	const int to_number[] = {kernel_offset(k, "sk_filter", "prog"),
				 kernel_offset(k, "bpf_prog", "aux"),
				 kernel_offset(k, "bpf_prog_aux", "id")};
	int r = kernel_of_file(k, fd, to_filter, 3, ret_filter, sizeof(*ret_filter));

	if (r >= 0 && !*ret_filter)
		return -EAGAIN;
	return r < 0 ? r
		     : kernel_chase(k, *ret_filter, to_number, 3, ret_number, sizeof(*ret_number));
}

int bpf_attached_note_by(struct checkpoint *c, const struct file_seen *f, uint64_t holder,
			 uint32_t number, uint64_t *to, struct error *e)
{
	struct socket_program *x = vec_push(&c->files->programs);

	if (!x)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	*x = (struct socket_program){
		.socket = f->entry, .to = to, .holder = holder, .number = number};
	return 0;
}

int bpf_attached_note(struct checkpoint *c, const struct file_seen *f, Reprise__Socket *m,
		      struct error *e)
{
	struct kernel_memory *k = NULL;
	struct error ignored = {};
	uint64_t filter = 0;
	uint32_t number = 0;

	if (files_kernel_memory(c, &k, &ignored) < 0 || find(k, f->local, &filter, &number) < 0)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"a BPF program is attached to the socket (SO_ATTACH_BPF), of which "
			"only the memory of the kernel tells");
	return bpf_attached_note_by(c, f, filter, number, &m->program, e);
}

static int save(struct checkpoint *c, const struct socket_program *x, struct error *e)
{
	union bpf_attr attr;
	int fd;

	memset(&attr, 0, sizeof(attr));
	attr.prog_id = x->number;
	fd = kernel_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	if (fd < 0)
		return error_errno(e, fd, fd == -EPERM ? E_PERMISSION : E_FILE_STATE,
				   "the BPF program that is attached to it cannot be opened");
	return file_in_flight(c, x->socket, fd, x->to, e);
}

int bpf_attached_save(struct checkpoint *c, struct error *e)
{
	vec_for_each (x, &c->files->programs) {
		/* Of one that was refused, while checking, there is nothing more to be said. */
		int r = x->number ? save(c, x, e) : 0;

		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, x->socket), e);
		if (r < 0)
			return r;
	}
	return 0;
}

int64_t bpf_attached_count(const struct checkpoint *c, uint64_t number)
{
	int64_t n = 0;

	vec_for_each (x, &c->files->programs) {
		bool first = x->number == number;

		for (const struct socket_program *y = c->files->programs.v; y < x && first; y++)
			first = y->holder != x->holder;
		n += first;
	}
	return n;
}

/* ---- restart ---- */

int bpf_attached_give(struct restart *r, int fd, int option, uint64_t id, struct error *e)
{
	struct file_open *program = id ? file_open_find(r, id) : NULL;
	int res = 0;

	if (!id)
		return 0;
	if (!program || !program->msg->bpf_program)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a socket with a program that is none");
	if (program->fd < 0)
		res = file_open_now(r, program, e);
	if (res >= 0 && setsockopt(fd, SOL_SOCKET, option, &program->fd, sizeof(program->fd)) < 0)
		res = error_errno(e, -errno, E_RESTORE, "cannot attach a BPF program to a socket");
	return res;
}

int bpf_attached_restore(struct restart *r, int fd, const Reprise__Socket *m, struct error *e)
{
	return bpf_attached_give(r, fd, SO_ATTACH_BPF, m->program, e);
}
