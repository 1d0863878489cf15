/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reprise: checkpoint and restart of running Linux applications.
 *
 * Every options structure begins with its own size, so that programs built
 * against an older version keep working: members beyond the size that the caller gives are taken as
 * zero, and zero is always the default. All calls are safe to make from several threads at once.
 * None prints, exits or changes signal dispositions.
 */
#ifndef REPRISE_H
#define REPRISE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REPRISE_API __attribute__((visibility("default")))

/* What went wrong: one line for people, a stable code for programs. */
struct reprise_error {
	char code[48];	 /* "pid-none"; empty when nothing went wrong */
	int err;	 /* negative errno */
	char text[1600]; /* "<object>: <reason>; <advice> [<code>]" */
};

/* Progress and trace callbacks run on threads of the library. */
typedef void (*reprise_progress_fn)(void *arg, const char *phase, uint64_t done, uint64_t total);
typedef void (*reprise_trace_fn)(void *arg, const char *line);
/* For check, and for a checkpoint that is refused: called once for each obstacle. */
typedef void (*reprise_problem_fn)(void *arg, const struct reprise_error *problem);

enum reprise_after { REPRISE_AFTER_RUN = 0, REPRISE_AFTER_STOP = 1, REPRISE_AFTER_KILL = 2 };

/* Figures of an operation. Times in nanoseconds, counted from the call. */
struct reprise_stats {
	uint64_t frozen_ns;  /* how long the application stood still */
	uint64_t resumed_ns; /* when the caller could go on */
	uint64_t durable_ns; /* when the image was complete (and synced, if asked) */
	uint64_t tasks, processes, descriptors;
	uint64_t pages, zero_pages;
	uint64_t memory_bytes; /* page contents before compression */
	uint64_t image_bytes;
	/* bytes that were read when the application ran again, from a copy as fork makes it */
	uint64_t copied_later;
};

/*
 * What to do with a removed file that has another name (hard link) which cannot be found: refuse;
 * save its contents, so that it is a file of its own afterwards; or give it a new name, beside the
 * removed one, which stays.
 */
enum reprise_deleted {
	REPRISE_DELETED_REFUSE = 0,
	REPRISE_DELETED_SAVE = 1,
	REPRISE_DELETED_LINK = 2,
};

/*
 * Events that an inotify instance holds and nobody has read, where they cannot be saved: refuse, or
 * lose them, and have the application told so by IN_Q_OVERFLOW.
 */
enum reprise_inotify { REPRISE_INOTIFY_REFUSE = 0, REPRISE_INOTIFY_OVERFLOW = 1 };

/*
 * What the digest of an image covers by BLAKE2b: contents of memory are otherwise covered by
 * checksums alone, which find accidents. The default is the state, and all of an image that is
 * signed or encrypted.
 */
enum reprise_digest {
	REPRISE_DIGEST_DEFAULT = 0,
	REPRISE_DIGEST_STATE = 1,
	REPRISE_DIGEST_ALL = 2
};

/* TCP connections: refuse, or have them come back closed. */
enum reprise_tcp { REPRISE_TCP_REFUSE = 0, REPRISE_TCP_CLOSED = 1 };

/*
 * Unix sockets whose other side is outside the tree: refuse, or have them come back as if it had
 * been closed, or connected anew to the name that it had (those that have none are disconnected).
 */
enum reprise_peers {
	REPRISE_PEERS_REFUSE = 0,
	REPRISE_PEERS_DISCONNECT = 1,
	REPRISE_PEERS_RECONNECT = 2
};

/*
 * Signed and encrypted images. Keys are texts, as reprise_new_keys() makes them: one
 * text may hold a key to sign and one to encrypt, and the one that is needed is taken.
 */
struct reprise_seal_options {
	size_t size;
	const char *sign;	       /* secret key of the signer; NULL: not signed */
	const char *const *recipients; /* public keys, NULL at the end; may be NULL */
	const char *passphrase;	       /* may be NULL; without both: not encrypted */
};
struct reprise_open_options {
	size_t size;
	const char *const
		*trust; /* public keys of signers, NULL at the end; NULL: anybody, or nobody */
	const char *const *identities; /* secret keys; may be NULL */
	const char *passphrase;
};

