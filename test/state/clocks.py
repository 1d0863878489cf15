# SPDX-License-Identifier: Apache-2.0
"""Time namespaces: of containers, and of whoever saves and restarts."""

import os
import time

from case import Failed, Skipped
from contained import begin, expect, listed


def needs_time_namespaces():
    if not os.path.exists('/proc/self/timens_offsets'):
        raise Skipped('no time namespaces')


def victim(case):
    return os.path.join(case.build, 'test/lib/victim')


def clocks_ahead(pid):
    """By how many seconds those of a time namespace are ahead of the machine's."""
    with open('/proc/%d/timens_offsets' % pid) as file:
        lines = [line.split() for line in file]
    return {name: int(sec) + int(nsec) / 1e9 for name, sec, nsec in lines}


def first_inside(case, tool):
    """The first process of the container that a tool has made."""
    def found():
        try:
            for pid in children_below(tool):
                with open('/proc/%d/status' % pid) as file:
                    if [line.split()[-1] for line in file if line.startswith('NSpid')] == ['1']:
                        return pid
        except (FileNotFoundError, ProcessLookupError):
            pass  # helpers of the tool come and go
        return 0
    case.until(found, 'the first process of the container')
    return found()


def children_below(pid):
    with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
        found = [int(child) for child in file.read().split()]
    return found + [below for child in found for below in children_below(child)]


def test_clocks(case):
    """The clocks of a time namespace go on from where they were: the time away is not counted."""
    needs_time_namespaces()
    pid = case.start(program='/usr/bin/unshare', arguments=[
        '--pid', '--fork', '--mount-proc', '--time', '--monotonic', '86400', '--boottime', '600',
        victim(case), 'child', 'wait', 'pass'])
    first = first_inside(case, pid)
    if clocks_ahead(first) != {'monotonic': 86400.0, 'boottime': 600.0}:
        raise Failed('the offsets are %s' % clocks_ahead(first))
    begun = time.monotonic()
    case.checkpoint(first, '-q', '--kill')
    case.wait(pid)
    time.sleep(0.3)
    # As on a machine that was started a moment ago: nothing depends on what its clocks show.
    copy = case.spawn(['/usr/bin/unshare', '--time', '--monotonic', '-%d' % (begun - 5),
                       '--boottime', '-%d' % (begun - 5), case.reprise_path, 'restart', '-i',
                       case.path('image'), '-q'])
    case.until_handed_over(copy, 1, 'victim', True)
    away = time.monotonic() - begun
    first = first_inside(case, copy)
    for name, before in (('monotonic', 86400), ('boottime', 600)):
        ahead = clocks_ahead(first)[name]
        if not before - away <= ahead <= before - 0.3:
            raise Failed('%s is %f ahead after %f s away' % (name, ahead, away))
    case.checkpoint(first, '-q', image='second')
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the copy')])


def test_only_clocks(case):
    """A tree that has nothing but clocks of its own."""
    needs_time_namespaces()
    pid = case.start(program='/usr/bin/unshare', arguments=[
        '--time', '--boottime', '7777', '--fork', victim(case), 'child', 'wait', 'pass'])
    root = children_below(pid)[0]
    case.checkpoint(root, '-q', '--kill')
    case.wait(pid)
    case.reap()
    copy = case.restart()
    case.until_handed_over(copy, root, 'victim')
    ahead = clocks_ahead(root)['boottime']
    if not 7000 < ahead < 7777 or clocks_ahead(copy)['boottime']:
        raise Failed('the clock is %f ahead' % ahead)
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the copy')])


def with_clocks(monotonic, boottime):
    return ['/usr/bin/unshare', '--time', '--monotonic', str(monotonic), '--boottime',
            str(boottime)]


def saved_by_other_clocks(case, name):
    """Who saves has other clocks than the tasks and the machine, and who restarts yet others."""
    needs_time_namespaces()
    pid = case.start(name)
    code, _, err = case.run(with_clocks(5555, 6666) + [
        case.reprise_path, 'checkpoint', str(pid), '-o', case.path('image'), '-q', '--kill'])
    if code:
        raise Failed('checkpoint: exit status %d: %s' % (code, err.strip()))
    case.wait(pid)
    case.reap()
    copy = case.spawn(with_clocks(77777, 3333) + [
        case.reprise_path, 'restart', '-i', case.path('image'), '-q'])
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the copy')])


def test_other_clocks_io_uring(case):
    saved_by_other_clocks(case, 'io_uring_waiting')


def test_other_clocks_vfork(case):
    saved_by_other_clocks(case, 'vfork_wait')


def test_other_clocks_timers(case):
    saved_by_other_clocks(case, 'timers_overrun')


def test_other_clocks_timerfd(case):
    saved_by_other_clocks(case, 'anon_fds')


def test_other_clocks_apart(case):
    saved_by_other_clocks(case, 'clocks_apart')


def test_other_clocks_sleep(case):
    saved_by_other_clocks(case, 'blocked_timeout')


def test_run_has_clocks(case):
    begin(case)
    pid = case.start(program=case.reprise_path, arguments=[
        'run', '--name', 'web'] + case.volumes() + ['--', victim(case), 'wait', 'pass'])
    case.until(lambda: listed(case)['web']['state'] == 'running', 'the container is noted')
    first = listed(case)['web']['init']
    if os.path.exists('/proc/self/ns/time') and \
            os.readlink('/proc/%d/ns/time' % first) == os.readlink('/proc/self/ns/time'):
        raise Failed('it has the clocks of the machine')
    expect(case, case.reprise('exec', 'web', 'readlink', '/proc/self/ns/time'),
           os.readlink('/proc/%d/ns/time' % first) + '\n')
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the container')])
