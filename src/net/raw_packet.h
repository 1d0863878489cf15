/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_RAW_PACKET_H
#define REPRISE_NET_RAW_PACKET_H

#include <stdbool.h>

#include "net.pb-c.h"

#define RAW_PACKET_MAX 65535

/* Whether the kernel does nothing itself with packets for such a socket, if they come by a gate. */
bool raw_protocol_harmless(const Reprise__Socket *m);
/* Of a packet with its IP header: NULL, or why it cannot be sent again. */
const char *raw_packet_odd(const Reprise__Socket *m, const ProtobufCBinaryData *p);

#endif
