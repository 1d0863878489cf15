/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel and the application go round a ring of frames (of blocks, when receiving in version
 * 3), each for itself. What is in the hands of the application is saved; packets that come after
 * the look at the ring, or are in a block that is still being filled, are lost like those that come
 * while nobody is there. In a new ring the kernel stands at the beginning: it is led to where it
 * stood by packets that mean nothing.
 */
#include "net/packet_ring.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "net/kernel_sock.h"

#define RING_BYTES_MAX (1ul << 30)
#define LOOPBACK_INDEX 1      /* the kernel's LOOPBACK_IFINDEX */
#define LEAD_PROTOCOL  0x88b5 /* for local experiments (IEEE 802) */
#define NO_PROTOCOL    0xffff /* that nobody has */
#define LEAD_BYTES     60
#define LEAD_MAX       60000
/* What the kernel has in front: of a block, with alignment, and of a packet (TPACKET3_HDRLEN, the
 * header of the device, that of virtio). */
#define BLOCK_HEAD     64
#define FRAME_HEAD     128

enum { RECEIVE, SEND };

/* Both rings of a socket as they are mapped, one behind the other. */
struct rings {
	void *at;
	size_t size;
	int version;
	const Reprise__PacketRing *ring[2];
};

static void rings_unmap(struct rings *x)
{
	if (x->at)
		munmap(x->at, x->size);
}

static size_t ring_bytes(const Reprise__PacketRing *x)
{
	return x ? (size_t)x->block_size * x->blocks : 0;
}

static bool by_block(const struct rings *x, int which)
{
	return x->version == TPACKET_V3 && which == RECEIVE;
}

static uint32_t units_of(const struct rings *x, int which)
{
	return by_block(x, which) ? x->ring[which]->blocks : x->ring[which]->frames;
}

static size_t unit_size(const struct rings *x, int which)
{
	return by_block(x, which) ? x->ring[which]->block_size : x->ring[which]->frame_size;
}

/* Frames do not go over the end of a block. */
static unsigned char *unit_at(const struct rings *x, int which, uint32_t i)
{
	const Reprise__PacketRing *ring = x->ring[which];
	uint32_t in_block = by_block(x, which) ? 1 : ring->block_size / ring->frame_size;
	size_t offset = which == SEND ? ring_bytes(x->ring[RECEIVE]) : 0;

	return (unsigned char *)x->at + offset + (size_t)(i / in_block) * ring->block_size +
	       i % in_block * unit_size(x, which);
}

/* Whose it is; zero: the kernel's when receiving, the application's and empty when sending. */
static uint32_t *status_at(const struct rings *x, int which, uint32_t i)
{
	unsigned char *at = unit_at(x, which, i);

	if (by_block(x, which))
		return &((struct tpacket_block_desc *)at)->hdr.bh1.block_status;
	return (uint32_t *)at; /* of version 1 the low half of a long */
}

static uint32_t status_of(const struct rings *x, int which, uint32_t i)
{
	return __atomic_load_n(status_at(x, which, i), __ATOMIC_ACQUIRE);
}

static int map_rings(int fd, const Reprise__PacketSocket *m, int version, struct rings *x,
		     struct error *e)
{
	void *at;

	x->version = version;
	x->ring[RECEIVE] = m->receive;
	x->ring[SEND] = m->send;
	x->size = ring_bytes(m->receive) + ring_bytes(m->send);
	at = mmap(NULL, x->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return error_errno(e, -errno, E_SYSTEM, "cannot map the rings of a packet socket");
	x->at = at;
	return 0;
}

/* ---- checkpoint ---- */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a ring");
}

static int save_shape(const struct packet_info *p, int which, Reprise__PacketRing **ret,
		      struct scratch *s, struct error *e)
{
	const struct packet_diag_ring *is = &p->rings[which];
	Reprise__PacketRing *x;