struct reprise_checkpoint_options {
	size_t size;
	enum reprise_after after;
	int jobs;	       /* threads; 0: one a core */
	int compress;	       /* 0 none, 1 lz4, 2 zstd */
	int compress_level;    /* of lz4 to 12, of zstd to 22; 0: the default */
	int freeze_timeout_ms; /* for one task to come to a stop; 0: 10 s */
	reprise_progress_fn progress;
	reprise_trace_fn trace;
	reprise_problem_fn problem;
	void *arg;		     /* for the callbacks */
	struct reprise_stats *stats; /* filled in when not NULL */
	enum reprise_deleted deleted;
	enum reprise_tcp tcp;
	const char *container; /* name, for the image of a container; may be NULL */
	/* Leaks of a container that are none: kinds ("pipe", "socket", "file", "memory",
	 * "namespace", "program": BPF programs of its groups, "all") or objects by name
	 * ("pipe:[123]"), NULL at the end; may be NULL. */
	const char *const *allow_leaks;
	/* Of a container: its writable layers (not what is in memory) stay where they are, and the
	 * restart goes on with them. */
	int fs_none;
	const struct reprise_seal_options *seal; /* NULL: neither signed nor encrypted */
	enum reprise_peers peers;
	enum reprise_inotify inotify;
	/* The longest that the application may stand still at once; 0: as long as it takes. Only
	 * with REPRISE_AFTER_RUN. */
	uint64_t max_freeze_ns;
	/*
	 * The image holds only what has changed since another one, its parent: the first of these
	 * files, NULL at the end. The parents of that are looked for among the others, and in the
	 * directories of all. NULL: the image is complete in itself.
	 */
	const char *const *parents;
	/*
	 * Open files that belong to the world outside: they are not saved, whatever they are and
	 * hold, and a restart has to put something in their place. By the name that /proc/PID/fd
	 * shows
	 * ("/dev/fuse", "pipe:[123]"), by what a socket is connected to ("unix:/run/db.sock",
	 * "unix:@abstract", "tcp:192.0.2.1:80"), with * and ? as in names of files; or one of a
	 * task: "pid:1234/fd:5". NULL at the end; may be NULL.
	 */
	const char *const *externals;
	enum reprise_digest digest;
};

/*
 * Saves the tree rooted at `pid` to `fd` (file, pipe or socket). Returns 0, or a negative errno
 * with *error filled in (error may be NULL).
 *
 * pid 0 is the calling process itself: then it returns a positive number once
 * the image is written, and 0 in the process that a restart of the image makes.
 */
REPRISE_API int reprise_checkpoint(pid_t pid, int fd,
				   const struct reprise_checkpoint_options *options,
				   struct reprise_error *error);

/*
 * The same to a file by name: written under a temporary name (mode 0600), synced and renamed, so
 * that it is complete or does not exist. An existing file is kept unless `replace` is set.
 */
REPRISE_API int reprise_checkpoint_file(pid_t pid, const char *path, int replace,
					const struct reprise_checkpoint_options *options,
					struct reprise_error *error);

enum reprise_changed_files { REPRISE_CHANGED_REFUSE = 0, REPRISE_CHANGED_ALLOW = 1 };

struct reprise_restarted;

/*
 * What takes the place of an open file of the image: of one that was declared external (see
 * reprise_checkpoint_options), of a file or device by its path, or of any of these by
 * "pid:1234/fd:5". The names are those of the image; reprise_inspect() shows them.
 */
struct reprise_replacement {
	const char *object; /* NULL: end of the list */
	/*
	 * "file:PATH" is opened as the original was; "unix:PATH" or "unix:@NAME" is connected to.
	 * NULL: `fd`, a descriptor of the caller, which is duplicated and gets the flags O_APPEND
	 * and O_NONBLOCK of the original.
	 */
	const char *with;
	int fd;
};

