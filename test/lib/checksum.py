# SPDX-License-Identifier: Apache-2.0
"""The checksums of images, for tests that forge them."""

import ctypes
import hashlib
import struct

from case import Skipped


def checksum(data):
    """XXH3-64, as bytes."""
    try:
        xxhash = ctypes.CDLL('libxxhash.so.0')
    except OSError:
        raise Skipped('no libxxhash')
    xxhash.XXH3_64bits.restype = ctypes.c_uint64
    return struct.pack('<Q', xxhash.XXH3_64bits(bytes(data), ctypes.c_size_t(len(data))))


def with_header(data, offset, value):
    """Another value in the header, and all that is computed from it right: the checksum of the
    header, with 0 in its own place; the digest of the state part at its end, and the checksum
    of the frame that has it."""
    data = bytearray(data)
    length, = struct.unpack_from('<I', data, 12)
    state_length, = struct.unpack_from('<Q', data, 80)
    data[offset:offset + len(value)] = value
    data[16:24] = bytes(8)
    data[16:24] = checksum(data[:length])
    end = length + state_length - 32 - 64
    data[end + 64:end + 96] = hashlib.blake2b(data[:end], digest_size=32).digest()
    data[end + 24:end + 32] = bytes(8)
    data[end + 24:end + 32] = checksum(data[end:end + 96])
    return bytes(data)
