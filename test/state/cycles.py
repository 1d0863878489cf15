# SPDX-License-Identifier: Apache-2.0
"""Saved, killed and restarted over and over: nothing grows, and the program finds all as it left it.

A few times as a test; CYCLES=1000 test/run cycles is the long run.
"""

import os

from case import Failed

CYCLES = int(os.environ.get('CYCLES', '4'))


def numbers(case):
    """What must not grow: of all processes that there are, and of this place."""
    found = {'processes': 0, 'threads': 0, 'descriptors': 0, 'mappings': 0, 'virtual': 0, 'resident': 0}
    namespaces = set()
    for pid, _ in case.others():
        at = '/proc/%d/' % pid
        found['processes'] += 1
        found['threads'] += len(os.listdir(at + 'task'))
        found['descriptors'] += len(os.listdir(at + 'fd'))
        with open(at + 'maps') as file:
            found['mappings'] += len(file.readlines())
        with open(at + 'statm') as file:
            pages = file.read().split()
        found['virtual'] += int(pages[0])
        found['resident'] += int(pages[1])
        namespaces |= {os.readlink(at + 'ns/' + name) for name in os.listdir(at + 'ns')}
    found['namespaces'] = len(namespaces)
    with open('/proc/self/mounts') as file:
        found['mounts'] = len(file.readlines())
    found['files'] = len(os.listdir(case.work)) + len(os.listdir(case.control))
    return found


def cycle(case, pid):
    case.statuses.clear()
    case.checkpoint(pid, '--kill', '--force', '-q')
    case.until(lambda: not case.others(), 'the end of what was killed')
    case.statuses.clear()
    code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '-q')
    if code:
        raise Failed('restart: %s' % err)


def over_and_over(case, name):
    pid = case.start(name)
    first = None
    for number in range(CYCLES):
        cycle(case, pid)
        now = numbers(case)
        if first is None:
            first = now
        # Pages come in as they are touched; they do not become ever more.
        room = {'resident': 1024}
        for key, value in now.items():
            if value > first[key] + room.get(key, 0):
                raise Failed('cycle %d: %s: %d, and %d after the first' % (number, key, value, first[key]))
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the program')])


def test_helper_pid(case):
    """A process that only helps at the restart has a pid of its own; another one will do if that is taken."""
    pid = case.start('session_memory')
    with open('/proc/sys/kernel/ns_last_pid', 'w') as file:
        file.write('300')
    other = case.spawn(['/bin/sleep', '1000'])
    if other != 301:
        raise Failed('the pid is %d' % other)
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.until(lambda: [p for p, _ in case.others()] == [other], 'the end of what was killed')
    case.statuses.clear()
    copy = case.restart()
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])
    case.kill(other)
    case.wait(other)


def make(name):
    def test(case):
        over_and_over(case, name)
    test.__name__ = 'test_' + name
    # Many are a long run, at low priority.
    test.timeout = 40 + CYCLES * (1 if CYCLES < 100 else 20)
    return test


for program in ('tree', 'threads', 'pipes', 'memory_cow', 'unix_stream', 'epoll_sets', 'timers_posix', 'files_regular',
                'sysv_shm', 'pty', 'session_memory'):
    globals()['test_' + program] = make(program)
