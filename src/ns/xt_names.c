/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/xt_names.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/*
 * Not here: what counts in memory of its own (quota, recent, rateest), what refers to something
 * outside of the rules (set, nfacct, bpf, cgroup, IDLETIMER, LED, CLUSTERIP, SECMARK). Rates
 * (limit, hashlimit, connlimit, statistic) begin anew.
 */
static const char *const matches[] = {
	"addrtype", "ah",	 "cluster", "comment", "connbytes", "connlabel",  "connlimit",
	"connmark", "conntrack", "cpu",	    "dccp",    "devgroup",  "dscp",	  "dst",
	"ecn",	    "esp",	 "eui64",   "frag",    "hashlimit", "hbh",	  "helper",
	"hl",	    "icmp",	 "icmp6",   "ipcomp",  "iprange",   "ipv6header", "l2tp",
	"length",   "limit",	 "mac",	    "mark",    "mh",	    "multiport",  "osf",
	"owner",    "physdev",	 "pkttype", "policy",  "realm",	    "rpfilter",	  "rt",
	"sctp",	    "socket",	 "srh",	    "state",   "statistic", "string",	  "tcp",
	"tcpmss",   "time",	 "tos",	    "ttl",     "u32",	    "udp",	  "udplite",
};

static const char *const targets[] = {
	"",	    "ERROR",	"REJECT",   "LOG",	  "NFLOG",	 "NFQUEUE", "MARK",
	"CONNMARK", "CT",	"NOTRACK",  "DSCP",	  "TOS",	 "ECN",	    "HL",
	"TTL",	    "HMARK",	"CHECKSUM", "CLASSIFY",	  "SNAT",	 "DNAT",    "SNPT",
	"DNPT",	    "NETMAP",	"REDIRECT", "TCPMSS",	  "TEE",	 "TPROXY",  "TRACE",
	"AUDIT",    "SYNPROXY", "mangle",   "MASQUERADE", "TCPOPTSTRIP",
};

static bool known(const char *const *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

int xt_match_check(const char *name, struct error *e)
{
	if (known(matches, sizeof(matches) / sizeof(*matches), name))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
			 "the match '%.30s' of iptables cannot be saved", name);
}

int xt_target_check(const char *name, struct error *e)
{
	if (known(targets, sizeof(targets) / sizeof(*targets), name))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
			 "the target '%.30s' of iptables cannot be saved", name);
}
