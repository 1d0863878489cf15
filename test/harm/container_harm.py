# SPDX-License-Identifier: Apache-2.0
"""The commands of containers are killed at each of their system calls (see test/harm/harm.py):
what they leave is found by the next command, and goes."""

import glob
import os
import re
import sys

from case import Failed
from contained import expect, listed, needs_controllers
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from allocations import Failing  # noqa: E402
from harm import FAILS, KILLS, PTRACE_DETACH, TIMEOUT, Harm, clear_line, mounts  # noqa: E402

# How deep those who work for the command stand below it; not the container, which is ended otherwise. Its first process is
# one deeper than who makes it.
STARTS, FIRST, LOOKS = 1, 2, 3


def name_of(case):
    """Control groups are of no namespace: here one knows one's own."""
    return 'harm%s' % os.path.basename(case.directory).replace('_', '-')


def groups(name):
    return [path for path in glob.glob('/sys/fs/cgroup/**/reprise-%s-*' % name, recursive=True)]


def interfaces():
    return sorted(os.listdir('/sys/class/net'))


def traced():
    found = []
    for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
        try:
            with open('/proc/%s/status' % pid) as file:
                if 'TracerPid:\t0\n' not in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


class Left:
    """What there is in the beginning is all that there may be after a command and another."""

    def __init__(self, case, name):
        self.case, self.name = case, name
        self.mounts, self.interfaces = mounts(), interfaces()
        self.directory = case.environment['REPRISE_DIR']

    def settled(self):
        """Those of a container that was not finished end by themselves."""
        running = [c for c in listed(self.case).values() if c['state'] != 'ended']
        if any(c['state'] == 'starting' for c in running):
            return False
        known = {c[who] for c in running for who in ('init', 'pid')}
        return not [p for p in self.case.others() if p[0] not in known] and not traced()

    def check(self):
        case = self.case
        case.until(self.settled, 'nobody is there who is in no container: %s' % case.others())
        found = listed(case)
        if not [c for c in found.values() if c['state'] != 'ended']:
            # The next command: no rm is needed for these.
            case.until(lambda: listed(case) is not None and not groups(self.name),
                       'control groups are left: %s' % groups(self.name))
            case.until(lambda: interfaces() == self.interfaces,
                       'interfaces are left: %s' % interfaces())
        if set(found) - {self.name} or sorted(os.listdir(self.directory)) != sorted(found):
            raise Failed('%s holds %s, ps says %s' % (self.directory, os.listdir(self.directory),
                                                      found))
        if mounts() != self.mounts:
            raise Failed('mounts are left')
        return found.get(self.name)

    def remove(self):
        if self.check():
            expect(self.case, self.case.reprise('stop', '-t', '0', self.name))
            expect(self.case, self.case.reprise('rm', self.name))
        self.case.until(lambda: not self.case.others(), 'nobody is left: %s' % self.case.others())
        if self.check() or groups(self.name):
            raise Failed('rm left %s, %s' % (listed(self.case), groups(self.name)))
        self.case.until(lambda: interfaces() == self.interfaces, 'interfaces are left')


def begin(case):
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')
    os.mkdir(case.environment['REPRISE_DIR'])
    needs_controllers(case)
    name = name_of(case)
    return name, Left(case, name)


def over(case, command, prepare, after, depth=STARTS, actions=KILLS, code=0, **more):
    """Harms the command at a sample of its calls; what is there before and after is said by two."""
    harm = Harm(case, command, depth=depth, **more)
    plain = harm.sample

    def sample(n=0, action='none', seed=0):
        prepare()
        return plain(n, action, seed)

    def check(n, action, seed, status, done, said):
        if status == -1:
            raise Failed('it hangs: %s' % said)
        if status == 1 and '--json' not in command:
            text = re.sub(r'\d+', 'N', clear_line(said))
            harm.said[text] = harm.said.get(text, 0) + 1
        elif status and actions is FAILS:
            raise Failed('exit status %d: %s' % (status, said))
        after(status, done)

    harm.sample = sample
    calls, status, _, said = sample()
    if status != code:
        raise Failed('%s: exit status %d: %s' % (command, status, said))
    after(status, False)
    harm.over(actions, check, calls)


def start(case, name, *options):
    expect(case, case.reprise('run', '-d', '--name', name, '--memory', '100M', *options, '--',
                              'sleep', '1000'), name + '\n')


def test_run(case):
    name, left = begin(case)
    over(case, ['run', '-d', '--name', name, '--memory', '100M', '--pids', '50', '--net=veth', '--',
                'sleep', '1000'],
         lambda: None, lambda status, done: left.remove())


