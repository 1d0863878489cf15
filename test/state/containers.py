# SPDX-License-Identifier: Apache-2.0
"""Containers: the commands, and those that others made."""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import time

from case import Failed, NOBODY, Skipped
from contained import begin, expect, listed


def victim(case):
    return os.path.join(case.build, 'test/lib/victim')


def run_victim(case, name, *steps):
    """A victim in a container: the pid of `reprise run`."""
    pid = case.start(program=case.reprise_path, arguments=[
        'run', '--name', name] + case.volumes() + ['--', victim(case)] + [str(s) for s in steps])
    # The program may be ready before its container is noted.
    case.until(lambda: listed(case)[name]['state'] == 'running', 'the container is noted')
    return pid


def test_commands(case):
    begin(case)
    expect(case, case.reprise('run', '--name', 'a', '--', 'sh', '-c', 'hostname; echo $$; exit 3'),
           'a\n2\n', 3)
    if listed(case)['a']['state'] != 'ended':
        raise Failed('a container that has ended is said to run')
    case.refused(case.reprise('run', '--name', 'a', '--', 'true'), 'container-exists', 'a')
    case.refused(case.reprise('checkpoint', 'a', '-o', case.path('x')), 'container-state', 'a')
    case.refused(case.reprise('checkpoint', 'nobody', '-o', case.path('x')), 'container-none')
    expect(case, case.reprise('rm', 'a'))
    case.refused(case.reprise('rm', 'a'), 'container-none', 'a')
    expect(case, case.reprise('run', '--rm', '--', '/bin/sh', '-c', 'kill -9 $$'), code=137)
    if listed(case):
        raise Failed('--rm left %s' % listed(case))
    code, _, err = case.reprise('run', '--', '/no/such/program')
    if code != 1 or '/no/such/program' not in err or listed(case):
        raise Failed('no such program: %d, %s, %s' % (code, err, listed(case)))


def test_detached(case):
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'b', '--', 'sleep', '1000'), 'b\n')
    one = listed(case)['b']
    if one['state'] != 'running' or one['processes'] != 2 or not one['memory']:
        raise Failed('ps says %s' % one)
    expect(case, case.reprise('exec', 'b', 'sh', '-c', 'hostname; cat /proc/2/comm; exit 4'),
           'b\nsleep\n', 4)
    case.refused(case.reprise('rm', 'b'), 'container-state', 'b')
    expect(case, case.reprise('stop', '-t', '10', 'b'))
    code, out, _ = case.reprise('stop', 'b', '--json')
    if code or json.loads(out) != {'stopped': ['b']}:
        raise Failed('stop --json: %d, %s' % (code, out))
    code, out, _ = case.reprise('rm', 'nobody', 'nobody', '--json')
    if code != 1 or json.loads(out)['error']['code'] != 'container-none':
        raise Failed('rm --json: %d, %s' % (code, out))
    code, out, _ = case.reprise('rm', 'b', '--json')
    if code or json.loads(out) != {'removed': ['b']}:
        raise Failed('rm --json: %d, %s' % (code, out))
    case.reap()


OPTIONS = """hostname; pwd; echo "$WORD"; cat /vol/text; cat /locked/text
if echo new >/locked/text; then echo written; fi 2>/dev/null; echo more >/vol/more
ls /proc/sys/net/ipv4/conf; id -u; tty >/dev/null && echo terminal; ls -d /srv/in /tmp"""


