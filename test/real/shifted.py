# SPDX-License-Identifier: Apache-2.0
"""Containers that root has made in a user namespace whose ids are others outside: nobody of ours has a name there."""

import json
import os
import signal

from case import Failed, NOBODY, Skipped
from foreign import COUNT, begin, configure, goes_on, good, make_root, mounts_of, only_child, only_child_of, podman, runc

FIRST, IDS = 100000, 65536

# Who is outside writes the maps. What is in `inside` is done by root there, before its first process is another program.
MAKE = '''
import ctypes, os
libc = ctypes.CDLL(None)
def must(result):
    if result:
        raise OSError(ctypes.get_errno())
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.chdir('/')
    os.read(ready[0], 1)
    for kind in 'uid', 'gid':
        with open('/proc/%%d/%%s_map' %% (child, kind), 'w') as file:
            file.write('0 %d %d')
    os.write(go[1], b' ')
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)
must(libc.unshare(0x7e020000))
os.write(ready[1], b' ')
os.read(go[0], 1)
os.closerange(3, 20)
os.setgroups([])
os.setgid(0)
os.setuid(0)
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)
os.setsid()
%s
os.execv('/bin/sh', ['sh', '-c', %r])
'''

INSIDE = '''
must(libc.mount(b'proc', b'/proc', b'proc', 0, None))
must(libc.mount(b'tmp', b'/tmp', b'tmpfs', 0, None))
'''


# Where it stands becomes its root.
OWN_ROOT = '''
must(libc.mount(b'mnt', b'/mnt', b'tmpfs', 0, None))
os.mkdir('/mnt/root')
must(libc.mount(b'.', b'/mnt/root', None, 0x5000, None))
os.chdir('/mnt/root')
must(libc.mount(b'proc', b'proc', b'proc', 0, None))
must(libc.mount(b'tmp', b'tmp', b'tmpfs', 0, None))
must(libc.mount(b'/usr', b'usr', None, 0x5000, None))
must(libc.syscall(155, b'.', b'.'))
must(libc.umount2(b'.', 2))
os.chdir('/')
'''


def own(pid):
    """What its first process is, and sees."""
    with open('/proc/%d/status' % pid) as file:
        status = [line for line in file if line.startswith(('Uid', 'Gid', 'Groups', 'Cap', 'NoNew', 'Seccomp'))]
    maps = []
    for name in 'uid_map', 'gid_map', 'setgroups':
        with open('/proc/%d/%s' % (pid, name)) as file:
            maps.append(file.read().split())
    # The root of a file system in memory may have been a directory of it, and podman mounts one outside.
    return status, maps, [line[:2] + line[3:] if line[0] != '/dev/shm' else line[:2] for line in mounts_of(pid)]


def shifted(case, first, *said, look=None):
    before = own(first)
    if before[1][0][1] == '0' or int(before[0][0].split()[1]) < FIRST:
        raise Failed('it is not shifted: %s' % (before,))

    def all_is_there(init):
        if own(init) != before:
            raise Failed('it is %s, and was %s' % (own(init), before))
        if look:
            look(init)
    goes_on(case, first, *said, look=all_is_there)


def by_hand(case, inside, script, cwd=None):
    begin(case, '/usr/bin/python3')
    tool = case.spawn(['/usr/bin/python3', '-c', MAKE % (FIRST, IDS, inside, script)], cwd=cwd)
    case.until(lambda: case.ended(tool) or only_child_of(only_child_of(tool) or tool), 'the first process')
    if case.ended(tool):
        raise Failed('it has ended')
    first = only_child(case, only_child(case, tool))

    def comm():
        with open('/proc/%d/comm' % first) as file:
            return file.read()
    case.until(lambda: comm() == 'sh\n', 'the program')
    return tool, first


def test_copy_of_the_host(case):
    """Files of several owners, and processes that have given up their power without another program."""
    script = 'echo five > /tmp/five; chown 5:6 /tmp/five; ' \
             '/usr/bin/python3 -c "import os, time; os.setgroups([7]); os.setgid(6); os.setuid(5); ' \
             'open(\'/tmp/by_five\', \'w\') if os.access(\'/tmp/five\', os.W_OK) else None; time.sleep(1000)" & ' + COUNT
    tool, first = by_hand(case, INSIDE, script)
    case.until(lambda: os.path.exists('/proc/%d/root/tmp/by_five' % first), 'somebody else')

    def owners(pid):
        return [(s.st_uid, s.st_gid) for s in
                (os.stat('/proc/%d/root/tmp/%s' % (pid, name)) for name in ('five', 'by_five', 'n'))]

    def others(pid):
        with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
            children = [int(word) for word in file.read().split()]
        found = []
        for child in children:
            try:
                found.append(own(child)[0])
            except OSError:
                continue
        return [x for x in found if x[0].split()[1] == str(FIRST + 5)]
    before = owners(first), others(first)
    if before[0] != [(FIRST + 5, FIRST + 6)] * 2 + [(FIRST, FIRST)] or len(before[1]) != 1:
        raise Failed('there is %s' % (before,))

    def look(init):
        if (owners(init), others(init)) != before:
            raise Failed('there is %s, there was %s' % ((owners(init), others(init)), before))
    # It has the host's files: such ones are not listed.
    case.checkpoint(first, '-q', '--kill')
    case.wait(tool)
    for path in case.path('one'), case.path('two'):
        good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--pidfile', path))
        with open(path) as file:
            look(int(file.read()))
    os.chmod(case.path('image'), 0o644)
    case.refused(case.reprise('restart', '-i', case.path('image'), uid=NOBODY), 'task-namespace', 'no name')
    # A copy is as good as the original.
    with open(case.path('one')) as file:
        case.checkpoint(int(file.read()), '-q', '--kill', image='again')
    good(case.reprise('restart', '-i', case.path('again'), '-q', '-d', '--pidfile', case.path('three')))
    with open(case.path('three')) as file:
        look(int(file.read()))
    case.kill_all()