	if (!p->has_ring[which])
		return 0;
	x = scratch_message(s, Reprise__PacketRing, reprise__packet_ring__init);
	if (!x)
		return no_memory(e);
	*ret = x;
	x->block_size = is->pdr_block_size;
	x->blocks = is->pdr_block_nr;
	x->frame_size = is->pdr_frame_size;
	x->frames = is->pdr_frame_nr;
	x->timeout_ms = is->pdr_retire_tmo;
	x->private_size = is->pdr_sizeof_priv;
	x->features = is->pdr_features;
	return 0;
}

/* The block that was opened last is being filled. */
static uint32_t newest_block(const struct rings *x)
{
	uint64_t newest = 0;
	uint32_t found = 0;

	for (uint32_t i = 0; i < units_of(x, RECEIVE); i++) {
		struct tpacket_block_desc *d = (void *)unit_at(x, RECEIVE, i);
		uint64_t number = __atomic_load_n(&d->hdr.bh1.seq_num, __ATOMIC_ACQUIRE);

		if (number > newest) {
			newest = number;
			found = i;
		}
	}
	return found;
}

static int kernel_head(struct checkpoint *c, int fd, int which, uint32_t *ret, struct error *e)
{
	struct kernel_memory *k = NULL;
	uint64_t sk = 0;
	int r = files_kernel_memory(c, &k, e);

	if (r < 0)
		return r;
	r = kernel_sock(k, fd, &sk);
	if (r >= 0)
		r = kernel_member(k, sk, "packet_sock",
				  which == SEND ? "tx_ring.head" : "rx_ring.head", ret,
				  sizeof(*ret));
	return r < 0 ? error_errno(e, r, E_KERNEL_TOO_OLD,
				   "cannot find out where the kernel stands in its ring")
		     : 0;
}

static int find_head(struct checkpoint *c, int fd, const struct rings *x, int which, uint32_t *ret,
		     struct error *e)
{
	int r = 0;

	if (by_block(x, which))
		*ret = newest_block(x);
	else
		r = kernel_head(c, fd, which, ret, e);
	if (r >= 0 && *ret >= units_of(x, which))
		return error_set(e, -EIO, E_INTERNAL, "a place in a ring that is none");
	return r;
}

/* Has come between the first look and the second: from `from` up to `to`, round the ring. */
static bool is_new(uint32_t i, uint32_t from, uint32_t to)
{
	return from <= to ? i >= from && i < to : i >= from || i < to;
}

static int save_units(const struct rings *x, int which, bool *keep, Reprise__PacketRing *m,
		      struct scratch *s, struct error *e)
{
	uint32_t n = units_of(x, which);

	m->units = scratch_alloc(s, (n + 1ul) * sizeof(*m->units));
	if (!m->units)
		return no_memory(e);
	for (uint32_t i = 0; i < n; i++) {
		Reprise__PacketUnit *u;

		if (!keep[i])
			continue;
		u = scratch_message(s, Reprise__PacketUnit, reprise__packet_unit__init);
		if (!u)
			return no_memory(e);
		u->index = i;
		u->data.len = unit_size(x, which);
		u->data.data = scratch_copy(s, unit_at(x, which, i), u->data.len);
		if (!u->data.data)
			return no_memory(e);
		m->units[m->n_units++] = u;
	}
	return 0;
}

static int save_ring(struct checkpoint *c, int fd, const struct rings *x, int which,
		     Reprise__PacketRing *m, struct scratch *s, struct error *e)
{
	uint32_t n = units_of(x, which), now = 0;
	_cleanup_(free_ptr) bool *keep = calloc(n, sizeof(*keep));
	int r = keep ? find_head(c, fd, x, which, &m->head, e) : no_memory(e);

	for (uint32_t i = 0; r >= 0 && i < n; i++) {
		uint32_t status = status_of(x, which, i);

		keep[i] = status;
		if (which == SEND && status & TP_STATUS_SENDING)
			r = error_set(e, -EBUSY, E_FILE_STATE,
				      "packets of its ring are being sent; try again");
		if (by_block(x, which) && status && i == m->head)
			r = error_set(e, -EBUSY, E_FILE_STATE,
				      "its ring is full of packets that were not read; try again");
	}
	if (r >= 0)
		r = find_head(c, fd, x, which, &now, e);
	for (uint32_t i = 0; r >= 0 && i < n; i++)
		keep[i] &= which == SEND || !is_new(i, m->head, now);
	return r < 0 ? r : save_units(x, which, keep, m, s, e);
}

