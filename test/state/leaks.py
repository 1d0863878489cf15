# SPDX-License-Identifier: Apache-2.0
"""What somebody outside uses of a container without having it open: found every time."""

import os
import signal

from case import Failed, NOBODY, Skipped
from contained import begin, expect, listed

# What a process outside does, given a task of the container; then it says so, and waits.
PRELUDE = '''
import ctypes, mmap, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
pid = int(sys.argv[1])
place = os.open(os.path.dirname(sys.argv[2]), os.O_RDONLY)
def enter(kind, of=None):
    fd = os.open('/proc/%d/ns/%s' % (of or pid, kind), os.O_RDONLY)
    assert libc.setns(fd, 0) == 0, ctypes.get_errno()
    os.close(fd)
def take(fd):
    pidfd = os.pidfd_open(pid)
    got = libc.syscall(438, pidfd, fd, 0)
    os.close(pidfd)
    assert got >= 0, ctypes.get_errno()
    return got
def send(fd):
    global pair
    pair = socket.socketpair()
    socket.send_fds(pair[0], [b'x'], [fd])
    os.close(fd)
'''
EPILOGUE = '''
os.open(os.path.basename(sys.argv[2]), os.O_CREAT | os.O_WRONLY, dir_fd=place)
time.sleep(1000)
'''
# Descriptors 3 and 4 are a pipe, 5 is an eventfd, 6 a memfd, 7 a socket.
INSIDE = '''
import ctypes, os, time
os.pipe()
for fd in 3, 4:
    os.set_inheritable(fd, False)
assert os.eventfd(1) == 5 and os.memfd_create('ours') == 6
os.ftruncate(6, 4096)
import socket
kept = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
assert kept.fileno() == 7
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
libc.shmat(libc.shmget(0x1234, 4096, 0o1600), None, 0)
open('/tmp/ready', 'w').close()
time.sleep(1000)
'''


def leaks(case, pid):
    """By asking all processes outside, and by a glance at what they have: the same."""
    found = []
    for fault in ({'REPRISE_FAULT': 'no-glance-outside'}, {}):
        code, _, err = case.reprise('check', str(pid), env=fault)
        found.append([line for line in err.splitlines() if '[container-leak]' in line])
        if bool(found[-1]) != bool(code):
            raise Failed('check: %d, %s' % (code, err))
    if found[0] != found[1]:
        raise Failed('asked one by one: %s, at a glance: %s' % tuple(found))
    return found[0]


def run_inside(case):
    begin(case)
    if case.uid:
        case.environment['REPRISE_DIR'] = os.path.join(case.control, 'state', 'reprise')
    user = ['--user'] if getattr(case, 'in_user_namespace', False) else []
    expect(case, case.reprise('run', '-d', *user, '--name', 'web', '--', '/usr/bin/python3', '-c', INSIDE),
           'web\n')
    entry = listed(case)['web']
    case.until(lambda: os.path.exists('/proc/%d/root/tmp/ready' % entry['pid']), 'the program')
    if leaks(case, entry['init']):
        raise Failed('found without a leak: %s' % leaks(case, entry['init']))
    return entry


def use(case, entry, code):
    """Somebody outside does that, and is found."""
    ready = case.path('ready')
    pid = case.spawn(['/usr/bin/python3', '-c', PRELUDE + code + EPILOGUE, str(entry['pid']), ready])
    case.until(lambda: os.path.exists(ready) or case.ended(pid), 'who is outside')
    if case.ended(pid):
        raise Failed('it did not work: %s' % code)
    found = leaks(case, entry['init'])
    case.kill(pid)
    os.unlink(ready)
    if leaks(case, entry['init']):
        raise Failed('found after its end: %s' % leaks(case, entry['init']))
    return pid, found


def expect_found(case, entry, code, *words):
    pid, found = use(case, entry, code)
    if len(found) != 1 or not all(word in found[0] for word in words):
        raise Failed('%s: found %s' % (code.strip(), found))
    return pid


def finish(case):
    expect(case, case.reprise('stop', '-t', '0', 'web'))
    expect(case, case.reprise('rm', 'web'))
    case.reap()


