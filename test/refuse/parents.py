# SPDX-License-Identifier: Apache-2.0
"""Incremental images whose parents are not there, are others, or are damaged."""

import hashlib
import os
import signal
import struct

from case import Failed
from checksum import checksum, with_header


def chain(case, length=4):
    """0.rp, and others that hold a few pages each."""
    pid = case.start('memory_steps')
    for i in range(length):
        parent = ('--parent', case.path('%d.rp' % (i - 1))) if i else ()
        if i:
            os.kill(pid, signal.SIGUSR1)
            case.until(lambda: os.path.exists(os.path.join(case.work, 'step.%d' % i)), 'a step')
        case.checkpoint(pid, '-q', *parent, image='%d.rp' % i)
    case.kill_all()


def refused(case, name, codes, *words, merged=None):
    """By everything that reads contents."""
    path = case.path(name)
    for args in (('restart', '-q', '--pidns', '-i', path), ('verify', path),
                 ('merge', path, '-o', case.path('merged'))):
        code = merged if merged and args[0] == 'merge' else codes
        case.refused(case.reprise(*args), code, *(words if code == codes else ()))
        case.expect_nobody()
    if os.path.exists(case.path('merged')):
        raise Failed('a merged image was left')


def change(case, name, at, xor=1):
    with open(case.path(name), 'r+b') as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ xor]))


def test_parents_missing(case):
    chain(case)
    os.unlink(case.path('1.rp'))
    refused(case, '3.rp', 'parent-missing', '1.rp')
    refused(case, '2.rp', 'parent-missing', '1.rp')
    code, out, err = case.reprise('inspect', case.path('3.rp'))
    if code or '2.rp' not in out:
        raise Failed('inspect does not name the parent: %s' % (err or out))


def test_parents_wrong(case):
    """Another image under the name of the parent; and a file that is none; and a fifo."""
    chain(case)
    os.rename(case.path('0.rp'), case.path('1.rp'))
    refused(case, '3.rp', 'parent-missing', '1.rp')
    os.unlink(case.path('1.rp'))
    with open(case.path('1.rp'), 'w') as file:
        file.write('no image')
    refused(case, '3.rp', 'parent-missing', '1.rp')
    os.unlink(case.path('1.rp'))
    os.mkfifo(case.path('1.rp'))
    refused(case, '3.rp', 'parent-missing', '1.rp')


def frames(data):
    """Offset, type and length of the frames of the state part."""
    length, = struct.unpack_from('<I', data, 12)
    end, = struct.unpack_from('<Q', data, 80)
    at = length
    while at < length + end:
        kind, flags, size = struct.unpack_from('<IIQ', data, at)
        yield at, kind, size
        at += 32 + (size + 7) // 8 * 8


def with_parent(data, offset, value):
    """Something else in the record of the parent, and all that is computed from it right."""
    data = bytearray(data)
    for at, kind, size in frames(data):
        if kind == 8:
            data[at + 32 + offset:at + 32 + offset + len(value)] = value
            data[at + 24:at + 32] = bytes(8)
            data[at + 24:at + 32] = checksum(data[at:at + 32 + size])
        if kind == 2:
            data[at + 64:at + 96] = hashlib.blake2b(data[:at], digest_size=32).digest()
            data[at + 24:at + 32] = bytes(8)
            data[at + 24:at + 32] = checksum(data[at:at + 96])
    return bytes(data)


def test_parents_forged(case):
    """An image that is its own parent, another digest, names that lead elsewhere."""
    chain(case, 2)
    with open(case.path('1.rp'), 'rb') as file:
        data = file.read()

    def forged(offset, value):
        with open(case.path('bad'), 'wb') as out:
            out.write(with_parent(data, offset, value))

    forged(0, data[48:64])
    refused(case, 'bad', 'parent-wrong', 'based on', merged='image-damaged')
    forged(16, bytes(32))
    refused(case, 'bad', 'parent-wrong', 'another digest', merged='image-damaged')
    for name in (b'../0.rp\0', b'/etc/passwd\0', b'..\0', b'x' * 256):
        forged(48, name)
        refused(case, 'bad', 'image-damaged', 'name of the parent')
    forged(304, struct.pack('<Q', 1 << 60))
    refused(case, 'bad', 'image-damaged', 'the parent')
    forged(312, struct.pack('<Q', 0))
    refused(case, 'bad', 'image-damaged', 'objects of the parent')


