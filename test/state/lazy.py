# SPDX-License-Identifier: Apache-2.0
"""restart --lazy, and what may go wrong while memory is on its way."""

import array
import hashlib
import os
import signal
import time

from case import Failed
from contained import begin as begin_containers, expect as expect_output, listed

SIZE = 24 << 20


def save(case, *steps):
    pid = case.victim('memory', SIZE >> 20, *steps)
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    return pid


def slowly(case, *args, **more):
    """Memory comes so slowly in the background that most is missing for some seconds."""
    return case.restart('--lazy', *args, env={'REPRISE_FAULT': 'lazy-slow'}, **more)


def server(case, comm):
    """The pid of one of the two, when there is one."""
    found = []

    def there():
        found[:] = [pid for pid, name in case.others() if name == comm]
        return found
    case.until(there, comm)
    return found[0]


def begin(case, *args, steps=('wait', 'pass')):
    pid = save(case, *steps)
    restart = slowly(case, *args)
    case.until_handed_over(restart, pid, 'victim')
    return pid, restart


def expect_said(case, *words):
    with open(case.log_path()) as log:
        text = log.read()
    for word in words:
        if word not in text:
            raise Failed('nothing about "%s": %s' % (word, text))


def expect_killed(case, restart):
    code = case.wait(restart)
    if code != 128 + signal.SIGKILL:
        raise Failed('the restart ended with %d' % code)
    if case.verdicts():
        raise Failed('there are verdicts: %s' % case.verdicts())
    case.expect_nobody()


def test_server_killed(case):
    """Its memory would read as zeros: the program ends, and it is said why."""
    _, restart = begin(case)
    os.kill(server(case, 'lazy-pages'), signal.SIGKILL)
    expect_killed(case, restart)
    expect_said(case, 'process that served it was killed', '[lazy-ended]')


def test_server_killed_descendants(case):
    """So do those that it has made since, an orphan among them."""
    _, restart = begin(case, steps=('wait', 'orphan', 'wait', 'pass'))
    case.go()
    case.until(lambda: os.path.exists(case.path('orphan')), 'an orphan')
    os.kill(server(case, 'lazy-pages'), signal.SIGKILL)
    case.wait(restart)
    case.expect_nobody()
    if case.verdicts():
        raise Failed('there are verdicts: %s' % case.verdicts())


def test_keeper_killed(case):
    """Another one takes its place, as often as it takes."""
    _, restart = begin(case)
    for _ in range(3):
        keeper = server(case, 'lazy-keeper')
        os.kill(keeper, signal.SIGKILL)
        case.until(lambda: all(pid != keeper for pid, _ in case.others()), 'the end of a keeper')
        server(case, 'lazy-keeper')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])
    case.expect_nobody()


def test_damaged(case):
    """Found when that page is read; the program ends, and it is said why."""
    pid = save(case, 'wait', 'pass')
    size = os.path.getsize(case.path('image'))
    with open(case.path('image'), 'r+b') as image:
        image.seek(size // 2)
        byte = image.read(1)[0]
        image.seek(size // 2)
        image.write(bytes([byte ^ 1]))
    restart = slowly(case)
    case.until_handed_over(restart, pid, 'victim')
    case.go()
    expect_killed(case, restart)
    expect_said(case, 'damaged at offset', '[image-damaged]')


def test_cut_while_read(case):
    _, restart = begin(case)
    os.truncate(case.path('image'), os.path.getsize(case.path('image')) // 2)
    case.go()
    expect_killed(case, restart)
    expect_said(case, 'the image ends at offset')


def test_cut_before(case):
    """Nothing has run then."""
    save(case, 'wait', 'pass')
    os.truncate(case.path('image'), os.path.getsize(case.path('image')) // 2)
    case.refused(case.reprise('restart', '-i', case.path('image'), '--lazy'), 'image-cut')


def test_image_removed(case):
    _, restart = begin(case)
    os.unlink(case.path('image'))
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])


def test_detached(case):
    """What serves memory outlives the command, and ends by itself."""
    pid = save(case, 'wait', 'pass')
    code = case.wait(slowly(case, '--detach'))
    if code:
        raise Failed('exit status %d' % code)
    case.until(lambda: all(name == 'victim' for _, name in case.others()), 'memory is there')
    with open('/proc/%d/smaps' % pid) as smaps:
        if ' um ' in smaps.read():
            raise Failed('memory is registered still')
    case.go()
    case.until(lambda: case.verdicts(), 'the program')
    case.expect_pass(1)


def test_ends_at_once(case):
    _, restart = begin(case, steps=('wait', 'exit', 7))
    case.go()
    if case.wait(restart) != 7:
        raise Failed('not the exit status of the program')
    case.expect_nobody()


def test_saved_again(case):
    """A checkpoint while memory is on its way waits for it."""
    pid, restart = begin(case)
    case.checkpoint(pid, '--kill', '-q', image='second')
    case.wait(restart)
    again = case.restart(image='second')
    case.go()
    case.expect_pass(1, [case.wait_verdict(again, 'the program')])


def test_checked(case):
    pid, restart = begin(case)
    code, _, err = case.reprise('check', str(pid))
    if code:
        raise Failed('check: %s' % err)
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])


