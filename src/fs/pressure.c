/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whoever waits for pressure (poll() with POLLPRI) has written to the file of how much he wants to
 * be told; a description without that polls as an error (psi_trigger_poll()). Reading tells nothing
 * of it: struct psi_trigger does.
 */
#include "fs/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"

#define NSEC_PER_USEC 1000

enum place { NOWHERE, PROC, GROUP };

static enum place place_of(const struct file_seen *f)
{
	static const char suffix[] = ".pressure";
	const size_t len = strlen(f->link), end = sizeof(suffix) - 1;
	struct statfs fs;

	if (!S_ISREG(f->st.st_mode) || (f->flags & O_PATH) || (f->flags & O_ACCMODE) == O_RDONLY)
		return NOWHERE;
	if (!strncmp(f->link, "/proc/pressure/", 15))
		return PROC;
	if (len < end || strcmp(f->link + len - end, suffix) != 0 || fstatfs(f->local, &fs) < 0)
		return NOWHERE;
	return fs.f_type == CGROUP2_SUPER_MAGIC ? GROUP : NOWHERE;
}

static int find_trigger(struct kernel_memory *k, int fd, enum place place, uint64_t *ret)
{
	const int offsets[] = {kernel_offset(k, "file", "private_data"),
			       kernel_offset(k, "seq_file", "private"),
			       kernel_offset(k, "kernfs_open_file", "priv"),
			       kernel_offset(k, "cgroup_file_ctx", "psi.trigger")};

	return kernel_of_file(k, fd, offsets, place == PROC ? 2 : 4, ret, sizeof(*ret));
}

/* Of all that waits, or of what stands still for all (enum psi_states). */
static int is_full(struct kernel_memory *k, uint64_t trigger)
{
	static const char *const names[] = {"PSI_IO_FULL", "PSI_MEM_FULL", "PSI_CPU_FULL",
					    "PSI_IRQ_FULL"};
	int32_t state;
	int r = kernel_member(k, trigger, "psi_trigger", "state", &state, sizeof(state));

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && r == 0; i++)
		r = kernel_enumerator(k, names[i]) == state;
	return r;
}

static int describe(struct kernel_memory *k, uint64_t trigger, char *buf, size_t size)
{
	uint64_t threshold = 0, window = 0;
	int full = is_full(k, trigger), r = full;

	if (r >= 0)
		r = kernel_member(k, trigger, "psi_trigger", "threshold", &threshold,
				  sizeof(threshold));
	if (r >= 0)
		r = kernel_member(k, trigger, "psi_trigger", "win.size", &window, sizeof(window));
	if (r >= 0)
		snprintf(buf, size, "%s %" PRIu64 " %" PRIu64, full ? "full" : "some",
			 threshold / NSEC_PER_USEC, window / NSEC_PER_USEC);
	return r;
}

int pressure_save(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		  struct scratch *s, struct error *e)
{
	const enum place place = place_of(f);
	struct kernel_memory *k = NULL;
	struct error ignored = {};
	uint64_t trigger = 0;
	char text[64];
	int r;

	if (place == NOWHERE)
		return 0;
	if (files_kernel_memory(c, &k, &ignored) < 0)
		return error_set(
			e, -EPERM, E_PERMISSION,
			"it is open for writing, perhaps to wait for pressure, of which only "
			"the memory of the kernel tells");
	r = find_trigger(k, f->local, place, &trigger);
	if (r >= 0 && trigger)
		r = describe(k, trigger, text, sizeof(text));
	if (r < 0)
		return error_errno(e, r, E_FILE_STATE,
				   "for which pressure it waits cannot be read");
	if (!trigger)
		return 0;
	msg->pressure = scratch_string(s, text);
	return msg->pressure ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a file");
}

int pressure_validate(const Reprise__File *msg, struct error *e)
{
	const char *text = msg->pressure;

	if (!text[0] || (strlen(text) < 64 && (msg->flags & O_ACCMODE) != O_RDONLY &&
			 (!strncmp(text, "some ", 5) || !strncmp(text, "full ", 5)) &&
			 strspn(text + 5, "0123456789 ") == strlen(text + 5)))
		return 0;
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper wait for pressure");
}

/* What an image says may be wrong: nothing is written to any other file. */
static bool tells_of_pressure(const struct restart *r, int fd)
{
	static const char suffix[] = ".pressure", directory[] = "/pressure";
	_cleanup_(free_ptr) char *link = NULL;
	const size_t end = sizeof(suffix) - 1;
	struct statfs fs;
	char *base;

	if (procfs_readlink(r->proc_fd, &link, NULL, "self/fd/%d", fd) < 0 || fstatfs(fd, &fs) < 0)
		return false;
	if (fs.f_type == CGROUP2_SUPER_MAGIC)
		return strlen(link) > end && !strcmp(link + strlen(link) - end, suffix);
	base = strrchr(link, '/');
	return fs.f_type == PROC_SUPER_MAGIC && base - link >= (ssize_t)sizeof(directory) - 1 &&
	       !strncmp(base - (sizeof(directory) - 1), directory, sizeof(directory) - 1);
}

int pressure_restore(const struct restart *r, int fd, const Reprise__File *msg, struct error *e)
{
	const size_t len = strlen(msg->pressure);

	if (len && !tells_of_pressure(r, fd))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a wait for pressure on a file that does not tell of it");
	/* The last byte that is written is taken for the end of the line (psi_write()). */
	if (len && write(fd, msg->pressure, len + 1) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot wait for pressure again (\"%s\" is not accepted)",
				   msg->pressure);
	return 0;
}

void pressure_describe(const Reprise__File *msg, char *buf, size_t size)
{
	if (msg->pressure[0])
		snprintf(buf, size, ", waits for \"%s\"", msg->pressure);
}
