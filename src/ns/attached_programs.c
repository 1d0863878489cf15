/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/attached_programs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/kernel_bpf.h"
#include "core/procfs.h"

struct place {
	uint32_t type; /* enum bpf_attach_type */
	const char *name;
};

static const struct place of_networks[] = {
	{BPF_FLOW_DISSECTOR, "a BPF program that takes packets apart (BPF_FLOW_DISSECTOR)"},
	{BPF_SK_LOOKUP, "a BPF program that chooses sockets (BPF_SK_LOOKUP)"},
};

static const struct place of_interfaces[] = {
	{BPF_AT_TCX_INGRESS, "a BPF program (tcx, ingress) at interface"},
	{BPF_AT_TCX_EGRESS, "a BPF program (tcx, egress) at interface"},
};

/*
 * How many there are. An error of any kind, above all EINVAL of a kernel that has no such place, or
 * EPERM: nothing is known. `target`: a descriptor, or the number of an interface, which takes the
 * same place in union bpf_attr.
 */
static uint32_t count(uint32_t target, uint32_t type)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.query.target_fd = target;
	attr.query.attach_type = type;
	return kernel_bpf(BPF_PROG_QUERY, &attr) < 0 ? 0 : attr.query.prog_cnt;
}

const char *attached_to_network(int proc_fd)
{
	_cleanup_(close_fd) int ns =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, NULL, "%sthread-self/ns/net",
			    proc_fd < 0 ? "/proc/" : "");

	for (size_t i = 0; i < sizeof(of_networks) / sizeof(of_networks[0]) && ns >= 0; i++)
		if (count((uint32_t)ns, of_networks[i].type))
			return of_networks[i].name;
	return NULL;
}

const char *attached_to_interface(int index)
{
	for (size_t i = 0; i < sizeof(of_interfaces) / sizeof(of_interfaces[0]); i++)
		if (count((uint32_t)index, of_interfaces[i].type))
			return of_interfaces[i].name;
	return NULL;
}
