/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap with two queues, one of them detached, and a tun with addresses and a route: settings of
 * the descriptors, and interfaces that have gone with the program.
 *
 * needs: root
 * network: own
 * not-in: both: an interface belongs to one program at a time
 */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/route.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char tap_name[16], tun_name[16];
static unsigned int net; /* 10.net.net.0 */

#define FEATURES 3 /* of 32 each */
static uint32_t features[FEATURES];

/* With a NUMBER of its own, if not 0: small ones are taken by others' meanwhile. */
static int open_tun(const char *name, short flags, int number)
{
	struct ifreq ifr = {.ifr_flags = flags};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO || errno == EACCES ||
		       errno == EPERM))
		test_skip("no /dev/net/tun");
	CHECK(fd >= 0);
	strcpy(ifr.ifr_name, name);
	if (number)
		CHECK(!ioctl(fd, TUNSETIFINDEX, &number));
	if (ioctl(fd, TUNSETIFF, &ifr) < 0 && errno == EPERM)
		test_skip("no interface may be made");
	CHECK_EQUAL(strcmp(ifr.ifr_name, name), 0);
	return fd;
}

/* One value of an interface. */
static struct ifreq ask(unsigned long request, const char *name, struct ifreq ifr)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(ifr.ifr_name, name);
	CHECK(!ioctl(fd, request, &ifr));
	close(fd);
	return ifr;
}

static struct ifreq with_address(unsigned int last)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(10u << 24 | net << 16 | net << 8 | last)};
	struct ifreq ifr = {};

	memcpy(&ifr.ifr_addr, &in, sizeof(in));
	return ifr;
}

static bool has_route(void)
{
	static char text[65536];
	char wanted[64];
	size_t n;
	FILE *f = fopen("/proc/net/route", "r");

	CHECK(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	snprintf(wanted, sizeof(wanted), "%s\t%08X", tun_name,
		 htonl(10u << 24 | net << 16 | (net ^ 1) << 8));
	return strstr(text, wanted);
}

static void add_route(void)
{
	struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = tun_name};
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(10u << 24 | net << 16 | (net ^ 1) << 8)};
	struct sockaddr_in mask = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xffffff00)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	memcpy(&route.rt_dst, &to, sizeof(to));
	memcpy(&route.rt_genmask, &mask, sizeof(mask));
	CHECK(!ioctl(fd, SIOCADDRT, &route));
	close(fd);
}

static int open_configured(void)
{
	struct ifreq ifr = {};
	int fd = open_tun(tun_name, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, 0), size = 12, room = 54321;

	CHECK(!ioctl(fd, TUNSETVNETHDRSZ, &size));
	CHECK(!ioctl(fd, TUNSETSNDBUF, &room));
	/* TUN_F_UDP_TUNNEL_GSO, with checksums: 6.17 */
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | 0x180))
		CHECK(!ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4));
	CHECK(!ioctl(fd, TUNSETOWNER, 1234));
	ask(SIOCSIFADDR, tun_name, with_address(1));
	ifr = (struct ifreq){};
	ifr.ifr_mtu = 1234;
	ask(SIOCSIFMTU, tun_name, ifr);
	ifr = (struct ifreq){};
	ifr.ifr_flags = IFF_UP | IFF_NOARP | IFF_POINTOPOINT;
	ask(SIOCSIFFLAGS, tun_name, ifr);
	add_route();
	return fd;
}

/* What TUNSETOFFLOAD allowed. */
static unsigned int checksums(void)
{
	struct ethtool_value value = {.cmd = ETHTOOL_GTXCSUM};
	struct ifreq ifr = {};

	ifr.ifr_data = (void *)&value;
	ask(SIOCETHTOOL, tun_name, ifr);
	return value.data;
}

/* All that the interface offers. */
static void features_of(const char *name, uint32_t *ret)
{
	struct ethtool_gfeatures *all =
		calloc(1, sizeof(*all) + FEATURES * sizeof(all->features[0]));
	struct ifreq ifr = {};

	CHECK(all);
	all->cmd = ETHTOOL_GFEATURES;
	all->size = FEATURES;
	ifr.ifr_data = (void *)all;
	ask(SIOCETHTOOL, name, ifr);
	for (int i = 0; i < FEATURES; i++)
		ret[i] = all->features[i].active;
	free(all);
}

