# SPDX-License-Identifier: Apache-2.0
"""Images that are none, or not whole, or of somewhere else: refused, and nothing is left."""

import bz2
import gzip
import lzma
import os
import random
import struct

from case import Failed, Skipped
from checksum import with_header


def image(case, *steps):
    """An image of a program that was killed, as bytes."""
    pid = case.victim(*(steps or ('memory', 1, 'child', 'wait', 'pass')))
    path = case.checkpoint(pid, '--kill', '-q', '--force')
    case.wait(pid)
    with open(path, 'rb') as file:
        return file.read()


def put(case, data, name='bad'):
    with open(case.path(name), 'wb') as file:
        file.write(data)
    return case.path(name)


def bad(case, data, codes, what, stream=True):
    """Refused by restart and verify, from a file and from a pipe, with one of the codes."""
    path = put(case, data)
    runs = [('restart', path), ('restart --pidns', path), ('verify', path)]
    if stream:
        runs += [('restart', '-'), ('verify', '-')]
    for command, source in runs:
        args = command.split()
        args += ['-i', source] if args[0] == 'restart' else [source]
        stdin = os.open(path, os.O_RDONLY) if source == '-' else None
        if stdin is not None:
            reader, writer = os.pipe()
            feeder = case.spawn(['/bin/cat', path], stdout=writer)
            os.close(writer)
            os.close(stdin)
            stdin = reader
        result = case.reprise(*args, stdin=stdin)
        if stdin is not None:
            os.close(stdin)
            case.wait(feeder)
        for code in codes:
            if result[2].rstrip('\n').endswith('[%s]' % code):
                break
        else:
            raise Failed('%s, %s: %d, %s' % (what, command, result[0], result[2] or result[1]))
        case.refused(result, code, *[source if source != '-' else 'standard input']
                     if code.startswith('image-') else [])
        case.expect_nobody()


def test_missing(case):
    path = case.path('none')
    for args in (('restart', '-i', path), ('verify', path), ('inspect', path)):
        case.refused(case.reprise(*args), 'image-open', path)


def test_directory(case):
    for args in (('restart', '-i', case.work), ('verify', case.work)):
        result = case.reprise(*args)
        case.refused(result, 'image-open' if 'image-open' in result[2] else 'image-format')


def test_not_readable(case):
    path = put(case, image(case))
    os.chmod(path, 0o600)
    case.refused(case.reprise('restart', '-i', path, '--pidns', uid=65534), 'image-open', path)


def test_empty(case):
    bad(case, b'', ['image-empty'], 'an empty file')


def test_not_ours(case):
    chance = random.Random(1)
    for what, data in (('text', b'Hello, world\n' * 1000), ('zeroes', bytes(100000)),
                       ('one byte', b'R'), ('noise', bytes(chance.randrange(256)
                                                           for _ in range(5000)))):
        bad(case, data, ['image-format', 'image-cut'], what)
    with open('/bin/true', 'rb') as file:
        bad(case, file.read(), ['image-format'], 'a program')


def test_compressed(case):
    """By another program, as by a pipe: that is told."""
    data = image(case)
    for name, packed in (('gzip', gzip.compress(data)), ('xz', lzma.compress(data)), ('bzip2', bz2.compress(data))):
        path = put(case, packed)
        for args in (('restart', '-i', path), ('verify', path), ('inspect', path)):
            case.refused(case.reprise(*args), 'image-format', 'compressed by ' + name)


def test_cut_short(case):
    data = image(case)
    chance = random.Random(2)
    lengths = {1, 7, 8, 15, 16, 100, 431, 432, 433, 463, 464, 500, len(data) - 1, len(data) - 8,
               len(data) - 100, len(data) // 2} | {chance.randrange(len(data)) for _ in range(12)}
    for length in sorted(lengths):
        bad(case, data[:length], ['image-cut', 'image-damaged', 'image-format'],
            'cut to %d of %d bytes' % (length, len(data)), stream=length % 3 == 0)


test_cut_short.timeout = 120


def test_flipped_bits(case):
    """One bit anywhere, with more of them in the state than in the pages."""
    data = image(case)
    chance = random.Random(3)
    state = struct.unpack_from('<Q', data, 80)[0]
    if not 0 < state < len(data):
        state = len(data) // 10
    places = [chance.randrange(440) for _ in range(20)]
    places += [chance.randrange(432, 432 + state) for _ in range(30)]
    places += [chance.randrange(len(data)) for _ in range(15)]
    places += [chance.randrange(len(data) - 600, len(data)) for _ in range(15)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        bad(case, bytes(damaged), ['image-damaged', 'image-format', 'image-cut', 'image-newer',
                                   'image-arch', 'image-invalid'],
            'a bit flipped at %d of %d' % (place, len(data)), stream=False)


test_flipped_bits.timeout = 180


def test_exchanged_bytes(case):
    """A stretch of zeroes, a stretch that comes twice, a stretch that is missing."""
    data = image(case)
    chance = random.Random(4)
    for _ in range(8):
        at, length = chance.randrange(len(data)), chance.randrange(1, 9000)
        for what, changed in (('zeroes', data[:at] + bytes(length) + data[at + length:]),
                              ('twice', data[:at + length] + data[at:]),
                              ('missing', data[:at] + data[at + length:])):
            if changed != data:
                bad(case, changed, ['image-damaged', 'image-format', 'image-cut', 'image-newer',
                                    'image-invalid'],
                    '%s at %d, %d bytes' % (what, at, length), stream=False)


test_exchanged_bytes.timeout = 120


def test_newer(case):
    data = image(case)
    version = struct.unpack_from('<I', data, 8)[0]
    bad(case, with_header(data, 8, struct.pack('<I', version + 1)), ['image-newer'],
        'a newer version')


def test_other_architecture(case):
    bad(case, with_header(image(case), 24, b'aarch64\0'), ['image-arch'], 'another architecture')


def test_better_processor(case):
    """A feature of the processor that this one has not, by name or by number."""
    data = image(case)
    features = struct.unpack_from('<Q', data, 64)[0]
    damaged = with_header(data, 64, struct.pack('<Q', features | 1 << 18 | 1 << 9))
    result = case.reprise('restart', '-i', put(case, damaged))
    case.refused(result, 'image-cpu')
    case.expect_nobody()


def test_something_behind(case):
    """Two images in one file: the first is whole, and what follows it is not silently lost."""
    data = image(case)
    path = put(case, data + data)
    code, out, err = case.reprise('verify', path)
    if code == 0 and not err:
        raise Skipped('what follows an image is not looked at')
    case.refused((code, out, err), 'image-damaged')
