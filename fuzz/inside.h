/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FUZZ_INSIDE_H
#define REPRISE_FUZZ_INSIDE_H

#include <stddef.h>

/* Parsers that are private to their files, each of which is included by one in inside/. */
void fuzz_epoll(char *text);
void fuzz_inotify(char *text);
void fuzz_fanotify(char *text);
void fuzz_igmp(char *text);
void fuzz_igmp6(char *text);
void fuzz_sysv(char *text);
void fuzz_agent_maps(char *text);
/* Answers of netlink. */
void fuzz_genl(const void *message, size_t size);
void fuzz_unix_diag(const void *message, size_t size);
void fuzz_inet_diag(const void *message, size_t size);
void fuzz_packet_diag(const void *message, size_t size);

#endif
