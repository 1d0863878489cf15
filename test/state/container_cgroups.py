# SPDX-License-Identifier: Apache-2.0
"""Control groups of containers: limits, groups below, who is in which, frozen ones."""

import fnmatch
import functools
import glob
import os
import signal
import time

import bpf
from case import Failed, Skipped
from contained import begin, expect, listed, needs_controllers

# What is no setting, or moves by itself.
COUNTERS = ['cgroup.procs', 'cgroup.threads', 'tasks', '[!c]*.pressure', 'cpu.pressure', '*.failcnt', '*max_usage_in_bytes',
            '*.peak', 'memory.pressure_level', 'cpuacct.usage', 'cgroup.event_control', 'memory.oom_control']

THREADS = '''
import os, threading, time
def idle():
    while not os.path.exists('/tmp/end'):
        time.sleep(0.01)
threads = [threading.Thread(target=idle) for _ in range(3)]
for t in threads: t.start()
open('/tmp/ready', 'w').close()
idle()
'''

COUNT = '''
import os, time
fd = os.open('/tmp/n', os.O_RDWR | os.O_CREAT)
i = 0
while True:
    i += 1
    os.pwrite(fd, b'%10d' % i, 0)
    time.sleep(0.01)
'''

# A socket made outside of all groups below, one in a group, one by a thread in a threaded group; and which groups
# sock_diag tells of them (INET_DIAG_CGROUP_ID).
SOCKETS = '''
import os, socket, struct, threading, time
kept = []
def make(port, group):
    while not open('/proc/thread-self/cgroup').read().split('0::')[1].split()[0].endswith(group):
        time.sleep(0.01)
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    kept[-1].bind(('0.0.0.0', port))
def messages():
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    diag.send(struct.pack('=IHHII', 72, 20, 0x301, 1, 0) + struct.pack('=BBBBI', 2, 17, 0xff, 0, 0xffffffff) + bytes(48))
    while True:
        data = diag.recv(65536)
        while data:
            size, kind = struct.unpack_from('=IH', data)
            if kind == 3:
                return
            yield data[16:size]
            data = data[size + 3 & ~3:]
def groups():
    for m in messages():
        at = 72
        while at + 4 <= len(m):
            size, kind = struct.unpack_from('=HH', m, at)
            if kind == 21:
                yield '%d %d' % (struct.unpack_from('>H', m, 4)[0], struct.unpack_from('=Q', m, at + 4)[0])
            at += size + 3 & ~3
make(7001, '/')
open('/tmp/ready', 'w').close()
make(7002, '/one')
threading.Thread(target=make, args=(7003, '/threads'), daemon=True).start()
while not os.path.exists('/tmp/end'):
    open('/tmp/new', 'w').write(' '.join(sorted(groups())))
    os.rename('/tmp/new', '/tmp/groups')
    time.sleep(0.01)
'''


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def groups(case, name):
    """{hierarchy: directory} of a container."""
    path = os.path.join(case.environment['REPRISE_DIR'], name, 'cgroups')
    found = {}
    for line in read(path).splitlines() if os.path.exists(path) else []:
        parts = line.split('/')
        # Where version 2 is all that there is, it is mounted there itself.
        alone = os.path.exists('/sys/fs/cgroup/cgroup.controllers')
        found['unified' if alone else parts[4]] = line
    return found


def start(case, name, *options, command=('python3', '-c', COUNT)):
    begin(case)
    if not os.path.exists('/sys/fs/cgroup'):
        raise Skipped('there are no control groups')
    expect(case, case.reprise('run', '-d', '--name', name, *options, '--', *command), name + '\n')
    record = os.path.join(case.environment['REPRISE_DIR'], name, 'cgroups')
    if not os.path.exists(record):
        raise Skipped('no control group may be made here')
    return groups(case, name)


def inner(pid, task='status'):
    return int(read('/proc/%s/%s' % (pid, task)).split('NSpid:')[1].split('\n')[0].split()[-1])


def ids(path, name, most):
    found = []
    try:
        listed_here = read(os.path.join(path, name)).split()
    except OSError:
        return None  # of a threaded group
    for i in listed_here:
        try:
            found.append(inner(i))
        except OSError:
            pass  # it has ended
    return sorted(i for i in found if i <= most)


