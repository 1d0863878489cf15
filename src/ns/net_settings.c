/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_settings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"

#define NAME_MAX_ALL 512
#define VALUE_MAX    65536
#define VALUE_SHORT  1024
#define DEPTH_MAX    8

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for settings");
}

/* How addresses are generated is told with the interface. Some say how the machine is. */
static bool is_left_out(const char *name)
{
	const char *last = strrchr(name, '/');

	return !strcmp(last + 1, "addr_gen_mode") || !strcmp(last + 1, "flush");
}

static int take(struct net_settings *ret, const char *name, const char *value, struct scratch *s)
{
	Reprise__Setting *m = scratch_message(s, Reprise__Setting, reprise__setting__init), **slot;

	if (!m)
		return -ENOMEM;
	m->name = scratch_string(s, name);
	m->value = scratch_string(s, value);
	slot = m->name && m->value ? vec_push(&ret->list) : NULL;
	if (!slot)
		return -ENOMEM;
	*slot = m;
	return 0;
}

/* Descriptors above this one are left to others. */
#define KNOWN_MOST 768

struct look {
	struct net_files *files; /* NULL: none are kept */
	struct net_settings *ret;
	struct scratch *s;
};

void net_files_free(struct net_files *files)
{
	vec_for_each (f, &files->list) {
		free(f->name);
		close_fd(&f->fd);
	}
	vec_free(&files->list);
	files->complete = false;
}

static int by_file_name(const void *a, const void *b)
{
	return strcmp(((const struct net_file *)a)->name, ((const struct net_file *)b)->name);
}

static struct net_file *find_file(const struct net_files *files, const char *name)
{
	const struct net_file key = {.name = (char *)name};

	if (!files || !files->complete || !files->list.n)
		return NULL;
	return bsearch(&key, files->list.v, files->list.n, sizeof(key), by_file_name);
}

/* A descriptor that is kept, or given back; one for nothing: it is not to be looked at. */
static void keep_file(struct net_files *files, const char *name, int *fd)
{
	struct net_file *f;

	if (!files || files->complete || *fd >= KNOWN_MOST)
		return;
	f = vec_push(&files->list);
	if (!f)
		return;
	f->name = strdup(name);
	f->fd = take_fd(fd);
	if (f->name)
		return;
	close_fd(&f->fd);
	files->list.n--;
}

/* For each read the kernel makes room for as much as is asked for (proc_sys_read()). */
static int read_file(int fd, const char *name, struct look *l)
{
	char value[VALUE_MAX];
	ssize_t n = pread(fd, value, VALUE_SHORT, 0);

	if (n == VALUE_SHORT)
		n = pread(fd, value, sizeof(value) - 1, 0);
	if (n < 0)
		return -errno;
	value[n] = '\0';
	return n ? take(l->ret, name, value, l->s) : 0;
}

/* What cannot be read is not set: a secret for addresses, for instance. */
static bool is_unreadable(int err)
{
	return err == -EACCES || err == -EPERM || err == -ENOENT || err == -EIO || err == -EINVAL;
}

static int take_file(int dir, const char *base, const char *name, struct look *l)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat st;
	int r;

	if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mode & 0222 &&
	    st.st_mode & 0444 && !is_left_out(name)) {
		fd = openat(dir, base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		r = fd < 0 ? -errno : read_file(fd, name, l);
		if (r < 0)
			return is_unreadable(r) ? 0 : r;
	}
	keep_file(l->files, name, &fd);
	return 0;
}

static int walk(int dir, const char *prefix, int depth, struct look *l)
{
	_cleanup_(close_directory) DIR *d = NULL;
	struct dirent *entry;
	int r = 0, ended = 0, fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d || depth > DEPTH_MAX)
		return d ? -ELOOP : -errno;
	while (r >= 0 && (entry = next_entry(d, &ended))) {
		_cleanup_(close_fd) int below = -EBADF;
		char name[NAME_MAX_ALL];
		struct net_file *known;

		if (entry->d_name[0] == '.' && (!entry->d_name[1] || entry->d_name[1] == '.'))
			continue;
		snprintf(name, sizeof(name), "%s/%s", prefix, entry->d_name);
		if (entry->d_type == DT_DIR) {
			below = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			r = below < 0 ? 0 : walk(below, name, depth + 1, l);
			continue;
		}
		known = find_file(l->files, name);
		if (known && known->fd < 0)
			continue;
		/* That of an interface which has gone says ENOENT; another may have its name. */
		r = known ? read_file(known->fd, name, l) : -ENOENT;
		if (r < 0)
			r = take_file(dir, entry->d_name, name, l);
	}
	return r < 0 ? r : ended;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(Reprise__Setting *const *)a)->name, (*(Reprise__Setting *const *)b)->name);
}

int net_settings_look(int proc_fd, struct net_files *files, struct net_settings *ret,
		      struct scratch *s, struct error *e)
{
	struct look l = {.files = files, .ret = ret, .s = s};

	_cleanup_(close_fd) int dir =
		openat(proc_fd < 0 ? AT_FDCWD : proc_fd, proc_fd < 0 ? "/proc/sys/net" : "sys/net",
		       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = dir < 0 ? -errno : walk(dir, "net", 0, &l);

	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "cannot read /proc/sys/net");
	if (ret->list.n)
		qsort(ret->list.v, ret->list.n, sizeof(*ret->list.v), by_name);
	if (files && !files->complete && files->list.n)
		qsort(files->list.v, files->list.n, sizeof(*files->list.v), by_file_name);
	if (files)
		files->complete = true;
	return 0;
}

