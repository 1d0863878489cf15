/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_services.h"

#include <errno.h>
#include <linux/fou.h>
#include <linux/genetlink.h>
#include <linux/ila.h>
#include <linux/ioam6_genl.h>
#include <linux/ip_vs.h>
#include <linux/mptcp.h>
#include <linux/seg6_genl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "net/rtnl.h"

#define L2TP_TUNNEL_GET 4 /* linux/l2tp.h does not go with netinet/in.h */

static int refused(struct error *e, const char *what)
{
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
			 "the network namespace has %s, which cannot be saved", what);
}

/* ---- IPVS ---- */

/* A service has a line that begins with its protocol, or with FWM (ip_vs_info_seq_show()). */
static int services_of_ipvs(int proc_fd, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	const char *line;

	/* Without IPVS the file is not there. */
	if (procfs_read(proc_fd, &text, NULL, "%sthread-self/net/ip_vs",
			proc_fd < 0 ? "/proc/" : "") < 0)
		return 0;
	for (line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n'))
		if (line[1] != ' ' && strncmp(line + 1, "Prot ", 5) != 0)
			return refused(e, "services of IPVS");
	return 0;
}

/* ---- generic netlink ---- */

struct service {
	const char *family;
	uint8_t command, version;
	bool dump;
	rtnl_each each;
	const char *what;
};

struct look {
	const struct service *service;
	struct error *e;
};

static int any(void *arg, const struct nlmsghdr *h)
{
	const struct look *l = arg;

	(void)h;
	return refused(l->e, l->service->what);
}

/* One answer, which has an address in any case. */
static int unless_zero(void *arg, const struct nlmsghdr *h)
{
	static const uint8_t none[16];
	const struct look *l = arg;
	size_t n;
	const void *address =
		rtnl_find(NLMSG_DATA(h), NLMSG_PAYLOAD(h, 0), GENL_HDRLEN, SEG6_ATTR_DST, &n);

	return address && n == sizeof(none) && memcmp(address, none, n) != 0
		       ? refused(l->e, l->service->what)
		       : -ENOENT;
}

static const struct service services[] = {
	{IPVS_GENL_NAME, IPVS_CMD_GET_DAEMON, IPVS_GENL_VERSION, true, any,
	 "daemons of IPVS that synchronise connections"},
	{MPTCP_PM_NAME, MPTCP_PM_CMD_GET_ADDR, MPTCP_PM_VER, true, any, "endpoints of MPTCP"},
	{SEG6_GENL_NAME, SEG6_CMD_DUMPHMAC, SEG6_GENL_VERSION, true, any,
	 "keys of segment routing"},
	{SEG6_GENL_NAME, SEG6_CMD_GET_TUNSRC, SEG6_GENL_VERSION, false, unless_zero,
	 "a source address of segment routing"},
	{IOAM6_GENL_NAME, IOAM6_CMD_DUMP_NAMESPACES, IOAM6_GENL_VERSION, true, any,
	 "namespaces of IOAM"},
	{IOAM6_GENL_NAME, IOAM6_CMD_DUMP_SCHEMAS, IOAM6_GENL_VERSION, true, any, "schemas of IOAM"},
	{FOU_GENL_NAME, FOU_CMD_GET, FOU_GENL_VERSION, true, any, "ports of FOU"},
	{ILA_GENL_NAME, ILA_CMD_GET, ILA_GENL_VERSION, true, any, "entries of ILA"},
	{"l2tp", L2TP_TUNNEL_GET, 1, true, any, "tunnels of L2TP"},
};
#define SERVICES (sizeof(services) / sizeof(services[0]))

/* The numbers of the families; those that are not there keep 0. */
static int take_family(void *arg, const struct nlmsghdr *h)
{
	const void *body = NLMSG_DATA(h);
	const size_t len = NLMSG_PAYLOAD(h, 0);
	uint16_t *ids = arg;
	size_t n;
	const char *name = rtnl_find(body, len, GENL_HDRLEN, CTRL_ATTR_FAMILY_NAME, &n);

	for (size_t i = 0; i < SERVICES && name && n && !name[n - 1]; i++)
		if (!strcmp(services[i].family, name))
			ids[i] = (uint16_t)rtnl_number(body, len, GENL_HDRLEN, CTRL_ATTR_FAMILY_ID);
	return 0;
}

static int ask(int fd, uint16_t id, struct look *l)
{
	const struct genlmsghdr body = {.cmd = l->service->command, .version = l->service->version};
	struct rtnl_message m;
	int r;

	for (int i = 0; i < 10; i++) {
		rtnl_begin(&m, id, l->service->dump ? NLM_F_DUMP : 0, &body, sizeof(body));
		r = rtnl_dump_message(fd, &m, l->service->each, l);
		if (r != -EAGAIN)
			break;
	}
	/* Who may not ask (GENL_ADMIN_PERM) could not have made any either. */
	return !l->e->code && (r == -EOPNOTSUPP || r == -EINVAL || r == -ENOENT || r == -EPERM) ? 0
												: r;
}

/* Only families that are there are asked for: a name would load a module. */
static int by_generic_netlink(struct error *e)
{
	_cleanup_(close_fd) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	const struct genlmsghdr list = {.cmd = CTRL_CMD_GETFAMILY, .version = 2};
	uint16_t ids[SERVICES] = {};
	int r = fd < 0 ? -errno : 0;

	for (int i = 0; i < 10 && r >= 0; i++) {
		r = rtnl_dump(fd, GENL_ID_CTRL, &list, sizeof(list), take_family, ids);
		if (r != -EAGAIN)
			break;
		r = 0;
	}
	for (size_t i = 0; i < SERVICES && r >= 0; i++) {
		struct look l = {.service = &services[i], .e = e};

		if (ids[i])
			r = ask(fd, ids[i], &l);
	}
	return r >= 0 || e->code
		       ? r
		       : error_errno(e, r, E_SYSTEM, "cannot list what the network namespace has");
}

int net_services_refuse(int proc_fd, struct error *e)
{
	int r = services_of_ipvs(proc_fd, e);

	return r < 0 ? r : by_generic_netlink(e);
}
