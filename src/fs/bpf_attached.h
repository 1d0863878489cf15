/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_ATTACHED_H
#define REPRISE_FS_BPF_ATTACHED_H

#include "fs/context.h"

/* BPF programs that are attached to sockets (SO_ATTACH_BPF), or to groups of them. */

/* The program of a socket that has one: by its number, until all tables have been seen. */
int bpf_attached_note(struct checkpoint *c, const struct file_seen *f, Reprise__Socket *m,
		      struct error *e) must_check;
/* The same of one that something else in the kernel refers to. *to: its open file id, later. */
int bpf_attached_note_by(struct checkpoint *c, const struct file_seen *f, uint64_t holder,
			 uint32_t number, uint64_t *to, struct error *e) must_check;
/* Saves those programs, which nobody need have open. */
int bpf_attached_save(struct checkpoint *c, struct error *e) must_check;
/* How often sockets of the tree refer to a program. */
int64_t bpf_attached_count(const struct checkpoint *c, uint64_t number);
int bpf_attached_restore(struct restart *r, int fd, const Reprise__Socket *m,
			 struct error *e) must_check;
/* By an option of the socket; 0: none. */
int bpf_attached_give(struct restart *r, int fd, int option, uint64_t id,
		      struct error *e) must_check;

#endif
