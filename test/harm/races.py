# SPDX-License-Identifier: Apache-2.0
"""What happens to an application while it is being stopped: it is saved, or there is a clear error within bounded time, and
it goes on in any case.

test/harm/turmoil.c changes all the time. Each test takes some seconds; HARM_SECONDS=N changes that.
"""

import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import time

from case import Failed, Skipped, system
from faulty import Faulty, Server
from harming import SECONDS, clear_line

BOUND = 30  # for what must come to an end by itself, also under load
USER = 61234  # whose processes are counted for the bomb


def turmoil(case, how, **more):
    path = os.path.join(case.work, 'counter')
    with open(path, 'wb') as file:
        file.write(bytes(16))
    os.chmod(path, 0o666)
    return case.spawn([os.path.join(case.build, 'test/harm/turmoil'), how, path], setsid=True, **more)


def turns(case):
    with open(os.path.join(case.work, 'counter'), 'rb') as file:
        done, wrong = struct.unpack('=QQ', file.read(16))
    if wrong:
        raise Failed('line %d of turmoil.c' % wrong)
    return done


def goes_on(case, pid):
    if case.ended(pid):
        raise Failed('it has ended: %d' % case.exit_code(pid))
    before = turns(case)
    case.until(lambda: turns(case) > before + 3, 'it goes on')


def status_of(pid):
    with open('/proc/%d/status' % pid) as file:
        return dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)


def sleeps_in_read(pid):
    with open('/proc/%d/syscall' % pid) as file:
        return file.read().startswith('0 0x0 ')


def nobody_is_held(case):
    def held():
        for pid, _ in case.others():
            try:
                if status_of(pid)['TracerPid'] != '0':
                    return True
            except (FileNotFoundError, ProcessLookupError):
                pass
        return False
    case.until(lambda: not held(), 'nobody is traced')


def save(case, pid, *args, codes=(), image='image'):
    """Whether there is an image; if not, one line with one of the codes, in bounded time."""
    begun = time.monotonic()
    code, out, err = case.run([case.reprise_path, 'checkpoint', str(pid), '-q', '-o', case.path(image)] + list(args))
    if time.monotonic() - begun > BOUND:
        raise Failed('it took %d s' % (time.monotonic() - begun))
    nobody_is_held(case)
    if code == 0:
        result = case.run([case.reprise_path, 'verify', '-q', case.path(image)])
        if result[0]:
            raise Failed('an image that is no good: %s' % result[2])
        os.unlink(case.path(image))
        return True
    line = clear_line(err) if code == 1 else ''
    if not line.endswith(tuple('[%s]' % c for c in codes)):
        raise Failed('exit status %d: %s' % (code, err))
    if os.path.exists(case.path(image)):
        raise Failed('an image in spite of an error')
    return False


def end_all(case, pid):
    """Whoever makes processes may do so between the look at them and its end."""
    case.kill(pid)
    case.until(lambda: not (case.kill_all() or case.others()), 'the end of all')


def over_and_over(case, how, codes=('task-gone', 'task-busy'), **more):
    pid = turmoil(case, how, **more)
    goes_on(case, pid)
    images, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until or not images:
        images += save(case, pid, codes=codes)
        goes_on(case, pid)
        if time.monotonic() > until + BOUND:
            raise Failed('never is it saved')
    case.note('%d images' % images)
    end_all(case, pid)


def test_exec(case):
    over_and_over(case, 'exec')


def test_fork(case):
    over_and_over(case, 'fork')


def test_die(case):
    over_and_over(case, 'die')


def test_credentials(case):
    over_and_over(case, 'credentials')


def test_signals(case):
    over_and_over(case, 'signals')


def test_jobs(case):
    over_and_over(case, 'jobs')


