/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of the host that a task in a container was given as a standard stream:
 * no path inside leads to it. What a restart is given takes its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/context.h"
#include "fs/file_kinds.h"

static bool outside_file_match(const struct file_seen *f)
{
	return f->foreign && (S_ISREG(f->st.st_mode) || S_ISCHR(f->st.st_mode));
}

static int outside_file_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
				   struct scratch *s, struct error *e)
{
	(void)c;
	(void)f;
	(void)s;
	(void)e;
	msg->outside = true;
	return 0;
}

static int outside_file_checkpoint_all(struct checkpoint *c, struct error *e)
{
	vec_for_each (f, &c->files->files) {
		int r;

		if ((*f)->ops != &outside_file_ops || (*f)->msg->standard)
			continue;
		r = error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			      "it is a file of the host, to which nothing in the container leads");
		r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int outside_file_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	(void)r;
	if (!msg->outside || !msg->standard)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a file of a host is no standard stream");
	return 0;
}

static int outside_file_restart(struct restart *r, uint64_t id, const Reprise__File *msg,
				int *ret_fd, struct error *e)
{
	(void)id;
	return file_outside_restart(r, msg, ret_fd, e);
}

static void outside_file_describe(const Reprise__File *msg, char *buf, size_t size)
{
	(void)msg;
	snprintf(buf, size, "a file of the host");
}

const struct file_ops outside_file_ops = {
	.kind = FILE_OUTSIDE,
	.name = "file of the host",
	.support = "in a container, as a standard stream: replaced by that of the restart",
	.match = outside_file_match,
	.checkpoint = outside_file_checkpoint,
	.checkpoint_all = outside_file_checkpoint_all,
	.validate = outside_file_validate,
	.restart = outside_file_restart,
	.describe = outside_file_describe,
};
