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


def bubblewrap(case, *options):
    begin(case, '/usr/bin/bwrap')
    words = '--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 ' \
            '--proc /proc --tmpfs /tmp --unshare-pid --unshare-ipc --unshare-uts --unshare-net'
    tool = case.spawn(['/usr/bin/bwrap'] + words.split() + list(options) + ['sh', '-c', COUNT],
                      setsid=True)
    first = only_child(case, tool)
    # The tool outside reads from it how the program has ended.
    goes_on(case, first, '--allow-leak', 'file')
    case.wait(tool)
    case.kill_all()


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