def test_places(case):
    entry = run_inside(case)
    expect_found(case, entry, "os.chdir('/proc/%d/root/tmp' % pid)", '/tmp', 'working directory')
    expect_found(case, entry, "os.chroot('/proc/%d/root' % pid)", ' / ', 'as its root')
    finish(case)


def test_queues(case):
    """In flight, in a queue outside."""
    entry = run_inside(case)
    expect_found(case, entry, 'send(take(4))', 'pipe', 'in the queue')
    expect_found(case, entry, 'send(take(5))', 'eventfd', 'descriptor 5', 'in the queue')
    expect_found(case, entry, 'send(take(6))', 'memfd', 'descriptor 6', 'in the queue')
    finish(case)


def test_memory(case):
    """Mapped, and not open any more."""
    entry = run_inside(case)
    expect_found(case, entry, 'fd = take(6); libc.mmap(None, 4096, 3, 1, fd, 0); os.close(fd)',
                 'memfd', 'descriptor 6', 'mapped memory')
    for path in '/dev/shm/a', '/usr/a':  # a file system in memory, and the layer
        expect_found(case, entry, '''
fd = os.open('/proc/%%d/root%s' %% pid, os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, 4096)
libc.mmap(None, 4096, 1, 2, fd, 0)
os.close(fd)
''' % path, path, 'mapped memory')
    expect_found(case, entry, '''
enter('ipc')
assert libc.shmat(libc.shmget(0x1234, 4096, 0), None, 0) > 0
enter('ipc', os.getppid())
''', 'SYSV00001234', 'mapped memory')
    # Not attached: through the mapping of who has it.
    through = """
line = [line for line in open('/proc/%d/maps' % pid) if 'SYSV' in line][0]
fd = os.open('/proc/%d/map_files/%s' % (pid, line.split()[0]), os.O_RDWR)
"""
    expect_found(case, entry, through + 'assert libc.mmap(None, 4096, 3, 1, fd, 0) > 0; os.close(fd)',
                 'SYSV00001234', 'mapped memory')
    expect_found(case, entry, through, 'SYSV00001234', 'as descriptor')
    # Of another namespace, with the same number and key.
    _, found = use(case, entry, """
assert libc.unshare(0x08000000) == 0
assert libc.shmat(libc.shmget(0x1234, 4096, 0o1600), None, 0) > 0
""")
    if found:
        raise Failed('found though it is none: %s' % found)
    # which nobody inside has attached
    expect_found(case, entry, '''
enter('ipc')
assert libc.shmat(libc.shmget(0x1235, 4096, 0o1600), None, 0) > 0
enter('ipc', os.getppid())
''', 'SYSV00001235', 'mapped memory')
    finish(case)


def test_epoll(case):
    """In a set of somebody who has nothing of it open any more; with others of the same number before."""
    entry = run_inside(case)
    watch = """
import select
kept = select.epoll()
for i in range(2):
    mine = os.eventfd(0)
    os.dup2(mine, 60)
    os.close(mine)
    kept.register(60)
    held = os.dup(60)
    os.close(60)
fd = take(%d)
os.dup2(fd, 60)
kept.register(60)
os.close(60)
os.close(fd)
"""
    expect_found(case, entry, watch % 3, 'pipe:[', 'task', 'descriptor 3', 'epoll set')
    expect_found(case, entry, watch % 5, 'eventfd', 'descriptor 5', 'epoll set')
    # Which nobody has open.
    expect_found(case, entry, watch % 3 + 'send(os.dup(kept.fileno())); kept.close()', 'pipe:[', 'descriptor 3', 'epoll set', 'in the queue')
    _, found = use(case, entry, watch.replace('take(%d)', 'os.eventfd(0)') + 'send(os.dup(kept.fileno())); kept.close()')
    if found:
        raise Failed('found though it is none: %s' % found)
    # One of somebody else's.
    _, found = use(case, entry, watch.replace('take(%d)', 'os.eventfd(0)'))
    if found:
        raise Failed('found though it is none: %s' % found)
    finish(case)