def test_of_parents(case):
    """Of an incremental image."""
    pid = case.victim('memory', SIZE >> 20, 'wait', 'pass')
    case.checkpoint(pid, '-q', image='first')
    case.checkpoint(pid, '--kill', '-q', '--parent', case.path('first'), image='second')
    case.wait(pid)
    restart = slowly(case, image='second')
    case.until_handed_over(restart, pid, 'victim')
    os.unlink(case.path('first'))
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])


def present(pid, start, pages):
    """Which pages of a range are in memory."""
    with open('/proc/%d/pagemap' % pid, 'rb') as file:
        file.seek(start // 4096 * 8)
        entries = array.array('Q', file.read(8 * pages))
    return {i for i, entry in enumerate(entries) if entry >> 63}


def largest(pid):
    """The largest private mapping without a file: start and pages."""
    found = (0, 0)
    with open('/proc/%d/maps' % pid) as file:
        for line in file:
            words = line.split()
            start, end = (int(word, 16) for word in words[0].split('-'))
            if len(words) == 5 and words[1] == 'rw-p' and (end - start) // 4096 > found[1]:
                found = (start, (end - start) // 4096)
    return found


def test_written_first(case):
    """What was written since the image before comes first; nothing else does, by itself."""
    pid = case.victim('memory', SIZE >> 20, 'wait', 'pass')
    case.checkpoint(pid, '-q', image='first')
    start, pages = largest(pid)
    written = {pages * i // 8 for i in (1, 3, 4, 7)}
    old = {}
    with open('/proc/%d/mem' % pid, 'r+b', buffering=0) as memory:
        for page in written:
            memory.seek(start + page * 4096)
            old[page] = memory.read(64)
            memory.seek(start + page * 4096)
            memory.write(bytes(byte ^ 255 for byte in old[page]))
    case.checkpoint(pid, '--kill', '-q', '--parent', case.path('first'), image='second')
    case.wait(pid)
    restart = case.restart('--lazy', image='second', env={'REPRISE_FAULT': 'lazy-first'})
    case.until_handed_over(restart, pid, 'victim')
    case.until(lambda: written <= present(pid, start, pages), 'the pages that were written')
    there = present(pid, start, pages)
    if len(there) > pages // 2:
        raise Failed('%d of %d pages have come' % (len(there), pages))
    with open('/proc/%d/mem' % pid, 'r+b', buffering=0) as memory:
        for page in written:
            memory.seek(start + page * 4096)
            if memory.read(64) != bytes(byte ^ 255 for byte in old[page]):
                raise Failed('page %d is not as it was written' % page)
            memory.seek(start + page * 4096)
            memory.write(old[page])
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])


def test_compressed(case):
    pid = case.victim('memory', SIZE >> 20, 'wait', 'pass')
    case.checkpoint(pid, '-q', '--compress=zstd')
    case.kill(pid)
    restart = slowly(case)
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])


def test_stream_refused(case):
    save(case, 'wait', 'pass')
    reader, writer = os.pipe()
    feeder = case.spawn(['/bin/cat', case.path('image')], stdout=writer)
    os.close(writer)
    result = case.reprise('restart', '-i', '-', '--lazy', stdin=reader)
    os.close(reader)
    case.wait(feeder)
    case.refused(result, 'lazy', 'regular file')


def test_user_refused(case):
    save(case, 'wait', 'pass')
    os.chmod(case.path('image'), 0o644)
    case.refused(case.reprise('restart', '-i', case.path('image'), '--lazy', '--pidns', uid=65534),
                 'lazy', 'userfaultfd')


# Its memory is asked for by the kernel, in a call.
WRITTEN = r"""
import hashlib, mmap, os, time
memory = mmap.mmap(-1, 24 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(os.urandom(1 << 20) * 24)
with open('/tmp/want', 'w') as file:
    file.write(hashlib.sha256(memory).hexdigest())
while not os.path.exists('/tmp/go'):
    time.sleep(0.01)
with open('/tmp/got.new', 'wb', buffering=0) as file:
    at = memoryview(memory)
    while at:
        at = at[file.write(at):]
os.rename('/tmp/got.new', '/tmp/got')
time.sleep(1000)
"""


def test_container_with_user_namespace(case):
    """Faults of the kernel are served in there, too, and forks told."""
    begin_containers(case)
    expect_output(case, case.reprise('run', '-d', '--name', 'web', '--user', '--', '/usr/bin/python3', '-c', WRITTEN), 'web\n')

    def inside(name):
        return '/proc/%d/root/tmp/%s' % (listed(case)['web']['pid'], name)
    case.until(lambda: os.path.exists(inside('want')) and os.path.getsize(inside('want')) == 64, 'the program')
    case.checkpoint('web', '--kill', '-q')
    expect_output(case, case.reprise('rm', 'web'))
    code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '--name', 'web', '--lazy',
                                env={'REPRISE_FAULT': 'lazy-slow'})
    if code:
        raise Failed('restart: %s' % err)
    server(case, 'lazy-pages')
    with open(inside('go'), 'w'):
        pass
    case.until(lambda: os.path.exists(inside('got')), 'what it writes')
    with open(inside('got'), 'rb') as got, open(inside('want')) as want:
        if hashlib.sha256(got.read()).hexdigest() != want.read():
            raise Failed('its memory is not what it was')
    expect_output(case, case.reprise('stop', '-t', '0', 'web'))
    case.reap()