def test_fork_bomb(case):
    """One that its limit holds; the namespace of the test ends it."""
    pid = turmoil(case, 'bomb', uid=USER, before=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (40, 40)))
    case.until(lambda: len(case.others()) > 20, 'it has gone off')
    for _ in range(3):
        save(case, pid, codes=('task-gone', 'task-busy'))
    if case.ended(pid):
        raise Failed('it has ended: %d' % case.exit_code(pid))
    end_all(case, pid)


def test_debugged(case):
    """By gdb, and by strace with a thread alone: the error names them."""
    for tool, argv in (('gdb', ['-nx', '-q', '-p', '%d']), ('strace', ['-qq', '-o', '/dev/null', '-p', '%d'])):
        path = shutil.which(tool)
        if not path:
            continue
        pid = case.victim('thread', 'wait', 'pass', stdin=None)
        tasks = sorted(int(tid) for tid in os.listdir('/proc/%d/task' % pid))
        reading, writing = os.pipe()
        tracer = case.spawn([path] + [word % tasks[-1] if '%' in word else word for word in argv], stdin=reading)
        case.until(lambda: status_of(tasks[-1])['TracerPid'] != '0' or case.ended(tracer), 'tracing')
        if case.ended(tracer):
            raise Skipped('%s may not trace' % tool)
        for command in (['check', str(pid), '-q'], ['checkpoint', str(pid), '-q', '-o', case.path('image')]):
            code, _, err = case.reprise(*command)
            # One line for each task that is traced.
            if code != 1 or [line for line in err.splitlines() if not line.endswith('[task-traced]') or
                             'by task %d (%s)' % (tracer, tool) not in line]:
                raise Failed('exit status %d: %s' % (code, err))
        os.close(writing)
        os.close(reading)
        case.kill(tracer, signal.SIGTERM if tool == 'strace' else signal.SIGKILL)
        nobody_is_held(case)
        # What the debugger has left stopped is its affair.
        os.kill(pid, signal.SIGCONT)
        case.finish(pid)
        case.hold()
        for name in os.listdir(case.control):
            os.unlink(case.path(name))


def test_two_at_once(case):
    """While one holds the application, the next one is told who does."""
    pid = case.start('memory_cow')
    reading, writing = os.pipe()
    first = case.start_reprise('checkpoint', str(pid), '-q', '-o', '-', '--stop', stdout=writing)
    os.close(writing)
    case.until(lambda: status_of(pid)['TracerPid'] != '0', 'the first')
    os.read(reading, 1)
    holder = int(status_of(pid)['TracerPid'])
    case.refused(case.reprise('checkpoint', str(pid), '-q', '-o', case.path('image')), 'task-busy',
                 'by process %d (reprise)' % holder)
    case.refused(case.reprise('check', str(pid), '-q'), 'task-busy', 'by process %d (reprise)' % holder)
    while os.read(reading, 1 << 20):
        pass
    os.close(reading)
    if case.wait(first):
        raise Failed('the first: exit status %d' % case.exit_code(first))
    case.until(lambda: status_of(pid)['State'][0] == 'T', 'the stop')
    for other, _ in case.others():
        os.kill(other, signal.SIGCONT)
    case.finish(pid)


def test_one_after_the_other(case):
    """Who comes while another one is about to be ready waits for that."""
    pid = case.start('pipes')
    reading, writing = os.pipe()
    first = case.start_reprise('checkpoint', str(pid), '-q', '-o', '-', '--stop', stdout=writing)
    os.close(writing)
    case.until(lambda: status_of(pid)['TracerPid'] != '0', 'the first')
    second = case.start_reprise('checkpoint', str(pid), '-q', '-o', case.path('image'))
    patience = time.monotonic() + .3
    while time.monotonic() < patience and not case.ended(second):
        time.sleep(.01)
    while os.read(reading, 1 << 20):
        pass
    os.close(reading)
    if case.wait(first) or case.wait(second):
        raise Failed('exit status %d and %d' % (case.exit_code(first), case.exit_code(second)))
    for other, _ in case.others():
        os.kill(other, signal.SIGCONT)
    case.finish(pid)