# It keeps them open, and its maker does not.
RING = """
import struct
class Ring:
    def __init__(self):
        self.fd = libc.syscall(425, 8, ctypes.create_string_buffer(120))
        assert self.fd >= 0, ctypes.get_errno()
    def register(self, *fds):
        assert libc.syscall(427, self.fd, 2, (ctypes.c_int * len(fds))(*fds), len(fds)) == 0, ctypes.get_errno()
        for fd in fds:
            os.close(fd) if fd > 2 else None
    def map(self):
        assert libc.mmap(None, 4096, 3, 1, self.fd, ctypes.c_long(0)) not in (None, 2 ** 64 - 1)
        return self
    def number(self):
        place = ctypes.create_string_buffer(struct.pack('=IIQ', 2 ** 32 - 1, 0, self.fd))
        assert libc.syscall(427, self.fd, 20, place, 1) == 1, ctypes.get_errno()
    def close(self):
        os.close(self.fd)
    def wait(self, fd):  # IORING_OP_POLL_ADD, for what never comes
        params = ctypes.create_string_buffer(120)
        os.close(self.fd)
        self.fd = libc.syscall(425, 8, params)
        array, tail = struct.unpack_from('I', params, 40 + 24)[0], struct.unpack_from('I', params, 40 + 4)[0]
        rings, requests = mmap.mmap(self.fd, 4096), mmap.mmap(self.fd, 4096, offset=0x10000000)
        struct.pack_into('BBHiQQI', requests, 0, 6, 0, 0, fd, 0, 0, 0)
        struct.pack_into('I', rings, array, 0)
        struct.pack_into('I', rings, tail, 1)
        assert libc.syscall(426, self.fd, 1, 0, 0, None, 0) == 1, ctypes.get_errno()
        os.close(fd)
ring = Ring()
"""


def test_rings(case):
    """Registered with an io_uring, and not open otherwise."""
    entry = run_inside(case)
    for fd, link in (3, 'pipe:['), (5, 'eventfd'), (6, 'memfd:ours'), (7, 'socket:['):
        expect_found(case, entry, RING + 'ring.register(0, take(%d), 1)' % fd, link,
                     'descriptor %d' % fd, 'a registered file of the io_uring that is its descriptor')
    expect_found(case, entry, RING + """
fd = os.open('/proc/%d/root/usr/a' % pid, os.O_CREAT | os.O_RDWR)
ring.register(fd)
""", 'file a ', 'registered')
    expect_found(case, entry, RING + """
enter('net')
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
enter('net', os.getppid())
ring.register(s.detach())
""", 'socket:[', 'registered')
    expect_found(case, entry, RING + "ring.register(os.open('/proc/%d/ns/net' % pid, os.O_RDONLY))", 'net:[',
                 'registered')
    finish(case)


def test_rings_alone(case):
    """Of a ring that is mapped or known by a number, of a child that has inherited it, and of a request that waits."""
    entry = run_inside(case)
    register = RING + 'ring.register(take(3)); '
    expect_found(case, entry, register + 'ring.map(); ring.close()', 'pipe:[', 'that it has mapped')
    expect_found(case, entry, register + 'ring.map(); ring.number(); ring.close()', 'pipe:[', 'that it has mapped')
    expect_found(case, entry, register + 'ring.number(); ring.close()', 'pipe:[', 'that it has by a number')
    expect_found(case, entry, RING + """
done = os.pipe()
child = os.fork()
if not child:
    ring.register(take(3))
    os.write(done[1], b'x')
    time.sleep(1000)
assert os.read(done[0], 1)
os.kill(child, 9)
os.wait()
""", 'pipe:[', 'of the io_uring that is its descriptor')
    expect_found(case, entry, RING + 'ring.wait(take(3))', 'pipe:[', 'for a request of the io_uring')
    finish(case)