def settings(path):
    found = {}
    for name in sorted(os.listdir(path)):
        full = os.path.join(path, name)
        st = os.lstat(full)
        if os.path.isdir(full) or any(fnmatch.fnmatch(name, c) for c in COUNTERS):
            continue
        if (st.st_mode & 0o600) == 0o600 or name in ('devices.list', 'cgroup.type'):
            try:
                found[name] = read(full)
            except OSError:
                pass
            found[name, 'owner'] = st.st_uid, st.st_gid, st.st_mode
    return found


def snapshot(case, name, most=100):
    """All that is to come back, by the paths below the container's own group."""
    seen = {}
    for hierarchy, top in groups(case, name).items():
        for path, _, _ in os.walk(top):
            key = hierarchy, os.path.relpath(path, top)
            st = os.stat(path)
            seen[key] = {'owner': (st.st_uid, st.st_gid, st.st_mode),
                         'processes': ids(path, 'cgroup.procs', most),
                         'threads': ids(path, 'tasks' if hierarchy != 'unified' else 'cgroup.threads',
                                        most),
                         'settings': settings(path)}
    return seen


def compare(before, after):
    if set(before) != set(after):
        raise Failed('groups before: %s, after: %s' % (sorted(before), sorted(after)))
    for key in before:
        for what in before[key]:
            if before[key][what] != after[key][what]:
                raise Failed('%s of %s: %s, before: %s' % (what, key, after[key][what],
                                                           before[key][what]))


def nothing_left(case):
    case.until(lambda: not case.others(), 'nobody is left')


def end(case, *names):
    made = [path for name in names for path in groups(case, name).values()]
    expect(case, case.reprise('stop', '-t', '0', *names))
    expect(case, case.reprise('rm', *names))
    for path in made:
        if os.path.exists(path):
            raise Failed('rm left %s' % path)
    nothing_left(case)


def move(case, name, new, *options):
    """Saved, killed, removed and restarted from the image."""
    old = list(groups(case, name).values())
    case.checkpoint(name, '-q', '--kill', *options)
    nothing_left(case)
    expect(case, case.reprise('rm', name))
    for path in old:
        if os.path.exists(path):
            raise Failed('rm left %s' % path)
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', new))


def host_pid(case, name, number):
    """Pid here of a process of the container."""
    init = listed(case)[name]['init']
    ns = os.readlink('/proc/%d/ns/pid' % init)
    for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
        try:
            if os.readlink('/proc/%s/ns/pid' % pid) == ns and inner(pid) == number:
                return int(pid)
        except OSError:
            pass
    raise Failed('no process %d in %s' % (number, name))


def counted(case, name):
    path = '/proc/%d/root/tmp/n' % listed(case)[name]['init']
    return int(read(path) or 0) if os.path.exists(path) else 0


def test_limits(case):
    """Of run, and those that were set later; two copies side by side have their own."""
    made = start(case, 'a', '--memory', '200M', '--pids', '60', '--cpus', '0.7',
                 command=('sleep', '1000'))
    if 'memory' in made:
        write(made['memory'] + '/memory.soft_limit_in_bytes', '104857600')
        write(made['memory'] + '/memory.swappiness', '7')
    if 'unified' in made:
        write(made['unified'] + '/cgroup.max.depth', '5')
        if os.path.exists(made['unified'] + '/cpu.idle'):
            write(made['unified'] + '/cpu.idle', '1')
        if os.path.exists(made['unified'] + '/cgroup.pressure'):
            write(made['unified'] + '/cgroup.pressure', '0')
    before = snapshot(case, 'a')
    limits = [s for g in before.values() for s in g['settings'].values()]
    for value in ('209715200\n', '60\n'):
        if value not in limits:
            raise Failed('run did not set %s: %s' % (value, before))
    if '70000\n' not in limits and '70000 100000\n' not in limits:
        raise Failed('run did not limit the processor: %s' % before)
    move(case, 'a', 'b')
    compare(before, snapshot(case, 'b'))
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'c'))
    compare(before, snapshot(case, 'c'))
    if set(groups(case, 'b').values()) & set(groups(case, 'c').values()):
        raise Failed('two containers have one group')
    # In its own namespace each is at the root.
    out = case.reprise('exec', 'c', 'cat', '/proc/1/cgroup')[1]
    if 'reprise-' in out:
        raise Failed('the namespace has another root: %s' % out)
    end(case, 'b', 'c')


