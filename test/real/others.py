# SPDX-License-Identifier: Apache-2.0
"""Containers that other programs have made."""

import array
import fcntl
import json
import os
import re
import stat
import time

import bpf
from case import Failed, NOBODY, Skipped
from foreign import COUNT, begin, configure, count, goes_on, good, make_root, mounts_of, only_child, only_child_of, podman, runc

BUBBLE = '--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 ' \
         '--proc /proc --tmpfs /tmp --unshare-pid --unshare-ipc --unshare-uts --unshare-net'


# All of the host, in which /dev, /proc and /tmp are hidden: all of it is read-only, what is hidden as well.
WHOLE = '--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-pid'


def users_of(pid):
    """The maps of ids of a process, as it sees them, and who its user namespace and those above belong to."""
    with open('/proc/%d/uid_map' % pid) as file:
        found = [file.read().split()[:1]]
    at = os.open('/proc/%d/ns/user' % pid, os.O_RDONLY)
    while True:
        owner = array.array('I', [0])
        fcntl.ioctl(at, 0xb704, owner)  # NS_GET_OWNER_UID
        found.append(owner[0])
        try:
            above = fcntl.ioctl(at, 0xb702)  # NS_GET_PARENT
        except OSError:
            os.close(at)
            return found
        os.close(at)
        at = above


def bubblewrap(case, *options):
    begin(case, '/usr/bin/bwrap')
    tool = case.spawn(['/usr/bin/bwrap'] + BUBBLE.split() + list(options) + ['sh', '-c', COUNT],
                      setsid=True)
    first = only_child(case, tool)
    case.until(lambda: count('/proc/%d/root' % first) > 2, 'it counts')

    def described(pid):
        # the root of a file system in memory may have been a directory of it
        mounts = [line[:2] + line[3:] for line in mounts_of(pid)]
        with open('/proc/%d/status' % pid) as file:
            return users_of(pid), mounts, [line for line in file if line.startswith(('Uid', 'Gid', 'Cap', 'NoNew'))]
    before = described(first)

    def look(init):
        if described(init) != before:
            raise Failed('it is %s, and was %s' % (described(init), before))
    # The tool outside reads from it how the program has ended.
    goes_on(case, first, '--allow-leak', 'file', look=look)
    case.wait(tool)
    case.kill_all()
    return before[0]


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


def test_bubblewrap_whole(case):
    """Its mounts are a copy of the host's, with other flags, and some of them are hidden."""
    begin(case, '/usr/bin/bwrap')
    tool = case.spawn(['/usr/bin/bwrap'] + WHOLE.split() + ['sh', '-c', COUNT], setsid=True)
    first = only_child(case, tool)
    case.until(lambda: count('/proc/%d/root' % first) > 2, 'it counts')
    before = mounts_of(first)
    case.checkpoint(first, '-q', '--kill', '--allow-leak', 'file')
    case.wait(tool)
    for path in case.path('one'), case.path('two'):
        good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--pidfile', path))
        with open(path) as file:
            init = int(file.read())
        at = count('/proc/%d/root' % init)
        if at < 2 or mounts_of(init) != before:
            raise Failed('at %d, mounts %s instead of %s' % (at, mounts_of(init), before))
        case.until(lambda: count('/proc/%d/root' % init) > at + 1, 'it goes on')
    case.kill_all()


def test_bubblewrap_user(case):
    case.uid = NOBODY
    bubblewrap(case, '--dev-bind', '/dev/null', '/dev/null')


def test_bubblewrap_renamed(case):
    """In a user namespace, as somebody else."""
    case.uid = NOBODY
    bubblewrap(case, '--dev-bind', '/dev/null', '/dev/null', '--unshare-user', '--uid', '5', '--gid', '6', '--hostname', 'bubble')