def options(case, uid, more, expected):
    """All options that say what the command finds, at once; the same after a restart."""
    case.uid = uid
    case.environment['REPRISE_DIR'] = case.path('containers')
    for name in 'vol', 'locked':
        os.mkdir(case.path(name))
        with open(case.path(name) + '/text', 'w') as file:
            file.write(name + '\n')
        os.chown(case.path(name), uid, uid)
    given = ['--hostname', 'other', '-w', '/srv/in', '-e', 'WORD=two words', '--volume', case.path('vol') + ':/vol',
             '-V', '%s:/locked:ro' % case.path('locked'), '-V', case.path('vol') + ':/srv/in', *more]
    code, out, err = case.reprise('run', '--rm', *given, '--', 'sh', '-c', OPTIONS)
    if code or out != expected:
        raise Failed('%d, %s%s; expected %s' % (code, out, err, expected))
    with open(case.path('vol') + '/more') as file:
        if file.read() != 'more\n':
            raise Failed('the volume is not that of the host')
    code, out, err = case.reprise('run', '-d', '--name', 'o', *given, '--', 'sh', '-c', 'sleep 1000; true')
    if code:
        raise Failed(err)
    look = 'cat /proc/2/environ | tr "\\0" "\\n" | grep WORD; readlink /proc/2/cwd; ' + OPTIONS
    before = case.reprise('exec', 'o', '--', 'sh', '-c', look)
    case.checkpoint('o', '-q', '--kill')
    case.until(lambda: listed(case)['o']['state'] == 'ended', 'its end')
    expect(case, case.reprise('rm', 'o'))
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('image')))
    after = case.reprise('exec', 'o', '--', 'sh', '-c', look)
    if before[0] or not before[1].startswith('WORD=two words\n/srv/in\nother\n') or before[:2] != after[:2]:
        raise Failed('there was %s, there is %s' % (before, after))
    expect(case, case.reprise('stop', '-t', '0', 'o'))
    expect(case, case.reprise('rm', 'o'))
    case.reap()


SEEN = 'other\n/srv/in\ntwo words\nvol\nlocked\nall\ndefault\nlo\n%d\n/srv/in\n/tmp\n'


def test_options(case):
    options(case, 0, (), SEEN % 0)


def test_options_of_a_user(case):
    options(case, NOBODY, ('--rootfs', '/'), SEEN % NOBODY)


def test_options_of_root_inside(case):
    options(case, NOBODY, ('--user',), SEEN % 0)


def test_files_are_its_own(case):
    begin(case)
    name = 'reprise-test-%d' % os.getpid()
    expect(case, case.reprise('run', '--rm', '--', 'sh', '-c',
                              'echo a > /etc/%s; echo b > /tmp/%s; rm /etc/passwd' % (name, name)))
    for path in ('/etc/' + name, '/tmp/' + name):
        if os.path.exists(path):
            raise Failed('a container wrote %s of the host' % path)
    if not os.path.exists('/etc/passwd'):
        raise Failed('a container removed /etc/passwd of the host')


def test_files_stay(case):
    """--fs=none: the restart goes on with the files as they are, and only when nobody has them."""
    begin(case)
    for name, how in (('kept', 'none'), ('saved', 'image')):
        expect(case, case.reprise('run', '-d', '--name', name, '--', 'sh', '-c',
                                  'echo early >/opt/file; echo memory >/tmp/file; exec sleep 1000'),
               name + '\n')
        case.until(lambda: 'file' in os.listdir('/proc/%d/root/tmp' % listed(case)[name]['init']),
                   'the files')
        case.checkpoint(name, '-q', '--fs=' + how, image=name)
        expect(case, case.reprise('exec', name, 'sh', '-c', 'echo late >/opt/file; echo x >/tmp/file'))
    case.refused(case.reprise('restart', '-d', '-i', case.path('kept'), '--name', 'second'),
                 'container-mount', 'in use')
    for name, found in (('kept', 'late'), ('saved', 'early')):
        expect(case, case.reprise('stop', '-t', '0', name))
        expect(case, case.reprise('restart', '-d', '-q', '-i', case.path(name), '--name', name + '2'))
        with open('/proc/%d/comm' % listed(case)[name + '2']['pid']) as file:
            if file.read() != 'sleep\n':
                raise Failed('ps names another process than the command: %s' % listed(case))
        expect(case, case.reprise('exec', name + '2', 'cat', '/opt/file', '/tmp/file'),
               found + '\nmemory\n')
        expect(case, case.reprise('stop', '-t', '0', name + '2'))
        expect(case, case.reprise('rm', name, name + '2'))
    case.refused(case.reprise('checkpoint', 'x', '-o', case.path('x'), '--fs=some'), 'usage', status=2)
    case.reap()