def test_below(case):
    """Groups below with owners, limits and members: in every hierarchy, of threads as well."""
    made = start(case, 'a', command=('python3', '-c', THREADS))
    root = '/proc/%d/root' % listed(case)['a']['init']
    case.until(lambda: os.path.exists(root + '/tmp/ready'), 'its threads')
    pid = host_pid(case, 'a', 2)
    tids = sorted(int(t) for t in os.listdir('/proc/%d/task' % pid))
    for top in made.values():
        os.makedirs(top + '/one/two')
        os.mkdir(top + '/empty')
        os.makedirs(top + '/.hidden/..two')
        os.chown(top + '/one', 1234, 2345)
        os.chmod(top + '/one/two', 0o711)
        os.chown(top + '/one/cgroup.procs', 1234, 0)
    for hierarchy, top in made.items():
        if hierarchy == 'unified':
            continue
        # The first process in one, threads of the other here and there.
        write(top + '/one/cgroup.procs', str(host_pid(case, 'a', 1)))
        write(top + '/one/two/tasks', str(tids[1]))
        write(top + '/empty/tasks', str(tids[2]))
    if 'pids' in made:
        write(made['pids'] + '/one/pids.max', '77')
    if 'unified' in made:
        top = made['unified']
        write(top + '/one/cgroup.procs', str(pid))
        os.mkdir(top + '/one/threads')
        write(top + '/one/threads/cgroup.type', 'threaded')
        write(top + '/one/threads/cgroup.threads', str(tids[1]))
        write(top + '/one/cgroup.max.descendants', '9')
    before = snapshot(case, 'a')
    move(case, 'a', 'b')
    compare(before, snapshot(case, 'b'))
    open('/proc/%d/root/tmp/end' % listed(case)['b']['init'], 'w').close()
    case.until(lambda: listed(case)['b']['state'] == 'ended', 'its threads end')
    end(case, 'b')


def sockets(case, name, n=3):
    """{port: group} as the program finds them now."""
    path = '/proc/%d/root/tmp/groups' % listed(case)[name]['init']
    if os.path.exists(path):
        os.unlink(path)
    case.until(lambda: os.path.exists(path) and len(read(path).split()) == 2 * n, 'it looks at its sockets')
    numbers = [int(i) for i in read(path).split()]
    top = groups(case, name)['unified']
    known = {os.stat(g).st_ino: os.path.relpath(g, top) for g, _, _ in os.walk(top)}
    return {port: known.get(number, number) for port, number in zip(numbers[::2], numbers[1::2])}


def test_sockets(case):
    """They belong to the groups in which they were made."""
    made = start(case, 'a', command=('python3', '-c', SOCKETS))
    if 'unified' not in made:
        raise Skipped('there is no version 2')
    if not os.path.exists('/sys/kernel/btf/vmlinux'):
        raise Skipped('the memory of this kernel cannot be read')
    top, root = made['unified'], '/proc/%d/root' % listed(case)['a']['init']
    case.until(lambda: os.path.exists(root + '/tmp/ready'), 'the first socket')
    pid = host_pid(case, 'a', 2)
    os.mkdir(top + '/one')
    write(top + '/one/cgroup.procs', str(pid))
    case.until(lambda: len(os.listdir('/proc/%d/task' % pid)) == 2, 'its thread')
    os.mkdir(top + '/one/threads')
    write(top + '/one/threads/cgroup.type', 'threaded')
    write(top + '/one/threads/cgroup.threads', str(max(int(t) for t in os.listdir('/proc/%d/task' % pid))))
    before = sockets(case, 'a')
    if before != {7001: '.', 7002: 'one', 7003: 'one/threads'}:
        raise Failed('sockets before: %s' % before)
    move(case, 'a', 'b')
    if sockets(case, 'b') != before:
        raise Failed('sockets before: %s, after: %s' % (before, sockets(case, 'b')))
    open('/proc/%d/root/tmp/end' % listed(case)['b']['init'], 'w').close()
    case.until(lambda: listed(case)['b']['state'] == 'ended', 'it ends')
    end(case, 'b')


