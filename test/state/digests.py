# SPDX-License-Identifier: Apache-2.0
"""What the digest of an image covers, and that inspect and verify tell it."""

import json
import os

from case import Failed

COMPRESS = ('none', 'lz4', 'zstd')


def told(case, command, image, *args):
    """By its document, and in words."""
    code, out, err = case.reprise(command, image, '--json', *args)
    if code:
        raise Failed('%s: %s' % (command, out + err))
    document = json.loads(out)
    code, out, err = case.reprise(command, image, *args)
    words = 'BLAKE2b-256 of all' if document['digest_covers'] == 'all' else 'BLAKE2b-256 of the state'
    line = [line for line in out.splitlines() if document['digest'] in line]
    if code or len(line) != 1 or words not in line[0]:
        raise Failed('%s: %s%s' % (command, out, err))
    return document['digest'], document['digest_covers']


def expect(case, image, covers, *args):
    inspected, verified = told(case, 'inspect', image, *args), told(case, 'verify', image, *args)
    if inspected != verified or inspected[1] != covers or len(inspected[0]) != 64:
        raise Failed('%s: %s and %s' % (image, inspected, verified))
    return inspected[0]


def finish(case, restart):
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the restarted program')])


def test_covers(case):
    """The state alone, unless all was asked for, or the image is signed or encrypted."""
    code, _, err = case.reprise('keygen', case.path('key'))
    if code:
        raise Failed('keygen: %s' % err)
    key, public = case.path('key'), case.path('key.pub')
    pid = case.start('memory_anon')
    expect(case, case.checkpoint(pid, '-q', image='plain'), 'state')
    expect(case, case.checkpoint(pid, '-q', '--digest', 'state', image='state'), 'state')
    for compress in COMPRESS:
        image = case.checkpoint(pid, '-q', '--digest', 'all', '--compress', compress, image=compress)
        expect(case, image, 'all')
    expect(case, case.checkpoint(pid, '-q', '--sign', key, image='signed'), 'all', '--trust', public)
    image = case.checkpoint(pid, '-q', '--encrypt', public, image='secret')
    expect(case, image, 'all', '--identity', key)
    image = case.checkpoint(pid, '-q', '--sign', key, '--digest', 'state', image='sealed')
    expect(case, image, 'state', '--trust', public)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('x'), '--digest', 'none'), 'usage', '--digest', status=2)
    case.finish(pid)


def restarted_from(case, args, *more):
    pid = case.start('memory_anon')
    image = case.checkpoint(pid, '-q', '--kill', '--digest', 'all', *args)
    case.wait(pid)
    case.statuses.clear()
    expect(case, image, 'all')
    finish(case, case.restart(*more))


def test_restart(case):
    restarted_from(case, [])


def test_restart_compressed(case):
    restarted_from(case, ['--compress', 'zstd'])


def test_restart_lazy(case):
    restarted_from(case, [], '--lazy')


def test_merge(case):
    """An incremental image covers its own pages; what is merged covers all."""
    pid = case.start('memory_written')
    first = case.checkpoint(pid, '-q', '--digest', 'all', image='first')
    second = case.checkpoint(pid, '-q', '--kill', '--digest', 'all', '--parent', first, image='second')
    case.wait(pid)
    case.statuses.clear()
    expect(case, second, 'all')
    code, _, err = case.reprise('merge', second, '-o', case.path('image'), '-q')
    if code:
        raise Failed('merge: %s' % err)
    expect(case, case.path('image'), 'all')
    os.unlink(first)
    finish(case, case.restart())
