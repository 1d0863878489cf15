/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PTY_IOCTL_H
#define REPRISE_FS_PTY_IOCTL_H

/* The kernel's own termios cannot be included beside that of libc: what is needed of both. */
#include <asm/ioctls.h>

struct winsize {
	unsigned short ws_row, ws_col, ws_xpixel, ws_ypixel;
};

int ioctl(int fd, unsigned long request, ...);

#endif
