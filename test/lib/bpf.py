# SPDX-License-Identifier: Apache-2.0
"""bpf(2), with what tests need of it: nothing but the kernel is needed."""

import ctypes
import os
import struct

from case import Skipped

LIBC = ctypes.CDLL(None, use_errno=True)
PROG_LOAD, OBJ_PIN, PROG_ATTACH = 5, 6, 8
SYS_BPF = 321


def call(command, attr):
    data = ctypes.create_string_buffer(attr, 128)
    result = LIBC.syscall(SYS_BPF, command, data, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, 'bpf(%d): %s' % (command, os.strerror(error)))
    return result


def load(kind, attach=0):
    """A program that says yes to everything."""
    code = ctypes.create_string_buffer(struct.pack('<BBhiBBhi', 0xb7, 0, 0, 1, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b'GPL')
    try:
        return call(PROG_LOAD, struct.pack('<IIQQIIQII16sII', kind, 2, ctypes.addressof(code),
                                           ctypes.addressof(licence), 0, 0, 0, 0, 0, b'yes', 0, attach))
    except OSError as error:
        raise Skipped('no BPF here: %s' % error) from error


def pin(fd, path):
    name = ctypes.create_string_buffer(path.encode())
    call(OBJ_PIN, struct.pack('<QII', ctypes.addressof(name), fd, 0))


def attach(target, program, kind, flags=0):
    """To what a descriptor leads to."""
    call(PROG_ATTACH, struct.pack('<IIII', target, program, kind, flags))
