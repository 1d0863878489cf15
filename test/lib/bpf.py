# SPDX-License-Identifier: Apache-2.0
"""bpf(2), with what tests need of it: nothing but the kernel is needed."""

import ctypes
import os
import struct

from case import Skipped

LIBC = ctypes.CDLL(None, use_errno=True)
MAP_CREATE, PROG_LOAD, OBJ_PIN, PROG_ATTACH = 0, 5, 6, 8
PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY = 13, 15, 16
SYS_BPF = 321


def call(command, attr):
    data = ctypes.create_string_buffer(attr, 128)
    result = LIBC.syscall(SYS_BPF, command, data, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, 'bpf(%d): %s' % (command, os.strerror(error)))
    return result


YES = (0xb7, 0, 0, 1), (0x95, 0, 0, 0)  # r0 = 1; exit


def load(kind, attach=0, code=YES):
    """A program: instructions of a code, registers, an offset and a number. This one says yes to everything."""
    text = b''.join(struct.pack('<BBhi', *insn) for insn in code)
    insns, licence = ctypes.create_string_buffer(text), ctypes.create_string_buffer(b'GPL')
    try:
        return call(PROG_LOAD, struct.pack('<IIQQIIQII16sII', kind, len(code), ctypes.addressof(insns),
                                           ctypes.addressof(licence), 0, 0, 0, 0, 0, b'yes', 0, attach))
    except OSError as error:
        raise Skipped('no BPF here: %s' % error) from error


def array():
    """A map of one value."""
    return call(MAP_CREATE, struct.pack('<IIIII', 2, 4, 8, 1, 0))


def attached(target, kind):
    """(flags, [(name, tag)]) of what is attached there."""
    ids = (ctypes.c_uint32 * 64)()
    attr = ctypes.create_string_buffer(struct.pack('<IIIIQI', target, kind, 0, 0, ctypes.addressof(ids), 64), 128)
    if LIBC.syscall(SYS_BPF, PROG_QUERY, attr, 128) < 0:
        raise OSError(ctypes.get_errno(), 'BPF_PROG_QUERY')
    found = []
    for number in ids[:struct.unpack_from('<I', attr, 24)[0]]:
        fd, info = call(PROG_GET_FD_BY_ID, struct.pack('<I', number)), ctypes.create_string_buffer(232)
        call(OBJ_GET_INFO_BY_FD, struct.pack('<IIQ', fd, len(info), ctypes.addressof(info)))
        os.close(fd)
        found.append((info.raw[64:80].rstrip(b'\0'), info.raw[8:16]))
    return struct.unpack_from('<I', attr, 12)[0], found


def pin(fd, path):
    name = ctypes.create_string_buffer(path.encode())
    call(OBJ_PIN, struct.pack('<QII', ctypes.addressof(name), fd, 0))


def attach(target, program, kind, flags=0):
    """To what a descriptor leads to."""
    call(PROG_ATTACH, struct.pack('<IIII', target, program, kind, flags))