/* Where the files of a container go. */
struct reprise_container {
	char name[64];	   /* what it was called when it was saved; may be empty */
	char root[1024];   /* to be filled in, see reprise_restart_options */
	char layers[1024]; /* likewise */
	/* A file that is to tell which control groups were made, see reprise_restart_options; may
	 * stay empty if the container has none. */
	char cgroups[1024];
};

struct reprise_restart_options {
	size_t size;
	int pidns; /* in a new pid namespace */
	int jobs;
	enum reprise_changed_files changed_files;
	int leave_stopped; /* every process is left in a group stop */
	int stdio[3];	   /* descriptors that take the place of the outside terminal or pipe on
			    * 0, 1, 2; used where use_stdio is set */
	int use_stdio;
	reprise_progress_fn progress;
	reprise_trace_fn trace;
	reprise_problem_fn problem; /* also called for files that changed but are allowed */
	void *arg;
	struct reprise_stats *stats;
	/*
	 * Called once everything is ready, and before a single task runs: the moment to write a
	 * pidfile or to hand over a terminal. The pidfd is not there yet. A negative errno undoes
	 * the restart.
	 */
	int (*ready)(void *arg, const struct reprise_restarted *restarted);
	/*
	 * For containers. An empty directory on which the root of the container is mounted, where
	 * nobody else sees it; a directory for its writable layers, which stay there and are the
	 * caller's to remove; and "PATH=OTHER" pairs, NULL at the end, for what takes the place of
	 * directories of the host.
	 */
	const char *root;
	const char *layers;
	const char *const *map_mounts;
	/* Instead of root and layers: called when the image turns out to be of a container. */
	int (*container)(void *arg, struct reprise_container *container);
	/* Nothing but REPRISE_PEERS_DISCONNECT makes a difference here: nothing is connected anew.
	 */
	enum reprise_peers peers;
	/*
	 * The image is trusted with all that the caller may do. Otherwise one that root restarts,
	 * and that was not made by root of this machine, is restarted in a user namespace.
	 */
	int privileged;
	/*
	 * Tasks whose process group was led from outside come into a new one instead of the
	 * caller's: what the terminal sends to the caller does not reach them. For callers that do
	 * not stay: that they are the parent and end is not told to the root either.
	 */
	int own_group;
	/* For containers with an interface to the host: other addresses, as of reprise_run(). */
	const char *net;
	/*
	 * Where the parents of an incremental image are: files or directories, NULL at the end. The
	 * directory of a file counts as well. Nothing else is looked at.
	 */
	const char *const *parents;
	/*
	 * The tasks run at once, and most of their private memory follows, on demand and in the
	 * background, by two processes that end when all is there. Needs an image in a regular file
	 * (the descriptor may be closed) and CAP_SYS_PTRACE. See lazy_fd below.
	 */
	int lazy;
	const struct reprise_replacement *replacements; /* may be NULL */
	/*
	 * For containers. A file, in a directory that is this container's alone, in which each
	 * directory of a control group is noted before it is made, one a line. They are the
	 * caller's to remove, with those below. NULL: no groups are made, and an image in which
	 * they say something is refused.
	 */
	const char *cgroups;
};

struct reprise_restarted {
	size_t size;
	pid_t pid;  /* of the root task, as the caller sees it: its child */
	int pidfd;  /* of the same; the caller closes it */
	pid_t init; /* with pidns: the init of the new namespace, a child of the caller and parent
		       of the root; else 0 */
	int tty_foreground; /* the root's process group was in the foreground of its terminal */
	pid_t pgrp; /* process group of the root, as the caller sees it; 0 if it is the caller's own
		     */
	/*
	 * With lazy: the reading end of a pipe. It ends when all memory is there. If that cannot
	 * be, the tasks are killed, and it says why before: a line without its end. -1 else. The
	 * caller closes it.
	 */
	int lazy_fd;
};

/*
 * Reads an image from `fd` and brings its tasks back as descendants of the caller. They run when it
 * returns. The caller waits for result->pid (or result->init, whose exit status is that of the
 * root). On failure nothing is left behind.
 */
