# SPDX-License-Identifier: Apache-2.0
"""Saved, killed and restarted over and over: nothing grows, and the program finds all as it left it.

A few times as a test, of some programs; CYCLES=1000 test/run -m cycles -j 24 is the long run of all.
"""

from case import Failed
from cycling import run_cycles, timeout


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
        case.name = name
        run_cycles(case, {'checkpoint': []})
    test.__name__ = 'test_' + name
    test.timeout = timeout()
    return test


for program in ('tree', 'threads', 'pipes', 'memory_cow', 'unix_stream', 'epoll_sets', 'timers_posix', 'files_regular',
                'sysv_shm', 'pty', 'session_memory'):
    globals()['test_' + program] = make(program)
