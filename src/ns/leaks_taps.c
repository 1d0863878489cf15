/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces of the container that are those of a descriptor (tun, tap), which nobody in it has: a
 * program outside serves them (slirp4netns, pasta). They would not come back.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/leaks.h"
#include "ns/spaces.h"

/* Descriptors that had one name are those of one interface: a network has no name twice. */
static bool is_held(const struct leak_search *s, const struct net_other *o)
{
	vec_for_each (f, &s->c->files->files) {
		const Reprise__TunFile *tun = (*f)->ops ? (*f)->msg->tun : NULL;

		if (tun && tun->link && tun->link->index == (uint32_t)o->index &&
		    !strcmp(tun->name, o->name))
			return true;
	}
	return false;
}

static int note(struct leak_search *s, const struct network *n, struct error *e)
{
	vec_for_each (o, &n->others.list) {
		struct leak_tap *tap = o->tun && !is_held(s, o) ? vec_push(&s->taps) : NULL;

		if (o->tun && !tap && !is_held(s, o))
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
		if (tap)
			memcpy(tap->name, o->name, sizeof(tap->name));
	}
	return 0;
}

int leak_note_taps(struct leak_search *s, struct error *e)
{
	int r = s->ct->own & CLONE_NEWNET ? note(s, &s->ct->network, e) : 0;

	vec_for_each (x, &s->c->spaces.looked->list)
		if (r >= 0)
			r = note(s, &(*x)->network, e);
	return r;
}

/* /proc/PID/fdinfo of such a descriptor has the name (tun_chr_show_fdinfo()). */
int leak_look_at_tap(struct leak_search *s, const struct outsider *o, int fd, const char *link,
		     struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	const char *name;
	struct error unused = {};
	char how[80];
	size_t len;

	if (!s->taps.n || procfs_read(s->ct->host_proc, &text, &unused, "%d/task/%d/fdinfo/%d",
				      o->pid, o->tid, fd) < 0)
		return 0;
	name = proc_field(text, "iff", &len);
	vec_for_each (tap, &s->taps) {
		if (!name || strlen(tap->name) != len || memcmp(tap->name, name, len))
			continue;
		tap->found = true;
		snprintf(how, sizeof(how), " as descriptor %d, for interface %s", fd, tap->name);
		return leak_report(s, o, "file", link, NULL, how, e);
	}
	return 0;
}

int leak_check_taps(struct leak_search *s, struct error *e)
{
	int r = 0;

	vec_for_each (tap, &s->taps) {
		if (r < 0 || tap->found || leak_allowed(s, "file", NULL))
			continue;
		r = error_set(
			e, -EBUSY, E_CONTAINER_LEAK,
			"interface %s is that of a descriptor of /dev/net/tun, which is not in "
			"the tree",
			tap->name);
		r = checkpoint_refuse(s->c, error_object(e, r, "the container"), e);
	}
	return r;
}
