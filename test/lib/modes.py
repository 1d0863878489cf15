# SPDX-License-Identifier: Apache-2.0
"""The ways of running a state program: each is given the case and the metadata of the program."""

import os
import signal
import socket
import time

from case import Failed, Skipped, expect_killed


def refusal_allowed(case, meta, code, err):
    for allowed in meta.get('may-refuse', []):
        if code == 1 and '[%s]' % allowed.split()[0] in err:
            with open(case.path('refused'), 'w') as file:
                file.write(err.strip())
            return True
    return False


def save(case, meta, pid, *args):
    """Checkpoint to a file. False if it was refused, as it may be; then the program must pass."""
    code, out, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q',
                                  *meta['checkpoint'], *args)
    if code == 0:
        return True
    if not refusal_allowed(case, meta, code, err):
        raise Failed('checkpoint: exit status %d: %s' % (code, err.strip()))
    if os.path.exists(case.path('image')):
        raise Failed('a refused checkpoint left an image')
    case.finish(pid)
    return False


def restarted(case, restart):
    case.go()
    code = case.wait_verdict(restart, 'the restarted program')
    case.expect_pass(1, [code])


def run_plain(case, meta):
    case.finish(case.start())


def run_break(case, meta, number):
    pid = case.start(env={'TEST_BREAK': str(number)})
    case.go()
    code = case.wait_verdict(pid, 'the program')
    texts = case.verdicts('*')
    case.kill_all()
    if 'PASS' in texts or code == 0:
        raise Failed('damage %d was not found: exit status %s, %s' % (number, code, texts))


def run_kill(case, meta, *restart_args):
    pid = case.start()
    time.sleep(meta['settle'])
    if not save(case, meta, pid, '--kill'):
        return
    expect_killed(case, pid)
    restarted(case, case.start_reprise('restart', '-i', case.path('image'), '-q', *restart_args))


def run_tree(case, meta):
    run_kill(case, meta)


def run_lazy(case, meta):
    """What is not asked for comes so late that most of it is missing for a while."""
    case.environment['REPRISE_FAULT'] = 'lazy-slow'
    run_kill(case, meta, '--lazy')


def run_pidns(case, meta):
    run_kill(case, meta, '--pidns')


def run_again(case, meta):
    """What a restart has made is saved once more, by the pid that it has told."""
    pid = case.start()
    time.sleep(meta['settle'])
    comm = case.comm(pid)
    if not save(case, meta, pid, '--kill'):
        return
    expect_killed(case, pid)
    first = case.start_reprise('restart', '-i', case.path('image'), '-q', '--pidns', '--pidfile', case.path('pid'))
    case.until_handed_over(first, pid, comm, True)
    with open(case.path('pid')) as file:
        pid = int(file.read())
    code, _, err = case.reprise('checkpoint', str(pid), '-o', case.path('image.2'), '-q', '--kill',
                                *meta['checkpoint'])
    if code:
        raise Failed('the second checkpoint: exit status %d: %s' % (code, err.strip()))
    if case.wait(first) != 128 + signal.SIGKILL:
        raise Failed('the first restart ended by itself')
    case.expect_nobody()
    restarted(case, case.start_reprise('restart', '-i', case.path('image.2'), '-q', '--pidns'))


def run_both(case, meta):
    pid = case.start()
    time.sleep(meta['settle'])
    if not save(case, meta, pid):
        return
    if case.ended(pid):
        raise Failed('the original did not survive its checkpoint: %d' % case.exit_code(pid))
    comm = case.comm(pid)
    copy = case.start_reprise('restart', '-i', case.path('image'), '-q', '--pidns')
    # What the original does from here on must not change files before the copy has them.
    case.until_handed_over(copy, pid, comm, True)
    case.go()
    codes = [case.wait_verdict(pid, 'the original'), case.wait_verdict(copy, 'the copy')]
    case.expect_pass(2, codes)


def run_stream(case, meta, reader, writer):
    pid = case.start()
    time.sleep(meta['settle'])
    saver = case.start_reprise('checkpoint', str(pid), '-o', '-', '--kill', '-q',
                               *meta['checkpoint'], stdout=writer)
    copy = case.start_reprise('restart', '-i', '-', '-q', '--pidns', stdin=reader)
    os.close(reader)
    os.close(writer)
    code = case.wait(saver, 'the checkpoint')
    if code:
        with open(case.log_path()) as log:
            err = log.read()
        if refusal_allowed(case, meta, code, err):
            if case.wait(copy) != 1:
                raise Failed('a restart from nothing was not refused')
            case.finish(pid)
            return
        raise Failed('checkpoint: exit status %d' % code)
    status = case.wait(pid, 'the program to be killed')
    if status != 128 + signal.SIGKILL:
        raise Failed('the program ended by itself: %d' % status)
    restarted(case, copy)


def run_pipe(case, meta):
    run_stream(case, meta, *os.pipe())


def run_socket(case, meta):
    a, b = socket.socketpair()
    run_stream(case, meta, a.detach(), b.detach())


# By hand: what else all containers are run with.
CONTAINER = os.environ.get('TEST_CONTAINER', '').split()


def run_container(case, meta):
    """In a container of its own, saved as a whole, restarted in another one."""
    case.environment['REPRISE_DIR'] = containers = os.path.join(case.directory, 'containers')
    # Its clocks are others than those of whoever saves and restarts it. (Before Linux 6.3 a program
    # that is executed stays in the time namespace of who executed it.)
    clocks = ['--time', '--monotonic', '100000', '--boottime', '200000']
    kernel = tuple(int(word) for word in os.uname().release.split('-')[0].split('.')[:2])
    if not os.path.exists('/proc/self/timens_offsets') or case.uid or kernel < (6, 3):
        clocks = []
    if '--cgroups' in meta['container'] and case.reprise('run', '--rm', '--cgroups', '--', 'true')[0]:
        raise Skipped('there are no control groups of version 2')
    pid = case.start(program='/usr/bin/unshare',
                     arguments=clocks + [case.reprise_path, 'run', '--name', 'first', '-w', case.work, *CONTAINER]
                     + meta['container'] + case.volumes() + ['--', case.program(case.name)])
    # The program may be ready before its container is noted.
    case.until(lambda: os.path.exists(os.path.join(containers, 'first/state')), 'the container')
    time.sleep(meta['settle'])
    code, _, err = case.reprise('checkpoint', 'first', '-o', case.path('image'), '-q', '--kill',
                                *meta['checkpoint'])
    if code:
        if not refusal_allowed(case, meta, code, err):
            raise Failed('checkpoint: exit status %d: %s' % (code, err.strip()))
        case.finish(pid)
        return
    status = case.wait(pid, 'the container to be killed')
    if status != 128 + signal.SIGKILL:
        raise Failed('the container ended by itself: %d, %s' % (status, case.verdicts('early')))
    case.expect_nobody()
    restarted(case, case.start_reprise('restart', '-i', case.path('image'), '-q', '--name', 'second'))
    for name in ('first', 'second'):
        code, _, err = case.reprise('rm', name)
        if code:
            raise Failed('rm: exit status %d: %s' % (code, err.strip()))
    if os.listdir(containers):
        raise Failed('rm left %s' % os.listdir(containers))


MODES = {'again': run_again, 'container': run_container, 'tree': run_tree, 'lazy': run_lazy, 'pidns': run_pidns, 'both': run_both, 'pipe': run_pipe,
         'socket': run_socket, 'user': run_pidns, 'plain': run_plain}
