# SPDX-License-Identifier: Apache-2.0
"""States of terminals that cannot be saved."""

import fcntl
import os
import pty
import struct
import termios

from case import Skipped

N_NULL = 27
KDGETMODE, KDSETMODE = 0x4B3B, 0x4B3A


def save(case, pid, *args):
    return case.reprise('checkpoint', str(pid), '-o', case.path('image'), *args)


def test_line_discipline(case):
    """Of a slave, and of a master's side."""
    for side in (0, 1):
        pair = pty.openpty()
        try:
            fcntl.ioctl(pair[side], termios.TIOCSETD, struct.pack('i', N_NULL))
        except OSError as err:
            raise Skipped('no other line discipline: %s' % err)
        pid = case.victim('wait', 'pass', stdin=pair[side])
        case.refused(save(case, pid), 'file-state', 'descriptor 0', 'line discipline %d' % N_NULL)
        case.refused(case.reprise('check', str(pid)), 'file-state', 'line discipline')
        case.expect_files()
        case.finish(pid)
        for fd in pair:
            os.close(fd)
        case.hold()
        for name in os.listdir(case.control):
            os.unlink(case.path(name))


def test_console_in_graphics_mode(case):
    """One that is a device: neither the terminal of the tree nor a standard stream."""
    path = '/dev/tty39'
    try:
        console = os.open(path, os.O_RDWR | os.O_NOCTTY)
        mode = struct.unpack('i', fcntl.ioctl(console, KDGETMODE, b'    '))[0]
        fcntl.ioctl(console, KDSETMODE, 1)
    except OSError as err:
        raise Skipped('no console: %s' % err)
    pid = case.spawn(['/usr/bin/python3', '-c', 'import os, time; os.open("%s", os.O_RDWR | '
                      'os.O_NOCTTY); open("opened", "w"); time.sleep(1000)' % path], setsid=True)
    case.until(lambda: os.path.exists(os.path.join(case.work, 'opened')), 'the console')
    try:
        case.refused(save(case, pid), 'file-state', 'descriptor 3', 'graphics mode', path)
        case.refused(case.reprise('check', str(pid)), 'file-state', 'graphics mode')
    finally:
        fcntl.ioctl(console, KDSETMODE, mode)
        os.close(console)
    case.expect_files()
    case.kill_all()


def test_packet_status(case):
    """A change that the master would be told at its next read."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCPKT, struct.pack('i', 1))
    termios.tcflush(slave, termios.TCIFLUSH)
    pid = case.victim('wait', 'pass', stdin=master)
    case.refused(save(case, pid), 'file-state', 'descriptor 0', 'packet mode')
    if os.read(master, 10) != bytes([termios.TIOCPKT_FLUSHREAD]):
        raise AssertionError('the status was taken')
    code, _, _ = save(case, pid, '-q')
    if code:
        raise AssertionError('without a status it is refused, too')
    case.finish(pid)