def test_rings_of_others(case):
    """With files of their own, and with some of those that everybody has."""
    entry = run_inside(case)
    _, found = use(case, entry, RING + """
import tempfile
left, right = socket.socketpair()
ring.register(0, 1, *os.pipe(), os.eventfd(0), os.memfd_create('ours'), left.detach(),
              os.open('/etc/passwd', os.O_RDONLY), os.open('/dev/null', os.O_RDWR))
ring.map()
ring.number()
other = Ring()
other.wait(right.detach())
""")
    if found:
        raise Failed('found though it is none: %s' % found)
    finish(case)


def test_opened(case):
    """Anew, through /proc: the file is another description of the same thing."""
    entry = run_inside(case)
    expect_found(case, entry, "kept = os.open('/proc/%d/fd/3' % pid, os.O_RDONLY | os.O_NONBLOCK)", 'pipe', 'descriptor')
    expect_found(case, entry, "kept = os.open('/proc/%d/fd/6' % pid, os.O_RDWR)", 'memfd', 'descriptor 6')
    expect_found(case, entry, "kept = os.open('/proc/%d/root/tmp/ready' % pid, os.O_RDONLY)", '/tmp/ready', 'descriptor')
    expect_found(case, entry, "kept = os.open('/proc/%d/root/dev/ptmx' % pid, os.O_RDWR)", 'ptmx', 'descriptor')
    finish(case)


# In a pid namespace of its own it has what it had before; descriptors of streams are meant to lead outside.
INHERITED = """
import ctypes, mmap, os, sys, time
kind = sys.argv[1]
if kind == 'pipe':
    os.pipe()
elif kind == 'eventfd':
    os.eventfd(0)
elif kind == 'regular':
    os.open('/etc/passwd', os.O_RDONLY)
elif kind == 'memory':
    kept = mmap.mmap(-1, 4096)
elif kind == 'stack':
    kept = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
assert ctypes.CDLL(None).unshare(0x20000000) == 0
if os.fork():
    os.wait()
    os._exit(0)
time.sleep(1000)
"""


def test_inherited(case):
    """From who has made the container."""
    for kind, word in ('pipe', 'pipe:['), ('eventfd', 'eventfd'), ('regular', '/etc/passwd'), ('memory', '/dev/zero'), ('stack', None):
        maker = case.spawn(['/usr/bin/python3', '-c', INHERITED, kind])
        children = '/proc/%d/task/%d/children' % (maker, maker)
        case.until(lambda: open(children).read(), 'the first process')
        pid = int(open(children).read())
        found = leaks(case, pid)
        os.kill(pid, signal.SIGKILL)
        case.wait(maker)
        if not found if word else found:
            raise Failed('%s: found %s' % (kind, found))
        if word and not all(word in line for line in found):
            raise Failed('%s: found %s' % (kind, found))


def test_sockets(case):
    """Sockets belong to the network in which they were made."""
    entry = run_inside(case)
    for what in ('socket.AF_INET, socket.SOCK_STREAM', 'socket.AF_INET, socket.SOCK_DGRAM',
                 'socket.AF_UNIX, socket.SOCK_STREAM', 'socket.AF_NETLINK, socket.SOCK_RAW, 0'):
        expect_found(case, entry, "enter('net'); s = socket.socket(%s); enter('net', os.getppid())"
                     % what, 'socket:[', 'in its network')
    finish(case)


def test_namespaces(case):
    entry = run_inside(case)
    expect_found(case, entry, "enter('pid')", 'pid:[', 'for its children')
    expect_found(case, entry, '''
held = os.path.dirname(sys.argv[2]) + '/held'
open(held, 'w').close()
assert libc.unshare(0x20000) == 0 and libc.mount(None, b'/', None, 0x44000, None) == 0
assert libc.mount(b'/proc/%d/ns/net' % pid, held.encode(), None, 4096, None) == 0
''', 'net:[', 'mounted on')
    finish(case)


