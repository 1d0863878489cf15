# SPDX-License-Identifier: Apache-2.0
"""What tests of containers of other programs have in common."""

import json
import os
import re
import stat
import time

from case import Failed, Skipped

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


def goes_on(case, first, *options, look=None):
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
        if look:
            look(init)
        if 'tmpfs' not in good(case.reprise('exec', name, 'cat', '/proc/mounts')):
            raise Failed('nothing is mounted')
    good(case.reprise('stop', '-t', '0', 'one', 'two'))
    good(case.reprise('rm', 'one', 'two'))


def only_child(case, pid):
    path = '/proc/%d/task/%d/children' % (pid, pid)
    case.until(lambda: os.path.exists(path) and open(path).read(), 'the first process')
    return int(open(path).read().split()[0])


def mounts_of(pid):
    """Where, with which options and from where in the file system each mount is, and whose new files are."""
    with open('/proc/%d/mountinfo' % pid) as file:
        return sorted(line.split()[4:6] + line.split()[3:4] + re.findall('[ug]id=[0-9]+', line) for line in file)


def make_root(root):
    """Directories for a container that has the host's programs."""
    for name in 'usr', 'proc', 'sys', 'dev/shm', 'tmp', 'etc', 'run', 'old':
        os.makedirs(os.path.join(root, name))
    for name in 'bin', 'lib', 'lib64':
        os.symlink('usr/' + name, os.path.join(root, name))
    os.mknod(root + '/dev/null', 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(root + '/dev/null', 0o666)


def runc(case, directory, goes_on=goes_on):
    """What config.json and rootfs of a directory say."""
    name = 'reprise-test-%d' % time.monotonic_ns()
    tool = ['/usr/sbin/runc', '--root', directory + '/state']
    code, _, err = case.run(tool + ['run', '-d', '--pid-file', directory + '/pid', name], cwd=directory)
    try:
        if code:
            raise Skipped('runc does not run here: %s' % err.strip()[-200:])
        with open(directory + '/pid') as file:
            goes_on(case, int(file.read()))
    finally:
        case.run(tool + ['delete', '-f', name])
        case.reap()


def podman(case, driver, *options, said=(), look=None, goes_on=goes_on):
    begin(case, '/usr/bin/podman')
    parent = 'reprise-test-%d' % time.monotonic_ns()
    # It keeps a cache beside its images.
    for path in '/run', '/var/lib', '/var/tmp':
        good(case.run(['/usr/bin/mount', '-t', 'tmpfs', 'none', path]))
    # crun knows version 1 or 2, and not both beside each other.
    good(case.run(['/usr/bin/umount', '-R', '-l', '/sys/fs/cgroup']))
    good(case.run(['/usr/bin/mount', '-t', 'cgroup2', 'none', '/sys/fs/cgroup']))
    here = os.path.join(case.directory, 'podman')
    make_root(here + '/base')
    good(case.run(['/usr/bin/tar', '-C', here + '/base', '-cf', here + '/base.tar', '.']))
    tool = ['/usr/bin/podman', '--root', here + '/root', '--runroot', here + '/run', '--tmpdir', here + '/tmp',
            '--storage-driver', driver, '--cgroup-manager', 'cgroupfs', '--events-backend', 'file']
    code, _, err = case.run(tool + ['import', '-q', here + '/base.tar', 'base'])
    if not code:
        code, _, err = case.run(tool + ['run', '-d', '--name', 'it', '--network', 'none', '--cgroup-parent', parent,
                                        # where version 1 has the controllers, there are none
                                        '--pids-limit', '-1', '-v', '/usr:/usr:ro', *options, 'base', 'sh', '-c', COUNT])
    try:
        if code:
            raise Skipped('podman does not run here: %s' % err.strip()[-200:])
        first = int(good(case.run(tool + ['inspect', '-f', '{{.State.Pid}}', 'it'])))
        goes_on(case, first, *said, look=look)
    finally:
        case.run(tool + ['rm', '-f', '-t', '0', 'it'])
        case.kill_all()
        case.reap()
        for path, _, _ in os.walk('/sys/fs/cgroup/' + parent, topdown=False):
            os.rmdir(path)


def only_child_of(pid):
    """0: there is none yet."""
    try:
        with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
            return int((file.read().split() or ['0'])[0])
    except OSError:
        return 0


def configure(directory):
    make_root(directory + '/rootfs')
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