# One that ends, so that all who stand below the command do.
SHORT = ('--rm', '--memory', '100M', '--pids', '50', '--net=veth', '-V', '/etc:/mnt:ro', '--', 'true')


def test_fail_run(case):
    name, left = begin(case)
    over(case, ['run', '--name', name, *SHORT], lambda: None, lambda status, done: left.remove(), FIRST, FAILS)


def test_allocations_run(case):
    """As test/harm/allocations.py has it for other commands."""
    name, left = begin(case)
    Failing(case, 'run', '--name', name, *SHORT).over(lambda code, out, err: left.remove())


def over_restart(case, **how):
    name, left = begin(case)
    start(case, name, '--net=veth')
    case.checkpoint(name, '-q')
    left.remove()
    over(case, ['restart', '-d', '-q', '-i', case.path('image'), '--name', name, '--privileged'],
         lambda: None, lambda status, done: left.remove(), **how)


def test_restart(case):
    over_restart(case)


def test_fail_restart(case):
    over_restart(case, actions=FAILS)


def test_handover(case):
    """While one task after the other is let go; the first process is the last, with which all are on their own."""
    name, left = begin(case)
    start(case, name)
    case.checkpoint(name, '-q')
    left.remove()

    def after(status, done):
        one = left.check()
        if one and one['state'] == 'running' and one['processes'] != 2:
            raise Failed('the container is %s' % one)
        left.remove()

    over(case, ['restart', '-d', '-q', '-i', case.path('image'), '--name', name, '--privileged'], lambda: None, after,
         actions=['this', 'all'], inject=['-p', str(PTRACE_DETACH)], every=True)


def test_checkpoint(case):
    """The container goes on, and nobody is left who worked for the command."""
    name, left = begin(case)
    start(case, name)
    image = case.path('image')

    def after(status, done):
        one = left.check()
        if not one or one['state'] != 'running' or one['processes'] != 2:
            raise Failed('the container is %s' % one)
        if os.listdir(case.control) not in ([], ['image']):
            raise Failed('files are left: %s' % os.listdir(case.control))
        if os.path.exists(image):
            expect(case, case.reprise('verify', '-q', image))
            os.unlink(image)
        elif status == 0:
            raise Failed('there is no image')

    over(case, ['checkpoint', name, '-q', '-o', image], lambda: None, after, LOOKS)
    left.remove()


def harm_stop(case, actions):
    """What says that it has ended it, has."""
    name, left = begin(case)

    def again():
        if name not in listed(case):
            start(case, name)

    def after(status, done):
        one = left.check()
        if not one or (status == 0 and one['state'] != 'ended'):
            raise Failed('exit status %d, and the container is %s' % (status, one))
        left.remove()

    over(case, ['stop', '-t', '0', name], again, after, actions=actions)


def test_stop(case):
    harm_stop(case, KILLS)


def test_fail_stop(case):
    harm_stop(case, FAILS)


def stays(case, command, actions, code=0, depth=STARTS):
    """The container runs on, whatever becomes of the command."""
    name, left = begin(case)
    start(case, name)

    def after(status, done):
        one = left.check()
        if not one or one['state'] != 'running':
            raise Failed('the container is %s' % one)

    over(case, [name if word == 'NAME' else word for word in command], lambda: None, after, depth, actions, code)
    left.remove()


def test_ps(case):
    stays(case, ['ps', '--json'], KILLS + FAILS)


def test_exec(case):
    stays(case, ['exec', 'NAME', 'true'], KILLS, depth=FIRST)


def test_fail_exec(case):
    stays(case, ['exec', 'NAME', 'true'], FAILS)


def test_fail_rm_running(case):
    """One that runs is not removed because it cannot be learnt that it does."""
    stays(case, ['rm', 'NAME'], FAILS, 1)


def harm_rm(case, actions):
    name, left = begin(case)

    def ended():
        start(case, name, '--net=veth')
        expect(case, case.reprise('exec', name, 'sh', '-c', 'mkdir -p /opt/a/b; echo >/opt/a/b/c'))
        expect(case, case.reprise('stop', '-t', '0', name))

    over(case, ['rm', name], ended, lambda status, done: left.remove(), actions=actions)


def test_rm(case):
    harm_rm(case, KILLS)


def test_fail_rm(case):
    harm_rm(case, FAILS)


for function in [value for key, value in list(globals().items()) if key.startswith('test_')]:
    function.timeout, function.network = TIMEOUT, True
