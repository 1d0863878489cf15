/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of packet sockets, partly read, in the middle: what is unread is there, and packets
 * come where the program looks for the next.
 *
 * needs: root
 * network: own
 * may-refuse: kernel-too-old
 * not-in: both: the original gets the same packets
 */
#include "harness.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROTOCOL 0x88b6
#define BLOCK	 4096
#define BLOCKS	 4
#define FRAME	 1024
#define FRAMES	 (BLOCK / FRAME * BLOCKS)
#define HEADER	 14

struct ring {
	int fd, version, protocol;
	unsigned char *at;
	unsigned int next; /* of the program: frame or block */
	unsigned int size, units;
};

static struct sockaddr_ll address(int protocol)
{
	return (struct sockaddr_ll){.sll_family = AF_PACKET,
				    .sll_protocol = htons((uint16_t)protocol),
				    .sll_ifindex = 1,
				    .sll_halen = 6};
}

static void send_packet(int protocol, char byte)
{
	struct sockaddr_ll to = address(protocol);
	char data[50] = {byte};
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0);

	CHECK_EQUAL(sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)), 50);
	close(fd);
}

static struct ring make(int version, int what, int protocol)
{
	struct tpacket_req3 req = {.tp_block_size = BLOCK,
				   .tp_block_nr = BLOCKS,
				   .tp_frame_size = FRAME,
				   .tp_frame_nr = FRAMES,
				   .tp_retire_blk_tov = 1};
	struct ring r = {.version = version, .protocol = protocol};
	/* One that sends without a protocol receives nothing. */
	struct sockaddr_ll at = address(what == PACKET_TX_RING ? 0 : protocol);

	r.fd = socket(AF_PACKET, what == PACKET_TX_RING ? SOCK_DGRAM : SOCK_RAW, 0);
	CHECK(!setsockopt(r.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)));
	CHECK(!setsockopt(r.fd, SOL_PACKET, what, &req,
			  version == TPACKET_V3 ? sizeof(req) : sizeof(struct tpacket_req)));
	r.at = mmap(NULL, BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
	CHECK(r.at != MAP_FAILED);
	CHECK(!bind(r.fd, (struct sockaddr *)&at, sizeof(at)));
	r.size = version == TPACKET_V3 ? BLOCK : FRAME;
	r.units = version == TPACKET_V3 ? BLOCKS : FRAMES;
	return r;
}

static volatile uint32_t *status(const struct ring *r, unsigned int i)
{
	unsigned char *at = r->at + (size_t)(i % r->units) * r->size;

	return r->version == TPACKET_V3 ? &((struct tpacket_block_desc *)at)->hdr.bh1.block_status
					: (uint32_t *)at;
}

/* The next packet in the ring, of the expected contents; blocks hold one each. */
static void take(struct ring *r, char byte)
{
	unsigned char *at = r->at + (size_t)(r->next % r->units) * r->size, *data;
	struct pollfd p = {.fd = r->fd, .events = POLLIN};

	CHECK_EQUAL(poll(&p, 1, 3000), 1);
	CHECK(*status(r, r->next) & TP_STATUS_USER);
	if (r->version == TPACKET_V3) {
		struct tpacket_block_desc *d = (struct tpacket_block_desc *)at;
		struct tpacket3_hdr *h;

		CHECK_EQUAL(d->hdr.bh1.num_pkts, 1);
		h = (struct tpacket3_hdr *)(at + d->hdr.bh1.offset_to_first_pkt);
		data = (unsigned char *)h + h->tp_mac;
	} else if (r->version == TPACKET_V2) {
		data = at + ((struct tpacket2_hdr *)at)->tp_mac;
	} else {
		data = at + ((struct tpacket_hdr *)at)->tp_mac;
	}
	CHECK_EQUAL(data[HEADER], byte);
	*status(r, r->next) = TP_STATUS_KERNEL;
	r->next++;
}

static void fill(struct ring *r, char byte)
{
	unsigned char *at = r->at + (size_t)r->next * FRAME;
	struct tpacket2_hdr *h = (struct tpacket2_hdr *)at;

	CHECK_EQUAL(h->tp_status, TP_STATUS_AVAILABLE);
	h->tp_len = 50;
	at[TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)] = (unsigned char)byte;
	h->tp_status = TP_STATUS_SEND_REQUEST;
	r->next++;
}

static void flush(const struct ring *r)
{
	struct sockaddr_ll to = address(r->protocol);

	CHECK(sendto(r->fd, NULL, 0, 0, (struct sockaddr *)&to, sizeof(to)) >= 0);
}

int main(void)
{
	struct ring receive[3], sender;
	int plain = socket(AF_PACKET, SOCK_DGRAM, 0);
	struct sockaddr_ll at = address(PROTOCOL + 3);
	char is[100];

	test_init();
	for (int v = TPACKET_V1; v <= TPACKET_V3; v++) {
		struct ring *r = &receive[v];

		*r = make(v, PACKET_RX_RING, PROTOCOL + v);
		for (char c = 'a'; c < 'd'; c++) {
			send_packet(PROTOCOL + v, c);
			/* Until the block has been closed: one packet in each. */
			while (!(*status(r, (unsigned int)(c - 'a')) & TP_STATUS_USER))
				test_sleep(0.001);
		}
		take(r, 'a');
		take(r, 'b');
	}
	CHECK(!bind(plain, (struct sockaddr *)&at, sizeof(at)));
	sender = make(TPACKET_V2, PACKET_TX_RING, PROTOCOL + 3);
	for (char c = 'a'; c < 'd'; c++)
		fill(&sender, c);
	flush(&sender);
	for (char c = 'a'; c < 'd'; c++) {
		CHECK_EQUAL(recv(plain, is, sizeof(is), 0), 50);
		CHECK_EQUAL(is[0], c);
	}
	fill(&sender, 'd');

	test_wait();
	if (test_break(1))
		*status(&receive[TPACKET_V2], 2) = TP_STATUS_KERNEL;
	if (test_break(2))
		sender.at[3 * FRAME] = 0;
	for (int v = TPACKET_V1; v <= TPACKET_V3; v++) {
		struct ring *r = &receive[v];

		take(r, 'c');
		for (int i = 0; i < 2 * FRAMES; i++) {
			send_packet(PROTOCOL + v, (char)i);
			if (v == TPACKET_V3 && i > 2 * BLOCKS)
				break;
			take(r, (char)i);
		}
	}
	flush(&sender);
	for (int i = 0; i < 2 * FRAMES; i++) {
		CHECK_EQUAL(recv(plain, is, sizeof(is), MSG_DONTWAIT), 50);
		CHECK_EQUAL(is[0], i ? i : 'd');
		sender.next %= FRAMES;
		fill(&sender, (char)(i + 1));
		flush(&sender);
	}
	test_pass();
}
