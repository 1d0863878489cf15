# SPDX-License-Identifier: Apache-2.0
"""What some tests need of the whole machine: huge pages, and a place to swap to.

One run of the tests at a time provides them, and takes them away again. Where that
is not allowed, or another run is at it, tests look for themselves and may skip.
"""

import contextlib
import ctypes
import fcntl
import os
import struct
import tempfile

HUGE_PAGES = 128
HUGE_PAGES_PATH = '/proc/sys/vm/nr_hugepages'
SWAP_SIZE = 64 << 20
LOCK = '/run/reprise-test-machine.lock'

libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def huge_pages():
    try:
        with open(HUGE_PAGES_PATH) as file:
            before = int(file.read())
        if before < HUGE_PAGES:
            with open(HUGE_PAGES_PATH, 'w') as file:
                file.write('%d' % HUGE_PAGES)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        with open(HUGE_PAGES_PATH, 'w') as file:
            file.write('%d' % before)


def make_swap(path):
    """A swap area as mkswap(8) makes it: struct swap_header of the kernel."""
    page = os.sysconf('SC_PAGE_SIZE')
    header = bytearray(page)
    struct.pack_into('=III', header, 1024, 1, SWAP_SIZE // page - 1, 0)
    header[-10:] = b'SWAPSPACE2'
    with open(path, 'wb') as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(header)
        file.write(bytes(SWAP_SIZE - page))


@contextlib.contextmanager
def swap():
    # Not in /tmp: tmpfs cannot hold a swap area.
    with tempfile.TemporaryDirectory(prefix='reprise-test-', dir='/var/tmp') as directory:
        path = os.path.join(directory, 'swap').encode()
        try:
            make_swap(path)
        except OSError:
            path = None
        if path and libc.swapon(path, 0):
            path = None
        try:
            yield
        finally:
            if path:
                libc.swapoff(path)


@contextlib.contextmanager
def prepared():
    try:
        lock = open(LOCK, 'w')
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield
        return
    with lock, huge_pages(), swap():
        yield