def test_nested(case):
    """Below those of the container, in a user namespace of its tasks."""
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'web', '--', 'unshare', '-Urpf', '--mount-proc', 'sleep', '1000'), 'web\n')
    entry = listed(case)['web']
    child = []

    def look():
        with open('/proc/%d/task/%d/children' % (entry['pid'], entry['pid'])) as file:
            child[:] = [int(word) for word in file.read().split()]
        return child and open('/proc/%d/comm' % child[0]).read() == 'sleep\n'
    case.until(look, 'the program')
    if leaks(case, entry['init']):
        raise Failed('found without a leak: %s' % leaks(case, entry['init']))
    inner = dict(entry, pid=child[0])
    expect_found(case, inner, "enter('pid')", 'pid:[', 'for its children')
    for kind in 'pid', 'user', 'mnt':
        expect_found(case, inner, "kept = os.open('/proc/%%d/ns/%s' %% pid, os.O_RDONLY)" % kind, kind + ':[')
    finish(case)


# In an IPC namespace of its own, with the numbers and keys of the first.
NESTED = INSIDE.replace("libc = ctypes.CDLL(None)", """libc = ctypes.CDLL(None)
if os.fork():
    libc.unshare(0x08000000)
    libc.syscall(3, libc.syscall(240, b'closed', 0o102, 0o600, None))""")


def test_ipc(case):
    """Objects of an IPC namespace below that of the container."""
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'web', '--', '/usr/bin/python3', '-c', NESTED), 'web\n')
    entry = listed(case)['web']
    case.until(lambda: os.path.exists('/proc/%d/root/tmp/ready' % entry['pid']), 'the program')
    case.until(lambda: len(open('/proc/%d/maps' % entry['pid']).read().split('SYSV')) == 2, 'the segment')
    if leaks(case, entry['init']):
        raise Failed('found without a leak: %s' % leaks(case, entry['init']))
    expect_found(case, entry, '''
enter('ipc')
assert libc.shmat(libc.shmget(0x1234, 4096, 0), None, 0) > 0
enter('ipc', os.getppid())
''', 'SYSV00001234', 'mapped memory')
    expect_found(case, entry, '''
enter('ipc')
assert libc.syscall(240, b'closed', 2, 0, None) > 0
enter('ipc', os.getppid())
''', '/closed', 'as descriptor')
    finish(case)


def test_traced(case):
    """Who traces a task from outside has no number in the container."""
    entry = run_inside(case)
    ready = case.path('ready')
    pid = case.spawn(['/usr/bin/python3', '-c', PRELUDE + 'assert libc.ptrace(0x4206, pid, 0, 0) == 0'
                      + EPILOGUE, str(entry['pid']), ready])
    case.until(lambda: os.path.exists(ready), 'who traces')
    for args in ('check', str(entry['init'])), ('checkpoint', 'web', '-o', case.path('image')):
        case.refused(case.reprise(*args), 'task-traced', 'process %d (python3)' % pid)
    case.kill(pid)
    case.checkpoint('web', '-q')
    finish(case)


def test_threads(case):
    """A thread may use what the others of its process do not."""
    entry = run_inside(case)
    start = '''
ready = threading.Event()
threading.Thread(target=leave, daemon=True).start()
assert ready.wait(60)
'''
    expect_found(case, entry, '''
def leave():
    enter('net')
    ready.set()
    time.sleep(1000)
''' + start, 'net:[', 'by thread')
    expect_found(case, entry, '''
def leave():
    assert libc.unshare(0x400) == 0
    take(5)
    ready.set()
    time.sleep(1000)
''' + start, 'eventfd', 'by thread')
    finish(case)


def test_streams(case):
    """Standard streams are shared with whoever made a pid namespace, and nothing else."""
    begin(case)
    maker = case.spawn(['/usr/bin/unshare', '-p', '-f', '/usr/bin/sleep', '1000'])
    children = '/proc/%d/task/%d/children' % (maker, maker)
    case.until(lambda: open(children).read(), 'the first process')
    pid = int(open(children).read())
    case.until(lambda: case.comm(pid) == 'sleep', 'the program')
    found = leaks(case, pid)
    os.kill(pid, signal.SIGKILL)
    case.wait(maker)
    if found:
        raise Failed('found without a leak: %s' % found)