MEMORY = '''
import mmap, os, time
data = os.urandom(1 << 20)
memfd, shared = os.memfd_create('x'), mmap.mmap(-1, 8 << 20)
for i in range(8):
    os.write(memfd, data)
    shared.write(data)
kept = open('/dev/shm/kept', 'wb') if os.path.ismount('/dev/shm') else os.fdopen(os.memfd_create('y'), 'wb')
for i in range(8):
    kept.write(data)
kept.flush()
open('/tmp/ready', 'w').close()
time.sleep(1000)
'''


def shared_memory(made):
    group = made.get('memory') or made['unified']
    for line in read(group + '/memory.stat').splitlines():
        if line.startswith('shmem '):
            return int(line.split()[1])
    raise Skipped('it is not told how much memory is shared')


def test_memory(case):
    """What is shared counts for the container, not for whoever restarts it."""
    made = start(case, 'a', command=('python3', '-c', MEMORY))
    if 'memory' not in made and not os.path.exists(made['unified'] + '/memory.stat'):
        raise Skipped('there is no controller of memory')
    root = '/proc/%d/root' % listed(case)['a']['init']
    case.until(lambda: os.path.exists(root + '/tmp/ready'), 'its memory')
    before = shared_memory(made)
    if before < 24 << 20:
        raise Failed('%d bytes of shared memory before' % before)
    move(case, 'a', 'b')
    after = shared_memory(groups(case, 'b'))
    if abs(after - before) > 1 << 20:
        raise Failed('%d bytes of shared memory before, %d after' % (before, after))
    end(case, 'b')


def attach_program(path, program_type, place, code=bpf.YES, flags=0):
    """It stays with the group, and no descriptor of it."""
    program, group = bpf.load(program_type, place, code), os.open(path, os.O_RDONLY)
    try:
        bpf.attach(group, program, place, flags)
    except OSError as error:
        raise Skipped('none can be attached: %s' % error) from error
    finally:
        os.close(program)
        os.close(group)


# r0 = 1; if it is 1:7 (/dev/full), r0 = 0; exit
NOT_FULL = ((0xb7, 0, 0, 1), (0x61, 0x12, 4, 0), (0x55, 2, 3, 1), (0x61, 0x12, 8, 0), (0x55, 2, 1, 7), (0xb7, 0, 0, 0),
            (0x95, 0, 0, 0))
MULTI = 2


def programs_of(top):
    found = {}
    for path in '', '/below':
        group = os.open(top + path, os.O_RDONLY)
        for place in 1, 6:
            found[path, place] = bpf.attached(group, place)
        os.close(group)
    return found


def start_unified(case):
    """The group of version 2 of a container, with one below."""
    made = start(case, 'a', command=('sleep', '1000'))
    if 'unified' not in made:
        end(case, 'a')
        raise Skipped('there are no control groups of version 2')
    os.mkdir(made['unified'] + '/below')
    return made['unified']


def test_programs(case):
    """BPF programs of groups, of the first and of one below: they do there what they did."""
    top = start_unified(case)
    attach_program(top + '/below', 8, 1)
    attach_program(top, 15, 6, flags=MULTI)
    attach_program(top, 15, 6, NOT_FULL, MULTI)
    before = programs_of(top)
    if [len(found[1]) for found in before.values()] != [0, 2, 1, 0]:
        raise Failed('there is %s' % before)
    for name in 'a', 'b':
        code, _, err = case.reprise('exec', name, 'sh', '-c', 'echo >/dev/null; exec cat /dev/full')
        if not code or 'Operation not permitted' not in err:
            raise Failed('the device can be opened: %d, %s' % (code, err))
        if name == 'a':
            move(case, 'a', 'b')
    if programs_of(groups(case, 'b')['unified']) != before:
        raise Failed('there was %s, there is %s' % (before, programs_of(groups(case, 'b')['unified'])))
    case.checkpoint('b', '-q', image='again')
    end(case, 'b')


