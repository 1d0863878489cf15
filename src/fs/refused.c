/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds that no version saves, by name, so that the refusal can say why. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "fs/file_private.h"

static const struct {
	const char *link; /* what /proc/PID/fd/N begins with */
	const char *why;
} refused[] = {
	{"anon_inode:[perf_event]",
	 "a performance counter (perf_event_open) counts what has run on this machine, and nobody "
	 "can set a counter to what it was"},
	{"anon_inode:bpf_link",
	 "a BPF link ties a program to the running kernel; pin it in a file system (bpffs) and "
	 "open it again afterwards"},
	{"anon_inode:bpf-link",
	 "a BPF link ties a program to the running kernel; pin it in a file system (bpffs) and "
	 "open it again afterwards"},
	{"anon_inode:bpf_iter",
	 "an iterator of BPF stands amid the state of the running kernel; read it to its end"},
	{"anon_inode:bpf-stats",
	 "it asks for statistics of BPF on this machine (BPF_ENABLE_STATS)"},
	{"anon_inode:bpf_token", "a token of BPF belongs to a mount of this machine"},
	{"anon_inode:[fscontext]",
	 "a mount that is being made (fsopen() or fspick()) cannot be saved; finish it first"},
	{"anon_inode:[landlock-ruleset]",
	 "a set of rules of landlock that is being made cannot be read back"},
	{"anon_inode:seccomp notify",
	 "it hears of system calls of other tasks (SECCOMP_RET_USER_NOTIF), whose filter would have "
	 "to be tied to it again"},
	{"anon_inode:kvm-", "it is part of a virtual machine, whose state is in the kernel"},
	{"anon_inode:[kvm-", "it is part of a virtual machine, whose state is in the kernel"},
	{"anon_inode:[vfio-device]", "it is a device that the program drives itself (VFIO)"},
	{"anon_inode:[cachefiles]", "it is a request to a cache of files (cachefiles)"},
	{"anon_inode:gpio-", "it is lines of a device (GPIO)"},
	{"anon_inode:dmabuf", "it is memory of a device"},
	{"/dmabuf:", "it is memory of a device"},
	{"anon_inode:sync_file", "it waits for a device"},
};

static const struct {
	int family;
	const char *name;
} families[] = {
	{AF_XDP, " (AF_XDP)"},
	{AF_ALG, " (AF_ALG)"},
	{AF_BLUETOOTH, " (Bluetooth)"},
	{AF_CAN, " (CAN)"},
	{AF_TIPC, " (TIPC)"},
	{AF_KCM, " (KCM)"},
	{AF_RXRPC, " (RxRPC)"},
	{AF_SMC, " (SMC)"},
	{AF_QIPCRTR, " (Qualcomm IPC router)"},
	{AF_PPPOX, " (PPP)"},
	{AF_AX25, " (AX.25)"},
	{AF_ATMPVC, " (ATM)"},
	{AF_ATMSVC, " (ATM)"},
	{AF_X25, " (X.25)"},
	{AF_KEY, " (AF_KEY)"},
	{AF_RDS, " (RDS)"},
	{AF_LLC, " (LLC)"},
	{AF_PHONET, " (Phonet)"},
	{AF_IEEE802154, " (IEEE 802.15.4)"},
	{AF_NFC, " (NFC)"},
	{45 /* AF_MCTP */, " (MCTP)"},
};

static const char *family_name(int family)
{
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		if (families[i].family == family)
			return families[i].name;
	return "";
}

int file_refuse_kind(const struct file_seen *f, struct error *e)
{
	int family;
	socklen_t len = sizeof(family);

	if (f->flags & O_PATH)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "it is no more than a path (O_PATH) to what has none");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (!strncmp(f->link, refused[i].link, strlen(refused[i].link)))
			return error_set(e, -EOPNOTSUPP, E_FILE_KIND, "%s", refused[i].why);
	if (S_ISCHR(f->st.st_mode) || S_ISBLK(f->st.st_mode))
		return device_refuse(f, e);
	if (S_ISSOCK(f->st.st_mode) &&
	    getsockopt(f->local, SOL_SOCKET, SO_DOMAIN, &family, &len) == 0)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "sockets of address family %d%s cannot be saved", family,
				 family_name(family));
	return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
			 "this kind of file cannot be saved (mode %#o)", f->st.st_mode);
}