REPRISE_API int reprise_restart(int fd, const struct reprise_restart_options *options,
				struct reprise_restarted *result, struct reprise_error *error);

/*
 * Containers. reprise_run() starts a command in namespaces of its own, over the files of the host
 * (or of `rootfs`), with a writable layer of its own; its first process reaps and ends as the
 * command does. It can be saved as a whole: reprise_checkpoint() of result->init.
 */
struct reprise_run_options {
	size_t size;
	const char *root;   /* an empty directory, see reprise_restart_options */
	const char *layers; /* directory of the writable layers; the caller removes it later */
	const char *rootfs; /* lower directory; NULL: "/" */
	const char *hostname;
	const char *workdir;	    /* inside */
	const char *const *volumes; /* "HOST:INSIDE" or "HOST:INSIDE:ro", NULL at the end */
	char *const *env;	    /* NULL: the caller's */
	int host_network;	    /* no network namespace of its own */
	/*
	 * "veth": an interface to the host, with addresses that are free;
	 * "veth=ADDRESS/LENGTH,GATEWAY": with these. NULL: a loopback interface only.
	 */
	const char *net;
	/*
	 * In a user namespace, in which the caller is root and has no power over what is outside.
	 * Without privilege it is made in any case; then the caller has his own id if it is 0.
	 */
	int user;
	/*
	 * reprise_run(): a pseudo-terminal of the container is the terminal of the command. Its
	 * master is descriptor REPRISE_TERMINAL of the first process, from where whoever attaches
	 * to it takes a copy (pidfd_getfd(2)), now or after a restart. reprise_exec(): standard
	 * input is a terminal, and becomes that of the command.
	 */
	int terminal;
	/*
	 * reprise_run(): everything is made, and the command has not begun; it begins when this
	 * returns 0, and never does if the caller dies before. What is noted here is noted of every
	 * container that runs.
	 */
	int (*ready)(void *arg, const struct reprise_restarted *restarted);
	void *arg;
	/* Control groups of its own, see reprise_restart_options. NULL: those of the caller. */
	const char *cgroups;
	/* What it may use at most, by control groups; 0: as much as there is. In thousandths of a
	 * processor. */
	uint64_t memory, pids, cpu_thousandths;
	int show_cgroups; /* its groups of version 2 are mounted on /sys/fs/cgroup, writable */
	/* The command is the first process itself, as systemd must be: it reaps, and nobody but
	 * itself decides which signals end it. */
	int is_init;
};
#define REPRISE_TERMINAL 9
/*
 * The command runs when it returns. result->init is a child of the caller and ends with the status
 * of the command (result->pid). Needs CAP_SYS_ADMIN.
 */
REPRISE_API int reprise_run(char *const argv[], const struct reprise_run_options *options,
			    struct reprise_restarted *result, struct reprise_error *error);
/*
 * A further command in the container whose first process is `init`. Of the options
 * env and workdir count. result->pid is a child of the caller.
 */
REPRISE_API int reprise_exec(pid_t init, char *const argv[],
			     const struct reprise_run_options *options,
			     struct reprise_restarted *result, struct reprise_error *error);

/* Writes the steps that a restart would take, one a line, as text to be freed by the caller. */
REPRISE_API int reprise_plan(int fd, char **text, struct reprise_error *error);

/*
 * Looks for everything that would prevent a checkpoint of pid with these options, without touching
 * it. pid 0: the kernel only. Each obstacle goes to options->problem. Returns their number, or a
 * negative errno.
 */
REPRISE_API int reprise_check(pid_t pid, const struct reprise_checkpoint_options *options,
			      struct reprise_error *error);
/* What this kernel offers, as lines "name\tyes|no|reason\n", to be freed by the caller. */
REPRISE_API int reprise_kernel_features(char **text);

/* What is in an image, as a JSON document to be freed by the caller. */
REPRISE_API int reprise_inspect(int fd, char **json, struct reprise_error *error);

/* Whole and undamaged? Reads everything; of an incremental image, that image alone. */
REPRISE_API int reprise_verify(int fd, struct reprise_error *error);
/* The same with all its parents; they are looked for as by reprise_restart(). */
REPRISE_API int reprise_verify_parents(int fd, const char *const *parents,
				       struct reprise_error *error);

