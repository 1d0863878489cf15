# SPDX-License-Identifier: Apache-2.0
"""Signed and encrypted images."""

import os
import random
import signal

from case import Failed


def keys(case, *names):
    for name in names:
        code, _, err = case.reprise('keygen', case.path(name))
        if code:
            raise Failed('keygen: %s' % err)
        if os.stat(case.path(name)).st_mode & 0o777 != 0o600:
            raise Failed('a secret key may be read by others')
        case.refused(case.reprise('keygen', case.path(name)), 'output-exists', name)


def write(case, name, text):
    with open(case.path(name), 'w') as file:
        file.write(text)
    os.chmod(case.path(name), 0o600)
    return case.path(name)


def good(case, *args, stdin=None):
    code, _, err = case.reprise(*args, stdin=stdin)
    if code:
        raise Failed('%s: %s' % (args, err))


def test_signed_and_encrypted(case):
    """Opened by whom it is for, and trusted by whom trusts the signer; then it is restarted."""
    keys(case, 'alice', 'bob', 'eve')
    alice, bob, eve = map(case.path, ('alice', 'bob', 'eve'))
    pid = case.start('memory_anon')
    image = case.checkpoint(pid, '--kill', '-q', '--sign', alice, '--encrypt', bob + '.pub',
                            '--encrypt', alice + '.pub')
    case.wait(pid)
    with open(image, 'rb') as file:
        if b'memory_anon' in file.read():
            raise Failed('the image can be read without a key')
    good(case, 'verify', image, '--identity', bob, '--trust', alice + '.pub')
    good(case, 'verify', image, '--identity', alice)
    good(case, 'inspect', image, '--identity', eve, '--identity', bob)
    for command in (('verify', image), ('inspect', image), ('restart', '-i', image)):
        case.refused(case.reprise(*command), 'key')
        case.refused(case.reprise(*command, '--identity', eve), 'key')
        case.refused(case.reprise(*command, '--identity', bob, '--trust', bob + '.pub'), 'not-trusted')
    copy = case.restart('--identity', bob, '--trust', eve + '.pub', '--trust', alice + '.pub')
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])


def test_pass_phrase(case):
    right, wrong = write(case, 'right', 'correct horse\n'), write(case, 'wrong', 'battery\n')
    pid = case.start('pipes')
    image = case.checkpoint(pid, '--kill', '-q', '--passphrase-file', right)
    case.wait(pid)
    case.refused(case.reprise('verify', image, '--passphrase-file', wrong), 'key')
    case.refused(case.reprise('verify', image, '--passphrase-file', write(case, 'empty', '\n')), 'key')
    copy = case.restart('--passphrase-file', right, '--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])


def test_streamed(case):
    """Through a pipe, signed; without an option a stream is not opened."""
    keys(case, 'alice')
    alice = case.path('alice')
    pid = case.start('tree')
    reader, writer = os.pipe()
    saver = case.start_reprise('checkpoint', str(pid), '-o', '-', '--kill', '-q', '--sign', alice,
                               stdout=writer)
    copy = case.start_reprise('restart', '-i', '-', '-q', '--pidns', '--trust', alice + '.pub',
                              stdin=reader)
    os.close(reader)
    os.close(writer)
    if case.wait(saver, 'the checkpoint') or case.wait(pid) != 128 + signal.SIGKILL:
        raise Failed('the checkpoint failed')
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])


def test_trust(case):
    """What is not signed by a trusted key is not taken; what is, only as it was signed."""
    keys(case, 'alice')
    alice = case.path('alice')
    pid = case.victim('wait', 'pass')
    plain = case.checkpoint(pid, '-q', image='plain')
    signed = case.checkpoint(pid, '-q', '--sign', alice, image='signed')
    other = case.checkpoint(pid, '-q', '--sign', alice, image='other')
    case.finish(pid)
    case.refused(case.reprise('restart', '-i', plain, '--trust', alice + '.pub'), 'not-trusted')
    good(case, 'verify', plain)
    good(case, 'verify', signed)
    reader, writer = os.pipe()
    with open(signed, 'rb') as file:
        os.write(writer, file.read(4096))
    os.close(writer)
    case.refused(case.reprise('verify', '-', stdin=reader), 'image-sealed')
    os.close(reader)
    with open(signed, 'rb') as file:
        data = file.read()
    with open(other, 'rb') as file:
        rest = file.read()
    chance = random.Random(7)
    damages = [data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1:]
               for at in [8, 12, 16, 30, 60, 90, 112, 170, len(data) - 1, len(data) // 2] +
               [chance.randrange(8, len(data)) for _ in range(30)]]
    # cut short, continued, and a header in front of the chunks of another one
    damages += [data[:-1], data[:len(data) // 2], data[:200], data[:50], data + b'x', data + data,
                data[:176] + rest[176:]]
    for number, damaged in enumerate(damages):
        path = case.path('damaged')
        with open(path, 'wb') as file:
            file.write(damaged)
        code, _, err = case.reprise('verify', path, '--trust', alice + '.pub')
        if code != 1 or len(err.splitlines()) != 1:
            raise Failed('damage %d: %d, %s' % (number, code, err))


def test_bad_keys(case):
    keys(case, 'alice')
    alice = case.path('alice')
    pid = case.victim('wait', 'pass')
    out = case.path('image')
    for args in (('--sign', alice + '.pub'), ('--sign', '/etc/passwd'), ('--sign', '/no/key'),
                 ('--encrypt', write(case, 'nothing', '')), ('--passphrase-file', '/dev/null')):
        case.refused(case.reprise('checkpoint', str(pid), '-o', out, *args), 'key')
        if os.path.exists(out):
            raise Failed('%s: an image was made' % (args,))
    case.finish(pid)


def test_exposed_keys(case):
    """Whoever signs or opens with what others can read is told so; not of public keys, and not twice."""
    keys(case, 'alice')
    alice, image = case.path('alice'), case.path('image')
    phrase = write(case, 'phrase', 'open\n')
    pid = case.victim('wait', 'pass')

    def warnings(*args):
        code, _, err = case.reprise(*args)
        if code:
            raise Failed('%s: %s' % (args, err))
        return err.count('may be read by others')

    commands = [['checkpoint', str(pid), '-o', image, '--force', '--sign', alice, '--encrypt', alice + '.pub'],
                ['verify', image, '--trust', alice + '.pub', '--identity', alice],
                ['checkpoint', str(pid), '-o', image, '--force', '--passphrase-file', phrase],
                ['verify', image, '--passphrase-file', phrase]]
    for mode, times in ((0o600, 0), (0o640, 1), (0o604, 1)):
        os.chmod(alice, mode)
        os.chmod(phrase, mode)
        for command in commands[:4 if mode == 0o604 else 2]:
            if warnings(*command) != times or warnings(*command, '-q') != 0:
                raise Failed('%o: %s' % (mode, command))
    case.finish(pid)
