/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forge IN OUT EDIT...: a copy of an image that says something else, with lengths, checksums and
 * digests that fit, as anybody can make it.
 *
 *   uid=N  gid=N    of all tasks
 *   caps=HEX        effective, permitted and bounding sets
 *   limit=N         of open files, hard and soft
 *   oom=N  nice=N
 *   path=NEW        instead of the name of the file that is called "target"
 *   securebits=N
 *   inner-pid=N     the number in a pid namespace below the root's, of all in one,
 *   inner-pids=N    how many they have, and
 *   pid-namespace=N the id of it;
 *   children=N      of that of their children,
 *   above=N         of what is above one, of mounts too
 *   proc=N          the pid namespace of a /proc below the root's,
 *   proc-mounts=N   of files in it the mount namespace;
 *   proc-tmpfs      it is none
 *   options=TEXT    of overlays, and
 *   lower=TEXT      their lower directories;
 *   type=TEXT       of file systems that are new;
 *   epoll-number=N  of all that is in sets of epoll;
 *   event-inode=N   of which unread events of fanotify tell by handle, and
 *   event-overflow  they tell of an overflow as well
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/resource.h>

#include "fs/fanotify_events.h"
#include "remake.h"
#include "fs.pb-c.h"
#include "kernel.pb-c.h"
#include "ns.pb-c.h"
#include "ns/mounts.h"

static void edit_credentials(Reprise__Credentials *c, const char *edit)
{
	unsigned int id;
	unsigned long long caps;

	if (sscanf(edit, "uid=%u", &id) == 1)
		c->ruid = c->euid = c->suid = c->fsuid = id;
	else if (sscanf(edit, "gid=%u", &id) == 1)
		c->rgid = c->egid = c->sgid = c->fsgid = id;
	else if (sscanf(edit, "caps=%llx", &caps) == 1 && c->caps)
		c->caps->effective = c->caps->permitted = c->caps->bounding = caps;
	else if (sscanf(edit, "securebits=%u", &id) == 1)
		c->securebits = id;
}

static void edit_process(Reprise__Process *p, const char *edit)
{
	unsigned long long n;

	sscanf(edit, "oom=%d", &p->oom_score_adj);
	if (p->n_inner_pids) {
		sscanf(edit, "inner-pid=%d", &p->inner_pids[p->n_inner_pids - 1]);
		if (sscanf(edit, "inner-pids=%llu", &n) == 1 && n < p->n_inner_pids)
			p->n_inner_pids = n;
		if (sscanf(edit, "pid-namespace=%llu", &n) == 1)
			p->pid_namespace = n;
	}
	for (size_t i = 0; i < p->n_rlimits && sscanf(edit, "limit=%llu", &n) == 1; i++)
		if (p->rlimits[i]->resource == RLIMIT_NOFILE)
			p->rlimits[i]->soft = p->rlimits[i]->hard = n;
}

static void edit_inode(Reprise__Inode *in, const char *edit)
{
	const char *base = in->path ? strrchr(in->path, '/') : NULL;

	if (strncmp(edit, "path=", 5) || !base || strcmp(base, "/target"))
		return;
	free(in->path);
	in->path = strdup(edit + 5);
}

static void edit_namespace(Reprise__Container *c, const char *edit)
{
	unsigned long long id;

	if (sscanf(edit, "above=%llu", &id) == 1)
		c->above = id;
	for (size_t i = 0; i < c->n_mounts; i++)
		if (c->mounts[i]->pid_namespace && sscanf(edit, "proc=%llu", &id) == 1)
			c->mounts[i]->pid_namespace = id;
		else if (c->mounts[i]->pid_namespace && !strcmp(edit, "proc-tmpfs"))
			c->mounts[i]->kind = MOUNT_TMPFS;
}

static void edit_text(const char *edit, const char *what, char **text)
{
	size_t len = strlen(what);

	if (!strncmp(edit, what, len) && edit[len] == '=')
		*text = strdup(edit + len + 1);
}

static void edit_container(Reprise__Container *c, const char *edit)
{
	for (size_t i = 0; i < c->n_mounts; i++) {
		Reprise__Mount *m = c->mounts[i];

		if (m->kind == MOUNT_OVERLAY) {
			edit_text(edit, "options", &m->data);
			edit_text(edit, "lower", &m->lower);
		}
		if (m->kind == MOUNT_FRESH)
			edit_text(edit, "type", &m->type);
	}
}

static void edit_events(Reprise__Fanotify *m, const char *edit)
{
	for (size_t i = 0; i < m->n_events; i++) {
		Reprise__FanotifyEvent *event = m->events[i];

		if (!event->object)
			continue;
		sscanf(edit, "event-inode=%u", &event->object->number);
		if (strcmp(edit, "event-overflow"))
			continue;
		event->type = FANOTIFY_OVERFLOW;
		event->mask = FAN_Q_OVERFLOW;
		event->name.len = 0;
		return;
	}
}

static void edit_epoll(Reprise__Epoll *m, const char *edit)
{
	for (size_t i = 0; i < m->n_entries; i++)
		sscanf(edit, "epoll-number=%d", &m->entries[i]->fd);
}

static void edit_record_as(uint32_t type, ProtobufCMessage *msg, const char *edit)
{
	Reprise__Task *t = (Reprise__Task *)msg;
	unsigned long long id;

	if (type == RECORD_TASK && t->creds)
		edit_credentials(t->creds, edit);
	if (type == RECORD_TASK && t->sched)
		sscanf(edit, "nice=%d", &t->sched->nice);
	if (type == RECORD_PROCESS)
		edit_process((Reprise__Process *)msg, edit);
	if (type == RECORD_TASK && t->n_inner_tids && sscanf(edit, "children=%llu", &id) == 1)
		t->children_namespace = id;
	if (type == RECORD_NAMESPACE)
		edit_namespace((Reprise__Container *)msg, edit);
	if (type == RECORD_CONTAINER)
		edit_container((Reprise__Container *)msg, edit);
	if (type == RECORD_FILE && ((Reprise__File *)msg)->proc &&
	    sscanf(edit, "proc-mounts=%llu", &id) == 1)
		((Reprise__File *)msg)->proc->mounts = id;
	if (type == RECORD_FILE && ((Reprise__File *)msg)->regular &&
	    !strncmp(edit, "pressure=", 9))
		((Reprise__File *)msg)->pressure = strdup(edit + 9);
	if (type == RECORD_FILE && ((Reprise__File *)msg)->fanotify)
		edit_events(((Reprise__File *)msg)->fanotify, edit);
	if (type == RECORD_FILE && ((Reprise__File *)msg)->epoll)
		edit_epoll(((Reprise__File *)msg)->epoll, edit);
	if (type == RECORD_INODE)
		edit_inode((Reprise__Inode *)msg, edit);
}

static void edit_record(void *arg, struct remade *r)
{
	for (char **edit = arg; *edit; edit++)
		edit_record_as(r->type, r->msg, *edit);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		errx(2, "usage: forge IN OUT EDIT...");
	remake(argv[1], argv[2], edit_record, argv + 3);
	return 0;
}