def test_parents_damaged_circle(case):
    """Two images, each damaged and said to be based on the other."""
    chain(case, 2)
    data = []
    for name in ('0.rp', '1.rp'):
        with open(case.path(name), 'rb') as file:
            data.append(file.read())
    other = with_header(data[1], 48, bytes(16))
    for name, image, uuid in (('a', data[1], bytes(16)), ('b', other, data[1][48:64])):
        forged = bytearray(with_parent(image, 0, uuid))
        length, = struct.unpack_from('<I', forged, 12)
        state, = struct.unpack_from('<Q', forged, 80)
        forged[length + state + 20] ^= 1
        with open(case.path(name), 'wb') as file:
            file.write(forged)
    os.unlink(case.path('1.rp'))
    for name in ('a', 'b'):
        result = case.reprise('verify', case.path(name))
        case.refused(result, 'image-damaged')


def test_parents_damaged(case):
    """The middle of a chain: it is named, and so is what is still good."""
    chain(case)
    with open(case.path('1.rp'), 'rb') as file:
        data = file.read()
    length, = struct.unpack_from('<I', data, 12)
    state, = struct.unpack_from('<Q', data, 80)
    # the header of the first frame of pages
    change(case, '1.rp', length + state + 20)
    refused(case, '3.rp', 'image-damaged', '1.rp', '0.rp is still good')
    change(case, '1.rp', length + state + 20)
    # the first address in it, which nothing but a checksum covers
    change(case, '1.rp', length + state + 81)
    refused(case, '3.rp', 'image-damaged', '1.rp')
    change(case, '1.rp', length + state + 81)
    # the contents of a page, wherever: in the middle of what there is
    change(case, '1.rp', (length + state + len(data)) // 2)
    result = case.reprise('verify', case.path('3.rp'))
    case.refused(result, 'image-damaged', '1.rp', '0.rp is still good')
    change(case, '1.rp', (length + state + len(data)) // 2)
    # the state part: nothing behind it can be read
    change(case, '1.rp', 600)
    refused(case, '3.rp', 'image-damaged', '1.rp')
    change(case, '1.rp', 600)
    code, _, err = case.reprise('verify', case.path('3.rp'))
    if code:
        raise Failed('mended, it is good: %s' % err)


def test_parents_for_checkpoint(case):
    """What cannot be a parent; the application goes on."""
    pid = case.victim('memory', 1, 'wait', 'pass')
    case.checkpoint(pid, '-q', image='0.rp')
    case.checkpoint(pid, '-q', '--parent', case.path('0.rp'), image='1.rp')
    output = ('checkpoint', str(pid), '-q', '-o', case.path('new'))
    case.refused(case.reprise(*output, '--parent', case.path('none')), 'image-open', 'none')
    case.refused(case.reprise(*output, '--parent', case.control), 'parent', 'no regular file')
    os.rename(case.path('0.rp'), case.path('moved'))
    os.mkdir(case.path('away'))
    os.rename(case.path('moved'), case.path('away/moved'))
    case.refused(case.reprise(*output, '--parent', case.path('1.rp')), 'parent-missing', '0.rp')
    change(case, 'away/moved', 200)
    case.refused(case.reprise(*output, '--parent', case.path('away/moved')), 'image-damaged',
                 'moved')
    if os.path.exists(case.path('new')):
        raise Failed('an image was made')
    case.finish(pid)


def test_parents_replaced(case):
    """An image does not take the place of what it needs, nearest or not, by whatever path."""
    pid = case.victim('memory', 1, 'wait', 'pass')
    case.checkpoint(pid, '-q', image='0.rp')
    case.checkpoint(pid, '-q', '--parent', case.path('0.rp'), image='1.rp')
    os.symlink('1.rp', case.path('link'))
    for parent, name in (('1.rp', '1.rp'), ('1.rp', '0.rp'), ('link', '1.rp'), ('1.rp', '../control/1.rp')):
        case.refused(case.reprise('checkpoint', str(pid), '-q', '--kill', '--force', '-o', case.path(name), '--parent', case.path(parent)),
                     'parent', 'would be replaced')
    case.checkpoint(pid, '-q', '--force', '--parent', case.path('0.rp'), image='1.rp')
    code, _, err = case.reprise('verify', case.path('1.rp'))
    if code:
        raise Failed('the chain: %s' % err)
    case.finish(pid)
