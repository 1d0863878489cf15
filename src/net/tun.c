/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors of /dev/net/tun. Packets that wait in an interface are lost, as packets may be.
 */
#include "net/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "fs/file_private.h"
#include "net/socket_kinds.h"

#define MISC_MAJOR 10
#define TUN_MINOR  200
/* What TUNSETIFF is given; a packet that is told of by its length alone (IFF_NO_PI) is told by the
 * interface: in TUNGETIFF the bit means something else as well (IFF_NOFILTER). */
#define KEPT_FLAGS                                                                       \
	(IFF_TUN | IFF_TAP | IFF_NAPI | IFF_NAPI_FRAGS | IFF_NO_CARRIER | IFF_VNET_HDR | \
	 IFF_ONE_QUEUE | IFF_MULTI_QUEUE)

static bool tun_match(const struct file_seen *f)
{
	return S_ISCHR(f->st.st_mode) && f->st.st_rdev == makedev(MISC_MAJOR, TUN_MINOR) &&
	       !(f->flags & O_PATH);
}

/* ---- offloads ---- */

static const struct {
	const char *name; /* net/ethtool/common.c, netdev_features_strings[] */
	unsigned int flag;
} offloads[] = {
	{"tx-checksum-ip-generic", TUN_F_CSUM},
	{"tx-tcp-segmentation", TUN_F_TSO4},
	{"tx-tcp6-segmentation", TUN_F_TSO6},
	{"tx-tcp-ecn-segmentation", TUN_F_TSO_ECN},
	{"tx-udp-segmentation", 0x20 | 0x40 /* TUN_F_USO4 and 6 go together */},
	{"tx-udp_tnl-segmentation", 0x80 /* TUN_F_UDP_TUNNEL_GSO, 6.17 */},
	{"tx-udp_tnl-csum-segmentation", 0x100 /* TUN_F_UDP_TUNNEL_GSO_CSUM */},
};

#define STRINGS_MAX 256

static int ethtool(int fd, const char *name, void *data)
{
	struct ifreq ifr = {.ifr_data = data};

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	return ioctl(fd, SIOCETHTOOL, &ifr) < 0 ? -errno : 0;
}

static uint32_t offload_named(const uint8_t *name)
{
	for (size_t k = 0; k < sizeof(offloads) / sizeof(offloads[0]); k++)
		if (!strncmp((const char *)name, offloads[k].name, ETH_GSTRING_LEN))
			return offloads[k].flag;
	return 0;
}

/* The interface offers what TUNSETOFFLOAD allowed it. */
static int read_offload(const char *name, uint32_t *ret)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	_cleanup_(free_ptr) struct ethtool_sset_info *info =
		calloc(1, sizeof(*info) + sizeof(info->data[0]));
	_cleanup_(free_ptr) struct ethtool_gstrings *strings =
		calloc(1, sizeof(*strings) + STRINGS_MAX * ETH_GSTRING_LEN);
	_cleanup_(free_ptr) struct ethtool_gfeatures *features =
		calloc(1, sizeof(*features) + STRINGS_MAX / 32 * sizeof(features->features[0]));
	int r;

	if (fd < 0 || !info || !strings || !features)
		return fd < 0 ? -errno : -ENOMEM;
	info->cmd = ETHTOOL_GSSET_INFO;
	info->sset_mask = 1u << ETH_SS_FEATURES;
	r = ethtool(fd, name, info);
	if (r >= 0 && info->data[0] > STRINGS_MAX)
		r = -E2BIG;
	strings->cmd = ETHTOOL_GSTRINGS;
	strings->string_set = ETH_SS_FEATURES;
	strings->len = info->data[0];
	if (r >= 0)
		r = ethtool(fd, name, strings);
	features->cmd = ETHTOOL_GFEATURES;
	features->size = STRINGS_MAX / 32;
	if (r >= 0)
		r = ethtool(fd, name, features);
	*ret = 0;
	for (uint32_t i = 0; r >= 0 && i < info->data[0]; i++)
		if (features->features[i / 32].active & 1u << i % 32)
			*ret |= offload_named(strings->data + i * ETH_GSTRING_LEN);
	return r;
}

