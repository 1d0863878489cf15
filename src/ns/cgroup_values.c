/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a control group that can be set. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/cgroup.h"

#define VALUE_MAX 65536
#define NAMES_MAX 4096

/*
 * What is not a setting, or says again what another file says: members, commands, counters that a
 * write sets back, and what belongs to whoever has it open (pressure).
 */
static const char *const no_settings[] = {
	"cgroup.procs",
	"cgroup.threads",
	"tasks",
	"cgroup.type",
	"cgroup.freeze",
	"freezer.state",
	"cgroup.subtree_control",
	"cgroup.kill",
	"cpu.weight.nice",
	"cgroup.event_control",
	"memory.reclaim",
	"memory.force_empty",
	"cpuacct.usage",
	"memory.use_hierarchy",
	"release_agent",
	"cpu.pressure",
	"io.pressure",
	"irq.pressure",
	"memory.pressure",
	"memory.pressure_level",
	"*.failcnt",
	"*max_usage_in_bytes",
	"*.peak",
	"*.reset_stats",
	"memory.kmem.limit_in_bytes",
};

/* What the others depend on; the rest comes after those. */
static const char *const early[] = {"cpuset.mems", "cpuset.cpus", "cpu.rt_period_us",
				    "cpu.cfs_period_us", "memory.limit_in_bytes"};
static const char *const late[] = {"cpu.idle",
				   "cpu.cfs_burst_us",
				   "cpu.max.burst",
				   "cpuset.cpu_exclusive",
				   "cpuset.mem_exclusive",
				   "cpuset.cpus.partition",
				   "cgroup.max.depth",
				   "cgroup.max.descendants"};

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fnmatch(list[i], name, 0) == 0)
			return true;
	return false;
}
#define IS_ONE_OF(name, list) is_one_of(name, list, sizeof(list) / sizeof(*(list)))

/* "INTERFACE NUMBER" of all that the host has: those that come and go are 0. */
static void without_zeros(char *text)
{
	char *to = text, *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *number = strrchr(line, ' ');
		size_t len = strlen(line);

		if (!number || !strcmp(number, " 0"))
			continue;
		if (to > text)
			*to++ = '\n';
		memmove(to, line, len);
		to += len;
	}
	*to = '\0';
}

/* As it is to be written: two files of version 1 show more than is set. */
static int read_value(int dir, const char *name, char *text, size_t size)
{
	int n = cgroup_read(dir, name, text, size);

	if (n > 0 && !strcmp(name, "memory.oom_control")) {
		text[strcspn(text, "\n")] = '\0';
		if (!strncmp(text, "oom_kill_disable ", 17))
			memmove(text, text + 17, strlen(text + 17) + 1);
		n = (int)strlen(text);
	}
	if (n > 0 && !strcmp(name, "net_prio.ifpriomap")) {
		without_zeros(text);
		n = (int)strlen(text);
	}
	return n;
}

static bool is_setting(const char *name, const struct stat *st)
{
	if (!strcmp(name, "devices.list"))
		return true;
	return (st->st_mode & 0400) && (st->st_mode & 0200) && !IS_ONE_OF(name, no_settings);
}

/* An empty set is that of the group above: in version 1 it had to be copied, and means the same. */
static bool is_inherited(int dir, const char *name, const char *value)
{
	_cleanup_(close_fd) int above = -EBADF;
	char theirs[4096];

	if (strcmp(name, "cpuset.cpus") && strcmp(name, "cpuset.mems"))
		return false;
	if (!*value)
		return true;
	above = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return above >= 0 && cgroup_read(above, name, theirs, sizeof(theirs)) >= 0 &&
	       !strcmp(theirs, value);
}