def give(root):
    """To root of the container."""
    for path, dirs, files in os.walk(root):
        for name in ['.'] + dirs + files:
            os.lchown(os.path.join(path, name), FIRST, FIRST)


def test_root_of_its_own(case):
    """A directory that belongs to root there, below one that nobody else may enter."""
    hidden = os.path.join(case.directory, 'hidden')
    root = hidden + '/root'
    make_root(root)
    give(root)
    os.chmod(hidden, 0o700)
    good(case.run(['/usr/bin/mount', '--bind', root, root]))
    tool, first = by_hand(case, OWN_ROOT, COUNT, cwd=root)
    shifted(case, first)
    case.wait(tool)


def test_leak(case):
    """What somebody outside has open there is found, and nothing where nobody has."""
    tool, first = by_hand(case, INSIDE, 'sleep 1000; exit')

    def found():
        code, _, err = case.reprise('check', str(first))
        return [line for line in err.splitlines() if 'container-leak' in line] if code else None
    if found() is not None:
        raise Failed('refused: %s' % found())
    for path in 'root/tmp', 'ns/user', 'ns/pid':
        fd = os.open('/proc/%d/%s' % (first, path), os.O_RDONLY)
        lines = found()
        os.close(fd)
        if not lines or 'process %d ' % os.getpid() not in lines[0]:
            raise Failed('%s was open outside: %s' % (path, lines))
    if found() is not None:
        raise Failed('still refused: %s' % found())
    os.kill(first, signal.SIGKILL)
    case.wait(tool)


def test_runc(case):
    """As engines start it whose users are mapped to others (userns-remap)."""
    begin(case, '/usr/sbin/runc')
    directory = os.path.join(case.directory, 'runc')
    os.mkdir(directory)
    good(case.run(['/usr/sbin/runc', 'spec'], cwd=directory))
    configure(directory)
    with open(directory + '/config.json') as file:
        config = json.load(file)
    for kind in 'uidMappings', 'gidMappings':
        config['linux'][kind] = [{'containerID': 0, 'hostID': FIRST, 'size': IDS}]
    config['linux']['namespaces'].append({'type': 'user'})
    with open(directory + '/config.json', 'w') as file:
        json.dump(config, file)
    give(directory + '/rootfs')
    runc(case, directory, goes_on=shifted)


def test_overlay_of_outside(case):
    """Whoever mounted it sees its marks, and nobody inside: what was removed and made anew stays so."""
    here = os.path.join(case.directory, 'overlay')
    for name in 'upper', 'work', 'merged':
        os.makedirs(os.path.join(here, name))
    make_root(here + '/lower')
    for name in 'kept', 'anew', 'gone':
        os.makedirs('%s/lower/%s' % (here, name))
        with open('%s/lower/%s/below' % (here, name), 'w'):
            pass
    give(here + '/lower')
    give(here + '/upper')
    good(case.run(['/usr/bin/mount', '-t', 'overlay', 'overlay', '-o',
                   'lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work' % (here, here, here), here + '/merged']))
    tool, first = by_hand(case, OWN_ROOT, 'rm -r /anew /gone; mkdir /anew; echo mine > /anew/mine; ' + COUNT, cwd=here + '/merged')

    def files(pid):
        root = '/proc/%d/root' % pid
        return [(os.path.relpath(path, root), sorted(below), os.stat(path).st_uid)
                for name in ('kept', 'anew', 'gone') for path, _, below in os.walk(os.path.join(root, name))]
    case.until(lambda: os.path.exists('/proc/%d/root/anew/mine' % first), 'its files')
    before = files(first)
    if before != [('kept', ['below'], FIRST), ('anew', ['mine'], FIRST)]:
        raise Failed('there is %s' % before)

    def look(init):
        if files(init) != before:
            raise Failed('there is %s, there was %s' % (files(init), before))
    shifted(case, first, look=look)
    case.wait(tool)


def test_podman_directory(case):
    """With the filters of seccomp that it has by default."""
    def filtered(case, first, *said, **more):
        if 'Seccomp:\t2\n' not in own(first)[0]:
            raise Failed('it has no filters: %s' % own(first)[0])
        shifted(case, first, *said, **more)
    podman(case, 'vfs', '--tmpfs', '/tmp', '--uidmap', '0:%d:%d' % (FIRST, IDS), '--gidmap', '0:%d:%d' % (FIRST, IDS),
           goes_on=filtered)
