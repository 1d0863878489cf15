/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/ebtables.h"

/* Before those of the kernel, which leave out then what it has. */
#include <netinet/in.h>

#include <errno.h>
#include <linux/if.h>
#include <linux/netfilter_bridge/ebtables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"

#define SIZE_MAX_ALL (64 << 20)

/* Without an argument it is looked for whether the kernel has them (do_ebt_get_ctl()), and no
 * module is loaded. */
static bool are_there_any(int fd)
{
	socklen_t len = sizeof(struct ebt_replace);

	return getsockopt(fd, SOL_IP, EBT_SO_GET_INFO, NULL, &len) == 0 || errno == EFAULT;
}

/*
 * Asking for a table makes it (find_table_lock()), and loads its module. One of which the module is
 * not there nobody has; where they are no modules, it costs an empty table.
 */
static bool may_have(const char *modules, const char *name)
{
	char line[64];

	if (!strstr(modules, "\nebtables ") && strncmp(modules, "ebtables ", 9) != 0)
		return true;
	snprintf(line, sizeof(line), "\nebtable_%s ", name);
	return strstr(modules, line) || !strncmp(modules, line + 1, strlen(line) - 1);
}

/* Chains of the kernel that accept all, and nothing else. */
static bool is_untouched(const struct ebt_replace *info)
{
	const struct ebt_entries *chains = (const struct ebt_entries *)info->entries;
	const size_t n = (size_t)__builtin_popcount(info->valid_hooks);

	if (info->nentries || info->entries_size != n * sizeof(*chains))
		return false;
	for (size_t i = 0; i < n; i++)
		if (chains[i].policy != EBT_ACCEPT)
			return false;
	return true;
}

static int look(int fd, const char *name, struct error *e)
{
	_cleanup_(free_ptr) char *entries = NULL;
	struct ebt_replace info = {};
	socklen_t len = sizeof(info);

	snprintf(info.name, sizeof(info.name), "%s", name);
	if (getsockopt(fd, SOL_IP, EBT_SO_GET_INFO, &info, &len) < 0)
		return errno == ENOENT || errno == EPERM ? 0 : -errno;
	entries = info.entries_size <= SIZE_MAX_ALL ? malloc(info.entries_size + 1) : NULL;
	if (!entries)
		return -ENOMEM;
	info.entries = entries;
	info.num_counters = 0;
	len = sizeof(info) + info.entries_size;
	if (getsockopt(fd, SOL_IP, EBT_SO_GET_ENTRIES, &info, &len) < 0)
		return -errno;
	return is_untouched(&info)
		       ? 0
		       : error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				   "the network namespace has rules of ebtables (table "
				   "%s), which cannot be saved; those of ebtables-nft can",
				   name);
}

int ebtables_refuse(int proc_fd, struct error *e)
{
	static const char *const names[] = {"filter", "nat", "broute"};
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	_cleanup_(free_ptr) char *modules = NULL;
	int r = 0;

	/* Who may not make such a socket cannot have set any here. */
	if (fd < 0 || !are_there_any(fd))
		return 0;
	if (procfs_read(proc_fd, &modules, NULL, "%smodules", proc_fd < 0 ? "/proc/" : "") < 0)
		modules = NULL;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && r >= 0; i++)
		if (may_have(modules ?: "", names[i]))
			r = look(fd, names[i], e);
	return r < 0 && !e->code
		       ? error_errno(e, r, E_SYSTEM, "cannot look at the rules of ebtables")
		       : r;
}