int net_settings_look_fresh(int proc_fd, struct net_settings *ret, struct scratch *s,
			    struct error *e)
{
	_cleanup_(close_fd) int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int r;

	if (own < 0 && proc_fd >= 0)
		own = openat(proc_fd, "thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own < 0 || unshare(CLONE_NEWNET) < 0)
		return error_errno(e, -errno, E_NAMESPACE,
				   "cannot make a network namespace to compare with");
	r = net_settings_look(proc_fd, NULL, ret, s, e);
	if (setns(own, CLONE_NEWNET) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot return to the network");
	return r;
}

static const Reprise__Setting *find(const struct net_settings *in, const char *name)
{
	Reprise__Setting key = {.name = (char *)name}, *at = &key, **found;

	found = in->list.n ? bsearch(&at, in->list.v, in->list.n, sizeof(*in->list.v), by_name)
			   : NULL;
	return found ? *found : NULL;
}

/* net/ipv4/conf/eth0/forwarding: where the name of the interface begins and ends. */
static bool of_interface(const char *name, const char **begin, const char **end)
{
	static const char *const trees[] = {"net/ipv4/conf/", "net/ipv6/conf/", "net/ipv4/neigh/",
					    "net/ipv6/neigh/"};

	for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) {
		size_t len = strlen(trees[i]);

		if (strncmp(name, trees[i], len) != 0)
			continue;
		*begin = name + len;
		*end = strchr(*begin, '/');
		return *end != NULL;
	}
	return false;
}

/* As it is where nobody has set it. */
static const char *untouched(const struct net_settings *fresh, const char *name)
{
	const Reprise__Setting *m = find(fresh, name);
	const char *begin, *end;
	char other[NAME_MAX_ALL];

	if (!m && of_interface(name, &begin, &end)) {
		snprintf(other, sizeof(other), "%.*sdefault%s", (int)(begin - name), name, end);
		m = find(fresh, other);
	}
	return m ? m->value : NULL;
}

int net_settings_differing(const struct net_settings *now, const struct net_settings *fresh,
			   const struct net_others *others, struct net_settings *ret,
			   struct error *e)
{
	vec_for_each (at, &now->list) {
		const char *value = untouched(fresh, (*at)->name), *begin, *end;
		Reprise__Setting **slot;

		if (of_interface((*at)->name, &begin, &end) &&
		    net_others_have_name(others, begin, (size_t)(end - begin)))
			continue;
		if (value && !strcmp(value, (*at)->value))
			continue;
		slot = vec_push(&ret->list);
		if (!slot)
			return no_memory(e);
		*slot = *at;
	}
	return 0;
}

int net_settings_validate(size_t n, Reprise__Setting *const *list, struct error *e)
{
	for (size_t i = 0; i < n; i++)
		if (strncmp(list[i]->name, "net/", 4) != 0 || strstr(list[i]->name, "..") ||
		    strlen(list[i]->name) >= NAME_MAX_ALL || strlen(list[i]->value) >= VALUE_MAX)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a setting of no network: %s", list[i]->name);
	return 0;
}

/* ---- restart ---- */

static int set(int proc_fd, const Reprise__Setting *m, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	size_t len = strlen(m->value);
	char path[NAME_MAX_ALL + 16], now[VALUE_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "%ssys/%s", proc_fd < 0 ? "/proc/" : "", m->name);
	fd = openat(proc_fd < 0 ? AT_FDCWD : proc_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : pread(fd, now, len + 1 < sizeof(now) ? len + 1 : sizeof(now), 0);
	if (n == (ssize_t)len && !memcmp(now, m->value, len))
		return 0;
	close_fd(&fd);
	fd = openat(proc_fd < 0 ? AT_FDCWD : proc_fd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || pwrite(fd, m->value, len, 0) != (ssize_t)len)
		return error_errno(e, -errno, E_NAMESPACE, "cannot set /proc/sys/%s", m->name);
	return 0;
}

/* What is said of all interfaces is written to each of them by the kernel, so it comes first. */
static int turn(const char *name)
{
	const char *begin, *end;

	if (!of_interface(name, &begin, &end))
		return 0;
	return !strncmp(begin, "all/", 4) ? 1 : !strncmp(begin, "default/", 8) ? 2 : 3;
}

/* What nobody had set is as it was before that. */
static int undo(int proc_fd, const struct net_settings *before, const struct net_settings *wanted,
		struct error *e)
{
	vec_for_each (at, &before->list) {
		int r = turn((*at)->name) == 3 && !find(wanted, (*at)->name) ? set(proc_fd, *at, e)
									     : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

int net_settings_restart(int proc_fd, size_t n, Reprise__Setting *const *list, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct net_settings before = {}, wanted = {};
	int r = n ? net_settings_look(proc_fd, NULL, &before, &s, e) : 0;

	for (int pass = 0; pass <= 3; pass++)
		for (size_t i = 0; i < n && r >= 0; i++)
			if (turn(list[i]->name) == pass)
				r = set(proc_fd, list[i], e);
	for (size_t i = 0; i < n && r >= 0; i++) {
		Reprise__Setting **slot = vec_push(&wanted.list);

		r = slot ? 0 : no_memory(e);
		if (slot)
			*slot = list[i];
	}
	if (r >= 0 && n) {
		qsort(wanted.list.v, wanted.list.n, sizeof(*wanted.list.v), by_name);
		r = undo(proc_fd, &before, &wanted, e);
	}
	vec_free(&before.list);
	vec_free(&wanted.list);
	return r;
}
