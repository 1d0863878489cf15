/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/settings.h"

static const struct {
	uint64_t namespace;
	const char *name;
} settings[] = {
	{CLONE_NEWIPC, "kernel/shmmax"},
	{CLONE_NEWIPC, "kernel/shmall"},
	{CLONE_NEWIPC, "kernel/shmmni"},
	{CLONE_NEWIPC, "kernel/shm_rmid_forced"},
	{CLONE_NEWIPC, "kernel/msgmax"},
	{CLONE_NEWIPC, "kernel/msgmnb"},
	{CLONE_NEWIPC, "kernel/msgmni"},
	{CLONE_NEWIPC, "kernel/sem"},
	{CLONE_NEWIPC, "fs/mqueue/queues_max"},
	{CLONE_NEWIPC, "fs/mqueue/msg_max"},
	{CLONE_NEWIPC, "fs/mqueue/msgsize_max"},
	{CLONE_NEWIPC, "fs/mqueue/msg_default"},
	{CLONE_NEWIPC, "fs/mqueue/msgsize_default"},
	{CLONE_NEWNET, "net/core/somaxconn"},
	{CLONE_NEWNET, "net/ipv4/ip_forward"},
	{CLONE_NEWNET, "net/ipv4/ip_local_port_range"},
	{CLONE_NEWNET, "net/ipv4/ip_unprivileged_port_start"},
	{CLONE_NEWNET, "net/ipv4/ip_nonlocal_bind"},
	{CLONE_NEWNET, "net/ipv4/ping_group_range"},
	{CLONE_NEWNET, "net/ipv4/tcp_syncookies"},
	{CLONE_NEWNET, "net/ipv4/tcp_keepalive_time"},
	{CLONE_NEWNET, "net/ipv4/tcp_keepalive_intvl"},
	{CLONE_NEWNET, "net/ipv4/tcp_keepalive_probes"},
	{CLONE_NEWNET, "net/ipv4/tcp_fin_timeout"},
	{CLONE_NEWNET, "net/ipv4/tcp_tw_reuse"},
	{CLONE_NEWNET, "net/ipv6/bindv6only"},
	{CLONE_NEWNET, "net/ipv6/conf/all/disable_ipv6"},
	{CLONE_NEWNET, "net/ipv6/conf/default/disable_ipv6"},
	{CLONE_NEWNET, "net/unix/max_dgram_qlen"},
	{CLONE_NEWUSER, "user/max_cgroup_namespaces"},
	{CLONE_NEWUSER, "user/max_ipc_namespaces"},
	{CLONE_NEWUSER, "user/max_mnt_namespaces"},
	{CLONE_NEWUSER, "user/max_net_namespaces"},
	{CLONE_NEWUSER, "user/max_pid_namespaces"},
	{CLONE_NEWUSER, "user/max_time_namespaces"},
	{CLONE_NEWUSER, "user/max_user_namespaces"},
	{CLONE_NEWUSER, "user/max_uts_namespaces"},
	{CLONE_NEWUSER, "user/max_inotify_instances"},
	{CLONE_NEWUSER, "user/max_inotify_watches"},
	{CLONE_NEWUSER, "user/max_fanotify_groups"},
	{CLONE_NEWUSER, "user/max_fanotify_marks"},
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

static int open_setting(int proc_fd, const char *name, int flags)
{
	char path[256];

	snprintf(path, sizeof(path), "%ssys/%s", proc_fd < 0 ? "/proc/" : "", name);
	return openat(proc_fd < 0 ? AT_FDCWD : proc_fd, path, flags | O_CLOEXEC);
}

static int add(Reprise__Container *msg, const char *name, const char *value, struct scratch *s)
{
	Reprise__Setting *m = scratch_message(s, Reprise__Setting, reprise__setting__init);

	if (!m)
		return -ENOMEM;
	m->name = scratch_string(s, name);
	m->value = scratch_string(s, value);
	msg->settings[msg->n_settings++] = m;
	return m->name && m->value ? 0 : -ENOMEM;
}

int settings_checkpoint(int proc_fd, Reprise__Container *msg, struct scratch *s, struct error *e)
{
	msg->settings = scratch_alloc(s, SETTINGS * sizeof(*msg->settings));
	if (!msg->settings)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for settings");
	for (size_t i = 0; i < SETTINGS; i++) {
		_cleanup_(close_fd) int fd = -EBADF;
		char value[256];
		ssize_t n;

		/* Those of a network are saved with it; older images have these. */
		if (!(msg->own & settings[i].namespace) || settings[i].namespace == CLONE_NEWNET)
			continue;
		/* Not every kernel has every one. */
		fd = open_setting(proc_fd, settings[i].name, O_RDONLY);
		n = fd < 0 ? -1 : read(fd, value, sizeof(value) - 1);
		if (n <= 0)
			continue;
		value[n] = '\0';
		if (add(msg, settings[i].name, value, s) < 0)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for settings");
	}
	return 0;
}

int settings_validate(const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_settings; i++) {
		bool known = false;

		for (size_t j = 0; j < SETTINGS; j++)
			known |= !strcmp(settings[j].name, msg->settings[i]->name) &&
				 (msg->own & settings[j].namespace);
		if (!known)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a setting of no namespace of its own: %s",
					 msg->settings[i]->name);
	}
	return 0;
}

int settings_restart(int proc_fd, const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_settings; i++) {
		const Reprise__Setting *m = msg->settings[i];
		_cleanup_(close_fd) int fd = open_setting(proc_fd, m->name, O_RDONLY);
		size_t len = strlen(m->value);
		char now[256];
		ssize_t n = fd < 0 ? -1 : pread(fd, now, sizeof(now), 0);

		/* Only what differs: some may be read by everybody and set by few. */
		if (n == (ssize_t)len && !memcmp(now, m->value, len))
			continue;
		close_fd(&fd);
		fd = open_setting(proc_fd, m->name, O_WRONLY);
		if (fd < 0 || pwrite(fd, m->value, len, 0) != (ssize_t)len)
			return error_errno(e, -errno, E_NAMESPACE, "cannot set /proc/sys/%s",
					   m->name);
	}
	return 0;
}
