/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever option of a socket can be set to a number and read: each on a socket of its own, of each
 * kind, of which all that can be read is compared.
 *
 * needs: root
 * network: own
 * not-in: both: some have addresses
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAMES 110
#define BYTES 16
#define MOST  1500

static const struct kind {
	int family, type, protocol, levels[4];
} kinds[] = {
	{AF_INET, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, -1}},
	{AF_INET6, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IPV6, IPPROTO_IP, IPPROTO_TCP}},
	{AF_INET, SOCK_DGRAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_UDP, -1}},
	{AF_INET6, SOCK_DGRAM, 0, {SOL_SOCKET, IPPROTO_IPV6, IPPROTO_IP, IPPROTO_UDP}},
	{AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, {IPPROTO_UDPLITE, -1}},
	{AF_INET, SOCK_RAW, 253, {SOL_SOCKET, IPPROTO_IP, SOL_RAW, -1}},
	{AF_INET6, SOCK_RAW, 253, {SOL_SOCKET, IPPROTO_IPV6, IPPROTO_RAW, -1}},
	{AF_INET, SOCK_STREAM, IPPROTO_MPTCP, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, -1}},
	{AF_UNIX, SOCK_STREAM, 0, {SOL_SOCKET, -1}},
	{AF_UNIX, SOCK_DGRAM, 0, {SOL_SOCKET, -1}},
	{AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, {SOL_SOCKET, SOL_NETLINK, -1}},
	{AF_PACKET, SOCK_RAW, 0, {263 /* SOL_PACKET */, -1}},
};
#define NKINDS (int)(sizeof(kinds) / sizeof(kinds[0]))

/* What is of the moment, refused, or no number. */
static const struct {
	int level, name;
} out[] = {
	{SOL_SOCKET, 55 /* SO_MEMINFO */},
	{SOL_SOCKET, 57 /* SO_COOKIE */},
	{SOL_SOCKET, 56 /* SO_INCOMING_NAPI_ID */},
	{SOL_SOCKET, 70 /* SO_BUSY_POLL_BUDGET */},
	{SOL_SOCKET, 71 /* SO_NETNS_COOKIE */},
	{IPPROTO_TCP, TCP_INFO},
	{IPPROTO_TCP, TCP_REPAIR},
	{IPPROTO_TCP, TCP_TIMESTAMP},
	{IPPROTO_TCP, 26 /* TCP_CC_INFO */},
	{IPPROTO_UDP, 100 /* UDP_ENCAP */},
	{IPPROTO_UDPLITE, 100},
	{IPPROTO_IPV6, 22 /* IPV6_ROUTER_ALERT */},
};

static struct one {
	int fd, kind, level, name;
	unsigned char (*values)[NAMES][BYTES];
} all[MOST];
static int count;

static bool left_out(int level, int name)
{
	for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++)
		if (out[i].level == level && out[i].name == name)
			return true;
	return false;
}

static int make(const struct kind *k)
{
	return socket(k->family, k->type, k->protocol);
}

static void get(int fd, int level, int name, unsigned char *value)
{
	socklen_t len = BYTES;

	memset(value, 0, BYTES);
	if (!left_out(level, name) && getsockopt(fd, level, name, value, &len) < 0)
		memset(value, 0xee, BYTES);
}

static void get_all(const struct one *x, unsigned char (*values)[NAMES][BYTES])
{
	for (int l = 0; l < 4 && kinds[x->kind].levels[l] >= 0; l++)
		for (int name = 0; name < NAMES; name++)
			get(x->fd, kinds[x->kind].levels[l], name, values[l][name]);
}

/* Keeps the socket if the option could be changed, and makes another one. */
static void try_option(int kind, int level, int name, int *fresh)
{
	static const int numbers[] = {1, 0, 2, 5, 64, 1000, 70000};
	unsigned char before[BYTES], now[BYTES];
	const int fd = *fresh;

	get(fd, level, name, before);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (setsockopt(fd, level, name, &numbers[i], sizeof(int)) < 0)
			continue;
		get(fd, level, name, now);
		if (memcmp(before, now, BYTES) == 0)
			continue;
		CHECK(count < MOST);
		all[count] = (struct one){fd, kind, level, name, calloc(4, sizeof(*all->values))};
		get_all(&all[count], all[count].values);
		count++;
		*fresh = make(&kinds[kind]);
		CHECK(*fresh >= 0);
		return;
	}
}

static void set_up(int kind)
{
	int fd = make(&kinds[kind]);

	if (fd < 0)
		return;
	for (int l = 0; l < 4 && kinds[kind].levels[l] >= 0; l++)
		for (int name = 0; name < NAMES; name++)
			if (!left_out(kinds[kind].levels[l], name))
				try_option(kind, kinds[kind].levels[l], name, &fd);
	close(fd);
}

static void check(const struct one *x)
{
	static unsigned char now[4][NAMES][BYTES];
	const struct kind *k = &kinds[x->kind];

	get_all(x, now);
	for (int l = 0; l < 4 && k->levels[l] >= 0; l++)
		for (int name = 0; name < NAMES; name++) {
			int was, is;

			memcpy(&was, x->values[l][name], sizeof(was));
			memcpy(&is, now[l][name], sizeof(is));
			CHECKF(!memcmp(x->values[l][name], now[l][name], BYTES),
			       "family %d, type %d, protocol %d, with option %d of level %d: "
			       "option %d of level %d was %d and is %d",
			       k->family, k->type, k->protocol, x->name, x->level, name,
			       k->levels[l], was, is);
		}
}

int main(void)
{
	struct rlimit limit;

	test_init();
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	for (int i = 0; i < NKINDS; i++)
		set_up(i);
	CHECK(count > 100);

	test_wait();
	if (test_break(1))
		CHECK(!setsockopt(all[0].fd, SOL_SOCKET, SO_PRIORITY, &(int){3}, sizeof(int)));
	for (int i = 0; i < count; i++)
		check(&all[i]);
	test_pass();
}