static int add_file(int dir, const char *name, Reprise__Cgroup *msg, char *value, struct scratch *s,
		    struct error *e)
{
	Reprise__CgroupFile *f;
	struct stat st;
	bool set;
	int n = 0;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	set = is_setting(name, &st);
	if (set)
		n = read_value(dir, name, value, VALUE_MAX);
	if (n == -EFBIG)
		return error_set(e, n, E_CONTAINER_CGROUP, "%s is too long", name);
	/* A weight of 0 is that of a group that is idle (cpu.idle), and cannot be written. */
	set = set && n >= 0 && !is_inherited(dir, name, value) &&
	      (strcmp(name, "cpu.weight") != 0 || strcmp(value, "0") != 0);
	if (!set && !st.st_uid && !st.st_gid)
		return 0;
	f = scratch_message(s, Reprise__CgroupFile, reprise__cgroup_file__init);
	if (f) {
		f->name = scratch_string(s, name);
		f->value = scratch_string(s, set ? value : "");
	}
	if (!f || !f->name || !f->value)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
	f->set = set;
	f->mode = st.st_mode & 07777;
	f->uid = st.st_uid;
	f->gid = st.st_gid;
	msg->files[msg->n_files++] = f;
	return 0;
}

static int read_xattrs(int dir, Reprise__Cgroup *msg, struct scratch *s, struct error *e)
{
	char names[NAMES_MAX], value[VALUE_MAX / 16];
	ssize_t len = flistxattr(dir, names, sizeof(names));

	if (len <= 0)
		return 0;
	msg->xattrs = scratch_alloc(s, (size_t)len * sizeof(*msg->xattrs));
	for (const char *name = names; name < names + len; name += strlen(name) + 1) {
		Reprise__Xattr *x = scratch_message(s, Reprise__Xattr, reprise__xattr__init);
		ssize_t n = fgetxattr(dir, name, value, sizeof(value));

		/* What a security module has put there it puts there again. */
		if (n < 0 || !strncmp(name, "security.", 9))
			continue;
		if (x && msg->xattrs) {
			x->name = scratch_string(s, name);
			x->value.data = scratch_copy(s, value, (size_t)n + 1);
			x->value.len = (size_t)n;
		}
		if (!x || !msg->xattrs || !x->name || !x->value.data)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
		msg->xattrs[msg->n_xattrs++] = x;
	}
	return 0;
}

/* Names of controllers that are handed down, as they are written. */
static int read_subtree(int dir, Reprise__Cgroup *msg, struct scratch *s)
{
	char text[1024];
	int n = cgroup_read(dir, "cgroup.subtree_control", text, sizeof(text));

	msg->subtree = scratch_string(s, n < 0 ? "" : text);
	return msg->subtree ? 0 : -ENOMEM;
}

int cgroup_values_read(int dir, bool v2, Reprise__Cgroup *msg, struct scratch *s, struct error *e)
{
	_cleanup_(close_directory) DIR *d = NULL;
	_cleanup_(free_ptr) char *value = malloc(VALUE_MAX);
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	struct dirent *entry;
	size_t files = 0;
	int ended = 0;

	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d || !value)
		return error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot read a control group");
	while (readdir(d))
		files++;
	rewinddir(d);
	msg->files = scratch_alloc(s, (files + 64) * sizeof(*msg->files));
	if (!msg->files || (v2 && read_subtree(dir, msg, s) < 0))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
	while (r >= 0 && msg->n_files < files + 64 && (entry = next_entry(d, &ended)))
		if (entry->d_type != DT_DIR)
			r = add_file(dir, entry->d_name, msg, value, s, e);
	if (r >= 0 && ended < 0)
		r = error_errno(e, ended, E_CONTAINER_CGROUP, "cannot read a control group");
	return r < 0 ? r : read_xattrs(dir, msg, s, e);
}

bool cgroup_values_valid(const Reprise__Cgroup *msg)
{
	for (size_t i = 0; i < msg->n_files; i++) {
		const Reprise__CgroupFile *f = msg->files[i];

		if (!*f->name || strchr(f->name, '/') || *f->name == '.' ||
		    (f->set && IS_ONE_OF(f->name, no_settings)))
			return false;
	}
	for (size_t i = 0; i < msg->n_xattrs; i++)
		if (!strncmp(msg->xattrs[i]->name, "security.", 9))
			return false;
	return true;
}

