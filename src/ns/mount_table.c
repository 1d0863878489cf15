/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/mount_table.h"

static void free_line(struct mount_line *m)
{
	free(m->root);
	free(m->point);
	free(m->options);
	free(m->type);
	free(m->source);
	free(m->super);
}

void mount_table_free(struct mount_table *t)
{
	vec_for_each (m, t)
		free_line(m);
	vec_free(t);
}

static bool octal(const char *s)
{
	return s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
	       s[3] >= '0' && s[3] <= '7';
}

/* Space, tab, newline and backslash are written in octal (mangle_path() of the kernel). */
static char *unescape(const char *word)
{
	char *out = strdup(word), *to = out;

	for (const char *s = word; out && *s; s++) {
		if (octal(s)) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	if (out)
		*to = '\0';
	return out;
}

static int parse_optional(const char *word, struct mount_line *m)
{
	if (sscanf(word, "shared:%d", &m->shared) == 1 ||
	    sscanf(word, "master:%d", &m->master) == 1 || !strncmp(word, "propagate_from:", 15))
		return 0;
	if (!strcmp(word, "unbindable"))
		m->unbindable = true;
	return 0; /* later kernels may have more */
}

static int parse_line(char *line, struct mount_line *m)
{
	char *save = NULL, *word[6];
	unsigned int maj, min;

	for (int i = 0; i < 6; i++) {
		word[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!word[i])
			return -EINVAL;
	}
	if (sscanf(word[2], "%u:%u", &maj, &min) != 2)
		return -EINVAL;
	m->id = atoi(word[0]);
	m->parent = atoi(word[1]);
	m->dev = makedev(maj, min);
	m->root = unescape(word[3]);
	m->point = unescape(word[4]);
	m->options = strdup(word[5]);
	for (;;) {
		char *w = strtok_r(NULL, " ", &save);

		if (!w)
			return -EINVAL;
		if (!strcmp(w, "-"))
			break;
		if (parse_optional(w, m) < 0)
			return -EINVAL;
	}
	for (int i = 0; i < 3; i++)
		word[i] = strtok_r(NULL, " ", &save);
	m->type = word[0] ? unescape(word[0]) : NULL;
	/* An empty source leaves two spaces, which strtok_r() takes for one. */
	m->source = unescape(word[1] && word[2] ? word[1] : "none");
	m->super = unescape(word[2] ? word[2] : word[1] ? word[1] : "");
	if (!word[0])
		return -EINVAL;
	return m->root && m->point && m->options && m->type && m->source && m->super ? 0 : -ENOMEM;
}

static int by_id(const void *a, const void *b)
{
	const struct mount_line *x = *(struct mount_line *const *)a,
				*y = *(struct mount_line *const *)b;

	return (x->id > y->id) - (x->id < y->id);
}

/* The one on which it is mounted, if that is at the same place. */
static struct mount_line *below(struct mount_line **sorted, size_t n, const struct mount_line *m)
{
	const struct mount_line wanted = {.id = m->parent}, *key = &wanted;
	struct mount_line **found = bsearch(&key, sorted, n, sizeof(*sorted), by_id);

	return found && *found != m && !strcmp((*found)->point, m->point) ? *found : NULL;
}

/* Nobody keeps a user from mounting a hundred thousand at one place: each is visited twice. */
static int find_heights(struct mount_table *t)
{
	_cleanup_(free_ptr) struct mount_line **sorted = calloc(t->n + 1, sizeof(*sorted));
	_cleanup_(free_ptr) bool *known = calloc(t->n + 1, sizeof(*known));

	if (!sorted || !known)
		return -ENOMEM;
	for (size_t i = 0; i < t->n; i++)
		sorted[i] = &t->v[i];
	qsort(sorted, t->n, sizeof(*sorted), by_id);
	for (size_t i = 0; i < t->n; i++) {
		struct mount_line *m = &t->v[i];
		size_t height = 0;

		/* A text of no kernel may lead in a circle. */
		for (; m && !known[m - t->v] && height < t->n; m = below(sorted, t->n, m))
			height++;
		if (m)
			height += m->height + known[m - t->v];
		for (m = &t->v[i]; m && !known[m - t->v]; m = below(sorted, t->n, m)) {
			known[m - t->v] = true;
			m->height = --height;
		}
	}
	return 0;
}

int mount_table_parse(const char *text, struct mount_table *ret)
{
	_cleanup_(free_ptr) char *copy = strdup(text);
	char *save = NULL;

	if (!copy)
		return -ENOMEM;
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct mount_line *m = vec_push(ret);
		int r = m ? parse_line(line, m) : -ENOMEM;

		if (r < 0)
			return r;
	}
	return find_heights(ret);
}

int mount_table_read(int proc_fd, pid_t pid, struct mount_table *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(proc_fd, &text, e, "%d/mountinfo", pid);
	int r;

	if (n < 0)
		return (int)n;
	r = mount_table_parse(text, ret);
	return r < 0 ? error_set(e, r, E_INTERNAL, "/proc/%d/mountinfo is not understood", pid) : 0;
}

int mount_id_at(int dir, const char *path, int flags)
{
	struct statx st = {};

	return statx(dir, path, flags, STATX_MNT_ID, &st) == 0 && st.stx_mask & STATX_MNT_ID
		       ? (int)st.stx_mnt_id
		       : 0;
}

bool mount_is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strcmp(dir, "/") || (!strncmp(path, dir, len) && (path[len] == '/' || !path[len]));
}

static const char *find_option(const char *options, const char *name)
{
	size_t len = strlen(name);

	for (const char *s = options; s; s = strchr(s, ',')) {
		if (*s == ',')
			s++;
		if (!strncmp(s, name, len) && (s[len] == '=' || s[len] == ',' || !s[len]))
			return s + len;
	}
	return NULL;
}

char *mount_option(const char *options, const char *name)
{
	const char *at = find_option(options, name);

	return at && *at == '=' ? strndup(at + 1, strcspn(at + 1, ",")) : NULL;
}

bool mount_has_option(const char *options, const char *name)
{
	return find_option(options, name) != NULL;
}

unsigned long mount_flags(const char *options)
{
	static const struct {
		const char *name;
		unsigned long flag;
	} names[] = {
		{"ro", MS_RDONLY},	   {"nosuid", MS_NOSUID},
		{"nodev", MS_NODEV},	   {"noexec", MS_NOEXEC},
		{"noatime", MS_NOATIME},   {"nodiratime", MS_NODIRATIME},
		{"relatime", MS_RELATIME}, {"nosymfollow", MS_NOSYMFOLLOW},
	};
	unsigned long flags = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (mount_has_option(options, names[i].name))
			flags |= names[i].flag;
	/* None of the three: every access is noted. */
	if (!(flags & (MS_NOATIME | MS_RELATIME)))
		flags |= MS_STRICTATIME;
	return flags;
}