def test_programs_with_maps(case):
    """They are told of, and left out by choice; the others are not."""
    top = start_unified(case)
    number = bpf.array()
    attach_program(top + '/below', 8, 1, ((0x18, 0x11, 0, number), (0, 0, 0, 0)) + bpf.YES)
    attach_program(top, 15, 6, NOT_FULL, MULTI)
    os.close(number)
    for command in (['check', 'a'], ['checkpoint', 'a', '-o', case.path('image')]):
        status, _, err = case.reprise(*command)
        if status != 1 or 'container-program' not in err or 'packets that are sent' not in err or 'below' not in err:
            raise Failed('%s: %d, %s' % (command[0], status, err))
    case.expect_files()
    expect(case, case.reprise('check', 'a', '-q', '--allow-leak', 'program'))
    before = programs_of(top)
    move(case, 'a', 'b', '--allow-leak', 'program')
    after = programs_of(groups(case, 'b')['unified'])
    if after.pop(('/below', 1))[1] or len(before.pop(('/below', 1))[1]) != 1 or after != before:
        raise Failed('there was %s, there is %s' % (before, after))
    end(case, 'b')


def freeze(made, version, frozen):
    if version == 1:
        write(made['freezer'] + '/freezer.state', 'FROZEN' if frozen else 'THAWED')
    else:
        write(made['unified'] + '/cgroup.freeze', '1' if frozen else '0')


def frozen(case, version):
    made = start(case, 'a')
    if ('freezer' if version == 1 else 'unified') not in made:
        end(case, 'a')
        raise Skipped('there are no control groups of version %d that freeze' % version)
    case.until(lambda: counted(case, 'a') > 2, 'it counts')
    freeze(made, version, True)
    case.until(lambda: listed(case)['a']['state'] == 'frozen', 'it is frozen')
    there = counted(case, 'a')
    case.checkpoint('a', '-q')
    time.sleep(0.1)
    if listed(case)['a']['state'] != 'frozen' or counted(case, 'a') != there:
        raise Failed('the checkpoint let it go: %s, %d, %d' % (
            listed(case), there, counted(case, 'a')))
    freeze(made, version, False)
    case.until(lambda: counted(case, 'a') > there, 'the original goes on')
    end(case, 'a')
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'b'))
    time.sleep(0.1)
    if listed(case)['b']['state'] != 'frozen' or counted(case, 'b') != there:
        raise Failed('it did not come back frozen: %s, %d, %d' % (
            listed(case), there, counted(case, 'b')))
    # Saved once more as it is, and killed by that.
    case.checkpoint('b', '-q', '--kill', image='again')
    nothing_left(case)
    expect(case, case.reprise('rm', 'b'))
    expect(case, case.reprise('restart', '-d', '-q', '-i', case.path('again'), '--name', 'c'))
    if counted(case, 'c') != there:
        raise Failed('it went on in between')
    freeze(groups(case, 'c'), version, False)
    case.until(lambda: counted(case, 'c') > there + 2, 'the copy goes on')
    end(case, 'c')


def test_frozen_v1(case):
    frozen(case, 1)


def test_frozen_v2(case):
    frozen(case, 2)


def test_frozen_tool_killed(case):
    """The tool is killed while the container is let go: it is held again."""
    made = start(case, 'a')
    if 'freezer' not in made:
        end(case, 'a')
        raise Skipped('there is no freezer of version 1')
    freeze(made, 1, True)
    case.until(lambda: listed(case)['a']['state'] == 'frozen', 'it is frozen')
    for after in (0.01, 0.02, 0.03, 0.04):
        tool = case.start_reprise('checkpoint', 'a', '-q', '--force', '-o', case.path('image'))
        time.sleep(after)
        for pid, comm in case.others():
            if comm == 'reprise' and pid != tool:
                os.kill(pid, signal.SIGKILL)
                break
        case.wait(tool)
        case.until(lambda: listed(case)['a']['state'] == 'frozen' and
                   read(made['freezer'] + '/freezer.state') == 'FROZEN\n', 'it is held again')
    freeze(made, 1, False)
    end(case, 'a')