def test_many_at_once(case):
    """Each has an image, or is told who was faster; also where memory is copied in advance."""
    pid = case.spawn([os.path.join(case.build, 'test/harm/victim'), 'small', '12'], setsid=True,
                     stdin=os.open('/dev/zero', os.O_RDONLY))
    case.until(lambda: os.path.exists('/proc/%d/task' % pid) and len(os.listdir('/proc/%d/task' % pid)) > 3, 'the victim')
    good, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until:
        tools = [case.spawn([case.reprise_path, 'checkpoint', str(pid), '-q', '-o', case.path('image%d' % i)],
                            stderr=os.open(case.path('said%d' % i), os.O_CREAT | os.O_TRUNC | os.O_WRONLY))
                 for i in range(3)]
        for i, tool in enumerate(tools):
            code = case.wait(tool)
            with open(case.path('said%d' % i)) as file:
                said = file.read()
            if code == 0:
                good += 1
                result = case.run([case.reprise_path, 'verify', '-q', case.path('image%d' % i)])
                if result[0]:
                    raise Failed('verify: %s' % result[2])
                os.unlink(case.path('image%d' % i))
            elif not clear_line(said).endswith('[task-busy]') or '(reprise)' not in said:
                raise Failed('exit status %d: %s' % (code, said))
        nobody_is_held(case)
    if not good:
        raise Failed('none was fast enough')
    case.kill_all()
    case.wait(pid)


def bounded(case, pid, state, *words):
    """A task that does not stop: an error that names it, and all others go on."""
    case.until(lambda: status_of(pid)['State'][0] in state or case.ended(pid), 'the sleep')
    if case.ended(pid):
        raise Skipped('not on this kernel: %d' % case.exit_code(pid))
    begun = time.monotonic()
    result = case.reprise('checkpoint', str(pid), '-q', '-o', case.path('image'), '--patience', '300ms')
    if result[0] == 0:
        return True
    case.refused(result, 'task-uninterruptible', pid, *words)
    if time.monotonic() - begun > BOUND:
        raise Failed('it took %d s' % (time.monotonic() - begun))
    nobody_is_held(case)
    case.expect_files()
    return False


def test_fault(case):
    """The kernel waits for a page on behalf of a task: no signal ends that."""
    pid = case.spawn([os.path.join(case.build, 'test/harm/turmoil'), 'fault', '0'], setsid=True,
                     stdin=os.open('/dev/zero', os.O_RDONLY))
    if bounded(case, pid, 'SRD'):
        raise Failed('it was saved')
    case.kill(pid)


def test_fault_in_a_pipe(case):
    """The same while it holds the lock of a pipe, which whoever asks for its size or contents would wait for."""
    reader, writer = os.pipe()
    os.write(writer, b'x')
    pid = case.spawn([os.path.join(case.build, 'test/harm/turmoil'), 'fault', '0'], setsid=True, stdin=reader)
    if bounded(case, pid, 'SRD'):
        raise Failed('it was saved')
    code, out, err = case.reprise('check', str(pid))
    if code not in (0, 1):
        raise Failed('check: %d, %s' % (code, out + err))
    case.kill(pid)


def test_lock_outside(case):
    """Somebody else holds the lock of a pipe, and does not go on: who asks what is in it is left alone, and nobody else waits."""
    reader, writer = os.pipe()
    os.write(writer, b'x')
    victim = case.spawn(['/bin/sleep', '1000'], setsid=True, stdin=os.open('/dev/null', os.O_RDONLY), stdout=writer)
    holder = case.spawn([os.path.join(case.build, 'test/harm/turmoil'), 'fault', '0'], setsid=True, stdin=reader)
    os.close(reader)
    os.close(writer)
    case.until(lambda: sleeps_in_read(holder) or case.ended(holder), 'the sleep')
    if case.ended(holder):
        raise Skipped('not on this kernel: %d' % case.exit_code(holder))
    begun = time.monotonic()
    result = case.reprise('checkpoint', str(victim), '-q', '-o', case.path('image'), '--patience', '1s')
    case.refused(result, 'task-uninterruptible', 'descriptor 1 (pipe:', 'the lock of this pipe', '1000 ms')
    if time.monotonic() - begun > BOUND:
        raise Failed('it took %d s' % (time.monotonic() - begun))
    nobody_is_held(case)
    case.expect_files()
    case.kill(holder)
    case.until(lambda: [pid for pid, _ in case.others()] == [victim], 'nobody else is there: %s' % case.others())
    # Now there is no reader any more.
    save(case, victim)
    case.kill(victim)


