/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/file_kinds.h"

#include <stddef.h>

#include "ipc/mqueue.h"
#include "net/socket_kinds.h"

/* Asked in this order: those that look at more come first. */
/* clang-format off */
const struct file_ops *const file_kinds[] = {
	&external_file_ops,
	&mqueue_file_ops,
	&outside_file_ops,
	&pipe_file_ops,
	&fifo_file_ops,
	&device_file_ops,
	&kmsg_file_ops,
	&userfaultfd_file_ops,
	&pty_file_ops,
	&tty_outside_file_ops,
	&proc_file_ops,
	&regular_file_ops,
	&nsfs_file_ops,
	&eventfd_file_ops,
	&timerfd_file_ops,
	&signalfd_file_ops,
	&inotify_file_ops,
	&fanotify_file_ops,
	&pidfd_file_ops,
	&epoll_file_ops,
	&uring_file_ops,
	&bpf_map_file_ops,
	&bpf_program_file_ops,
	&bpf_types_file_ops,
	&unix_file_ops,
	&tun_file_ops,
	&inet_file_ops,
	&netlink_file_ops,
	&packet_file_ops,
	&vsock_file_ops,
	NULL,
};
/* clang-format on */
