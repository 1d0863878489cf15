/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/network.h"

/* Interfaces that every network namespace has, whether it wants them or not. */
static bool made_by_kernel(const char *name)
{
	static const char *const names[] = {"tunl0", "gre0",	"gretap0",  "erspan0", "ip_vti0",
					    "sit0",  "ip6tnl0", "ip6_vti0", "ip6gre0", NULL};

	for (size_t i = 0; names[i]; i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

int network_checkpoint(Reprise__Container *msg, struct scratch *s, struct error *e)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_name = "lo"};
	struct if_nameindex *list = if_nameindex();
	int r = 0;

	(void)s;
	if (fd < 0 || !list || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		r = error_errno(e, -errno, E_SYSTEM, "cannot list the network interfaces");
	msg->loopback_up = ifr.ifr_flags & IFF_UP;
	for (struct if_nameindex *i = list; i && i->if_index && r >= 0; i++)
		if (strcmp(i->if_name, "lo") && !made_by_kernel(i->if_name))
			r = error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				      "network interface %s cannot be saved", i->if_name);
	if (list)
		if_freenameindex(list);
	return r;
}

int network_loopback_up(struct error *e)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return error_errno(e, -errno, E_NAMESPACE,
				   "cannot bring the loopback interface up");
	return 0;
}

int network_restart(const Reprise__Container *msg, struct error *e)
{
	return msg->loopback_up ? network_loopback_up(e) : 0;
}
