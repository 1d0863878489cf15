# SPDX-License-Identifier: Apache-2.0
"""States of terminals that cannot be saved."""

import fcntl
import os
import pty
import struct
import termios

from case import Skipped

N_NULL = 27


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
