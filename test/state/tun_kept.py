# SPDX-License-Identifier: Apache-2.0
"""A persistent tap outlives the program, which comes back to it."""

import fcntl
import os
import struct
import time

from case import Failed, Skipped

TUNSETIFF, TUNSETPERSIST, TUNGETIFF = 0x400454ca, 0x400454cb, 0x800454d2
IFF_TAP, IFF_NO_PI, SIOCGIFMTU, SIOCSIFMTU = 2, 0x1000, 0x8921, 0x8922


def attach(name):
    try:
        fd = os.open('/dev/net/tun', os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack('16sH22x', name, IFF_TAP | IFF_NO_PI))
    except OSError as err:
        raise Skipped('no tap: %s' % err)
    return fd


def used(name):
    with open('/sys/class/net/%s/carrier' % name.decode()) as file:
        return file.read() == '1\n'


def test_persistent(case):
    name = b'rtp%09x' % (time.monotonic_ns() & 0xfffffffff)
    fd = attach(name)
    fcntl.ioctl(fd, TUNSETPERSIST, 1)
    try:
        os.system('ip link set %s up' % name.decode())
        pid = case.victim('wait', 'pass', stdin=fd)
        os.close(fd)
        case.checkpoint(pid, '--kill', '-q')
        case.wait(pid)
        if used(name):
            raise Failed('it is in use still')
        # The machine's, and left as it is.
        os.system('ip link set %s mtu 1400' % name.decode())
        restart = case.restart()
        case.until(lambda: used(name) or case.ended(restart), 'the interface in use')
        with open('/sys/class/net/%s/mtu' % name.decode()) as file:
            if file.read() != '1400\n':
                raise Failed('the MTU has been changed')
        case.finish(restart)
    finally:
        case.kill_all()
        case.reap()
        fd = attach(name)
        fcntl.ioctl(fd, TUNSETPERSIST, 0)
        os.close(fd)
