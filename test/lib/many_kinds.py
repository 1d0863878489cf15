# SPDX-License-Identifier: Apache-2.0
"""many_kinds.py: has as many kinds of descriptors open as can be had here, most of which nobody can save. Told which to close,
it closes them, and compares what is left with what it was, at the restart."""

import ctypes
import fcntl
import os
import re
import socket
import struct
import time

LIBC = ctypes.CDLL(None, use_errno=True)
MPTCP, SMC, L2TP = 262, 256, 115
# Protocols to be tried, by family and type; a family that is not here has the first three of each type.
PROTOCOLS = {
    (socket.AF_INET, socket.SOCK_STREAM): [0, socket.IPPROTO_SCTP, SMC, MPTCP],
    (socket.AF_INET, socket.SOCK_DGRAM): [0, 136, L2TP],
    (socket.AF_INET, socket.SOCK_RAW): [1, 47, 253, 255],
    (socket.AF_INET, socket.SOCK_SEQPACKET): [socket.IPPROTO_SCTP],
    (socket.AF_INET6, socket.SOCK_STREAM): [0, socket.IPPROTO_SCTP, SMC, MPTCP],
    (socket.AF_INET6, socket.SOCK_DGRAM): [0, 136, L2TP],
    (socket.AF_INET6, socket.SOCK_RAW): [58, 253, 255],
    (socket.AF_INET6, socket.SOCK_SEQPACKET): [socket.IPPROTO_SCTP],
    (socket.AF_NETLINK, socket.SOCK_RAW): range(32),
    (socket.AF_PACKET, socket.SOCK_DGRAM): [0],
    (socket.AF_PACKET, socket.SOCK_RAW): [0],
}
# None that does anything by being opened.
DEVICES = ['autofs', 'btrfs-control', 'cpu/0/cpuid', 'cpu/0/msr', 'cpu_dma_latency', 'dri/card0', 'fuse', 'hpet', 'hwrng', 'iommu', 'kvm',
           'loop-control', 'loop0', 'mapper/control', 'mem', 'net/tun', 'ntsync', 'null', 'ppp', 'rfkill', 'rtc0', 'snapshot', 'tty', 'udmabuf',
           'uhid', 'uinput', 'urandom', 'userfaultfd', 'vcs', 'vfio/vfio', 'vga_arbiter', 'vhost-net', 'vhost-vsock', 'vsock', 'zero']
FILES = ['/proc/kmsg', '/proc/kallsyms', '/proc/self/pagemap', '/proc/self/mountinfo', '/proc/self/task', '/proc/interrupts', '/sys/kernel/mm',
         '/sys/kernel/btf/vmlinux', '/proc/self/ns/net', '/proc/self/ns/user', '/proc/self/clear_refs', '/proc/sys/kernel/hostname']


def call(*args):
    return LIBC.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])


def sockets():
    for family in range(1, 46):
        for kind in (1, 2, 3, 4, 5, 10):
            for protocol in PROTOCOLS.get((family, kind), [] if family in (2, 10, 16, 17) else [0, 1, 2]):
                try:
                    yield socket.socket(family, kind, protocol).detach()
                except OSError:
                    pass


def files():
    for path in ['/dev/' + name for name in DEVICES] + FILES:
        try:
            yield os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            pass


def bpf(command, attributes):
    return call(321, command, ctypes.create_string_buffer(attributes.ljust(144, b'\0')), 144)


def programs():
    instructions = ctypes.create_string_buffer(struct.pack('=BBhiBBhi', 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
    license = ctypes.create_string_buffer(b'GPL')
    for kind in range(1, 36):
        yield bpf(5, struct.pack('IIQQ', kind, 2, ctypes.addressof(instructions), ctypes.addressof(license)))


def maps():
    for kind in range(1, 36):
        key, value, entries, flags = 4, 8 if kind == 7 else 4, 1, 0
        if kind in (27, 31):  # rings
            key, value, entries = 0, 0, 4096
        elif kind == 33:  # an arena
            key, value, flags = 0, 0, 1 << 10
        elif kind in (22, 23, 30):  # without keys
            key = 0
        elif kind == 11:
            key, flags = 8, 1
        yield bpf(0, struct.pack('5I', kind, key, value, entries, flags))


def machine():
    try:
        kvm = os.open('/dev/kvm', os.O_RDWR)
        yield kvm
        vm = fcntl.ioctl(kvm, 0xAE01, 0)
        yield vm
        yield fcntl.ioctl(vm, 0xAE41, 0)
        memory = bytearray(struct.pack('Q', 4096).ljust(64, b'\0'))
        yield fcntl.ioctl(vm, 0xC040AED4, memory)
    except OSError:
        pass


def others():
    counter = ctypes.create_string_buffer(struct.pack('IIQ', 1, 128, 9).ljust(128, b'\0'))
    yield call(298, counter, 0, -1, -1, 0)
    yield call(444, ctypes.byref(ctypes.c_uint64(1)), 8, 0)  # a set of rules of landlock
    yield call(447, 0)  # memfd_secret()
    yield call(430, b'tmpfs', 0)  # fsopen()
    yield call(433, -100, b'/', 0)  # fspick()
    yield call(434, os.getpid(), 0)
    yield bpf(32, b'')  # statistics
    yield call(323, 1)  # userfaultfd()
    ends = os.pipe()
    yield from ends
    yield os.open('/proc/self/fd/%d' % ends[0], os.O_PATH)
    counter = call(290, 5, 0)  # eventfd2()
    yield counter
    yield os.open('/proc/self/fd/%d' % counter, os.O_PATH)
    with socket.socket() as unnamed:
        yield os.open('/proc/self/fd/%d' % unnamed.fileno(), os.O_PATH)
    try:
        master, slave = os.openpty()
        yield from (master, slave, os.open(os.ttyname(slave), os.O_PATH))
    except OSError:
        pass
    yield call(283, 1, 0)  # timerfd_create()
    yield call(291, 0)  # epoll_create1()
    yield call(294, 0)  # inotify_init1()
    yield call(300, 0x200, 0)  # fanotify_init()


def what(fd):
    return [re.sub(r'\[\d+\]', '', os.readlink('/proc/self/fd/%d' % fd)), fcntl.fcntl(fd, fcntl.F_GETFL)]


def main():
    control = os.environ['TEST_CONTROL'] + '/'
    makers = (sockets, files, maps, programs, machine, others)
    made = [fd for make in makers for fd in make() if fd >= 0]
    for name, text in (('made', ' '.join(map(str, made))), ('all', '')):
        with open(control + name, 'w', encoding='ascii') as file:
            file.write(text)
    while not os.path.exists(control + 'close'):
        time.sleep(0.01)
    with open(control + 'close', encoding='ascii') as file:
        away = {int(n) for n in file.read().split()}
    for fd in away:
        os.close(fd)
    before = {fd: what(fd) for fd in made if fd not in away}
    with open(control + 'closed', 'w', encoding='ascii'):
        pass
    while not os.path.exists(control + 'look'):
        time.sleep(0.01)
    for fd, was in before.items():
        if what(fd) != was:
            raise SystemExit('descriptor %d was %s and is %s' % (fd, was, what(fd)))
    raise SystemExit(7)


if __name__ == '__main__':
    main()
