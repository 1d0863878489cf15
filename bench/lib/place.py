# SPDX-License-Identifier: Apache-2.0
"""Where the bench happens: pid 1 of a pid and mount namespace of its own, on a tmpfs of its own.

Nothing can stay behind: processes and the tmpfs end with the namespace,
however the bench ends.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time

INSIDE = 'REPRISE_BENCH_INSIDE'
GIB = 1 << 30
COUNT_AT = 0x100000000
# Mount points that exist everywhere, so that no directory has to be made and removed.
MOUNT_POINTS = ['/mnt', '/media', '/srv', '/opt']
# The tmpfs holds at most this, and programs need as much again.
TMPFS_MAX = 12 * GIB
MS_NOSUID, MS_NODEV = 2, 4


class Failed(Exception):
    pass


def available_memory():
    with open('/proc/meminfo') as file:
        for line in file:
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return 0


def enter():
    """Starts this program over again in new namespaces, unless it is there already."""
    if os.environ.get(INSIDE):
        if os.getpid() != 1:
            sys.exit('bench: %s is set, but this is no namespace of its own' % INSIDE)
        # What our caller left open would be the workloads' as well, and its other end outside.
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        return
    if os.geteuid() != 0:
        sys.exit('bench: must be run as root')
    os.environ[INSIDE] = '1'
    os.execvp('unshare', ['unshare', '-pfm', '--mount-proc', '--kill-child=KILL',
                          sys.executable] + sys.argv)


def mount_tmpfs(paths):
    """Over an empty directory of the system that none of the paths leads through."""
    used = [os.path.realpath(path) + '/' for path in paths]
    point = next(p for p in MOUNT_POINTS
                 if os.path.isdir(p) and not any(path.startswith(p + '/') for path in used))
    size = min(TMPFS_MAX, available_memory() // 2)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b'bench', point.encode(), b'tmpfs', MS_NOSUID | MS_NODEV,
                  b'mode=0755,size=%d,nr_inodes=0' % size) < 0:
        raise OSError(ctypes.get_errno(), 'cannot mount a tmpfs on %s' % point)
    return point, size


def error_text(output):
    """Of reprise with --json."""
    try:
        return json.loads(output)['error']['text']
    except (ValueError, KeyError, TypeError):
        return ''


class Place:
    def __init__(self, build, paths):
        self.build = build
        self.directory, self.size = mount_tmpfs([build] + paths)
        os.chdir(self.directory)
        self.started = 0
        self.peak = 0

    def path(self, name):
        return os.path.join(self.directory, name)

    def program(self, name):
        return os.path.join(self.build, 'bench', 'bench-' + name)

    def remove(self, *names):
        for name in names:
            try:
                os.unlink(self.path(name))
            except FileNotFoundError:
                pass

    def spawn(self, argv, stdout='/dev/null', stderr='/dev/null', setsid=False):
        write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return os.posix_spawn(argv[0], argv, os.environ, setsid=setsid, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, '/dev/null', os.O_RDWR, 0),
            (os.POSIX_SPAWN_OPEN, 1, stdout, write, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, stderr, write, 0o600)])

    def run(self, argv):
        """Runs a program to its end: wall time in ns from start to end, and its output."""
        start = time.monotonic_ns()
        pid = self.spawn(argv, self.path('stdout'), self.path('stderr'))
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic_ns() - start
        self.peak = usage.ru_maxrss * 1024
        with open(self.path('stdout'), errors='replace') as file:
            output = file.read()
        if status:
            with open(self.path('stderr'), errors='replace') as file:
                errors = file.read()
            raise Failed('%s ended with status %d: %s' % (
                ' '.join(argv[:2]), os.waitstatus_to_exitcode(status),
                error_text(output) or (errors + output).strip()[-600:]))
        return wall, output

    def count(self, pid):
        """What a program has counted that is watched (workloads/rewrite.c)."""
        with open('/proc/%d/mem' % pid, 'rb', buffering=0) as file:
            file.seek(COUNT_AT)
            return int.from_bytes(file.read(8), 'little')

    def time_of_count(self, pid, work):
        """For how long the program did one thing, in ns, on the average of the work."""
        start, before = time.monotonic_ns(), self.count(pid)
        work()
        return (time.monotonic_ns() - start) / max(1, self.count(pid) - before)

    def until(self, condition, what, pid, timeout=60):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise Failed('no sign of %s after %d s' % (what, timeout))
            try:
                ended = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = (0, 0)
            if ended[0]:
                raise Failed('the program ended before %s, with status %d' % (
                    what, os.waitstatus_to_exitcode(ended[1])))
            time.sleep(0.001)

    def start(self, program, *args):
        """Starts a workload and waits until it is ready: its pid and the name of its sign."""
        self.started += 1
        ready = 'ready.%d' % self.started
        if program == 'descriptors':
            os.mkdir(self.path(ready + '.files'))
        pid = self.spawn([self.program(program), self.path(ready)] + [str(a) for a in args],
                         setsid=True)
        self.until(lambda: os.path.exists(self.path(ready)), 'the workload being ready', pid)
        return pid, ready

    def check_alive(self, pid, ready):
        """The program itself says that its state is as it was."""
        alive = ready + '.alive'
        os.kill(pid, signal.SIGUSR1)
        self.until(lambda: os.path.exists(self.path(alive)), 'life after the restart', pid)
        self.remove(ready, alive)

    def reap(self, options):
        """Orphans come to us as well."""
        try:
            while os.waitpid(-1, options)[0]:
                pass
        except ChildProcessError:
            pass

    def others(self):
        """All processes of the namespace but this one."""
        return [int(name) for name in os.listdir('/proc') if name.isdigit() and name != '1']

    def census(self, pid):
        """What there must be as much of after a restart as before."""
        self.reap(os.WNOHANG)
        threads = 0
        for other in self.others():
            threads += len(os.listdir('/proc/%d/task' % other))
        return {'processes': len(self.others()), 'threads': threads,
                'descriptors': len(os.listdir('/proc/%d/fd' % pid))}

    def end_all(self):
        if os.getpid() != 1:
            raise Failed('not in a namespace of its own')
        for pid in self.others():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.reap(0)