WATCH = """
import ctypes, os
libc = ctypes.CDLL(None)
fd = libc.inotify_init()
ATTRIB, ONLYDIR = 4, 0x1000000
assert libc.inotify_add_watch(fd, b'/etc/hosts', ATTRIB) == 1
assert libc.inotify_add_watch(fd, b'/usr/share/doc', ATTRIB | ONLYDIR) == 2
open('/tmp/ready', 'w').close()
seen = os.read(fd, 16) + os.read(fd, 16)
with open('/tmp/seen.new', 'w') as file:
    file.write('%d %d' % (seen[0], seen[16]))
os.rename('/tmp/seen.new', '/tmp/seen')
"""


def test_watched_files_of_the_host(case):
    """Files below the layer that nobody in the container has open."""
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'watcher', '--', 'python3', '-c', WATCH),
           'watcher\n')
    root = '/proc/%d/root' % listed(case)['watcher']['init']
    case.until(lambda: os.path.exists(root + '/tmp/ready'), 'the watches')
    case.checkpoint('watcher', '-q')
    expect(case, case.reprise('stop', '-t', '0', 'watcher'))
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'again'))
    root = '/proc/%d/root' % listed(case)['again']['init']
    expect(case, case.reprise('exec', 'again', 'chmod', '700', '/etc/hosts', '/usr/share/doc'))
    case.until(lambda: os.path.exists(root + '/tmp/seen'), 'the events')
    with open(root + '/tmp/seen') as file:
        if file.read() != '1 2':
            raise Failed('other watches have seen it')
    expect(case, case.reprise('stop', '-t', '0', 'again'))
    expect(case, case.reprise('rm', 'watcher', 'again'))
    case.reap()


def test_copies_side_by_side(case):
    """The original goes on, beside ten copies, each with files of its own."""
    begin(case)
    pid = run_victim(case, 'web', 'wait', 'pass')
    case.checkpoint('web', '-q')
    if listed(case)['web'].get('checkpoint') != case.path('image'):
        raise Failed('ps does not know the checkpoint: %s' % listed(case))
    copies = [case.restart() for _ in range(10)]
    case.until(lambda: sum(c['state'] == 'running' for c in listed(case).values()) == 11,
               'eleven containers run')
    if sorted(listed(case)) != sorted(['web'] + ['web-%d' % i for i in range(2, 12)]):
        raise Failed('they are called %s' % sorted(listed(case)))
    case.go()
    case.expect_pass(11, [case.wait_verdict(p, 'one of eleven') for p in [pid] + copies])
    expect(case, case.reprise('rm', *listed(case)))
    if listed(case):
        raise Failed('rm left %s' % listed(case))


test_copies_side_by_side.timeout = 90


def inner_pid(case, pid):
    """The only child of a process."""
    path = '/proc/%d/task/%d/children' % (pid, pid)

    def found():
        with open(path) as file:
            return file.read().split()
    case.until(found, 'the first process of the container')
    return int(found()[0])


def test_of_unshare(case):
    """A container that another program made, from a copy of the mounts of the host."""
    pid = case.start(program='/usr/bin/unshare', arguments=[
        '--pid', '--fork', '--mount-proc', '--uts', '--ipc', '--net', victim(case),
        'child', 'wait', 'pass'])
    first = inner_pid(case, pid)
    case.checkpoint(first, '-q')
    copy = case.restart()
    case.until_handed_over(copy, 1, 'victim', True)
    case.go()
    case.expect_pass(2, [case.wait_verdict(pid, 'the original'),
                         case.wait_verdict(copy, 'the copy')])


def test_stopped_and_killed(case):
    begin(case)
    pid = run_victim(case, 'web', 'wait', 'pass')
    case.checkpoint('web', '-q', '--stop')
    first = listed(case)['web']['init']
    with open('/proc/%d/stat' % first) as file:
        if file.read().rpartition(')')[2].split()[0] != 'T':
            raise Failed('the container is not stopped')
    os.kill(first, signal.SIGCONT)
    for child in open('/proc/%d/task/%d/children' % (first, first)).read().split():
        os.kill(int(child), signal.SIGCONT)
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the container')])


