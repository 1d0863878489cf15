# SPDX-License-Identifier: Apache-2.0
"""Incremental images: what they hold, and that each of a chain is restarted as it was."""

import json
import os
import signal
import stat

from case import Failed

PAGES = 2 * (20 + 1) + 3 + 2  # that a step writes, in two processes
OTHER = 2 * (64 + 8 + 40)     # mappings that come or move, stacks, data of libraries


def step(case, pid, number):
    os.kill(pid, signal.SIGUSR1)
    path = os.path.join(case.work, 'step.%d' % number)
    case.until(lambda: os.path.exists(path), 'step %d' % number)
    os.unlink(path)


def inspect(case, name):
    code, out, err = case.reprise('inspect', '--json', case.path(name))
    if code:
        raise Failed('inspect %s: %s' % (name, err))
    return json.loads(out)


def stored(sizes):
    return sizes['pages'] - sizes['parent_pages']


def chain(case, *args, length=6, first=()):
    """0.rp, complete; and 1.rp and so on, one step after the other."""
    pid = case.start('memory_steps')
    case.checkpoint(pid, '-q', *first, image='0.rp')
    for i in range(1, length):
        step(case, pid, i)
        case.checkpoint(pid, '-q', '--parent', case.path('%d.rp' % (i - 1)), *args,
                        image='%d.rp' % i)
    return pid


def expect(case, name, number, *args):
    """The image is of that step."""
    with open(os.path.join(case.work, 'expected'), 'w') as file:
        file.write('%d' % number)
    case.turns = getattr(case, 'turns', 0) + 1
    verdict = 'turn%d' % case.turns
    restart = case.restart('--pidns', *args, image=name)
    case.go(verdict)
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy of ' + name, verdict)], verdict)
    case.hold()


def verify(case, name, *args):
    code, out, err = case.reprise('verify', case.path(name), *args)
    if code:
        raise Failed('verify %s: %s' % (name, err))


def merge(case, name, *args):
    code, out, err = case.reprise('merge', case.path(name), *args)
    if code:
        raise Failed('merge %s: %s' % (name, err))


def test_incremental_chain(case):
    """Each image of a chain, and the one that it is merged into."""
    pid = chain(case)
    case.kill(pid)
    for i in range(1, 6):
        name = '%d.rp' % i
        sizes = inspect(case, name)['sizes']
        held = stored(sizes)
        if not PAGES <= held <= PAGES + OTHER or sizes['parent_pages'] < 2000:
            raise Failed('%s holds %d pages, %d are in the parent' % (
                name, held, sizes['parent_pages']))
        # some are there twice: written to after they had been copied in advance
        if sizes['page_bytes'] > 4096 * (PAGES + OTHER):
            raise Failed('%s has %d bytes of pages' % (name, sizes['page_bytes']))
        data = sizes['total_bytes'] - sizes['state_bytes']
        if data > 1.1 * sizes['page_bytes'] + 8192:
            raise Failed('%s takes %d bytes for %d bytes of pages' % (
                name, data, sizes['page_bytes']))
    verify(case, '5.rp')
    for i in range(6):
        expect(case, '%d.rp' % i, i)
    expect(case, '4.rp', 4, '--lazy')
    merge(case, '3.rp', '-o', case.path('full'))
    if inspect(case, 'full')['parent'] is not None:
        raise Failed('a merged image has a parent')
    for name in ('0.rp', '1.rp', '2.rp', '3.rp'):
        os.unlink(case.path(name))
    expect(case, 'full', 3)
    # It takes the place of 3.rp, and is found by what it is.
    expect(case, '5.rp', 5)
    merge(case, '5.rp', '-o', case.path('5.rp'), '--force')
    os.unlink(case.path('full'))
    verify(case, '5.rp')
    expect(case, '5.rp', 5)


test_incremental_chain.timeout = 120


def test_incremental_compressed(case):
    pid = chain(case, '--compress', 'zstd', length=3, first=('--compress', 'lz4'))
    step(case, pid, 3)
    case.checkpoint(pid, '-q', '--kill', '--parent', case.path('2.rp'), image='3.rp')
    merge(case, '3.rp', '-o', case.path('full'), '--compress', 'zstd:3')
    for i, name in ((0, '0.rp'), (1, '1.rp'), (2, '2.rp'), (3, '3.rp'), (3, 'full')):
        verify(case, name)
        expect(case, name, i)


test_incremental_compressed.timeout = 120