ATTACHED = """
held = os.path.dirname(sys.argv[2]) + '/attached'
os.mkdir(held)
own = os.open('/proc/self/ns/mnt', os.O_RDONLY)
enter('mnt')
tree = libc.syscall(428, -100, b'/tmp', 1)
assert tree >= 0 and libc.setns(own, 0) == 0, ctypes.get_errno()
assert libc.unshare(0x20000) == 0 and libc.mount(None, b'/', None, 0x44000, None) == 0
assert libc.syscall(429, tree, b'', -100, held.encode(), 4) == 0, ctypes.get_errno()
os.close(tree)
"""


def test_mounted(case):
    """A file system of the container that is mounted outside, too, where nobody has a file of it."""
    entry = run_inside(case)
    expect_found(case, entry, ATTACHED, '/attached', 'has it mounted')
    finish(case)


# A file system in memory that was never attached: its root is descriptor 3, a file of it 4.
DETACHED = """
import ctypes, os, time
libc = ctypes.CDLL(None)
fs = libc.syscall(430, b'tmpfs', 0)
assert fs == 3 and libc.syscall(431, fs, 6, None, None, 0) == 0
assert libc.syscall(432, fs, 0, 0) == 4
os.dup2(4, 3)
os.close(4)
assert os.open('file', os.O_RDWR | os.O_CREAT, dir_fd=3) == 4
open('/tmp/ready', 'w').close()
time.sleep(1000)
"""


# Of what is attached nowhere there are copies since Linux 6.15.
DETACHED_TREE = """
at = take(3)
tree = libc.syscall(428, at, b'', 0x1001)
os.close(at)
assert tree >= 0, ctypes.get_errno()
"""


def test_detached(case):
    """A file of such a mount that the container has not open itself."""
    begin(case)
    expect(case, case.reprise('run', '-d', '--name', 'web', '--', '/usr/bin/python3', '-c', DETACHED), 'web\n')
    entry = listed(case)['web']
    case.until(lambda: os.path.exists('/proc/%d/root/tmp/ready' % entry['pid']), 'the program')
    if leaks(case, entry['init']):
        raise Failed('found without a leak: %s' % leaks(case, entry['init']))
    expect_found(case, entry, """
at = take(3)
kept = os.open('other', os.O_RDWR | os.O_CREAT, dir_fd=at)
os.close(at)
""", '/other', 'as descriptor')
    code, _, err = case.run(['/usr/bin/python3', '-c', PRELUDE + DETACHED_TREE, str(entry['pid']), case.path('ready')])
    if code and 'AssertionError: 22' not in err:
        raise Failed(err)
    if not code:
        expect_found(case, entry, DETACHED_TREE + """
held = os.path.dirname(sys.argv[2]) + '/attached'
os.mkdir(held)
assert libc.unshare(0x20000) == 0 and libc.mount(None, b'/', None, 0x44000, None) == 0
assert libc.syscall(429, tree, b'', -100, held.encode(), 4) == 0, ctypes.get_errno()
os.close(tree)
""", '/attached', 'has it mounted')
    finish(case)


TAP = """
import fcntl, struct
enter('net')
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'tap0', 0x1002))
enter('net', os.getppid())
"""


def test_tap(case):
    """An interface of its network that a program outside serves, as those of ordinary users are (slirp4netns)."""
    if not os.path.exists('/dev/net/tun'):
        raise Skipped('no tun')
    entry = run_inside(case)
    expect_found(case, entry, TAP, '/dev/net/tun', 'interface tap0')
    finish(case)


def in_user_namespace(test, ending, uid=0):
    """The same, of a container into which reprise goes without the power that it has outside."""
    def run(case):
        with open('/proc/sys/user/max_user_namespaces') as file:
            if file.read() == '0\n':
                raise Skipped('no user namespaces')
        case.uid = uid
        case.in_user_namespace = True
        test(case)
    run.__name__ = test.__name__ + ending
    globals()[run.__name__] = run


for each in (test_places, test_queues, test_memory, test_epoll, test_opened, test_sockets, test_namespaces, test_traced,
             test_threads, test_mounted, test_tap):
    in_user_namespace(each, '_in_a_user_namespace')
# An ordinary user looks at what is his own.
for each in test_queues, test_epoll:
    in_user_namespace(each, '_of_a_user', NOBODY)
del each