/* ---- checkpoint ---- */

static int check_namespace(int fd, struct error *e)
{
	_cleanup_(close_fd) int of_device = ioctl(fd, TUNGETDEVNETNS);
	struct stat theirs, ours;

	if (of_device < 0 || fstat(of_device, &theirs) < 0 || stat("/proc/self/ns/net", &ours) < 0)
		return error_errno(e, -errno, E_SYSTEM,
				   "the network namespace of its interface is not told");
	if (theirs.st_ino != ours.st_ino)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "its interface is in another network namespace");
	return 0;
}

static int check_filter(int fd, struct error *e)
{
	struct sock_fprog filter = {};

	/* only of a tap; it is told even when it has been detached again */
	if (ioctl(fd, TUNGETFILTER, &filter) == 0 && filter.len)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a packet filter was attached to it (TUNATTACHFILTER)");
	return 0;
}

static int save_queue(int fd, Reprise__TunFile *m, struct error *e)
{
	int on = 0, r;

	if (ioctl(fd, TUNGETSNDBUF, &m->send_buffer) < 0 ||
	    ioctl(fd, TUNGETVNETHDRSZ, &m->vnet_header) < 0 || ioctl(fd, TUNGETVNETLE, &on) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot read its settings");
	m->vnet_little = on != 0;
	m->vnet_big = ioctl(fd, TUNGETVNETBE, &on) == 0 && on; /* few kernels have it */
	r = read_offload(m->name, &m->offload);
	return r < 0 ? error_errno(e, r, E_SYSTEM, "cannot read what is offloaded to it") : 0;
}

static int tun_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			  struct scratch *s, struct error *e)
{
	Reprise__TunFile *m = scratch_message(s, Reprise__TunFile, reprise__tun_file__init);
	struct ifreq ifr = {};
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a tun device");
	msg->tun = m;
	r = inode_checkpoint(c, f->process, f->local, f->link, &m->inode, e);
	if (r < 0)
		return r;
	if (ioctl(f->local, TUNGETIFF, &ifr) < 0)
		return errno == EBADFD
			       ? 0
			       : error_errno(e, -errno, E_SYSTEM, "cannot read its interface");
	ifr.ifr_name[IFNAMSIZ - 1] = '\0';
	m->name = scratch_string(s, ifr.ifr_name);
	m->flags = (uint16_t)ifr.ifr_flags & KEPT_FLAGS;
	m->detached = ifr.ifr_flags & IFF_DETACH_QUEUE;
	if (!m->name)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a tun device");
	r = check_namespace(f->local, e);
	if (r >= 0)
		r = check_filter(f->local, e);
	if (r >= 0)
		r = tun_link_save(m->name, &m->link, s, e);
	if (r < 0)
		return r;
	if (!m->link->has_kind)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "interface %s does not tell its kind", m->name);
	if (!m->link->packet_information)
		m->flags |= IFF_NO_PI;
	return save_queue(f->local, m, e);
}

/* ---- restart ---- */

static int tun_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__TunFile *m = msg->tun;
	const Reprise__Inode *inode;
	int res;

	if (!m)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a tun device without its message");
	res = inode_validate(r, m->inode, e);
	if (res < 0)
		return res;
	inode = restart_find(r, RECORD_INODE, m->inode);
	if (!S_ISCHR(inode->mode) || inode->rdev != makedev(MISC_MAJOR, TUN_MINOR))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a tun device that is another");
	if (!m->name || !*m->name)
		return 0;
	if (strlen(m->name) >= IFNAMSIZ || strpbrk(m->name, "/%: ") ||
	    m->flags & ~(uint32_t)(KEPT_FLAGS | IFF_NO_PI) || !m->link)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible tun interface");
	return tun_link_validate(m->link, e);
}

