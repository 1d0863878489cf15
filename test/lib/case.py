# SPDX-License-Identifier: Apache-2.0
"""One test, run as pid 1 of a pid, mount and IPC namespace of its own.

Whatever a test leaves behind dies with the namespace, and no pid, shared
memory segment or mount of one test is seen by another.
"""

import ctypes
import fcntl
import glob
import os
import signal
import socket
import struct
import sys
import time
import traceback

NOBODY = 65534
# A machine that is emulated, or checks all that it does, needs so many times as long.
PATIENCE = float(os.environ.get('TEST_PATIENCE', '1'))
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
MS_REC, MS_PRIVATE = 16384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def system(name, *args):
    if getattr(libc, name)(*args) < 0:
        err = ctypes.get_errno()
        raise OSError(err, '%s: %s' % (name, os.strerror(err)))


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Case:
    """What a test may use. Everything that it starts is a child of this process, pid 1."""

    def __init__(self, name, mode, build, directory, timeout):
        self.name, self.mode, self.build = name, mode, build
        self.reprise_path = os.environ.get('REPRISE', os.path.join(build, 'src/cli/reprise'))
        self.directory = directory
        self.control = os.path.join(directory, 'control')
        self.work = os.path.join(directory, 'work')
        self.uid = NOBODY if mode == 'user' else 0
        self.deadline = time.monotonic() + timeout * PATIENCE
        self.statuses = {}
        self.environment = {}  # of everything that is started
        self.verbose = False
        for path in (self.control, self.work):
            os.mkdir(path)
            os.chmod(path, 0o1777)
        os.chmod(directory, 0o755)

    # Processes.

    def spawn(self, argv, stdin=None, stdout=None, stderr=None, env=None, uid=None, cwd=None,
              setsid=False, before=None):
        """Starts a program; descriptors default to /dev/null."""
        null = os.open('/dev/null', os.O_RDWR)
        files = [null if fd is None else fd for fd in (stdin, stdout, stderr)]
        uid = self.uid if uid is None else uid
        environment = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': '/', 'LC_ALL': 'C.UTF-8'}
        environment.update(self.environment)
        environment.update(env or {})
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                # High copies first, so that none of them is overwritten.
                copies = [os.dup2(fd, 1000 + i, False) for i, fd in enumerate(files)]
                for i, fd in enumerate(copies):
                    os.dup2(fd, i)
                os.closerange(3, 4096)
                for sig in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM):
                    signal.signal(sig, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                if setsid:
                    os.setsid()
                os.chdir(cwd or self.work)
                if uid:
                    os.setgroups([])
                    os.setgid(uid)
                    os.setuid(uid)
                if before:
                    before()
                os.execve(argv[0], argv, environment)
            except BaseException as err:
                os.write(2, ('%s: %s\n' % (argv[0], err)).encode())
            os._exit(127)
        os.close(null)
        return pid

    def reap(self, block=False):
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.statuses[pid] = status
            block = False

    def ended(self, pid):
        self.reap()
        return pid in self.statuses

    def until(self, condition, what):
        pause = 0.0005
        while not condition():
            if time.monotonic() > self.deadline:
                raise Failed('timed out: %s' % what)
            time.sleep(pause)
            pause = min(pause * 1.3, 0.01)

    def wait(self, pid, what='the end of a process'):
        """Exit status as a shell has it: 128 + signal for one that was killed."""
        self.until(lambda: self.ended(pid), what)
        return self.exit_code(pid)

    def exit_code(self, pid):
        code = os.waitstatus_to_exitcode(self.statuses[pid])
        return code if code >= 0 else 128 - code

    def run(self, argv, **more):
        """Runs a program to its end: exit status, output, errors."""
        paths = [os.path.join(self.directory, 'run.%d.%d' % (i, time.monotonic_ns()))
                 for i in (1, 2)]
        fds = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) for path in paths]
        more.setdefault('stdout', fds[0])
        more.setdefault('stderr', fds[1])
        code = self.wait(self.spawn(argv, **more), ' '.join(argv))
        output = []
        for fd, path in zip(fds, paths):
            os.lseek(fd, 0, 0)
            with open(fd, 'rb') as file:
                output.append(file.read().decode(errors='replace'))
            os.unlink(path)
        return code, output[0], output[1]

    def forget(self, pid):
        """The pid may be had by another one from now on."""
        self.statuses.pop(pid, None)

    def comm(self, pid):
        with open('/proc/%d/comm' % pid) as file:
            return file.read().rstrip('\n')

    def handed_over(self, pid, comm, inner=False):
        """Whether a restart has come to its end: the process exists as that program, in a new pid
        namespace or in ours, and nobody traces anything any more."""
        there = False
        for name in os.listdir('/proc'):
            if not name.isdigit():
                continue
            try:
                with open('/proc/%s/status' % name) as file:
                    fields = dict(line.rstrip('\n').split(':\t', 1) for line in file
                                  if ':\t' in line)
            except OSError:
                continue
            if fields['TracerPid'] != '0':
                return False
            ids = fields['NSpid'].split('\t')
            if int(ids[-1]) == pid and (len(ids) > 1) == inner and fields['Name'] == comm:
                there = fields['State'][0] not in 'ZX'
        return there

    def until_handed_over(self, tool, pid, comm, inner=False):
        self.until(lambda: self.handed_over(pid, comm, inner) or self.ended(tool), 'the restart')
        if self.ended(tool):
            raise Failed('the restart ended with exit status %d' % self.exit_code(tool))

    def kill(self, pid, sig=signal.SIGKILL):
        os.kill(pid, sig)
        return self.wait(pid)

    def others(self):
        """All processes of the namespace but this one, as (pid, command)."""
        self.reap()
        found = []
        for name in os.listdir('/proc'):
            if name.isdigit() and name != '1':
                try:
                    with open('/proc/%s/stat' % name, errors='replace') as file:
                        text = file.read()
                except OSError:
                    continue
                if text.rpartition(')')[2].split()[0] not in 'ZX' or int(name) not in self.statuses:
                    found.append((int(name), text.partition('(')[2].rpartition(')')[0]))
        return found

    def expect_nobody(self):
        end = time.monotonic() + 3 * PATIENCE
        while self.others() and time.monotonic() < end:
            time.sleep(0.005)
        if self.others():
            raise Failed('left over: ' + ', '.join('%d (%s)' % other for other in self.others()))

    def kill_all(self):
        """All at once (kill_something_info()): one after the other, a child that is made meanwhile would be missed."""
        self.reap()
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nobody is there

    # The tool.

    def reprise(self, *args, **more):
        """Runs the tool to its end: exit status, output, errors."""
        result = self.run([self.reprise_path] + list(args), **more)
        self.note('reprise %s: exit status %d' % (' '.join(args), result[0]), *result[1:])
        return result

    def start_reprise(self, *args, **more):
        """Starts the tool; its errors go to the log."""
        fd = os.open(self.log_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        more.setdefault('stderr', fd)
        pid = self.spawn([self.reprise_path] + list(args), **more)
        os.close(fd)
        return pid

    def checkpoint(self, pid, *args, image='image', **more):
        path = self.path(image)
        code, out, err = self.reprise('checkpoint', str(pid), '-o', path, *args, **more)
        if code:
            raise Failed('checkpoint: exit status %d: %s' % (code, err.strip()))
        return path

    def restart(self, *args, image='image', **more):
        """Starts a restart in the foreground."""
        return self.start_reprise('restart', '-i', self.path(image), '-q', *args, **more)

    def refused(self, result, code, *words, status=1):
        """One line, with that code and all those words, and the exit status of a refusal."""
        lines = result[2].splitlines()
        if result[0] != status:
            raise Failed('exit status %d instead of %d: %s' % (result[0], status, result[2]))
        if len(lines) != 1:
            raise Failed('%d lines instead of one: %s' % (len(lines), result[2]))
        if not lines[0].endswith('[%s]' % code):
            raise Failed('not the code %s: %s' % (code, lines[0]))
        for word in words:
            if str(word) not in lines[0]:
                raise Failed('nothing about "%s": %s' % (word, lines[0]))

    def expect_files(self, *names, directory=None):
        """Nothing but these in the directory of images and verdicts, or in another."""
        found = sorted(name for name in os.listdir(directory or self.control)
                       if not name.startswith('verdict-') and name != 'go')
        if found != sorted(names):
            raise Failed('files there are %s, not %s' % (found, sorted(names)))

    def volumes(self):
        """Options by which a container sees what a test needs, wherever that is."""
        paths = (self.control, self.work, self.build)
        return [word for path in paths for word in ('-V', '%s:%s' % (path, path))]

    def log_path(self):
        return os.path.join(self.directory, 'log')

    def path(self, name):
        return os.path.join(self.control, name)

    def note(self, *lines):
        with open(self.log_path(), 'a') as log:
            for line in lines:
                if line.strip():
                    log.write(line.rstrip('\n') + '\n')

    # Test programs.

    def program(self, name):
        return os.path.join(self.build, 'test/state', name)

    def victim(self, *steps, **more):
        """Starts test/lib/victim.c."""
        steps = [str(step) for step in steps]
        return self.start(program=os.path.join(self.build, 'test/lib/victim'), arguments=steps,
                          ready='wait' in steps or 'vfork' in steps, **more)

    def start(self, name=None, setsid=True, ready=True, env=None, program=None, arguments=(),
              **more):
        """Starts a state program and waits until it is ready."""
        env = dict(env or {}, TEST_CONTROL=self.control, TEST_MODE=self.mode)
        pid = self.spawn([program or self.program(name or self.name)] + list(arguments),
                         setsid=setsid, env=env, **more)
        if ready:
            self.until(lambda: os.path.exists(self.path('ready')) or self.ended(pid)
                       or self.verdicts('early'), '%s gets ready' % (name or self.name))
            if not os.path.exists(self.path('ready')):
                self.wait_verdict(pid, 'the end of a program that failed early', 'early')
                self.verdict_of_early_end(pid)
            os.unlink(self.path('ready'))
        return pid

    def verdict_of_early_end(self, pid):
        texts = self.verdicts('early')
        for text in texts:
            if text.startswith('SKIP: '):
                raise Skipped(text[6:])
        code = self.exit_code(pid) if pid in self.statuses else 'none'
        raise Failed('before the checkpoint: exit status %s, %s' % (
            code, '; '.join(texts) or 'no verdict'))

    def go(self, name='go'):
        """Lets all programs that wait go on; their verdicts are named so."""
        temporary = self.path('go.new')
        with open(temporary, 'w') as file:
            file.write(name)
        os.chmod(temporary, 0o644)
        os.rename(temporary, self.path('go'))

    def hold(self):
        os.unlink(self.path('go'))

    def verdicts(self, name='go'):
        texts = []
        for path in sorted(glob.glob(self.path('verdict-%s.*' % name))):
            # A draft, which gets its name when it is complete.
            if os.path.basename(path).startswith('verdict-.'):
                continue
            with open(path) as file:
                texts.append(file.read())
        return texts

    def wait_verdict(self, pid, what, name='go'):
        """Waits for a process to end, but not for long if a verdict is there that says FAIL."""
        patience = None

        def over():
            nonlocal patience
            if self.ended(pid):
                return True
            if patience is None and any(v.startswith('FAIL') for v in
                                        self.verdicts(name)):
                patience = time.monotonic() + 2 * PATIENCE
            return patience is not None and time.monotonic() > patience
        self.until(over, what)
        return self.exit_code(pid) if pid in self.statuses else None

    def expect_pass(self, number=1, codes=(0,), name='go'):
        texts = self.verdicts(name)
        for text in texts:
            if text != 'PASS':
                raise Failed(text or 'an empty verdict')
        if any(code != 0 for code in codes):
            raise Failed('exit status %s with verdicts %s' % (codes, texts))
        if len(texts) != number:
            raise Failed('%d verdicts instead of %d' % (len(texts), number))

    def finish(self, pid):
        """Lets an undisturbed program go on, to its end, and expects it to pass."""
        self.go()
        self.expect_pass(1, [self.wait_verdict(pid, 'the program')])


def expect_killed(case, pid):
    status = case.wait(pid, 'the program to be killed')
    if status != 128 + signal.SIGKILL:
        raise Failed('the program ended by itself: %d, %s' % (status, case.verdicts('early')))
    case.expect_nobody()


def enter():
    """As pid 1 of the new namespaces."""
    os.setsid()
    die_with_parent()
    system('mount', b'none', b'/', None, MS_REC | MS_PRIVATE, None)
    system('mount', b'proc', b'/proc', b'proc', MS_NOSUID | MS_NODEV | MS_NOEXEC, None)


def judge(case, body, outside=False):
    """Runs a test; the result is a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0o022)
    null = os.open('/dev/null', os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    result = 'PASS'
    try:
        body(case)
        if not outside:
            case.expect_nobody()
    except Skipped as why:
        result = 'SKIP %s' % why
    except Failed as why:
        result = 'FAIL %s' % why
    except BaseException:
        result = 'FAIL %s' % traceback.format_exc()
    if result.startswith('FAIL'):
        for text in case.verdicts('early'):
            result += '\n(early verdict: %s)' % text
        for pid, name in [] if outside else case.others():
            try:
                with open('/proc/%d/syscall' % pid) as file:
                    where = file.read().split()[0]
                with open('/proc/%d/stat' % pid) as file:
                    state = file.read().rpartition(')')[2].split()[0]
            except (OSError, IndexError):
                where = state = '?'
            case.note('still there: %d (%s), state %s, system call %s' % (pid, name, state, where))
    with open(os.path.join(case.directory, 'result'), 'w') as file:
        file.write(result)


def own_network():
    """With nothing but a loopback device."""
    system('unshare', CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack('16sh22x', b'lo', IFF_UP))


def remove_groups(directory):
    """Control groups are of no namespace: those of containers that were not removed go here."""
    for record in glob.glob(os.path.join(directory, '**/cgroups'), recursive=True):
        with open(record) as file:
            tops = file.read().splitlines()
        for top in tops:
            for path, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    pass  # who was killed may not be gone yet: the next of that name removes it


def run_case(case, body, network=False):
    """In a forked process: makes the namespaces, waits for their end."""
    die_with_parent()
    if network:
        own_network()
    if getattr(body, 'outside', False):
        judge(case, body, True)
        return
    system('unshare', CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC)
    pid = os.fork()
    if pid == 0:
        try:
            enter()
            judge(case, body)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(pid, 0)
    remove_groups(case.directory)