struct reprise_verified {
	size_t size;
	unsigned char digest[32];   /* BLAKE2b-256 */
	enum reprise_digest covers; /* pages that are in parents, as these have them */
};
/* The same, and tells the digest of the image. */
REPRISE_API int reprise_verify_digest(int fd, const char *const *parents,
				      struct reprise_verified *result, struct reprise_error *error);

struct reprise_merge_options {
	size_t size;
	const char *const *parents; /* where they are, besides the directory of the image */
	int jobs;		    /* threads; 0: one a core */
	int compress;		    /* as in reprise_checkpoint_options */
	int compress_level;
	struct reprise_stats *stats;
};
/*
 * Makes an incremental image and its parents into one image that is complete in itself. It
 * takes the place of the image also for those that are based on that.
 */
REPRISE_API int reprise_merge(const char *image, const char *path, int replace,
			      const struct reprise_merge_options *options,
			      struct reprise_error *error);
/* The same to a file, pipe or socket. */
REPRISE_API int reprise_merge_fd(const char *image, int fd,
				 const struct reprise_merge_options *options,
				 struct reprise_error *error);

/*
 * For images that may be signed or encrypted: *image_fd is a stream of the image itself, for the
 * calls above, of which nothing comes that has not been verified. A plain image passes as it is
 * unless trust is asked for. The end tells what was wrong with the envelope, if anything was: it is
 * to be asked first when a call has failed. It frees the handle; close *image_fd before.
 */
struct reprise_opening;
REPRISE_API int reprise_open_begin(int fd, const struct reprise_open_options *options,
				   struct reprise_opening **opening, int *image_fd,
				   struct reprise_error *error);
REPRISE_API int reprise_open_end(struct reprise_opening *opening, struct reprise_error *error);
/* 1 if fd is a file that holds an envelope; 0 if not, or if that cannot be seen. */
REPRISE_API int reprise_is_sealed(int fd);
/* Two texts to be freed by the caller: secret keys and their public counterparts. */
REPRISE_API int reprise_new_keys(char **secret, char **public_keys, struct reprise_error *error);

/*
 * Continuous checkpoints: an image every so often, in files of a directory, each of which holds
 * what has changed since the one before. At least the last `keep` can be restarted at any time;
 * what is older is merged or removed.
 */
struct reprise_watch_options {
	size_t size;
	uint64_t every_ns; /* from one to the next; what does not get done in time is left out */
	int keep;	   /* 1 to 100 */
	/* As for reprise_checkpoint_file(), but for `stats` and `parents`. A checkpoint that fails
	 * is told to `problem`, and tried again; ten in a row end it, and the first only
	 * what may pass by itself. */
	const struct reprise_checkpoint_options *checkpoint;
	int use_stop_fd;
	int stop_fd; /* it ends when something can be read from there; nothing is read */
	/* Called for each image. */
	void (*image)(void *arg, const char *path, const struct reprise_stats *stats);
	void *arg;
	/*
	 * All memory is compared each time; else the kernel takes note of what is written between
	 * two images. A program that makes a userfaultfd between two, and registers memory with it
	 * that is older, gets EBUSY then.
	 */
	int no_track;
};
/* Returns 0 when the application has ended, or the end was asked for. */
REPRISE_API int reprise_watch(pid_t pid, const char *directory,
			      const struct reprise_watch_options *options,
			      struct reprise_error *error);

/* The advice and explanation of an error code; -ENOENT for an unknown one. Static strings. */
REPRISE_API int reprise_explain(const char *code, const char **advice, const char **explanation);
/* The i-th error code, NULL past the last. */
REPRISE_API const char *reprise_code(unsigned int i);
/* A row of the table of kinds of objects: name and what is supported; -ENOENT past the last. */
REPRISE_API int reprise_kind(unsigned int i, const char **name, const char **support);

REPRISE_API const char *reprise_version(void);

#ifdef __cplusplus
}
#endif
#endif