FUSE_INIT = 26


def fuse_server(fd, answered):
    """Answers the first request, and no other one."""
    while True:
        text = os.read(fd, 1 << 17)
        length, opcode, unique = struct.unpack('=IIQ', text[:16])
        if opcode == FUSE_INIT:
            major, minor = struct.unpack('=II', text[40:48])
            body = struct.pack('=IIIIHHIIHHI7I', major, minor, 0, 0, 12, 9, 1 << 16, 1, 16, 0, 0, *[0] * 7)
            os.write(fd, struct.pack('=IiQ', 16 + len(body), 0, unique) + body)
        else:
            os.write(answered, b'x')


def test_fuse(case):
    """A file system that does not answer. The sleep for it can be ended by being killed only."""
    try:
        fd = os.open('/dev/fuse', os.O_RDWR)
    except OSError:
        raise Skipped('no FUSE')
    point = os.path.join(case.work, 'mount')
    os.mkdir(point)
    try:
        system('mount', b'test', point.encode(), b'fuse', 0,
               ('fd=%d,rootmode=40000,user_id=0,group_id=0' % fd).encode())
    except OSError as err:
        raise Skipped('no FUSE here: %s' % err)
    asked, answered = os.pipe()
    server = os.fork()
    if server == 0:
        fuse_server(fd, answered)
    os.close(fd)
    pid = case.spawn(['/bin/cat', point + '/file'], setsid=True)
    os.read(asked, 1)
    if bounded(case, pid, 'SD'):
        raise Failed('it was saved')
    os.kill(server, signal.SIGKILL)
    case.wait(pid)
    case.wait(server)
    system('umount2', point.encode(), 2)


class Silent(Server):
    """Has one file, and goes silent as soon as `when` is so: it takes a question before, or does not."""

    def __init__(self, fd, when, takes):
        Server.__init__(self, fd, {})
        self.when, self.takes = when, takes
        self.names[b'file'], self.contents[self.last + 1] = self.last + 1, bytearray(b'x')

    def before(self):
        if not self.takes and self.when():
            signal.pause()

    def getattr(self, node, body):
        if self.takes and self.when():
            signal.pause()
        return Server.getattr(self, node, body)


def user_of(case, path):
    fd = os.open(path, os.O_RDONLY)
    pid = case.spawn(['/bin/sleep', '1000'], setsid=True, stdin=fd)
    # Later nobody would answer that.
    os.close(fd)
    case.until(lambda: status_of(pid)['State'][0] == 'S' and status_of(pid)['Name'] == 'sleep', 'the sleep')
    return pid


def no_answer(case, pid, *command):
    begun = time.monotonic()
    case.refused(case.reprise(*command), 'no-answer', 'task %d' % pid)
    if time.monotonic() - begun > BOUND:
        raise Failed('it took %d s' % (time.monotonic() - begun))
    nobody_is_held(case)
    case.expect_files()
    case.until(lambda: status_of(pid)['State'][0] == 'S', 'it goes on')


def test_silent_file_system(case):
    """One that does not answer has a file of the application: to look at it is to wait, for one that has taken the question where
    nobody can be killed."""
    silent = os.path.join(case.work, 'silent')
    for takes in (False, True):
        with Faulty(case, lambda fd: Silent(fd, lambda: os.path.exists(silent), takes)) as where:
            pid = user_of(case, where + '/file')
            open(silent, 'w').close()
            no_answer(case, pid, 'checkpoint', str(pid), '-q', '-o', case.path('image'), '--patience', '100ms')
            os.unlink(silent)
        case.kill(pid)
        # Those who were left waiting end with the file system.
        case.until(lambda: not case.others(), 'nobody is there: %s' % case.others())