def test_bubblewrap_user_devices(case):
    """It needs power to mount these, and gives it up by going into another user namespace."""
    case.uid = NOBODY
    if len(bubblewrap(case, '--dev', '/dev')) != 4:
        raise Skipped('it is in one user namespace only')


def moved(case, tool):
    """Its first process, when it has a root of its own."""
    first = only_child(case, tool)
    case.until(lambda: os.path.isdir('/proc/%d/root/old' % first), 'the new root')
    return first


GIVEN = '''set -e
mount --bind merged root; cd root
mount --rbind /usr usr; mount -t proc proc proc; mount --bind ../shm dev/shm; mount -t tmpfs none run
pivot_root . old; umount -l old
echo kept > /dev/shm/kept; echo kept > /run/kept
exec %s'''


def test_given_files(case):
    """A runtime has mounted files and memory outside, binds them, and unmounts them when the container ends. So each
    copy has its own."""
    begin(case, '/usr/bin/unshare')
    here = os.path.join(case.directory, 'given')
    for name in 'upper', 'work', 'merged', 'shm', 'root':
        os.makedirs(os.path.join(here, name))
    make_root(here + '/lower')
    good(case.run(['/usr/bin/mount', '-t', 'overlay', 'overlay', '-o',
                   'lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work' % (here, here, here), here + '/merged']))
    good(case.run(['/usr/bin/mount', '-t', 'tmpfs', 'shm', here + '/shm']))
    # It ends with who has made it (as bubblewrap and lxc want it, too), and a copy not with who restarts it.
    tool = case.spawn(['/usr/bin/unshare', '--kill-child', '-pfiun', 'unshare', '-m', 'sh', '-c',
                       GIVEN % ("sh -c '%s'" % COUNT)], cwd=here, setsid=True)
    first = moved(case, tool)
    case.until(lambda: count('/proc/%d/root' % first) > 2, 'it counts')
    case.checkpoint(first, '-q', '--kill')
    case.wait(tool)
    for name in 'merged', 'shm':
        good(case.run(['/usr/bin/umount', os.path.join(here, name)]))
    os.rename(here + '/upper', here + '/gone')
    for name in 'one', 'two':
        good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', name))
    roots = ['/proc/%d/root' % c['init'] for c in json.loads(good(case.reprise('ps', '--json')))['containers']]
    for root in roots:
        before = count(root)
        if before < 2:
            raise Failed('it has forgotten')
        case.until(lambda: count(root) > before + 1, 'it goes on')
        for path in '/dev/shm/kept', '/run/kept':
            with open(root + path) as file:
                if file.read() != 'kept\n':
                    raise Failed('%s has changed' % path)
    with open(roots[0] + '/tmp/stop', 'w'):
        pass
    case.until(lambda: not os.path.exists(roots[0] + '/tmp'), 'the end of one')
    if os.path.exists(roots[1] + '/tmp/stop'):
        raise Failed('both have the same files')
    good(case.reprise('stop', '-t', '0', 'one', 'two'))
    good(case.reprise('rm', 'one', 'two'))


PARTS = '''set -e
cd root; mount --rbind /usr usr; mount -t proc proc proc; mount -t tmpfs none tmp; mount -t tmpfs none sys
mkdir sys/all sys/class sys/bus; mount -t sysfs -o ro all sys/all; mount --make-shared sys/all
for i in class bus; do mount --bind sys/all/$i sys/$i; done
umount sys/all; rmdir sys/all; pivot_root . old; umount -l old
exec %s'''


def test_parts_of_sysfs(case):
    """Of the container's network, and peers that have nothing in common."""
    begin(case, '/usr/bin/unshare')
    here = os.path.join(case.directory, 'parts')
    make_root(here + '/root')
    good(case.run(['/usr/bin/mount', '--bind', here + '/root', here + '/root']))
    tool = case.spawn(['/usr/bin/unshare', '-pfiun', 'unshare', '-m', 'sh', '-c',
                       PARTS % ("sh -c '%s'" % COUNT)], cwd=here, setsid=True)
    first = moved(case, tool)
    before = networks(first)

    def look(init):
        if networks(init) != before or not os.path.isdir('/proc/%d/root/sys/bus/cpu' % init):
            raise Failed('it shows something else: %s, not %s' % (networks(init), before))
    goes_on(case, first, look=look)
    case.wait(tool)