def test_seen_inside(case):
    """Mounted inside, changed from there, and open while it is saved."""
    begin(case)
    result = case.reprise('run', '-d', '--name', 'a', '--cgroups', '--', 'sh', '-c', '''
        cd /sys/fs/cgroup; mkdir work below below/it; echo $$ >work/cgroup.procs
        echo 3 >below/cgroup.max.depth; exec 7<work/cgroup.events; : >/tmp/ready
        while [ ! -e /tmp/go ]; do sleep 0.02; done
        cat <&7 >/tmp/events; cat /proc/self/cgroup >/tmp/group; ls >/tmp/list
        mkdir /sys/fs/cgroup/below/new && : >/tmp/done; exec sleep 1000''')
    if result[0] and 'container-cgroup' in result[2]:
        raise Skipped('there are no control groups of version 2')
    expect(case, result, 'a\n')
    root = '/proc/%d/root/tmp/' % listed(case)['a']['init']
    case.until(lambda: os.path.exists(root + 'ready'), 'its groups')
    before = snapshot(case, 'a', 2)
    move(case, 'a', 'b')
    compare(before, snapshot(case, 'b', 2))
    root = '/proc/%d/root/tmp/' % listed(case)['b']['init']
    open(root + 'go', 'w').close()
    case.until(lambda: os.path.exists(root + 'done'), 'it makes another group')
    if 'populated 1' not in read(root + 'events') or 'work' not in read(root + 'list').split() or \
            '0::/work\n' not in read(root + 'group'):
        raise Failed('it sees %s, %s, %s' % (read(root + 'events'), read(root + 'list'),
                                             read(root + 'group')))
    if not os.path.isdir(groups(case, 'b')['unified'] + '/below/new'):
        raise Failed('it works in the groups of another container')
    end(case, 'b')


def test_somebody_else(case):
    """A process from outside in its group is in the way, and named."""
    made = start(case, 'a')
    path = sorted(made.values())[0]
    other = case.spawn(['/bin/sleep', '1000'])
    case.until(lambda: (other, 'sleep') in case.others(), 'it has been executed')
    write(path + '/cgroup.procs', str(other))
    case.refused(case.reprise('checkpoint', 'a', '-o', case.path('x')), 'container-cgroup', 'sleep',
                 str(other), path)
    code, out, err = case.reprise('check', str(listed(case)['a']['init']))
    if 'container-cgroup' not in out + err:
        raise Failed('check says %s %s' % (out, err))
    case.kill(other)
    case.checkpoint('a', '-q')
    end(case, 'a')


def test_frozen_tree(case):
    """No container: its group is not its own, and it cannot come back frozen."""
    made = start(case, 'a')
    if 'freezer' not in made and 'unified' not in made:
        raise Skipped('nothing freezes here')
    version = 1 if 'freezer' in made else 2
    pid = case.start(program=os.path.join(case.build, 'test/lib/victim'),
                     arguments=['wait', 'pass'])
    top = made['freezer' if version == 1 else 'unified'] + '/other'
    os.mkdir(top)
    write(top + '/cgroup.procs', str(pid))
    freeze({'freezer': top, 'unified': top}, version, True)
    case.until(lambda: 'FROZEN' in read(top + '/freezer.state') if version == 1
               else 'frozen 1' in read(top + '/cgroup.events'), 'it is frozen')
    try:
        case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('x')), 'container-cgroup',
                     'frozen', top)
    finally:
        freeze({'freezer': top, 'unified': top}, version, False)
    write(os.path.dirname(os.path.dirname(top)) + '/cgroup.procs', str(pid))
    case.finish(pid)
    end(case, 'a')


def test_options(case):
    begin(case)
    for option, value in (('--memory', '0'), ('--memory', '12X'), ('--cpus', '0'), ('--cpus', 'x'),
                          ('--pids', '-1')):
        case.refused(case.reprise('run', option, value, '--', 'true'), 'usage', status=2)
    if listed(case):
        raise Failed('something is left: %s' % listed(case))


def cleaned(test):
    """Groups are no part of the namespaces of a test: what a failed one leaves is removed here."""
    @functools.wraps(test)
    def run(case):
        begin(case)
        needs_controllers(case)
        try:
            test(case)
        finally:
            tops = [line for path in glob.glob(case.directory + '/containers/*/cgroups')
                    for line in read(path).split()]
            for top in tops:
                for name in ('freezer.state', 'cgroup.freeze'):
                    if os.path.exists(os.path.join(top, name)):
                        write(os.path.join(top, name), 'THAWED' if name[0] == 'f' else '0')
            case.kill_all()
            case.until(lambda: not case.others(), 'nobody is left')
            for top in tops:
                for path, _, _ in os.walk(top, topdown=False):
                    os.rmdir(path)
    run.timeout = 60
    return run


for function in [name for name in globals() if name.startswith('test_')]:
    globals()[function] = cleaned(globals()[function])
