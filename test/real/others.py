# SPDX-License-Identifier: Apache-2.0
"""Containers that other programs have made."""

import json
import os
import time

from case import Failed, NOBODY, Skipped

COUNT = 'i=0; while :; do i=$((i+1)); printf $i | dd of=/tmp/draft 2>/dev/null; mv /tmp/draft /tmp/n; ' \
        'test -e /tmp/stop && exit $i; sleep 0.1; done'


def begin(case, program):
    if not os.path.exists(program):
        raise Skipped('no %s' % program)
    case.environment['REPRISE_DIR'] = os.path.join(case.control, 'state')


def good(result):
    code, out, err = result
    if code:
        raise Failed('exit status %d: %s' % (code, err))
    return out


def count(root):
    try:
        with open(root + '/tmp/n') as file:
            return int(file.read() or 0)
    except OSError:
        return 0


def goes_on(case, first, *options):
    """Saved and killed, and restarted twice: both count on, with what they had written."""
    case.until(lambda: count('/proc/%d/root' % first) > 2, 'it counts')
    case.checkpoint(first, '-q', '--kill', *options)
    for name in 'one', 'two':
        good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', name))
        init = {c['name']: c for c in
                json.loads(good(case.reprise('ps', '--json')))['containers']}[name]['init']
        before = count('/proc/%d/root' % init)
        if before < 2:
            raise Failed('it has forgotten')
        case.until(lambda: count('/proc/%d/root' % init) > before + 1, 'it goes on')
        if 'tmpfs' not in good(case.reprise('exec', name, 'cat', '/proc/mounts')):
            raise Failed('nothing is mounted')
    good(case.reprise('stop', '-t', '0', 'one', 'two'))
    good(case.reprise('rm', 'one', 'two'))


def only_child(case, pid):
    path = '/proc/%d/task/%d/children' % (pid, pid)
    case.until(lambda: os.path.exists(path) and open(path).read(), 'the first process')
    return int(open(path).read().split()[0])


BUBBLE = '--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 ' \
         '--proc /proc --tmpfs /tmp --unshare-pid --unshare-ipc --unshare-uts --unshare-net'


def bubblewrap(case, *options):
    begin(case, '/usr/bin/bwrap')
    tool = case.spawn(['/usr/bin/bwrap'] + BUBBLE.split() + list(options) + ['sh', '-c', COUNT],
                      setsid=True)
    first = only_child(case, tool)
    # The tool outside reads from it how the program has ended.
    goes_on(case, first, '--allow-leak', 'file')
    case.wait(tool)
    case.kill_all()


def inner_shell(case, name, kind='pid'):
    """Of a container: the process that is a shell in a namespace of its own, and its numbers."""
    first = {c['name']: c for c in
             json.loads(good(case.reprise('ps', '--json')))['containers']}[name]['init']
    found = []

    def look():
        todo = [first]
        while todo and not found:
            pid = todo.pop()
            try:
                with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
                    todo += [int(word) for word in file.read().split()]
                with open('/proc/%d/status' % pid) as file:
                    lines = dict(line.split(':', 1) for line in file.read().splitlines())
                links = [os.readlink('/proc/%d/ns/%s' % (who, kind)) for who in (first, pid)]
            except OSError:
                continue
            if lines['Name'].strip() == 'sh' and links[0] != links[1]:
                found.append((pid, lines['NSpid'].split()[-2:]))
        return found
    case.until(look, 'the shell within')
    return found[0]


def test_bubblewrap_in_a_container(case):
    """Pid, mount, IPC, UTS and network namespaces below those of the container."""
    begin(case, '/usr/bin/bwrap')
    good(case.reprise('run', '-d', '--name', 'outer', '--', 'bwrap', *BUBBLE.split(), '--dev', '/dev', 'sh', '-c', COUNT))
    pid, numbers = inner_shell(case, 'outer')
    case.until(lambda: count('/proc/%d/root' % pid) > 2, 'it counts')
    case.checkpoint('outer', '-q', '--kill')
    good(case.reprise('rm', 'outer'))
    for name in 'one', 'two':
        good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', name))
        pid, now = inner_shell(case, name)
        before = count('/proc/%d/root' % pid)
        if before < 2 or now != numbers:
            raise Failed('it is %s and has counted to %d; it was %s' % (now, before, numbers))
        case.until(lambda: count('/proc/%d/root' % pid) > before + 1, 'it goes on')
        with open('/proc/%d/root/proc/1/comm' % pid) as file:
            if file.read() != 'bwrap\n':
                raise Failed('its /proc shows others')
    good(case.reprise('stop', '-t', '0', 'one', 'two'))
    good(case.reprise('rm', 'one', 'two'))
    case.reap()


