# SPDX-License-Identifier: Apache-2.0
"""Memory that is watched in a way that cannot be saved."""

import os

from case import Failed, Skipped, libc

# userfaultfd(2), UFFDIO_API, a mapping, UFFDIO_REGISTER: with the mode and the features given.
PROGRAM = '''
import ctypes, fcntl, mmap, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
mode, features, close = %d, %d, %d
try:
    fd = libc.syscall(323, os.O_CLOEXEC)
    fcntl.ioctl(fd, 0xc018aa3f, struct.pack('QQQ', 0xaa, features, 0))
    memory = os.memfd_create('watched')
    os.ftruncate(memory, 65536)
    shared = mode == 4
    at = libc.mmap(None, 65536, 3, 1 if shared else 34, memory if shared else -1, 0)
    fcntl.ioctl(fd, 0xc020aa00, struct.pack('QQQQ', at, 65536, mode, 0))
except OSError:
    sys.exit(3)
with open('up.new', 'w') as file:
    file.write(str(fd))
os.rename('up.new', 'up')
while close and not os.path.exists('taken'):
    time.sleep(0.01)
if close:
    os.close(fd)
    open('closed', 'w').close()
time.sleep(100)
'''
MISSING, PROTECT, MINOR = 1, 2, 4
MINOR_SHMEM, PROTECT_UNPOPULATED = 1 << 10, 1 << 13


def watched(case, mode, features=0, close=0):
    pid = case.spawn(['/usr/bin/python3', '-c', PROGRAM % (mode, features, close)])
    case.until(lambda: 'up' in os.listdir(case.work) or case.ended(pid), 'the start')
    if case.ended(pid):
        raise Skipped('no such userfaultfd')
    with open(os.path.join(case.work, 'up')) as file:
        return pid, int(file.read())


def refused(case, pid, code, *words):
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), code, *words)
    case.expect_files()
    if case.ended(pid):
        raise Failed('the program ended')
    case.kill_all()


def test_minor(case):
    pid, _ = watched(case, MINOR, MINOR_SHMEM)
    refused(case, pid, 'vma-kind', 'minor')


def test_unpopulated(case):
    pid, _ = watched(case, PROTECT, PROTECT_UNPOPULATED)
    refused(case, pid, 'file-state', 'WP_UNPOPULATED')


def test_outside(case):
    """The descriptor is in other hands."""
    pid, fd = watched(case, MISSING, close=1)
    ours = libc.syscall(438, libc.syscall(434, pid, 0), fd, 0)
    if ours < 0:
        raise Failed('pidfd_getfd')
    open(os.path.join(case.work, 'taken'), 'w').close()
    case.until(lambda: 'closed' in os.listdir(case.work), 'the close')
    refused(case, pid, 'file-outside', 'nobody in the tree')