static void check_tun(int fd)
{
	uint32_t now[FEATURES];
	struct ifreq ifr = ask(SIOCGIFADDR, tun_name, (struct ifreq){});
	struct ifreq wanted = with_address(1);
	char path[64], owner[16] = "";
	int value = 0;

	CHECK(!memcmp(&ifr.ifr_addr, &wanted.ifr_addr, 8));
	CHECK_EQUAL(ask(SIOCGIFMTU, tun_name, (struct ifreq){}).ifr_mtu, 1234);
	CHECK(ask(SIOCGIFFLAGS, tun_name, (struct ifreq){}).ifr_flags & IFF_UP);
	CHECK(has_route());
	CHECK_EQUAL(checksums(), 1);
	features_of(tun_name, now);
	CHECK(!memcmp(now, features, sizeof(now)));
	CHECK(!ioctl(fd, TUNGETVNETHDRSZ, &value) && value == 12);
	CHECK(!ioctl(fd, TUNGETSNDBUF, &value) && value == 54321);
	ifr = (struct ifreq){};
	CHECK(!ioctl(fd, TUNGETIFF, &ifr));
	CHECK_EQUAL(ifr.ifr_flags & (IFF_TUN | IFF_VNET_HDR | IFF_NO_PI),
		    IFF_TUN | IFF_VNET_HDR | IFF_NO_PI);
	snprintf(path, sizeof(path), "/sys/class/net/%s/owner", tun_name);
	if (!access(path, R_OK)) {
		test_read(path, owner, sizeof(owner));
		CHECK(!strcmp(owner, "1234\n"));
	}
}

/* A socket with an address that only the interface has. */
static int bind_there(void)
{
	struct sockaddr_in at = {};
	struct ifreq ifr = with_address(1);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	memcpy(&at, &ifr.ifr_addr, sizeof(at));
	CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

static void check_bound(int fd)
{
	struct sockaddr_in is = {};
	struct ifreq ifr = with_address(1);
	socklen_t len = sizeof(is);

	CHECK(!getsockname(fd, (struct sockaddr *)&is, &len) && is.sin_port);
	CHECK(!memcmp(&is.sin_addr, &((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr, 4));
}

int main(void)
{
	static const char mac[] = "\x02\x12\x34\x56\x78\x9a";
	struct ifreq ifr = {}, detach = {.ifr_flags = IFF_DETACH_QUEUE};
	int tap, second, tun, plain, index, bound;
	uint32_t of_tap[FEATURES], now_of_tap[FEATURES];
	struct timespec now;

	test_init();
	clock_gettime(CLOCK_MONOTONIC, &now);
	net = (unsigned int)now.tv_nsec / 1000 % 256;
	snprintf(tap_name, sizeof(tap_name), "rta%09x", (unsigned int)now.tv_nsec);
	snprintf(tun_name, sizeof(tun_name), "rtu%09x", (unsigned int)now.tv_nsec);
	plain = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	tap = open_tun(tap_name, IFF_TAP | IFF_MULTI_QUEUE, 1000 + (int)now.tv_nsec);
	second = open_tun(tap_name, IFF_TAP | IFF_MULTI_QUEUE, 0);
	CHECK(!ioctl(second, TUNSETQUEUE, &detach));
	ifr.ifr_hwaddr.sa_family = 1;
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	ask(SIOCSIFHWADDR, tap_name, ifr);
	index = ask(SIOCGIFINDEX, tap_name, (struct ifreq){}).ifr_ifindex;
	tun = open_configured();
	features_of(tun_name, features);
	CHECK(!ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM));
	features_of(tap_name, of_tap);
	check_tun(tun);
	bound = bind_there();

	test_wait();
	if (test_break(1)) {
		ifr.ifr_mtu = 1300;
		ask(SIOCSIFMTU, tun_name, ifr);
	}
	if (test_break(2))
		ask(SIOCSIFADDR, tun_name, with_address(2));
	check_tun(tun);
	ifr = (struct ifreq){};
	CHECK(!ioctl(tap, TUNGETIFF, &ifr));
	CHECK(!strcmp(ifr.ifr_name, tap_name));
	CHECK_EQUAL(ifr.ifr_flags & (IFF_TAP | IFF_MULTI_QUEUE | IFF_DETACH_QUEUE),
		    IFF_TAP | IFF_MULTI_QUEUE);
	CHECK_EQUAL(ask(SIOCGIFINDEX, tap_name, (struct ifreq){}).ifr_ifindex, index);
	CHECK(!memcmp(ask(SIOCGIFHWADDR, tap_name, (struct ifreq){}).ifr_hwaddr.sa_data, mac, 6));
	features_of(tap_name, now_of_tap);
	CHECK(!memcmp(now_of_tap, of_tap, sizeof(of_tap)));
	CHECK(!ioctl(second, TUNGETIFF, &ifr) || errno == EBADFD);
	detach.ifr_flags = IFF_ATTACH_QUEUE;
	CHECK(!ioctl(second, TUNSETQUEUE, &detach));
	check_bound(bound);
	CHECK(ioctl(plain, TUNGETIFF, &ifr) < 0 && errno == EBADFD);
	test_pass();
}