def networks(first):
    """What its sysfs shows: links that lead to a part that it has not."""
    return sorted(os.listdir('/proc/%d/root/sys/class/net' % first))


def test_podman(case):
    """Its files are an overlay of podman's, which ends with the container. A program tells which devices it may use."""
    def look(init):
        group = os.open('/proc/%d/root/sys/fs/cgroup' % init, os.O_RDONLY)
        found = bpf.attached(group, 6)
        os.close(group)
        if len(found[1]) != 1:
            raise Failed('there is %s' % (found,))
    podman(case, 'overlay', look=look)


def test_podman_terminal(case):
    """Its other end is podman's: a restart has another one, and no console is mounted."""
    def look(init):
        points = [line[0] for line in mounts_of(init)]
        if '/dev/console' in points or '/dev/pts' not in points:
            raise Failed('there is %s' % points)
    podman(case, 'overlay', '-t', said=('--allow-leak', 'file'), look=look)


def test_podman_directory(case):
    """All use the same directory: what they write is elsewhere."""
    podman(case, 'vfs', '--tmpfs', '/tmp')


def rootless_podman(case, body, *options, ranges=False):
    """Calls that with what podman is called by, and the pid of a container of an ordinary user: of one id, or with a range."""
    begin(case, '/usr/bin/newuidmap' if ranges else '/usr/bin/podman')
    case.uid = NOBODY
    good(case.run(['/usr/bin/umount', '-R', '-l', '/sys/fs/cgroup'], uid=0))
    good(case.run(['/usr/bin/mount', '-t', 'cgroup2', 'none', '/sys/fs/cgroup'], uid=0))
    good(case.run(['/usr/bin/mount', '-t', 'tmpfs', '-o', 'mode=1777', 'none', '/var/tmp'], uid=0))
    here = os.path.join(case.control, 'podman')
    make_root(here + '/base')
    good(case.run(['/usr/bin/tar', '-C', here + '/base', '--exclude', './dev/null', '-cf', here + '/base.tar', '.'], uid=0))
    good(case.run(['/usr/bin/chown', '-R', '%d:%d' % (NOBODY, NOBODY), here], uid=0))
    for name in 'subuid', 'subgid':
        with open(os.path.join(case.control, name), 'w') as file:
            file.write('nobody:100000:65536\n' if ranges else '')
        good(case.run(['/usr/bin/mount', '--bind', file.name, '/etc/' + name], uid=0))
    case.environment.update(HOME=here, XDG_RUNTIME_DIR=here)
    tool = ['/usr/bin/podman', '--cgroup-manager', 'cgroupfs', '--events-backend', 'file']
    code, _, err = case.run(tool + ['import', '-q', here + '/base.tar', 'base'])
    if not code:
        code, _, err = case.run(tool + ['run', '-d', '--name', 'it', '--network', 'none', *options,
                                        '-v', '/usr:/usr:ro', 'base', 'sh', '-c', COUNT])
    try:
        if code:
            raise Skipped('podman does not run here: %s' % err.strip()[-200:])
        body(tool, int(good(case.run(tool + ['inspect', '-f', '{{.State.Pid}}', 'it']))))
    finally:
        case.uid = NOBODY
        case.run(tool + ['rm', '-f', '-t', '0', 'it'])
        case.kill_all()
        case.reap()


