/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds that no version saves, by name, so that the refusal can say why. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/file_private.h"

static const struct {
	const char *link; /* what /proc/PID/fd/N begins with */
	const char *why;
} refused[] = {
	{"anon_inode:[perf_event]",
	 "a performance counter (perf_event_open) counts what has run on this machine, and nobody "
	 "can set a counter to what it was"},
	{"anon_inode:bpf-prog",
	 "a BPF program cannot be saved: the kernel keeps it as rewritten for this machine, and "
	 "not as it was loaded"},
	{"anon_inode:bpf_link",
	 "a BPF link ties a program to the running kernel, and cannot be saved"},
	{"anon_inode:bpf_iter", "an iterator of BPF stands amid the state of the running kernel"},
	{"anon_inode:bpf_token", "a token of BPF belongs to a mount of this machine"},
	{"anon_inode:btf", "type information of BPF (BTF) cannot be read back as it was loaded"},
};

int file_refuse_kind(const struct file_seen *f, struct error *e)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (!strncmp(f->link, refused[i].link, strlen(refused[i].link)))
			return error_set(e, -EOPNOTSUPP, E_FILE_KIND, "%s", refused[i].why);
	if (S_ISCHR(f->st.st_mode) || S_ISBLK(f->st.st_mode))
		return device_refuse(f, e);
	return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
			 "this kind of file cannot be saved (mode %#o)", f->st.st_mode);
}
