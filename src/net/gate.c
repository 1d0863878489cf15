/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a packet comes to one socket alone, where many would take it.
 *
 * A program of BPF on the root of the control groups is asked about every packet by every socket
 * that might take it (sk_filter_trim_cap()), and goes with its link. The protocols of the kernel
 * are asked by rules of IPsec: one for the network forbids what bears the mark
 * (xfrm6_policy_check()), and one of the socket's own, which is asked first, allows it.
 */
#include "net/gate.h"

#include <errno.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "net/rtnl.h"

#define BLOCKED_SECONDS 60 /* should we be killed meanwhile */
#define MARK_BITS	0x7f003fffu

uint32_t gate_mark(void)
{
	uint32_t bits = 0;

	ignore((int)getrandom(&bits, sizeof(bits), 0), "others use it hardly");
	return (bits & MARK_BITS) | 1;
}

/* ---- sockets ---- */

static int root_of_cgroups(void)
{
	_cleanup_(close_fd) int fs = (int)syscall(SYS_fsopen, "cgroup2", 1 /* FSOPEN_CLOEXEC */);

	if (fs < 0 || syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) < 0)
		return -errno;
	return (int)syscall(SYS_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, 0);
}

static int load(uint64_t cookie, uint32_t mark)
{
	const struct bpf_insn insns[] = {
		INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, offsetof(struct __sk_buff, mark), 0),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 6, (int32_t)mark),
		CALL(BPF_FUNC_get_socket_cookie),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, 0, 0, (int32_t)(uint32_t)cookie),
		INSN(0, 0, 0, 0, (int32_t)(cookie >> 32)),
		INSN(BPF_JMP | BPF_JEQ | BPF_X, 0, 1, 2, 0),
		SET(0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		SET(0, 1),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SKB,
		.expected_attach_type = BPF_CGROUP_INET_INGRESS,
		.insns = kernel_bpf_pointer(insns),
		.insn_cnt = sizeof(insns) / sizeof(insns[0]),
		.license = kernel_bpf_pointer("Apache-2.0"),
	};

	return kernel_bpf(BPF_PROG_LOAD, &attr);
}

int gate_open(int fd, uint32_t mark)
{
	_cleanup_(close_fd) int root = root_of_cgroups(), program = -EBADF;
	union bpf_attr attr = {};
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (root < 0)
		return root;
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0)
		return -errno;
	program = load(cookie, mark);
	if (program < 0)
		return program;
	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.target_fd = (uint32_t)root;
	attr.link_create.attach_type = BPF_CGROUP_INET_INGRESS;
	return kernel_bpf(BPF_LINK_CREATE, &attr);
}

/* ---- the kernel ---- */

static int change_policy(int netlink, uint16_t type, uint32_t mark)
{
	const struct xfrm_mark what = {.v = mark, .m = UINT32_MAX};
	const struct xfrm_userpolicy_info rule = {
		.sel.family = AF_INET6,
		.lft = {.soft_byte_limit = XFRM_INF,
			.hard_byte_limit = XFRM_INF,
			.soft_packet_limit = XFRM_INF,
			.hard_packet_limit = XFRM_INF,
			.hard_add_expires_seconds = BLOCKED_SECONDS},
		.dir = XFRM_POLICY_IN,
		.action = XFRM_POLICY_BLOCK,
	};
	const struct xfrm_userpolicy_id which = {.sel = rule.sel, .dir = XFRM_POLICY_IN};
	struct rtnl_message m;

	if (type == XFRM_MSG_NEWPOLICY)
		rtnl_begin(&m, type, NLM_F_CREATE | NLM_F_EXCL, &rule, sizeof(rule));
	else
		rtnl_begin(&m, type, 0, &which, sizeof(which));
	rtnl_attribute(&m, XFRMA_MARK, &what, sizeof(what));
	return rtnl_request(netlink, &m);
}

static int exempt(int fd)
{
	const struct xfrm_userpolicy_info rule = {
		.sel.family = AF_INET6,
		.lft = {.soft_byte_limit = XFRM_INF,
			.hard_byte_limit = XFRM_INF,
			.soft_packet_limit = XFRM_INF,
			.hard_packet_limit = XFRM_INF},
		.dir = XFRM_POLICY_IN,
		.action = XFRM_POLICY_ALLOW,
	};

	return setsockopt(fd, IPPROTO_IPV6, IPV6_XFRM_POLICY, &rule, sizeof(rule)) < 0 ? -errno : 0;
}

int gate_block_v6(int fd, uint32_t mark)
{
	_cleanup_(close_fd) int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
	int r = netlink < 0 ? -errno : exempt(fd);

	if (r >= 0)
		r = change_policy(netlink, XFRM_MSG_NEWPOLICY, mark);
	return r < 0 ? r : take_fd(&netlink);
}

void gate_unblock_v6(int *policy, int fd, uint32_t mark)
{
	if (*policy < 0)
		return;
	ignore(change_policy(*policy, XFRM_MSG_DELPOLICY, mark), "it ends by itself");
	ignore(setsockopt(fd, IPPROTO_IPV6, IPV6_XFRM_POLICY, NULL, 0), "it allows all");
	close_fd(policy);
}

int gate_probe(bool v6)
{
	_cleanup_(close_fd) int root = root_of_cgroups(), program = load(0, 1), netlink = -EBADF;

	if (root < 0 || program < 0)
		return root < 0 ? root : program;
	if (!v6)
		return 0;
	netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
	return netlink < 0 ? -errno : 0;
}
