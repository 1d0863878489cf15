/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_FANOTIFY_TELL_H
#define TEST_FANOTIFY_TELL_H

/*
 * What a group of fanotify says, in words: for programs of one file, which have the names of what
 * is watched in names[NAMES].
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

#ifndef FAN_REPORT_TARGET_FID
#define FAN_REPORT_TARGET_FID 0x1000
#endif
#ifndef FAN_RENAME
#define FAN_RENAME			  0x10000000
#define FAN_EVENT_INFO_TYPE_OLD_DFID_NAME 10
#define FAN_EVENT_INFO_TYPE_NEW_DFID_NAME 12
#endif
#define ROOM 16384

static void add(char *text, const char *format, ...)
{
	size_t n = strlen(text);
	va_list ap;

	va_start(ap, format);
	CHECK(vsnprintf(text + n, ROOM - n, format, ap) < (int)(ROOM - n));
	va_end(ap);
}

static const char *by_handle(const struct file_handle *handle)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u;
	static char unknown[80];
	int mount;

	for (size_t i = 0; i < NAMES; i++) {
		u.handle.handle_bytes = MAX_HANDLE_SZ;
		if (name_to_handle_at(AT_FDCWD, names[i], &u.handle, &mount, 0)) {
			CHECK_EQUAL(errno, ENOENT);
			continue;
		}
		if (u.handle.handle_bytes == handle->handle_bytes &&
		    u.handle.handle_type == handle->handle_type &&
		    !memcmp(u.handle.f_handle, handle->f_handle, handle->handle_bytes))
			return names[i];
	}
	/* it has gone */
	for (unsigned int i = 0; i < handle->handle_bytes && i < 32; i++)
		snprintf(unknown + 2 * i, sizeof(unknown) - 2 * i, "%02x", handle->f_handle[i]);
	return unknown;
}

static const char *by_descriptor(int fd)
{
	struct stat is, st;

	CHECK(!fstat(fd, &is));
	for (size_t i = 0; i < NAMES; i++)
		if (!stat(names[i], &st) && st.st_ino == is.st_ino && st.st_dev == is.st_dev)
			return names[i];
	return "another";
}

/* The number of a pidfd, told by what it is of. */
static int of_pidfd(int fd)
{
	char path[64], text[1024], *at;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	test_read(path, text, sizeof(text));
	at = strstr(text, "Pid:");
	CHECK(at);
	close(fd);
	return atoi(at + 4);
}

static void add_info(char *text, const char *at)
{
	const struct fanotify_event_info_fid *fid = (const void *)at;
	const struct file_handle *handle = (const void *)fid->handle;
	int fd;

	if (fid->hdr.info_type == FAN_EVENT_INFO_TYPE_PIDFD) {
		memcpy(&fd, at + sizeof(fid->hdr), sizeof(fd));
		if (fd < 0) {
			add(text, " pidfd %d", fd);
			return;
		}
		add(text, " pidfd of %d", of_pidfd(fd));
		return;
	}
	add(text, " type %d: %x/%s", fid->hdr.info_type, fid->fsid.val[0] ^ fid->fsid.val[1],
	    by_handle(handle));
	if (fid->hdr.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME ||
	    fid->hdr.info_type == FAN_EVENT_INFO_TYPE_OLD_DFID_NAME ||
	    fid->hdr.info_type == FAN_EVENT_INFO_TYPE_NEW_DFID_NAME)
		add(text, "/%s", (const char *)handle->f_handle + handle->handle_bytes);
}

static void add_event(char *text, const struct fanotify_event_metadata *event)
{
	add(text, "%llx by %d", (unsigned long long)event->mask, event->pid);
	if (event->fd >= 0) {
		add(text, " on %s", by_descriptor(event->fd));
		close(event->fd);
	}
	for (size_t at = event->metadata_len; at < event->event_len;) {
		const struct fanotify_event_info_header *info =
			(const void *)((const char *)event + at);

		add_info(text, (const char *)info);
		at += info->len;
	}
	add(text, "\n");
}

static void tell(int group, char *text)
{
	static char buf[65536] __attribute__((aligned(8)));
	ssize_t n;

	*text = '\0';
	while ((n = read(group, buf, sizeof(buf))) > 0)
		for (const struct fanotify_event_metadata *event = (const void *)buf;
		     FAN_EVENT_OK(event, n); event = FAN_EVENT_NEXT(event, n))
			add_event(text, event);
	CHECK_EQUAL(errno, EAGAIN);
}

static struct stat before[NAMES];

static void note_files(void)
{
	for (size_t i = 0; i < NAMES; i++)
		CHECK(!stat(names[i], &before[i]));
}

/* Nothing that was done to tell of the events is to be seen of the files; times: also not when
 * they were read. */
static void check_unchanged(bool times)
{
	for (size_t i = 0; i < NAMES; i++) {
		struct stat st;

		CHECK(!stat(names[i], &st));
		CHECK_EQUAL(st.st_size, before[i].st_size);
		CHECK_EQUAL(st.st_mode, before[i].st_mode);
		CHECK_EQUAL(st.st_nlink, before[i].st_nlink);
		CHECK_EQUAL(st.st_mtim.tv_nsec, before[i].st_mtim.tv_nsec);
		if (times)
			CHECK_EQUAL(st.st_atim.tv_nsec, before[i].st_atim.tv_nsec);
		if (!test_mode_is("container"))
			CHECK_EQUAL(st.st_ctim.tv_nsec, before[i].st_ctim.tv_nsec);
	}
}

#endif
