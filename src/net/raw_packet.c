/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet has to be like that is sent again as it was; of images and of queues. */
#include "net/raw_packet.h"

#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <sys/socket.h>

#include "net/inet.h"

#define ICMP_TYPE_EXTENDED_ECHO	 42
#define ICMP_TYPE_EXTENDED_REPLY 43

/* Other protocols of the kernel take out what is in a packet and take it for another one, or would
 * answer. */
bool raw_protocol_harmless(const Reprise__Socket *m)
{
	static const int acting[] = {IPPROTO_IPIP, IPPROTO_IPV6,   IPPROTO_GRE,	 IPPROTO_ESP,
				     IPPROTO_AH,   IPPROTO_COMP,   IPPROTO_SCTP, IPPROTO_DCCP,
				     IPPROTO_TCP,  115 /* L2TP */, IPPROTO_MPLS};
	/* Those that are headers in front of others. */
	static const int extensions[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT,
					 IPPROTO_NONE,	  IPPROTO_DSTOPTS, IPPROTO_MH};

	for (size_t i = 0; i < sizeof(acting) / sizeof(acting[0]); i++)
		if (m->protocol == acting[i])
			return false;
	for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++)
		if (m->family == AF_INET6 && m->protocol == extensions[i])
			return false;
	return m->protocol >= 0 && m->protocol < 256;
}

static uint32_t sum_up(const void *data, size_t len, uint32_t sum)
{
	const unsigned char *p = data;

	for (; len > 1; p += 2, len -= 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	return len ? sum + ((uint32_t)p[0] << 8) : sum;
}

static bool sums_up(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* Options that do not change on the way. */
static bool options_plain(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] == IPOPT_RA && i + 4 <= len && p[i + 1] == 4)
			i += 3;
		else if (p[i] != IPOPT_NOP && p[i] != IPOPT_EOL)
			return false;
	}
	return true;
}

static const char *icmp_odd(const Reprise__Socket *m, const uint8_t *body, size_t len)
{
	uint8_t type = len ? body[0] : 0;

	if (len < sizeof(struct icmphdr) || !sums_up(sum_up(body, len, 0)))
		return "it is damaged";
	if (inet_is_ping(m) && type != ICMP_ECHOREPLY)
		return "it is no answer to a ping";
	if (type == ICMP_TYPE_EXTENDED_ECHO || type == ICMP_TYPE_EXTENDED_REPLY)
		return "it is a question about an interface, or an answer to one";
	return NULL;
}

static const char *odd_v4(const Reprise__Socket *m, const uint8_t *packet, size_t len)
{
	struct iphdr h;
	size_t header;

	if (len < sizeof(h))
		return "it is damaged";
	memcpy(&h, packet, sizeof(h));
	header = (size_t)h.ihl * 4;
	if (h.version != 4 || header < sizeof(h) || header > len || ntohs(h.tot_len) != len ||
	    h.protocol != m->protocol)
		return "it is damaged";
	if (!options_plain(packet + sizeof(h), header - sizeof(h)))
		return "it has IP options";
	if (!h.saddr)
		return "its sender had no address yet";
	/* The kernel would choose a number (ip_select_ident_segs()). */
	if (ntohs(h.frag_off) & (IP_MF | IP_OFFMASK) || (!h.id && !(ntohs(h.frag_off) & IP_DF)))
		return "it has no number";
	return m->protocol == IPPROTO_ICMP ? icmp_odd(m, packet + header, len - header) : NULL;
}

static const char *odd_v6(const Reprise__Socket *m, const uint8_t *packet, size_t len)
{
	const uint8_t *body = packet + sizeof(struct ip6_hdr);
	size_t n = len - sizeof(struct ip6_hdr);
	struct ip6_hdr h;

	if (len < sizeof(h))
		return "it is damaged";
	memcpy(&h, packet, sizeof(h));
	if (ntohl(h.ip6_flow) >> 28 != 6 || ntohs(h.ip6_plen) != n)
		return "it is damaged";
	if (h.ip6_nxt != m->protocol)
		return "it has other headers in front";
	if (IN6_IS_ADDR_UNSPECIFIED(&h.ip6_src) || IN6_IS_ADDR_MULTICAST(&h.ip6_src))
		return "its sender had no address yet";
	if (m->protocol != IPPROTO_ICMPV6)
		return NULL;
	if (n < sizeof(struct icmp6_hdr) ||
	    !sums_up(sum_up(
		    body, n,
		    sum_up(&h.ip6_src, 2 * sizeof(h.ip6_src), (uint32_t)n + IPPROTO_ICMPV6))))
		return "it is damaged";
	return inet_is_ping(m) && body[0] != ICMP6_ECHO_REPLY ? "it is no answer to a ping" : NULL;
}

const char *raw_packet_odd(const Reprise__Socket *m, const ProtobufCBinaryData *p)
{
	if (p->len > RAW_PACKET_MAX)
		return "it is too long";
	return m->family == AF_INET ? odd_v4(m, p->data, p->len) : odd_v6(m, p->data, p->len);
}