def test_being_started(case):
    """Who is just starting one holds its directory: nobody says then that it has ended, or removes it."""
    begin(case)
    expect(case, case.reprise('run', '--name', 'c', '--', 'true'))
    directory = os.open(os.path.join(case.environment['REPRISE_DIR'], 'c'), os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    for command in 'stop', 'rm':
        case.refused(case.reprise(command, 'c'), 'container-state', 'being started')
    if listed(case)['c']['state'] != 'starting':
        raise Failed('it is said to be %s' % listed(case)['c']['state'])
    os.close(directory)
    for command in 'stop', 'rm':
        expect(case, case.reprise(command, 'c'))


def test_visitor(case):
    """Somebody who was put into the container is in the way, and said to be."""
    begin(case)
    pid = run_victim(case, 'web', 'wait', 'pass')
    visitor = case.start_reprise('exec', 'web', 'sleep', '1000')
    case.until(lambda: listed(case)['web']['processes'] == 3, 'the visitor')
    case.refused(case.reprise('checkpoint', 'web', '-o', case.path('image')), 'container-state',
                 'sleep')
    case.kill(visitor, signal.SIGTERM)
    case.wait(visitor)
    case.until(lambda: listed(case)['web']['processes'] == 2, 'the end of the visitor')
    case.finish(pid)


def test_failed_restart(case):
    """Leaves neither processes nor files."""
    begin(case)
    pid = run_victim(case, 'web', 'wait', 'pass')
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    expect(case, case.reprise('rm', 'web'))
    os.rename(case.control, case.control + '.moved')
    try:
        result = case.reprise('restart', '-i', case.control + '.moved/image')
        case.refused(result, 'container-source', case.control)
    finally:
        os.rename(case.control + '.moved', case.control)
    if listed(case):
        raise Failed('a failed restart left %s' % listed(case))


def test_volume_elsewhere(case):
    begin(case)
    pid = run_victim(case, 'web', 'wait', 'pass')
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    other = os.path.join(case.directory, 'other')
    os.mkdir(other)
    copy = case.restart('--map-mount', '%s=%s' % (case.control, other), '--name', 'new')
    case.until(lambda: 'new' in listed(case), 'the copy')
    with open(os.path.join(other, 'go.new'), 'w') as file:
        file.write('go')
    os.rename(os.path.join(other, 'go.new'), os.path.join(other, 'go'))
    if case.wait(copy):
        raise Failed('the copy failed')
    verdicts = [name for name in os.listdir(other) if name.startswith('verdict-go')]
    if len(verdicts) != 1 or open(os.path.join(other, verdicts[0])).read() != 'PASS':
        raise Failed('no verdict in the other directory: %s' % os.listdir(other))


libc = ctypes.CDLL(None, use_errno=True)


def take(pidfd, fd):
    """A duplicate of a descriptor of another process, as if it had been passed to us."""
    return libc.syscall(438, pidfd, fd, 0)


def leaks(case, pid):
    code, _, err = case.reprise('check', str(pid))
    lines = [line for line in err.splitlines() if '[container-leak]' in line]
    if bool(lines) != bool(code):
        raise Failed('check: %d, %s' % (code, err))
    return lines


def test_leaked_descriptors(case):
    """Every descriptor of programs with many kinds of them, leaked to a process outside."""
    begin(case)
    for name in ('pipes', 'anon_fds', 'memory_memfd', 'unix_stream', 'files_shared', 'pty', 'inet'):
        pid = case.start(program=case.reprise_path, arguments=[
            'run', '--name', name] + case.volumes() + ['--', case.program(name)])
        case.until(lambda: 'init' in listed(case)[name], 'the container is noted')
        entry = listed(case)[name]
        if leaks(case, entry['init']):
            raise Failed('leaks of %s: %s' % (name, leaks(case, entry['init'])))
        directory = '/proc/%d/fd' % entry['pid']
        outside = {os.readlink('/proc/self/fd/0'), '/dev/null'}
        pidfd = os.pidfd_open(entry['pid'])
        for fd in sorted(map(int, os.listdir(directory))):
            link = os.readlink('%s/%d' % (directory, fd))
            if link in outside:
                continue
            ours = take(pidfd, fd)
            found = leaks(case, entry['init'])
            os.close(ours)
            if not any('process %d ' % os.getpid() in line for line in found):
                raise Failed('%s: descriptor %d (%s) was leaked, and not found: %s'
                             % (name, fd, link, found))
        if leaks(case, entry['init']):
            raise Failed('found without a leak: %s' % leaks(case, entry['init']))
        os.close(pidfd)
        # All at once: a program that sees others end might find fault with it.
        os.kill(entry['init'], signal.SIGKILL)
        case.wait(pid)


test_leaked_descriptors.timeout = 120


def test_leaked_otherwise(case):
    """A file system entered through /proc, a namespace, and what is allowed."""
    begin(case)
    pid = run_victim(case, 'web', 'wait', 'pass')
    case.until(lambda: 'init' in listed(case)['web'], 'the container is noted')
    entry = listed(case)['web']
    for path in ('root/tmp', 'root/dev/null', 'ns/net', 'ns/ipc'):
        fd = os.open('/proc/%d/%s' % (entry['init'], path), os.O_RDONLY)
        if not leaks(case, entry['init']):
            raise Failed('%s is open outside, and that was not found' % path)
        os.close(fd)
    visitor = case.spawn(['/usr/bin/nsenter', '-t', str(entry['init']), '-n', 'sleep', '1000'])
    case.until(lambda: leaks(case, entry['init']), 'a visitor of the network')
    case.refused(case.reprise('checkpoint', 'web', '-o', case.path('image')), 'container-leak',
                 'sleep', visitor, 'net:')
    expect(case, case.reprise('check', 'web', '-q', '--allow-leak', 'namespace'))
    case.checkpoint('web', '-q', '--allow-leak', 'namespace')
    case.kill(visitor)
    case.wait(visitor)
    case.finish(pid)


def test_watched(case):
    """By its name, until a signal comes for the whole group: at whatever moment."""
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'web', '--', 'sleep', '1000'), 'web\n')
    expect(case, case.reprise('check', 'web'))
    directory = case.path('images')
    for pause in range(8):
        os.mkdir(directory)
        pid = case.spawn(['/usr/bin/setsid', case.reprise_path, 'watch', 'web', '-d', directory,
                          '--every', '1ms'], stderr=os.open(case.path('log'), os.O_CREAT | os.O_RDWR))
        case.until(lambda: len(os.listdir(directory)) > 1 or case.ended(pid), 'an image')
        time.sleep(pause * 0.004)
        os.killpg(pid, signal.SIGINT)
        if case.wait(pid):
            raise Failed('watch: %s' % open(case.path('log')).read())
        shutil.rmtree(directory)
    expect(case, case.reprise('stop', '-t', '0', 'web'))
    expect(case, case.reprise('rm', 'web'))
    case.reap()