def test_incremental_ways(case):
    """By the ways in which memory can be saved: at a stop, at the end, in advance, into a pipe."""
    pid = chain(case, '--max-freeze', '100s', length=3)
    step(case, pid, 3)
    with open(case.path('3.rp'), 'wb') as file:
        reader, writer = os.pipe()
        cat = case.spawn(['/bin/cat'], stdin=reader, stdout=file.fileno())
        tool = case.start_reprise('checkpoint', str(pid), '-q', '-o', '-', '--parent',
                                  case.path('2.rp'), stdout=writer)
        os.close(reader)
        os.close(writer)
        if case.wait(tool) or case.wait(cat):
            raise Failed('the checkpoint into a pipe failed')
    step(case, pid, 4)
    case.checkpoint(pid, '-q', '--kill', '--parent', case.path('3.rp'), image='4.rp')
    for i in range(1, 5):
        if stored(inspect(case, '%d.rp' % i)['sizes']) > PAGES + OTHER:
            raise Failed('%d.rp holds what its parent holds' % i)
    for i in range(5):
        expect(case, '%d.rp' % i, i)


test_incremental_ways.timeout = 120


def test_incremental_merged_into_a_pipe(case):
    """Standard output, and a fifo, hold the same image as a file would."""
    case.kill(chain(case, length=3))
    merge(case, '2.rp', '-o', case.path('full'))
    reader, writer = os.pipe()
    with open(case.path('piped'), 'wb') as file:
        cat = case.spawn(['/bin/cat'], stdin=reader, stdout=file.fileno())
    tool = case.start_reprise('merge', case.path('2.rp'), '-o', '-', '--json', stdout=writer, cwd=case.work)
    os.close(reader)
    os.close(writer)
    if case.wait(tool) or case.wait(cat):
        raise Failed('merging into a pipe failed')
    os.mkfifo(case.path('fifo'))
    with open(case.path('through'), 'wb') as file:
        cat = case.spawn(['/bin/cat', case.path('fifo')], stdout=file.fileno())
    merge(case, '2.rp', '-o', case.path('fifo'))
    case.wait(cat)
    if os.path.exists(os.path.join(case.work, '-')) or not stat.S_ISFIFO(os.stat(case.path('fifo')).st_mode):
        raise Failed('a file took the place of a stream')
    os.unlink(case.path('fifo'))
    for name in ('piped', 'through', 'full'):
        if inspect(case, name)['parent'] is not None:
            raise Failed('%s has a parent' % name)
        verify(case, name)
        expect(case, name, 2)


test_incremental_merged_into_a_pipe.timeout = 120


def test_incremental_elsewhere(case):
    """Parents are found where it is said, by what they are; an image comes from a stream as well."""
    pid = chain(case, length=4)
    case.kill(pid)
    for name in ('old', 'other'):
        os.mkdir(case.path(name))
    os.rename(case.path('0.rp'), case.path('old/base'))
    os.rename(case.path('1.rp'), case.path('other/1.rp'))
    result = case.reprise('verify', case.path('3.rp'))
    case.refused(result, 'parent-missing', '1.rp')
    where = ('--parent', case.path('old'), '--parent', case.path('other/1.rp'))
    verify(case, '3.rp', *where)
    expect(case, '3.rp', 3, *where)
    merge(case, '3.rp', '-o', case.path('full'), *where)
    with open(case.path('3.rp'), 'rb') as file:
        with open(os.path.join(case.work, 'expected'), 'w') as out:
            out.write('3')
        restart = case.start_reprise('restart', '-i', '-', '-q', '--pidns', *where, '--parent',
                                     case.control, stdin=file.fileno())
        case.go('stream')
        case.expect_pass(1, [case.wait_verdict(restart, 'the copy', 'stream')], 'stream')
    case.hold()
    expect(case, 'full', 3)


test_incremental_elsewhere.timeout = 120


def test_incremental_goes_on(case):
    """A copy is saved again, on the base of the image that it came from."""
    chain(case, length=2)
    case.kill_all()
    case.expect_nobody()  # all pids are free again
    tool = case.restart('--pidfile', case.path('pid'), image='1.rp')
    case.until(lambda: os.path.exists(case.path('pid')) or case.ended(tool), 'the copy')
    with open(case.path('pid')) as file:
        pid = int(file.read())
    step(case, pid, 2)
    case.checkpoint(pid, '-q', '--parent', case.path('1.rp'), image='2.rp')
    case.kill_all()
    case.wait(tool)
    if inspect(case, '2.rp')['sizes']['parent_pages'] < 1900:
        raise Failed('the copy is not recognised')
    for i in range(3):
        expect(case, '%d.rp' % i, i)


test_incremental_goes_on.timeout = 120
