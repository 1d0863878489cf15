# SPDX-License-Identifier: Apache-2.0
"""Containers with a terminal: run -it, attach, exec -it, and attached again after a restart."""

import ctypes
import fcntl
import os
import struct
import termios

from case import Failed, NOBODY
from contained import begin, expect, listed
from shell import Terminal

SHELL = ['--', '/bin/bash', '--norc', '--noprofile', '-i']


def at_terminal(case):
    begin(case)
    if case.uid:
        case.environment['REPRISE_DIR'] = case.path('containers')
    t = Terminal(case)
    t.line('export REPRISE_DIR=%s; reprise() { %s "$@"; }' % (
        case.environment['REPRISE_DIR'], case.reprise_path))
    t.expect('ready> ')
    return t


def sleeping(case):
    return any(comm == 'sleep' for _, comm in case.others())


def start(case, *more):
    t = at_terminal(case)
    t.line('reprise run -it --name tty -e PS1="in> " %s %s' % (' '.join(more), ' '.join(SHELL)))
    t.expect('\nin> |\rin> ')
    case.until(lambda: listed(case).get('tty', {}).get('state') == 'running', 'it is noted')
    return t


def test_interactive(case):
    """Size, its changes, keys that send signals, job control, the exit status."""
    t = start(case)
    t.line('tty; stty size; echo $0 is $$')
    t.expect('/dev/pts/0\r\n50 200\r\n.* is 2\r\n')
    t.expect('in> ')
    t.line('trap "echo changed" WINCH')
    t.expect('in> ')
    fcntl.ioctl(t.master, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 77, 0, 0))
    t.line('')
    t.expect('changed')
    t.expect('in> ')
    t.line('stty size')
    t.expect('33 77\r\n')
    t.expect('in> ')
    t.line('sleep 1000')
    case.until(lambda: sleeping(case), 'the sleep')
    t.type('\x03')
    t.expect('in> ')
    t.line('echo interrupted $?; sleep 1001')
    t.expect('interrupted 130\r\n')
    case.until(lambda: sleeping(case), 'the sleep')
    t.type('\x1a')
    t.expect('Stopped')
    t.expect('in> ')
    t.line('kill -9 %1; disown -a; exit 5')
    t.expect('ready> ')
    t.line('echo status $?')
    t.expect('status 5\r\n')
    if listed(case)['tty']['state'] != 'ended':
        raise Failed('it has not ended')
    t.end()


def test_detach_and_attach(case):
    t = start(case)
    t.line('x=kept')
    t.expect('in> ')
    t.type('\x10\x11')
    t.expect('detached')
    t.expect('ready> ')
    t.line('reprise attach tty')
    t.expect('reprise attach tty')
    t.line('echo "$x" again')
    t.expect('kept again\r\n')
    t.type('\x10\x11')
    t.expect('detached')
    t.expect('ready> ')
    t.line('reprise exec -it tty /bin/sh -c "tty; stty size; exit 6"; echo status $?')
    t.expect('/dev/pts/1\r\n50 200\r\n')
    t.expect('status 6\r\n')
    t.expect('ready> ')
    case.refused(case.reprise('attach', 'nobody'), 'usage', status=2)
    t.line('reprise attach nobody')
    t.expect('container-none')
    expect(case, case.reprise('stop', '-t', '1', 'tty'))
    t.end()


def test_attached_again_by_a_user(case):
    """In a user namespace."""
    case.uid = NOBODY
    attached_again(case)


def test_attached_again(case):
    attached_again(case)


def attached_again(case):
    """Saved while somebody is attached, killed, and attached again by the restart."""
    t = start(case)
    t.line('x=kept; stty -echoctl; sleep 1000 & echo back $!')
    t.expect('back [0-9]')
    t.expect('in> ')
    t.type('echo half ')
    t.expect('echo half ')
    case.checkpoint('tty', '-q')
    t.type('way\n')
    t.expect('half way\r\n')
    expect(case, case.reprise('stop', '-t', '0', 'tty'))
    t.expect('ready> ')
    expect(case, case.reprise('rm', 'tty'))
    t.line('reprise restart -i %s -q' % case.path('image'))
    t.line('line')
    t.expect('half line\r\n')
    t.expect('in> ')
    t.line('echo $x; stty -a; jobs; exit 7')
    t.expect('kept\r\n')
    t.expect(' -echoctl ')
    t.expect('Running')
    t.expect('ready> ')
    t.line('echo status $?')
    t.expect('status 7\r\n')
    t.end()


def test_refused(case):
    begin(case)
    case.refused(case.reprise('run', '-t', '--', 'true'), 'usage', 'terminal', status=2)
    expect(case, case.reprise('run', '-d', '--name', 'none', '--', 'sleep', '1000'), 'none\n')
    t = at_terminal(case)
    t.line('reprise attach none')
    t.expect('container-state')
    t.end()
    expect(case, case.reprise('stop', '-t', '0', 'none'))
    case.reap()


def test_master_leaks(case):
    """The master of another terminal of the container, held outside, is a leak."""
    t = start(case)
    t.line('exec 5<>/dev/ptmx')
    t.expect('in> ')
    init = listed(case)['tty']['init']
    with open('/proc/%d/task/%d/children' % (init, init)) as file:
        shell = int(file.read().split()[0])
    pidfd = os.pidfd_open(shell)
    stolen = ctypes.CDLL(None).syscall(438, pidfd, 5, 0)
    if stolen < 0:
        raise Failed('pidfd_getfd')
    case.refused(case.reprise('checkpoint', 'tty', '-o', case.path('x')), 'container-leak', 'ptmx')
    os.close(stolen)
    case.checkpoint('tty', '-q')
    os.close(pidfd)
    expect(case, case.reprise('stop', '-t', '0', 'tty'))
    t.end()
