# SPDX-License-Identifier: Apache-2.0
"""What some tests need of the whole machine: huge pages, and a place to swap to.

The first of all runs of the tests provides them, the last one takes them away again. Where that
is not allowed, tests look for themselves and may skip.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import struct
import tempfile

HUGE_PAGES = 128
HUGE_PAGES_PATH = '/proc/sys/vm/nr_hugepages'
SWAP_SIZE = 64 << 20
# Held by all runs, and by one alone that makes or removes something; it says what is to be undone.
LOCK = '/run/reprise-test-machine'

libc = ctypes.CDLL(None, use_errno=True)


def more_huge_pages():
    """How many there were, None: they are not ours to make."""
    try:
        with open(HUGE_PAGES_PATH) as file:
            before = int(file.read())
        if before < HUGE_PAGES:
            with open(HUGE_PAGES_PATH, 'w') as file:
                file.write('%d' % HUGE_PAGES)
        return before
    except OSError:
        return None


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


def more_swap():
    """Its path, None: there is none."""
    # Not in /tmp: tmpfs cannot hold a swap area.
    directory = tempfile.mkdtemp(prefix='reprise-test-', dir='/var/tmp')
    path = os.path.join(directory, 'swap')
    try:
        make_swap(path)
        if libc.swapon(path.encode(), 0) == 0:
            return path
    except OSError:
        pass
    shutil.rmtree(directory, ignore_errors=True)
    return None


def undo(made):
    if made.get('huge_pages') is not None:
        with open(HUGE_PAGES_PATH, 'w') as file:
            file.write('%d' % made['huge_pages'])
    if made.get('swap'):
        libc.swapoff(made['swap'].encode())
        shutil.rmtree(os.path.dirname(made['swap']), ignore_errors=True)


def alone(lock):
    """No other run is there. If not so, the lock is lost."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def made_before(lock):
    """By runs before, or one that was killed."""
    lock.seek(0)
    text = lock.read()
    return json.loads(text) if text else {}


def note(lock, made):
    lock.seek(0)
    lock.truncate()
    lock.write(json.dumps(made))
    lock.flush()


@contextlib.contextmanager
def prepared():
    try:
        lock = open(LOCK, 'a+')
    except OSError:
        yield
        return
    with lock:
        # Again if the last one has just taken it away.
        while True:
            if alone(lock):
                undo(made_before(lock))
                note(lock, {'huge_pages': more_huge_pages(), 'swap': more_swap()})
            fcntl.flock(lock, fcntl.LOCK_SH)
            if made_before(lock):
                break
        try:
            yield
        finally:
            # Others may need it until they end.
            if alone(lock):
                undo(made_before(lock))
                note(lock, {})
