# SPDX-License-Identifier: Apache-2.0
"""What doc/security.md says of each operation: the capabilities that it needs, and no others.

Root has those that the table allows, and neither gets nor can get another one; or an
ordinary user has one in the ambient set.
"""

import os
import resource
import select

from case import NOBODY, Failed, Skipped

# Of a container engine that gives what the table lists for all operations on trees.
TREES = ['chown', 'dac_override', 'fowner', 'kill', 'setgid', 'setuid', 'setpcap', 'sys_ptrace', 'sys_admin',
         'checkpoint_restore', 'sys_chroot']

IDS = ['setuid', 'setgid']


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
    """CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, and their ids: processes of anybody; they come back only to who may be them."""
    pid = case.start('pipes', uid=1000)
    case.refused(limited(case, [], 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY), 'permission')
    code, _, err = limited(case, ['sys_ptrace'], 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY)
    # One line for each task, whose descriptors may not be looked at, and none about us.
    if code != 1 or [line for line in err.splitlines() if not line.endswith('[permission]')]:
        raise Failed('without CAP_DAC_READ_SEARCH: %d, %s' % (code, err))
    # Whether they are confined is asked by one that has their ids; the check says so as well.
    for command in (['check', str(pid)], ['checkpoint', str(pid), '-o', case.path('image'), '-q']):
        code, out, err = limited(case, ['sys_ptrace', 'dac_read_search'], *command, uid=NOBODY)
        if not code or 'Landlock' not in out + err:
            raise Failed('%s without their ids: %d, %s' % (command[0], code, out + err))
    good(case, ['sys_ptrace', 'dac_read_search'] + IDS, 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY)
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


def one_less(case, capabilities, needed, codes, *args):
    """Without each of what is documented there is one line that says what was not allowed, and nothing else has happened."""
    for missing in needed:
        code, out, err = limited(case, [c for c in capabilities if c != missing], *args, uid=NOBODY)
        if code != 1 or not err or any(line.rsplit('[', 1)[-1].rstrip(']') not in codes for line in err.splitlines()):
            raise Failed('%s without %s: exit status %d, %s' % (args[0], missing, code, out + err))
        if os.path.exists(case.path('less')):
            raise Failed('%s without %s left an image' % (args[0], missing))


def test_one_less(case):
    pid = case.start('pipes', uid=1000)
    caps = ['sys_ptrace', 'dac_read_search'] + IDS
    one_less(case, caps, caps, ('permission', 'task-security'), 'checkpoint', str(pid), '-o', case.path('less'), '-q')
    good(case, caps, 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY)
    case.finish(pid)
    clean(case)
    os.chmod(case.path('image'), 0o644)
    caps = ['checkpoint_restore', 'setuid', 'setgid', 'sys_ptrace', 'chown', 'dac_override']
    one_less(case, caps, caps, ('permission', 'credentials', 'pid-choose', 'file-open', 'restore'), 'restart', '-d', '-q', '-i', case.path('image'))
    case.expect_nobody()
    end(case, restart(case, caps, uid=NOBODY))


def test_rings(case):
    """CAP_BPF and CAP_PERFMON are all that an ordinary user needs for an io_uring; to restart it, nothing."""
    for name in ('io_uring_waiting', 'io_uring_restricted', 'io_uring_overflow'):
        pid = case.start(name, uid=NOBODY)
        caps = ['bpf', 'perfmon']
        args = ('checkpoint', str(pid), '-o', case.path('image'), '--kill', '--force', '-q')
        for have in ([], ['bpf'], ['perfmon']):
            code, _, err = limited(case, have, *args, uid=NOBODY)
            if code != 1 or 'CAP_BPF and CAP_PERFMON' not in err or not err.endswith('[permission]\n'):
                raise Failed('%s with %s: exit status %d, %s' % (name, have, code, err))
        code, _, err = limited(case, caps, *args, uid=NOBODY)
        if err.rstrip().endswith('[kernel-too-old]'):
            raise Skipped(err.strip())
        if code:
            raise Failed('%s: %s' % (name, err))
        case.wait(pid)
        end(case, restart(case, [], '--pidns', uid=NOBODY))
        clean(case)


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


def clean(case):
    case.hold()
    case.statuses.clear()
    for path in os.listdir(case.control):
        if path.startswith('verdict'):
            os.unlink(case.path(path))


