/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FILE_KINDS_H
#define REPRISE_FS_FILE_KINDS_H

#include "fs/file.h"

extern const struct file_ops external_file_ops;
extern const struct file_ops outside_file_ops;
extern const struct file_ops nsfs_file_ops, regular_file_ops;
extern const struct file_ops pipe_file_ops;
extern const struct file_ops fifo_file_ops;
extern const struct file_ops device_file_ops;
extern const struct file_ops tty_outside_file_ops;
extern const struct file_ops pty_file_ops;
extern const struct file_ops proc_file_ops;
extern const struct file_ops eventfd_file_ops;
extern const struct file_ops timerfd_file_ops;
extern const struct file_ops signalfd_file_ops;
extern const struct file_ops inotify_file_ops;
extern const struct file_ops kmsg_file_ops;
extern const struct file_ops userfaultfd_file_ops;
extern const struct file_ops fanotify_file_ops;
extern const struct file_ops pidfd_file_ops;
extern const struct file_ops epoll_file_ops;
extern const struct file_ops uring_file_ops;
extern const struct file_ops bpf_map_file_ops;
extern const struct file_ops bpf_program_file_ops;
extern const struct file_ops bpf_types_file_ops;

#endif
