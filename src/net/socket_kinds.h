/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_SOCKET_KINDS_H
#define REPRISE_NET_SOCKET_KINDS_H

#include "fs/file.h"

extern const struct file_ops inet_file_ops;
extern const struct file_ops netlink_file_ops;
extern const struct file_ops packet_file_ops;
extern const struct file_ops tun_file_ops;
extern const struct file_ops unix_file_ops;
extern const struct file_ops vsock_file_ops;

#endif