int packet_ring_save(struct checkpoint *c, int fd, const struct packet_info *p,
		     Reprise__PacketSocket *m, struct scratch *s, struct error *e)
{
	_cleanup_(rings_unmap) struct rings x = {};
	int version = (int)p->info.pdi_version, r;

	if (!p->has_ring[RECEIVE] && !p->has_ring[SEND])
		return 0;
	if (version == TPACKET_V3 && p->has_ring[SEND])
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it has a ring for sending (PACKET_TX_RING) of version 3");
	r = save_shape(p, RECEIVE, &m->receive, s, e);
	if (r >= 0)
		r = save_shape(p, SEND, &m->send, s, e);
	if (r >= 0)
		r = map_rings(fd, m, version, &x, e);
	if (r >= 0 && m->receive)
		r = save_ring(c, fd, &x, RECEIVE, m->receive, s, e);
	if (r >= 0 && m->send)
		r = save_ring(c, fd, &x, SEND, m->send, s, e);
	return r;
}

/* ---- restart ---- */

static int version_of(const Reprise__PacketSocket *m)
{
	int version = TPACKET_V1;

	for (size_t i = 0; i < m->n_options; i++)
		if (m->options[i]->name == PACKET_VERSION)
			memcpy(&version, m->options[i]->value.data, sizeof(version));
	return version;
}

static bool shape_valid(const Reprise__PacketRing *x, bool blocks)
{
	uint32_t units = blocks ? x->blocks : x->frames;
	size_t size = blocks ? x->block_size : x->frame_size;

	if (x->block_size < 4096 || x->block_size % 4096 || !x->blocks || x->frame_size < 64 ||
	    x->frame_size % 16 || x->frame_size > x->block_size || ring_bytes(x) > RING_BYTES_MAX ||
	    (uint64_t)x->blocks * (x->block_size / x->frame_size) != x->frames || x->head >= units)
		return false;
	for (size_t i = 0; i < x->n_units; i++)
		if (x->units[i]->index >= units || x->units[i]->data.len != size)
			return false;
	return true;
}

bool packet_ring_valid(const Reprise__PacketSocket *m)
{
	bool third = version_of(m) == TPACKET_V3;

	if (m->receive && m->receive->head && !m->protocol)
		return false;
	if (m->receive && !shape_valid(m->receive, third))
		return false;
	return !m->send || (!third && shape_valid(m->send, false));
}

static int make_ring(int fd, const Reprise__PacketRing *x, bool third, int name, struct error *e)
{
	const struct tpacket_req3 req = {
		.tp_block_size = x->block_size,
		.tp_block_nr = x->blocks,
		.tp_frame_size = x->frame_size,
		.tp_frame_nr = x->frames,
		.tp_retire_blk_tov = x->timeout_ms,
		.tp_sizeof_priv = x->private_size,
		.tp_feature_req_word = x->features,
	};

	/* The first four members are a struct tpacket_req. */
	if (setsockopt(fd, SOL_PACKET, name, &req,
		       third ? sizeof(req) : sizeof(struct tpacket_req)))
		return error_errno(e, -errno, E_RESTORE, "cannot make a ring of a packet socket");
	return 0;
}

static const struct sockaddr_ll lead_address = {
	.sll_family = AF_PACKET, .sll_ifindex = LOOPBACK_INDEX, .sll_halen = 6};

static struct sockaddr_ll lead_to(uint16_t protocol)
{
	struct sockaddr_ll to = lead_address;

	to.sll_protocol = htons(protocol);
	return to;
}