def test_silent_in_the_freeze(case):
    """It goes silent when all stands still."""
    def stopped():
        return any(status_of(int(line))['State'][0] == 't' for line in open(noted))

    noted = os.path.join(case.work, 'pid')
    open(noted, 'w').close()
    with Faulty(case, lambda fd: Silent(fd, stopped, False)) as where:
        pid = user_of(case, where + '/file')
        with open(noted, 'w') as file:
            file.write('%d\n' % pid)
        no_answer(case, pid, 'checkpoint', str(pid), '-q', '-o', case.path('image'), '--patience', '1s')
    case.kill(pid)


class SilentDisk(Server):
    """Holds a disk, and answers no read any more when it is told to."""

    def __init__(self, fd, path, silent, asked):
        Server.__init__(self, fd, {})
        self.silent, self.asked = silent, asked
        with open(path, 'rb') as file:
            self.names[b'disk'], self.contents[self.last + 1] = self.last + 1, bytearray(file.read())

    def read(self, node, body):
        if os.path.exists(self.silent):
            os.write(self.asked, b'x')
            signal.pause()
        return Server.read(self, node, body)


LOOP_CTL_GET_FREE, LOOP_CONFIGURE = 0x4c82, 0x4c0a
LO_FLAGS = 1 | 4  # read-only; it goes with its last user


def loop_device(path):
    """The node of a device that holds that file, and a descriptor that keeps it."""
    backing = os.open(path, os.O_RDONLY)
    for _ in range(10):
        try:
            with open('/dev/loop-control') as control:
                node = '/dev/loop%d' % fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            fd = os.open(node, os.O_RDONLY)
            # struct loop_config: a descriptor, the size of blocks, struct loop_info64
            fcntl.ioctl(fd, LOOP_CONFIGURE, struct.pack('=II52xI176x64x', backing, 0, LO_FLAGS))
            os.close(backing)
            return node, fd
        except OSError as err:
            if err.errno != errno.EBUSY:
                raise Skipped('no loop device: %s' % err)
    raise Skipped('no loop device is free')


def test_disk(case):
    """A disk that does not answer: whoever looks for a file there cannot even be killed."""
    mkfs = shutil.which('mkfs.ext4') or '/usr/sbin/mkfs.ext4'
    if not os.path.exists(mkfs):
        raise Skipped('no mkfs.ext4')
    tree, disk, silent, point = [os.path.join(case.work, name) for name in ('tree', 'disk.ext4', 'silent', 'mounted')]
    # Of a directory whose inode is not near that of the root, nothing is there yet.
    for i in range(64):
        os.makedirs('%s/%d/below' % (tree, i))
    os.mkdir(point)
    code, out, err = case.run([mkfs, '-q', '-O', '^has_journal', '-d', tree, disk, '4M'])
    if code:
        raise Skipped('mkfs.ext4: %s' % (out + err))
    asking, asked = os.pipe()
    with Faulty(case, lambda fd: SilentDisk(fd, disk, silent, asked)) as where:
        node, fd = loop_device(where + '/disk')
        try:
            system('mount', node.encode(), point.encode(), b'ext4', 1, b'')
        except OSError as err:
            raise Skipped('no ext4: %s' % err)
        os.close(fd)
        open(silent, 'w').close()
        pid = case.spawn(['/bin/cat', point + '/63/below/file'], setsid=True)
        os.read(asking, 1)
        if bounded(case, pid, 'D'):
            raise Failed('it was saved')
    case.wait(pid)
    system('umount2', point.encode(), 2)


for function in [value for name, value in list(globals().items()) if name.startswith('test_')]:
    function.timeout = 60 + SECONDS * 3
