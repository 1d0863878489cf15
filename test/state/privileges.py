# SPDX-License-Identifier: Apache-2.0
"""What doc/security.md says of each operation: the capabilities that it needs, and no others.

Root has those that the table allows, and neither gets nor can get another one; or an
ordinary user has one in the ambient set.
"""

import os

from case import NOBODY, Failed

# Of a container engine that gives what the table lists for all operations on trees.
TREES = ['chown', 'dac_override', 'fowner', 'kill', 'setgid', 'setuid', 'setpcap', 'sys_ptrace', 'sys_admin',
         'checkpoint_restore', 'sys_chroot']


def limited(case, capabilities, *args, uid=0, **more):
    """The tool with these and no others, in no set."""
    word = ','.join(['-all'] + ['+' + c for c in capabilities])
    command = ['/usr/bin/setpriv', '--bounding-set=' + word, '--inh-caps=' + word]
    if uid:
        command += ['--reuid=%d' % uid, '--regid=%d' % uid, '--clear-groups', '--ambient-caps=' + word]
    result = case.run(command + ['--', case.reprise_path] + list(args), uid=0, **more)
    case.note('with %s: reprise %s: exit status %d' % (capabilities, ' '.join(args), result[0]), *result[1:])
    return result


def good(case, *args, **more):
    code, _, err = limited(case, *args, **more)
    if code:
        raise Failed('%s: %s' % (args, err))


def restart(case, capabilities, *args, uid=0):
    """In the background; the pid of the first process."""
    pidfile = case.path('pid')
    case.statuses.clear()
    if os.path.exists(pidfile):
        os.unlink(pidfile)
    good(case, capabilities, 'restart', '-i', case.path('image'), '-d', '--pidfile', pidfile, *args, uid=uid)
    with open(pidfile) as file:
        return int(file.read())


def end(case, pid):
    with open('/proc/%d/stat' % pid) as file:
        parent = int(file.read().rsplit(')', 1)[1].split()[1])
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid if parent == os.getpid() else parent, 'the restarted program')])


def test_user_without(case):
    """One's own processes, into a pid namespace: nothing is needed."""
    pid = case.start('tree', uid=NOBODY)
    good(case, [], 'checkpoint', str(pid), '-o', case.path('image'), '--kill', '-q', uid=NOBODY)
    case.wait(pid)
    code, _, err = limited(case, [], 'restart', '-i', case.path('image'), '-d', uid=NOBODY)
    if code != 1 or '[pid-choose]' not in err:
        raise Failed('without --pidns: %d, %s' % (code, err))
    end(case, restart(case, [], '--pidns', uid=NOBODY))


def test_user_chooses_pids(case):
    """CAP_CHECKPOINT_RESTORE: the pids that they had."""
    pid = case.start('tree', uid=NOBODY)
    good(case, ['checkpoint_restore'], 'checkpoint', str(pid), '-o', case.path('image'), '--kill', '-q', uid=NOBODY)
    case.wait(pid)
    copy = restart(case, ['checkpoint_restore'], uid=NOBODY)
    if copy != pid:
        raise Failed('pid %d became %d' % (pid, copy))
    end(case, copy)


def test_user_saves_others(case):
    """CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: processes of anybody; they come back only to who may be them."""
    pid = case.start('pipes', uid=1000)
    case.refused(limited(case, [], 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY), 'permission')
    code, _, err = limited(case, ['sys_ptrace'], 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY)
    # One line for each task, whose descriptors may not be looked at, and none about us.
    if code != 1 or [line for line in err.splitlines() if not line.endswith('[permission]')]:
        raise Failed('without CAP_DAC_READ_SEARCH: %d, %s' % (code, err))
    good(case, ['sys_ptrace', 'dac_read_search'], 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY)
    case.finish(pid)
    case.hold()
    for path in os.listdir(case.control):
        if path.startswith('verdict'):
            os.unlink(case.path(path))
    caps = ['checkpoint_restore', 'setuid', 'setgid', 'sys_ptrace', 'chown', 'dac_override']
    code, _, err = limited(case, caps[:1], 'restart', '-i', case.path('image'), '-d', '--pidns', uid=NOBODY)
    if code != 1:
        raise Failed('processes of another user came back: %s' % err)
    end(case, restart(case, caps, uid=NOBODY))


def test_root_of_a_container(case):
    """What an engine gives to a container, and CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE."""
    for name in ('tree', 'unix_stream', 'files_regular', 'sysv_shm'):
        word = ','.join(['-all'] + ['+' + c for c in TREES])
        pid = case.start(name, program='/usr/bin/setpriv', arguments=[
            '--bounding-set=' + word, '--inh-caps=' + word, '--', case.program(name)])
        good(case, TREES, 'checkpoint', str(pid), '-o', case.path('image'), '--kill', '--force', '-q')
        case.wait(pid)
        end(case, restart(case, TREES))
        case.hold()
        for path in os.listdir(case.control):
            if path.startswith('verdict'):
                os.unlink(case.path(path))