/* Another restart may send such packets at the same time: only those that begin so come in. */
static int keep_others_out(int fd, uint32_t mark)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(mark), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno
											   : 0;
}

static int wait_until(const struct rings *x, bool (*there)(const struct rings *x, uint32_t n),
		      uint32_t n)
{
	for (int i = 0; !there(x, n); i++) {
		if (i >= PATIENCE_MS)
			return -ETIMEDOUT;
		patience_pause();
	}
	return 0;
}

static bool frame_filled(const struct rings *x, uint32_t i)
{
	return status_of(x, RECEIVE, i);
}

static bool block_begun(const struct rings *x, uint32_t i)
{
	const struct tpacket_block_desc *d = (void *)unit_at(x, RECEIVE, i);

	return __atomic_load_n(&d->hdr.bh1.num_pkts, __ATOMIC_ACQUIRE);
}

/* Packets in the first blocks. */
static uint64_t count_packets(const struct rings *x, uint32_t blocks)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < blocks; i++) {
		const struct tpacket_block_desc *d = (void *)unit_at(x, RECEIVE, i);

		n += __atomic_load_n(&d->hdr.bh1.num_pkts, __ATOMIC_ACQUIRE);
	}
	return n;
}

static bool more_packets(const struct rings *x, uint32_t than)
{
	return count_packets(x, x->ring[RECEIVE]->head) > than;
}

static bool block_opened(const struct rings *x, uint32_t i)
{
	const struct tpacket_block_desc *d = (void *)unit_at(x, RECEIVE, i);

	return __atomic_load_n(&d->hdr.bh1.seq_num, __ATOMIC_ACQUIRE);
}