static bool exists(const char *name, uint32_t index)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_ifindex = (int)index};

	if (!name)
		return ioctl(fd, SIOCGIFNAME, &ifr) == 0;
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	return ioctl(fd, SIOCGIFINDEX, &ifr) == 0;
}

static int try_attach(int fd, const Reprise__TunFile *m, bool *ret_made)
{
	struct ifreq ifr = {.ifr_flags = (short)m->flags};
	int index = (int)m->link->index;

	*ret_made = !exists(m->name, 0);
	/* Its number, too, if nobody else has it. */
	if (*ret_made && index > 0 && !exists(NULL, m->link->index) &&
	    ioctl(fd, TUNSETIFINDEX, &index) < 0)
		return -errno;
	strncpy(ifr.ifr_name, m->name, IFNAMSIZ - 1);
	return ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
}

static int attach(struct restart *r, int fd, const Reprise__TunFile *m, bool *ret_made,
		  struct error *e)
{
	int res;

	do
		res = try_attach(fd, m, ret_made);
	while (res == -EBUSY && files_restart_patience(r));
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot attach to interface %s%s", m->name,
				   res == -EBUSY ? ", somebody else holds it" : "");
	return 0;
}

static int set_queue(int fd, const Reprise__TunFile *m, struct error *e)
{
	const int on = 1;

	if (ioctl(fd, TUNSETSNDBUF, &m->send_buffer) < 0 ||
	    ioctl(fd, TUNSETVNETHDRSZ, &m->vnet_header) < 0 ||
	    (m->vnet_little && ioctl(fd, TUNSETVNETLE, &on) < 0) ||
	    (m->vnet_big && ioctl(fd, TUNSETVNETBE, &on) < 0) ||
	    ioctl(fd, TUNSETOFFLOAD, (unsigned long)m->offload) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set up a queue of interface %s",
				   m->name);
	return 0;
}

static int tun_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		       struct error *e)
{
	const Reprise__TunFile *m = msg->tun;
	_cleanup_(close_fd) int fd = -EBADF;
	int res = inode_open(r, m->inode, (int)msg->flags, &fd, e);

	if (res >= 0 && m->name && *m->name) {
		res = attach(r, fd, m, &file_open_find(r, id)->made_link, e);
		if (res >= 0)
			res = set_queue(fd, m, e);
	}
	if (res >= 0)
		*ret_fd = take_fd(&fd);
	return res;
}

int tun_links_restore(struct restart *r, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		int res = 0;

		if (f->ops == &tun_file_ops && f->made_link)
			res = tun_link_restore(f->fd, f->msg->tun->name, f->msg->tun->link, e);
		if (res < 0)
			return error_object(e, res, "interface %s", f->msg->tun->name);
	}
	return 0;
}

/* A queue that is detached is deaf to all else. */
static int tun_restart_all(struct restart *r, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		struct ifreq detach = {.ifr_flags = IFF_DETACH_QUEUE};

		if (f->ops == &tun_file_ops && f->msg->tun->detached &&
		    ioctl(f->fd, TUNSETQUEUE, &detach) < 0)
			return error_errno(e, -errno, E_RESTORE,
					   "cannot detach a queue of interface %s",
					   f->msg->tun->name);
	}
	return 0;
}

static void tun_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__TunFile *m = msg->tun;

	if (!m || !m->name || !*m->name)
		snprintf(buf, size, "without interface");
	else
		snprintf(buf, size, "%s %s", m->flags & IFF_TAP ? "tap" : "tun", m->name);
}

const struct file_ops tun_file_ops = {
	.kind = FILE_TUN,
	.name = "tun device",
	.support =
		"tun and tap with their settings and queues; an interface that has gone is made "
		"again with its addresses and routes, waiting packets are lost; packet filters and "
		"XDP are refused",
	.match = tun_match,
	.checkpoint = tun_checkpoint,
	.validate = tun_validate,
	.restart = tun_restart,
	.after_tasks = true, /* as late as can be: the interface may be in use till then */
	.restart_all = tun_restart_all,
	.describe = tun_describe,
};
