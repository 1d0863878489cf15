/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_SETTINGS_H
#define REPRISE_NS_NET_SETTINGS_H

#include "core/error.h"
#include "core/scratch.h"
#include "core/vec.h"
#include "ns.pb-c.h"
#include "ns/net_entries.h"

/*
 * What is below /proc/sys/net: of the network namespace of whoever looks. Those of interfaces
 * start as those of "default".
 */
struct net_settings {
	VEC(Reprise__Setting *) list; /* in the order of their names */
};

/* The files of these, which are held open: to open one costs more than to read it. */
struct net_files {
	VEC(struct net_file {
		char *name;
		int fd;
	})
	list; /* in the order of their names */
	bool complete;
};
void net_files_free(struct net_files *files);

/*
 * All that can be read and written. proc_fd: any /proc; -1 for /proc. files: NULL, or those of this
 * network namespace that a look before has opened; the first one opens them.
 */
int net_settings_look(int proc_fd, struct net_files *files, struct net_settings *ret,
		      struct scratch *s, struct error *e) must_check;
/* Those of a network namespace that has just been made; this process is back in its own then. */
int net_settings_look_fresh(int proc_fd, struct net_settings *ret, struct scratch *s,
			    struct error *e) must_check;
/* Which are not as in a new namespace. */
int net_settings_differing(const struct net_settings *now, const struct net_settings *fresh,
			   const struct net_others *others, struct net_settings *ret,
			   struct error *e) must_check;
int net_settings_validate(size_t n, Reprise__Setting *const *list, struct error *e) must_check;
/* When the interfaces are there. */
int net_settings_restart(int proc_fd, size_t n, Reprise__Setting *const *list,
			 struct error *e) must_check;

#endif