def test_podman_rootless(case):
    """In podman's user namespace, where the user is root."""
    def saved(tool, first):
        before = [line[:2] + line[3:] for line in mounts_of(first)], os.readlink('/proc/%d/ns/user' % first)

        def look(init):
            now = [line[:2] + line[3:] for line in mounts_of(init)], os.readlink('/proc/%d/ns/user' % init)
            if now != before:
                raise Failed('there is %s, there was %s' % (now, before))
        case.reprise_path = case.path('unshared')
        with open(case.reprise_path, 'w') as file:
            file.write('#!/bin/sh\nexec %s unshare %s "$@"\n' % (' '.join(tool), os.path.join(case.build, 'src/cli/reprise')))
        os.chmod(case.reprise_path, 0o755)
        goes_on(case, first, look=look)
    rootless_podman(case, saved, '--security-opt', 'seccomp=unconfined')


def test_podman_rootless_by_root(case):
    """With podman's filters, which only root of the machine can read. Its user namespace is podman's as well."""
    def saved(_, first):
        case.uid = 0
        with open('/proc/%d/status' % first) as file:
            if 'Seccomp:\t2' not in file.read():
                raise Skipped('podman has no filters')
        goes_on(case, first, '--allow-leak', 'namespace', '--allow-leak', 'file')
    rootless_podman(case, saved, ranges=True)


def test_runc(case):
    """With devices of a tmpfs that are bound over files of /proc."""
    begin(case, '/usr/sbin/runc')
    directory = os.path.join(case.directory, 'runc')
    os.mkdir(directory)
    good(case.run(['/usr/sbin/runc', 'spec'], cwd=directory))
    configure(directory)
    os.unlink(directory + '/rootfs/dev/null')
    runc(case, directory)


def test_nspawn(case):
    """With an interface that nobody inside has looked at, and what has to be taken away before (doc/other-containers.md)."""
    begin(case, '/usr/bin/systemd-nspawn')
    root = os.path.join(case.directory, 'nspawn')
    make_root(root)
    name = 'rt-%d' % (time.monotonic_ns() % 1000000)
    kept = '/run/systemd/nspawn/propagate/' + name
    log = os.path.join(case.directory, 'nspawn.log')
    with open(log, 'wb') as file:
        tool = case.spawn(['/usr/bin/systemd-nspawn', '-q', '--register=no', '--keep-unit', '-M', name, '-D', root,
                           '--bind-ro=/usr', '--network-veth', '/bin/sh', '-c', COUNT], stdout=file.fileno(),
                          stderr=file.fileno())
    try:
        case.until(lambda: case.ended(tool) or only_child_of(tool), 'the container')
        case.until(lambda: case.ended(tool) or count('/proc/%d/root' % only_child_of(tool)) > 2, 'it counts')
        if case.ended(tool):
            with open(log) as file:
                raise Skipped('systemd-nspawn does not run here: %s' % file.read().strip()[-200:])
        first = only_child_of(tool)
        good(case.run(['/usr/bin/nsenter', '-t', str(first), '-m', '-p', 'umount', '/proc/kmsg',
                       '/proc/sys/kernel/random/boot_id']))
        leaks = '--allow-leak', 'file', '--allow-leak', 'namespace'
        case.checkpoint(first, '-q', '--kill', *leaks)
        case.wait(tool)
        os.makedirs(kept, exist_ok=True)
        for copy in 'one', 'two':
            good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', copy))
            init = {c['name']: c for c in json.loads(good(case.reprise('ps', '--json')))['containers']}[copy]['init']
            before = count('/proc/%d/root' % init)
            case.until(lambda: count('/proc/%d/root' % init) > before + 1, 'it goes on')
            if 'host0' not in good(case.reprise('exec', copy, 'cat', '/proc/net/dev')):
                raise Failed('its interface is not there')
        good(case.reprise('stop', '-t', '0', 'one', 'two'))
        good(case.reprise('rm', 'one', 'two'))
    finally:
        if os.path.isdir(kept):
            os.rmdir(kept)
        case.kill_all()
        case.reap()