bool cgroup_value_is_default(const Reprise__CgroupFile *f)
{
	/* Of version 2, then of version 1. */
	static const char *const values[] = {"",
					     "0",
					     "max",
					     "100",
					     "max 100000",
					     "1",
					     "default 100",
					     "-1",
					     "100000",
					     "1024",
					     "1000000",
					     "60",
					     "9223372036854771712",
					     "a *:* rwm",
					     "root",
					     "member",
					     "no-change",
					     "0.00"};

	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++)
		if (!strcmp(f->value, values[i]))
			return true;
	return !f->set;
}

/* A device, or all, a line. */
static int write_lines(int dir, const char *name, const char *value)
{
	_cleanup_(free_ptr) char *copy = strdup(value);
	char *save = NULL;
	int r = copy ? 0 : -ENOMEM;

	for (char *line = strtok_r(copy, "\n", &save); line && r >= 0;
	     line = strtok_r(NULL, "\n", &save))
		r = cgroup_write(dir, name, line);
	return r;
}

static int write_value(int dir, const Reprise__CgroupFile *f)
{
	int r;

	if (strcmp(f->name, "devices.list"))
		return *f->value ? write_lines(dir, f->name, f->value)
				 : cgroup_write(dir, f->name, "\n");
	r = cgroup_write(dir, "devices.deny", "a");
	return r < 0 ? r : write_lines(dir, "devices.allow", f->value);
}

static int set_one(int dir, const Reprise__CgroupFile *f, char *now, struct error *e)
{
	int n = read_value(dir, f->name, now, VALUE_MAX), r;

	if (n == -ENOENT && cgroup_value_is_default(f))
		return 0;
	if (n < 0)
		return error_errno(e, n, E_CONTAINER_CGROUP, "there is no %s, which was %s",
				   f->name, f->value);
	if (!strcmp(now, f->value))
		return 0;
	r = write_value(dir, f);
	if (r < 0)
		return error_errno(e, r, E_CONTAINER_CGROUP, "cannot set %s to %s", f->name,
				   f->value);
	n = read_value(dir, f->name, now, VALUE_MAX);
	if (n >= 0 && !strcmp(now, f->value))
		return 0;
	return error_set(e, -EINVAL, E_CONTAINER_CGROUP, "%s cannot be %s here: it is %s", f->name,
			 f->value, n < 0 ? "not there" : now);
}

static int set_owner(int dir, const Reprise__CgroupFile *f, struct error *e)
{
	struct stat st;

	if (fstatat(dir, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (st.st_uid == f->uid && st.st_gid == f->gid && (st.st_mode & 07777) == f->mode)
		return 0;
	if (fchownat(dir, f->name, f->uid, f->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fchmodat(dir, f->name, f->mode, 0) < 0)
		return error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot set the owner of %s",
				   f->name);
	return 0;
}

static int rank(const char *name)
{
	return IS_ONE_OF(name, early) ? 0 : IS_ONE_OF(name, late) ? 2 : 1;
}

int cgroup_values_write(int dir, const Reprise__Cgroup *msg, struct error *e)
{
	_cleanup_(free_ptr) char *now = malloc(VALUE_MAX);
	int r = 0;

	if (!now)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
	for (int turn = 0; turn < 3; turn++)
		for (size_t i = 0; i < msg->n_files && r >= 0; i++)
			if (msg->files[i]->set && rank(msg->files[i]->name) == turn)
				r = set_one(dir, msg->files[i], now, e);
	for (size_t i = 0; i < msg->n_files && r >= 0; i++)
		r = set_owner(dir, msg->files[i], e);
	for (size_t i = 0; i < msg->n_xattrs && r >= 0; i++) {
		const Reprise__Xattr *x = msg->xattrs[i];

		if (fsetxattr(dir, x->name, x->value.data, x->value.len, 0) < 0)
			r = error_errno(e, -errno, E_CONTAINER_CGROUP, "cannot set attribute %s",
					x->name);
	}
	return r;
}