def test_named_networks(case):
    """Those of `ip netns`: a mounted file holds one, in which a program runs, and another without."""
    if not os.path.exists('/usr/sbin/ip'):
        raise Skipped('no iproute2')
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'web', '--', 'sh', '-c',
                              'ip netns add a && ip netns add b && ip -n b link set lo up && '
                              'ip -n b addr add 10.9.8.7/32 dev lo && '
                              'exec ip netns exec a sh -c "ip link set lo up; exec sleep 1000"'),
           'web\n')
    case.until(lambda: case.comm(listed(case)['web']['pid']) == 'sleep', 'the program')
    case.checkpoint('web', '-q', '--kill')
    case.reap()
    expect(case, case.reprise('rm', 'web'))
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'web'))
    inside = '/proc/%d/' % listed(case)['web']['pid']
    if os.stat(inside + 'root/run/netns/a').st_ino != os.stat(inside + 'ns/net').st_ino:
        raise Failed('the program is not in the network that its name stands for')
    if os.stat(inside + 'root/run/netns/b').st_ino == os.stat(inside + 'ns/net').st_ino:
        raise Failed('two names stand for one network')
    code, out, err = case.reprise('exec', 'web', 'ip', '-n', 'b', '-br', 'addr')
    if code or '10.9.8.7/32' not in out:
        raise Failed('the network without a program: %d, %s, %s' % (code, out, err))
    code, out, err = case.reprise('exec', 'web', 'ip', 'netns', 'exec', 'a', 'ip', '-br', 'link')
    if code or 'UP' not in out:
        raise Failed('the network of the program: %d, %s, %s' % (code, out, err))
    expect(case, case.reprise('stop', '-t', '0', 'web'))
    expect(case, case.reprise('rm', 'web'))
    case.reap()