def test_other_ways(case):
    """CAP_DAC_OVERRIDE instead of CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN instead of CAP_CHECKPOINT_RESTORE."""
    pid = case.start('tree', uid=1000)
    good(case, ['sys_ptrace', 'dac_override'] + IDS, 'checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY)
    case.finish(pid)
    clean(case)
    pid = case.start('tree', uid=NOBODY)
    good(case, [], 'checkpoint', str(pid), '-o', case.path('image'), '--kill', '--force', '-q', uid=NOBODY)
    case.wait(pid)
    copy = restart(case, ['sys_admin'], uid=NOBODY)
    if copy != pid:
        raise Failed('pid %d became %d' % (pid, copy))
    end(case, copy)


def all_but(*missing):
    """Of those that we have: root need not have all."""
    with open('/proc/self/status') as file:
        own = int(file.read().split('CapPrm:\t')[1].split()[0], 16)
    names = ('chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service '
             'net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct '
             'sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control '
             'setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf '
             'checkpoint_restore').split()
    return [name for number, name in enumerate(names) if own >> number & 1 and name not in missing]


def start_limited(case, name, capabilities):
    word = ','.join(['-all'] + ['+' + c for c in capabilities])
    return case.start(name, program='/usr/bin/setpriv',
                      arguments=['--bounding-set=' + word, '--inh-caps=' + word, '--', case.program(name)])


def test_root_without_resource(case):
    """Root that may not exceed limits."""
    capabilities = all_but('sys_resource')
    for name in ('tree', 'memory_cow', 'files_regular', 'timers_posix', 'sysv_sem', 'prctl_settings'):
        pid = start_limited(case, name, capabilities)
        good(case, capabilities, 'checkpoint', str(pid), '-o', case.path('image'), '--kill', '--force', '-q')
        case.wait(pid)
        case.until(lambda: not case.others(), 'the end of what was killed')
        end(case, restart(case, capabilities))
        clean(case)


def refused(case, capabilities, *args, uid=0):
    code, _, err = limited(case, capabilities, 'restart', '-i', case.path('image'), '-d', *args, uid=uid)
    if code != 1 or len(err.splitlines()) != 1:
        raise Failed('with %s: %d, %s' % (capabilities, code, err))
    case.expect_nobody()


def test_limits(case):
    """CAP_SYS_RESOURCE, for what had higher limits than the one who restarts it."""
    pid = case.start('pipes')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)

    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    case.statuses.clear()
    word = ','.join(['-all'] + ['+' + c for c in all_but('sys_resource')])
    code, _, err = case.run(['/usr/bin/setpriv', '--bounding-set=' + word, '--inh-caps=' + word, '--', case.reprise_path,
                             'restart', '-i', case.path('image'), '-d'], before=lower)
    if code != 1 or len(err.splitlines()) != 1:
        raise Failed('without CAP_SYS_RESOURCE: %d, %s' % (code, err))
    case.expect_nobody()
    if 'sys_resource' not in all_but():
        return
    pidfile = case.path('pid')
    code, _, err = case.run([case.reprise_path, 'restart', '-i', case.path('image'), '-d', '--pidfile', pidfile], before=lower)
    if code:
        raise Failed('with it: %d, %s' % (code, err))
    with open(pidfile) as file:
        end(case, int(file.read()))


def test_nice(case):
    """CAP_SYS_NICE, for a better priority."""
    pid = case.start('tree', before=lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.statuses.clear()
    refused(case, all_but('sys_nice'))
    end(case, restart(case, all_but()))


def test_bounding_set(case):
    """CAP_SETPCAP, for what had a smaller bounding set."""
    pid = start_limited(case, 'tree', all_but('sys_boot'))
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.statuses.clear()
    refused(case, all_but('setpcap'))
    end(case, restart(case, all_but()))


def test_without_the_memory_of_the_kernel(case):
    """CAP_BPF and CAP_PERFMON, for what no interface tells; the rest is saved without."""
    capabilities = [c for c in TREES if c != 'sys_admin'] + ['dac_read_search']
    pid = case.start('userfaultfd')
    code, _, err = limited(case, capabilities, 'checkpoint', str(pid), '-o', case.path('image'), '-q')
    if code != 1 or not err:
        raise Failed('saved without: %d, %s' % (code, err))
    good(case, capabilities + ['bpf', 'perfmon'], 'checkpoint', str(pid), '-o', case.path('image'), '-q')
    case.finish(pid)


SPY = '''
import os
while True:
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % pid) as file:
                if '(reprise' not in file.read():
                    continue
            for fd in os.listdir('/proc/%s/fd' % pid):
                print('descriptor', fd, os.readlink('/proc/%s/fd/%s' % (pid, fd)), flush=True)
            with open('/proc/%s/maps' % pid) as file:
                if '[heap]' in file.read():
                    print('memory', pid, flush=True)
            print('seen', flush=True)
        except OSError:
            pass
'''


def while_looked_at(case, uid, act):
    """While some ordinary user looks at all that he may, until he has seen something."""
    reader, writer = os.pipe()
    spy = case.spawn(['/usr/bin/python3', '-c', SPY], uid=uid, stdout=writer)
    os.close(writer)
    seen = ''
    for i in range(20):
        if not act(i):
            break
        if select.select([reader], [], [], 0)[0]:
            seen = os.read(reader, 4096).decode()
            break
    case.kill(spy)
    os.close(reader)
    case.note('seen: %r' % seen)
    if 'descriptor' in seen or 'memory' in seen:
        raise Failed('an ordinary user could look into it: %s' % seen)


def test_user_who_looks(case):
    """An ordinary user may look into what has his ids: while root saves his processes, that has nothing of root's."""
    pid = case.victim('wait', 'pass', uid=NOBODY)
    while_looked_at(case, NOBODY, lambda i: case.checkpoint(pid, '-q', '--force'))
    case.finish(pid)


def test_owner_who_looks(case):
    """So may who owns a user namespace into all that is there, while root makes it again."""
    pid = case.start('users_held')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)

    def bring_back(i):
        restart = case.restart('--pidns')
        case.go('go.%d' % i)
        case.expect_pass(1, [case.wait_verdict(restart, 'the copy', 'go.%d' % i)], 'go.%d' % i)
        case.hold()
        return i < 3

    while_looked_at(case, 1234, bring_back)


def over_network(case, program, capability):
    pid = case.start(program)
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.statuses.clear()
    refused(case, all_but(capability))
    end(case, restart(case, all_but()))


def test_raw_sockets(case):
    """CAP_NET_RAW, to make them."""
    over_network(case, 'inet_raw', 'net_raw')


def test_packet_sockets(case):
    """CAP_NET_RAW likewise."""
    over_network(case, 'packet', 'net_raw')


def test_interfaces(case):
    """CAP_NET_ADMIN, to attach to one of the application's own."""
    over_network(case, 'tun', 'net_admin')


for function in (test_raw_sockets, test_packet_sockets, test_interfaces):
    function.network = True
