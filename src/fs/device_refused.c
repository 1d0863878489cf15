/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that cannot be saved, by name, so that users know what it is about. */
#include <errno.h>
#include <sys/sysmacros.h>

#include "fs/file_private.h"

#define ANY UINT32_MAX

static const struct known {
	bool block;
	uint32_t major, minor; /* Documentation/admin-guide/devices.txt */
	const char *what;
} known[] = {
	{false, 1, 1, "it is the memory of the machine (/dev/mem)"},
	{false, 1, 4, "it gives access to ports of the machine (/dev/port)"},
	{false, 6, ANY, "it is a printer"},
	{false, 7, ANY, "it is the screen of a console (/dev/vcs)"},
	{false, 10, 130, "it is a watchdog, which resets the machine when nobody writes to it"},
	{false, 10, 135, "it is the clock of the machine (/dev/rtc)"},
	{false, 10, 223, "it makes input devices (/dev/uinput)"},
	{false, 10, 228, "it is a timer of the machine (/dev/hpet)"},
	{false, 10, 229,
	 "it serves a FUSE file system, in which requests are under way that nobody could answer; "
	 "unmount it, or leave its server outside the tree"},
	{false, 10, 231, "it is an image of the memory of the machine (/dev/snapshot)"},
	{false, 10, 232, "it runs virtual machines, whose state is in the kernel (/dev/kvm)"},
	{false, 10, 234, "it administers btrfs"},
	{false, 10, 236, "it administers device-mapper"},
	{false, 10, 237, "it administers loop devices"},
	{false, 10, 238, "it is a network queue in the kernel (vhost-net)"},
	{false, 10, 241, "it is a socket queue in the kernel (vhost-vsock)"},
	{false, 13, ANY, "it is an input device (keyboard, mouse or the like)"},
	{false, 21, ANY, "it gives access to SCSI devices"},
	{false, 29, ANY, "it is the memory of a screen (frame buffer)"},
	{false, 81, ANY, "it is a video device"},
	{false, 89, ANY, "it is an I2C bus"},
	{false, 116, ANY, "it is a sound device"},
	{false, 195, ANY, "it is a GPU, whose state is in the device"},
	{false, 226, ANY, "it is a GPU, whose state is in the device"},
	{true, 7, ANY, "it is a loop device"},
	{true, 8, ANY, "it is a disk"},
	{true, 9, ANY, "it is a RAID"},
	{true, 11, ANY, "it is a CD-ROM"},
	{true, 43, ANY, "it is a network block device"},
	{true, 252, ANY, "it is a disk"},
	{true, 253, ANY, "it is a disk"},
	{true, 254, ANY, "it is a disk"},
	{true, 259, ANY, "it is a disk"},
};

int device_refuse(const struct file_seen *f, struct error *e)
{
	bool block = S_ISBLK(f->st.st_mode);
	unsigned int number = major(f->st.st_rdev), unit = minor(f->st.st_rdev);

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].block == block && known[i].major == number &&
		    (known[i].minor == ANY || known[i].minor == unit))
			return error_set(
				e, -EOPNOTSUPP, E_FILE_KIND, "%s device %u:%u cannot be saved: %s",
				block ? "block" : "character", number, unit, known[i].what);
	return error_set(e, -EOPNOTSUPP, E_FILE_KIND, "%s device %u:%u cannot be saved",
			 block ? "block" : "character", number, unit);
}