static int lead_frames(const struct rings *x, int from, uint32_t head, uint32_t mark)
{
	struct sockaddr_ll to = lead_to(LEAD_PROTOCOL);
	char data[LEAD_BYTES] = "";
	int r = 0;

	memcpy(data, &mark, sizeof(mark));
	for (uint32_t i = 0; i < head && r >= 0; i++) {
		if (sendto(from, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			return -errno;
		r = wait_until(x, frame_filled, i);
	}
	return r;
}

/*
 * One that fills a block, so that another one does not fit. But it must: what is cut to the size of
 * an empty block is put into the next one (__packet_lookup_frame_in_block()), and then none would
 * come to the last block if the time of the one before is up meanwhile.
 */
static size_t lead_size(int fd, const Reprise__PacketRing *ring)
{
	size_t taken = BLOCK_HEAD + FRAME_HEAD + ring->private_size, size = ring->block_size;
	socklen_t len = sizeof(int);
	int reserved = 0;

	if (getsockopt(fd, SOL_PACKET, PACKET_RESERVE, &reserved, &len) == 0 && reserved > 0)
		taken += (size_t)reserved;
	if (size < taken + LEAD_BYTES)
		return LEAD_BYTES;
	return size - taken < LEAD_MAX ? size - taken : LEAD_MAX;
}

/* A packet that does not fit ends a block and begins the next; the last one ends by itself, so that
 * the one in which the kernel stood is empty. */
static int lead_blocks(int fd, const struct rings *x, int from, uint32_t head, uint32_t mark)
{
	struct sockaddr_ll to = lead_to(LEAD_PROTOCOL);
	size_t size = lead_size(fd, x->ring[RECEIVE]);
	_cleanup_(free_ptr) char *data = calloc(1, size);
	int r = 0;

	if (!data)
		return -ENOMEM;
	memcpy(data, &mark, sizeof(mark));
	while (r >= 0 && !block_begun(x, head - 1)) {
		uint32_t before = (uint32_t)count_packets(x, head);

		if (sendto(from, data, size, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			return -errno;
		r = wait_until(x, more_packets, before);
	}
	return r < 0 ? r : wait_until(x, block_opened, head);
}

/* Everything is the kernel's again, and nothing was counted. */
static void take_back(int fd, const struct rings *x, uint32_t n)
{
	struct tpacket_stats_v3 stats;
	socklen_t len = sizeof(stats);

	for (uint32_t i = 0; i < n; i++)
		__atomic_store_n(status_at(x, RECEIVE, i), TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	ignore(getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len), "reading clears them");
}

static int lead_receiver(int fd, const struct rings *x)
{
	uint32_t head = x->ring[RECEIVE]->head;
	_cleanup_(close_fd) int from = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_ll at = lead_to(LEAD_PROTOCOL), nowhere = lead_to(NO_PROTOCOL);
	int r, unused = 0;
	uint32_t mark;

	if (!head)
		return 0;
	if (from < 0 || getrandom(&mark, sizeof(mark), 0) != sizeof(mark))
		return -errno;
	r = keep_others_out(fd, mark);
	if (r >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		r = -errno;
	if (r >= 0)
		r = by_block(x, RECEIVE) ? lead_blocks(fd, x, from, head, mark)
					 : lead_frames(x, from, head, mark);
	/* Until it is bound to what it was bound to. */
	if (r >= 0 && (bind(fd, (struct sockaddr *)&nowhere, sizeof(nowhere)) < 0 ||
		       setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) < 0))
		r = -errno;
	if (r >= 0)
		take_back(fd, x, head);
	return r;
}

static bool all_sent(const struct rings *x, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (status_of(x, SEND, i))
			return false;
	return true;
}

/* A frame of the least size, in whatever form the socket expects it. */
static void put_frame(const struct rings *x, uint32_t i)
{
	unsigned char *at = unit_at(x, SEND, i);

	if (x->version == TPACKET_V1) {
		struct tpacket_hdr *h = (void *)at;

		h->tp_len = h->tp_snaplen = LEAD_BYTES;
		h->tp_mac = h->tp_net = TPACKET_HDRLEN - sizeof(struct sockaddr_ll);
	} else {
		struct tpacket2_hdr *h = (void *)at;

		h->tp_len = h->tp_snaplen = LEAD_BYTES;
		h->tp_mac = h->tp_net = TPACKET2_HDRLEN - sizeof(struct sockaddr_ll);
	}
	__atomic_store_n(status_at(x, SEND, i), TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
}

static int lead_sender(int fd, const struct rings *x)
{
	uint32_t head = x->ring[SEND]->head;
	struct sockaddr_ll to = lead_to(LEAD_PROTOCOL);

	for (uint32_t i = 0; i < head; i++)
		put_frame(x, i);
	if (head && sendto(fd, NULL, 0, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	return wait_until(x, all_sent, head);
}

static void put_units(const struct rings *x, int which)
{
	const Reprise__PacketRing *ring = x->ring[which];

	for (size_t i = 0; i < ring->n_units; i++)
		memcpy(unit_at(x, which, ring->units[i]->index), ring->units[i]->data.data,
		       ring->units[i]->data.len);
}

int packet_ring_restore(int fd, const Reprise__PacketSocket *m, struct error *e)
{
	_cleanup_(rings_unmap) struct rings x = {};
	int version = version_of(m), r = 0;

	if (!m->receive && !m->send)
		return 0;
	if (m->receive)
		r = make_ring(fd, m->receive, version == TPACKET_V3, PACKET_RX_RING, e);
	if (r >= 0 && m->send)
		r = make_ring(fd, m->send, false, PACKET_TX_RING, e);
	if (r >= 0)
		r = map_rings(fd, m, version, &x, e);
	if (r < 0)
		return r;
	if (m->receive)
		r = lead_receiver(fd, &x);
	if (r >= 0 && m->send)
		r = lead_sender(fd, &x);
	if (r < 0)
		return error_errno(e, r, E_RESTORE,
				   "cannot lead the kernel to its place in the ring of a packet "
				   "socket, over the loopback device");
	for (int i = RECEIVE; i <= SEND; i++)
		if (x.ring[i])
			put_units(&x, i);
	return 0;
}