def bubblewrap_user(case, options, shared):
    """Namespaces that belong to a user namespace below that of a container."""
    begin(case, '/usr/bin/bwrap')
    good(case.reprise('run', '-d', '--name', 'outer', '--', 'bwrap', *options,
                      '--uid', '5', '--gid', '6', '--hostname', 'bubble', '--dev', '/dev', 'sh', '-c', COUNT))
    pid, numbers = inner_shell(case, 'outer', 'user')
    case.until(lambda: count('/proc/%d/root' % pid) > 2, 'it counts')
    case.checkpoint('outer', '-q', '--kill')
    good(case.reprise('rm', 'outer'))
    for name in 'one', 'two':
        good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', name))
        pid, now = inner_shell(case, name, 'user')
        before = count('/proc/%d/root' % pid)
        if before < 2 or ('pid' not in shared and now != numbers):
            raise Failed('it is %s and has counted to %d; it was %s' % (now, before, numbers))
        case.until(lambda: count('/proc/%d/root' % pid) > before + 1, 'it goes on')
        _, seen, _ = case.run(['/usr/bin/nsenter', '--user', '--preserve-credentials', '--mount', '--uts', '-t', str(pid), 'sh', '-c',
                         'id -u; id -g; hostname; test -c /dev/null && echo device'])
        if seen.split() != ['5', '6', 'bubble', 'device']:
            raise Failed('there it is %s' % seen)
        # Those that it has not for itself are the container's.
        init = {c['name']: c for c in json.loads(good(case.reprise('ps', '--json')))['containers']}[name]['init']
        for kind in 'pid', 'cgroup':
            if (os.readlink('/proc/%d/ns/%s' % (pid, kind)) == os.readlink('/proc/%d/ns/%s' % (init, kind))) != (kind in shared):
                raise Failed('it is in a %s namespace of others' % kind)
        with open('/proc/%d/root/proc/1/comm' % pid) as file:
            if (file.read() == 'bwrap\n') == ('pid' in shared):
                raise Failed('its /proc shows others')
    good(case.reprise('stop', '-t', '0', 'one', 'two'))
    good(case.reprise('rm', 'one', 'two'))
    case.reap()


def test_bubblewrap_user_in_a_container(case):
    """User, mount, IPC, UTS and network namespaces, the latter in the former."""
    bubblewrap_user(case, BUBBLE.replace('--unshare-pid', '--unshare-user').split(), {'pid', 'cgroup'})


def test_bubblewrap_all_in_a_container(case):
    """With a pid namespace of its own, in which it is somebody else than who owns that."""
    bubblewrap_user(case, BUBBLE.split() + ['--unshare-all'], set())


def test_bubblewrap(case):
    bubblewrap(case, '--dev', '/dev')


def test_bubblewrap_user(case):
    case.uid = NOBODY
    bubblewrap(case, '--dev-bind', '/dev/null', '/dev/null')


def test_bubblewrap_renamed(case):
    """In a user namespace, as somebody else."""
    case.uid = NOBODY
    bubblewrap(case, '--dev-bind', '/dev/null', '/dev/null', '--unshare-user', '--uid', '5', '--gid', '6', '--hostname', 'bubble')


def configure(directory):
    os.makedirs(directory + '/rootfs')
    for name in 'usr', 'proc', 'sys', 'dev', 'tmp', 'etc':
        os.mkdir(directory + '/rootfs/' + name)
    for name in 'bin', 'lib', 'lib64':
        os.symlink('usr/' + name, directory + '/rootfs/' + name)
    with open(directory + '/config.json') as file:
        config = json.load(file)
    config['process']['terminal'] = False
    config['process']['args'] = ['sh', '-c', COUNT]
    config['mounts'] = [m for m in config['mounts'] if m['type'] != 'cgroup']
    config['mounts'] += [
        {'destination': '/usr', 'type': 'bind', 'source': '/usr', 'options': ['bind', 'ro']},
        {'destination': '/tmp', 'type': 'tmpfs', 'source': 'tmpfs', 'options': []}]
    with open(directory + '/config.json', 'w') as file:
        json.dump(config, file)


def test_runc(case):
    """With devices of a tmpfs that are bound over files of /proc."""
    begin(case, '/usr/sbin/runc')
    directory = os.path.join(case.directory, 'runc')
    os.mkdir(directory)
    good(case.run(['/usr/sbin/runc', 'spec'], cwd=directory))
    configure(directory)
    name = 'reprise-test-%d' % time.monotonic_ns()
    runc = ['/usr/sbin/runc', '--root', directory + '/state']
    code, _, err = case.run(runc + ['run', '-d', '--pid-file', directory + '/pid', name],
                            cwd=directory)
    try:
        if code:
            raise Skipped('runc does not run here: %s' % err.strip()[-200:])
        with open(directory + '/pid') as file:
            goes_on(case, int(file.read()))
    finally:
        case.run(runc + ['delete', '-f', name])
        case.reap()
