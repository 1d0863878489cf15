/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/mount_table.h"

void cgroup_hierarchies_free(struct cgroup_hierarchies *h)
{
	vec_for_each (x, h) {
		free(x->controllers);
		free(x->point);
		free(x->root);
		free(x->own);
	}
	vec_free(h);
}

static bool is_listed(const char *list, const char *name, size_t len)
{
	for (const char *at = list; *at; at += strcspn(at, ", \n")) {
		at += strspn(at, ", \n");
		if (strcspn(at, ", \n") == len && !strncmp(at, name, len))
			return true;
	}
	return false;
}

bool cgroup_has_controller(const char *list, const char *name)
{
	return is_listed(list, name, strlen(name));
}

/* A line is "NUMBER:CONTROLLERS:GROUP"; a group may hold colons. 0: there is none any more. */
static int next_line(const char **text, char **controllers, char **group)
{
	const char *line = *text, *name = strchr(line, ':'), *path;

	path = name ? strchr(name + 1, ':') : NULL;
	if (!path)
		return 0;
	*controllers = strndup(name + 1, (size_t)(path - name - 1));
	*group = strndup(path + 1, strcspn(path + 1, "\n"));
	*text = strchrnul(path, '\n');
	*text += **text != '\0';
	return *controllers && *group ? 1 : -ENOMEM;
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for control groups");
}

int cgroup_of(const char *text, const char *controllers, char **ret, struct error *e)
{
	for (;;) {
		_cleanup_(free_ptr) char *name = NULL, *group = NULL;
		int r = next_line(&text, &name, &group);

		if (r <= 0)
			return r < 0 ? no_memory(e) : 0;
		if (!strcmp(name, controllers)) {
			*ret = take_ptr(&group);
			return 1;
		}
	}
}

/* One of the controllers stands for all that are mounted together; names are options as they are.
 */
bool cgroup_is_mount_of(const char *type, const char *super, const char *controllers)
{
	size_t len = strcspn(controllers, ",");

	if (!len)
		return !strcmp(type, "cgroup2");
	return !strcmp(type, "cgroup") && is_listed(super, controllers, len);
}

static bool shows(const char *root, const char *group)
{
	size_t len = strcmp(root, "/") ? strlen(root) : 0;

	return !strncmp(root, group, len) && (!group[len] || group[len] == '/');
}

int cgroup_hierarchies_read(int proc_fd, struct cgroup_hierarchies *ret, struct error *e)
{
	_cleanup_(mount_table_free) struct mount_table mounts = {};
	_cleanup_(free_ptr) char *text = NULL;
	const char *at;
	ssize_t n;
	int r = mount_table_read(proc_fd, getpid(), &mounts, e);

	if (r < 0)
		return r;
	/* A kernel without control groups has no such file. */
	n = procfs_read(proc_fd, &text, e, "%d/cgroup", getpid());
	if (n < 0)
		return procfs_unless_gone(n, e);
	for (at = text;;) {
		_cleanup_(free_ptr) char *controllers = NULL, *own = NULL;

		r = next_line(&at, &controllers, &own);
		if (r <= 0)
			return r < 0 ? no_memory(e) : 0;
		vec_for_each (m, &mounts) {
			struct cgroup_hierarchy *h;

			if (!cgroup_is_mount_of(m->type, m->super, controllers) ||
			    !shows(m->root, own))
				continue;
			h = vec_push(ret);
			if (h)
				*h = (struct cgroup_hierarchy){
					take_ptr(&controllers), strdup(m->point),
					strcmp(m->root, "/") ? strdup(m->root) : strdup(""),
					take_ptr(&own)};
			if (!h || !h->point || !h->root)
				return no_memory(e);
			break;
		}
	}
}

const struct cgroup_hierarchy *cgroup_hierarchy_find(const struct cgroup_hierarchies *h,
						     const char *controllers)
{
	vec_for_each (x, h)
		if (!strcmp(x->controllers, controllers))
			return x;
	return NULL;
}

char *cgroup_directory(const struct cgroup_hierarchy *h, const char *group)
{
	char *path;

	if (!shows(*h->root ? h->root : "/", group))
		return NULL;
	group += strlen(h->root);
	if (asprintf(&path, "%s%s", h->point, strcmp(group, "/") ? group : "") < 0)
		return NULL;
	return path;
}

int cgroup_read(int dir, const char *name, char *text, size_t size)
{
	_cleanup_(close_fd) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t len = 0;
	ssize_t n = 1;

	if (fd < 0)
		return -errno;
	while (n > 0 && len < size - 1) {
		n = read(fd, text + len, size - 1 - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (n < 0)
		return -errno;
	if (n > 0)
		return -EFBIG;
	while (len && text[len - 1] == '\n')
		len--;
	text[len] = '\0';
	return (int)len;
}

int cgroup_write(int dir, const char *name, const char *text)
{
	_cleanup_(close_fd) int fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}
