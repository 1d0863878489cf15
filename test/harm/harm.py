# SPDX-License-Identifier: Apache-2.0
"""A checkpoint never harms: the tool is killed, or its system calls fail, at every moment.

test/harm/inject.c counts the system calls of a command and does something at one of them;
test/harm/victim.c is what is checkpointed, and notices what is done to it. What can be seen from
outside is compared here.

Each test does a fixed sample, and random ones for some seconds. The environment changes that:

  HARM_SECONDS=N  of random ones in each test
  HARM_ALL=1      each system call in turn, in every way; HARM_STEP=N: only each Nth
  HARM_SEED=N     the seed that a failed test has told
  HARM_LOG=FILE   figures are appended to it, as well as what the tool said when calls failed
"""

import os
import random
import re
import signal
import time

from case import Failed

ALL = bool(os.environ.get('HARM_ALL'))
STEP = int(os.environ.get('HARM_STEP', '1'))
SECONDS = float(os.environ.get('HARM_SECONDS', '3'))
FIXED = 6
TIMEOUT = 100000 if ALL or SECONDS > 10 else 90

# What the kernel counts, or what is another each time it is looked at.
VOLATILE = re.compile(r'^(voluntary_ctxt|nonvoluntary_ctxt|Vm(Peak|Size|HWM|RSS|PTE|Lck|Pin|Data)|Rss|State|'
                      r'SigQ|Cpus_allowed_list|SigPnd|ShdPnd|SigBlk)')


def read(path):
    with open(path, errors='replace') as file:
        return file.read()


def log(*lines):
    path = os.environ.get('HARM_LOG')
    if path:
        with open(path, 'a') as file:
            for line in lines:
                file.write(line + '\n')


class Victim:
    """test/harm/victim.c, or what a restart has made of it."""

    def __init__(self, case, pid, question, answer):
        self.case, self.pid, self.question, self.answer = case, pid, question, answer

    def ask(self, question='t'):
        os.write(self.question, question.encode() + b'\n')
        text = b''
        while not text.endswith(b'\n'):
            some = os.read(self.answer, 4096)
            if not some:
                raise Failed('the victim has ended: %s' % self.case.statuses.get(self.pid))
            text += some
        if text != b'well\n':
            raise Failed('the victim: %s' % text.decode().strip())

    def pids(self):
        if self.case.ended(self.pid):
            raise Failed('the victim has ended: %d' % self.case.exit_code(self.pid))
        children = read('/proc/%d/task/%d/children' % (self.pid, self.pid))
        return [self.pid] + [int(pid) for pid in children.split()]

    def tasks(self):
        return [(pid, int(tid)) for pid in self.pids() for tid in os.listdir('/proc/%d/task' % pid)]

    def held(self):
        """Tasks that do not run as they should."""
        found = []
        for pid, tid in self.tasks():
            fields = dict(line.split(':\t', 1) for line in
                          read('/proc/%d/task/%d/status' % (pid, tid)).splitlines())
            if fields['State'][0] in 'tTX' or fields['TracerPid'] != '0':
                found.append((tid, fields['State'], fields['TracerPid']))
        return found

    def end(self):
        os.close(self.question)
        code = self.case.wait(self.pid)
        os.close(self.answer)
        if code:
            raise Failed('the victim ended badly: %d' % code)

    def snapshot(self):
        shown = {'pids': self.pids(), 'tasks': sorted(self.tasks())}
        for pid in self.pids():
            top = '/proc/%d' % pid
            shown[pid, 'maps'] = read(top + '/maps')
            shown[pid, 'flags'] = [line for line in read(top + '/smaps').splitlines()
                                   if line.startswith('VmFlags')]
            shown[pid, 'fds'] = {}
            for fd in sorted(os.listdir(top + '/fd'), key=int):
                shown[pid, 'fds'][fd] = (os.readlink(top + '/fd/' + fd),
                                         read(top + '/fdinfo/' + fd))
            # The time until the next tick passes.
            shown[pid, 'timers'] = read(top + '/timers')
            shown[pid, 'limits'] = read(top + '/limits')
            shown[pid, 'cwd'] = os.readlink(top + '/cwd'), os.readlink(top + '/root')
            shown[pid, 'ns'] = sorted(os.readlink(top + '/ns/' + ns)
                                      for ns in os.listdir(top + '/ns'))
        for pid, tid in self.tasks():
            shown[tid, 'status'] = [line for line in
                                    read('/proc/%d/task/%d/status' % (pid, tid)).splitlines()
                                    if not VOLATILE.match(line)]
        return shown

    def compare(self, before):
        self.case.until(lambda: not self.held(), 'the victim is let go')
        now = self.snapshot()
        for key in before:
            if now.get(key) != before[key]:
                raise Failed('%s of the victim has changed:\n%s\n%s' % (
                    key, difference(before[key], now.get(key)),
                    difference(now.get(key), before[key])))


def difference(a, b):
    lines = set(str(b).split('\n') if not isinstance(b, list) else map(str, b))
    return '\n'.join(line for line in (str(a).split('\n') if not isinstance(a, list)
                                       else map(str, a)) if line not in lines)


def start(case, *args):
    stdin, question = os.pipe()
    answer, stdout = os.pipe()
    pid = case.spawn([os.path.join(case.build, 'test/harm/victim')] + list(args), stdin=stdin,
                     stdout=stdout, setsid=True)
    os.close(stdin)
    os.close(stdout)
    victim = Victim(case, pid, question, answer)
    victim.ask()
    return victim


class Harm:
    """Runs a command again and again, with something done to it."""

    def __init__(self, case, command, depth=16, **more):
        self.case, self.command, self.depth, self.more = case, command, depth, more
        self.done = {}
        self.said = {}
        self.at = None
        self.seed = int(os.environ.get('HARM_SEED', str(time.time_ns() % 1000000)))
        self.random = random.Random(self.seed)
        case.note('seed %d' % self.seed)

    def sample(self, n=0, action='none', seed=0):
        """Calls that were made, exit status (-1: hung), what was done, what was said."""
        report = self.case.path('report')
        argv = [os.path.join(self.case.build, 'test/harm/inject'), '-o', report, '-n', str(n),
                '-a', action, '-s', str(seed), '-d', str(self.depth), '--',
                self.case.reprise_path] + self.command
        self.at = 'call %d, %s, seed %d' % (n, action, seed)
        code, out, err = self.case.run(argv, env={'TMPDIR': self.case.control}, **self.more)
        if code:
            raise Failed('%s: inject ends with %d: %s' % (self.at, code, err))
        calls, _, status, hit = read(report).split(' ', 3)
        os.unlink(report)
        self.at += ', ' + hit.strip()
        done = hit != '-\n' and 'skipped' not in hit
        if done:
            self.done[action] = self.done.get(action, 0) + 1
        return int(calls), int(status), done, out + err

    def each(self, actions, calls):
        """Where and how: a fixed sample and random ones, or all there are."""
        if ALL:
            for n in range(1 + self.seed % STEP, calls + 1, STEP):
                for action in actions:
                    yield n, action, self.random.randrange(1 << 16)
            return
        for i in range(FIXED):
            yield 1 + i * calls // FIXED, actions[i % len(actions)], i
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            yield (self.random.randint(1, calls), self.random.choice(actions),
                   self.random.randrange(1 << 16))

    def over(self, actions, check, calls):
        try:
            for n, action, seed in self.each(actions, calls):
                check(n, action, seed, *self.sample(n, action, seed)[1:])
        except Failed as failed:
            raise Failed('%s: %s' % (self.at, failed))
        if not self.done:
            raise Failed('nothing was done')
        log('%s: %d calls; %s' % (self.case.name, calls, ', '.join(
            '%s %d' % pair for pair in sorted(self.done.items()))))
        for text, count in sorted(self.said.items()):
            log('    %5d %s' % (count, text))


KILLS = ['this', 'root', 'all']
FAILS = ['fail', 'fail', 'short']


def nobody_else(case, victim, *more):
    """No process but the victim's is there."""
    known = victim.pids() + list(more) if victim else list(more)
    case.until(lambda: not [p for p in case.others() if p[0] not in known],
               'the end of all processes of the tool')


def image_or_nothing(case, name='image'):
    found = [name for name in os.listdir(case.control)]
    if not found:
        return False
    if found != [name]:
        raise Failed('files are left: %s' % found)
    code, _, err = case.reprise('verify', '-q', case.path(name))
    if code:
        raise Failed('an image that is no good: %s' % err)
    return True


def clear(case, name='image'):
    if os.path.exists(case.path(name)):
        os.unlink(case.path(name))


def unharmed(case, victim, before):
    # When all have gone on for a while, nothing is left that they would do by themselves.
    victim.ask()
    victim.compare(before)
    nobody_else(case, victim)


def mounts():
    return read('/proc/self/mountinfo').count('\n')


def kill_checkpoint(case, *options, size=('small', '2')):
    victim = start(case, *size)
    harm = Harm(case, ['checkpoint', str(victim.pid), '-o', case.path('image'), '-q', *options])
    calls, status, _, said = harm.sample()
    if status:
        raise Failed('the checkpoint failed: %s' % said)
    clear(case)
    before, mounted = victim.snapshot(), mounts()

    def check(n, action, seed, status, done, said):
        if status == -1:
            raise Failed('it hangs: %s' % said)
        there = image_or_nothing(case)
        if status == 0 and not there:
            raise Failed('there is no image')
        clear(case)
        unharmed(case, victim, before)
        if mounts() != mounted:
            raise Failed('there are other mounts')

    harm.over(KILLS, check, calls)
    victim.end()


def test_kill(case):
    kill_checkpoint(case)


def test_kill_precopy(case):
    kill_checkpoint(case, '--max-freeze', '100s', size=('small', '10'))


def test_kill_sockets(case):
    kill_checkpoint(case, size=('small', '1', 'sockets'))


def test_kill_pty(case):
    kill_checkpoint(case, size=('small', '1', 'pty'))


def restore(case, image, *options):
    """A restart in the foreground, of which nothing is made to fail."""
    stdin, question = os.pipe()
    answer, stdout = os.pipe()
    tool = case.start_reprise('restart', '-i', image, '-q', *options, stdin=stdin, stdout=stdout)
    os.close(stdin)
    os.close(stdout)
    return Victim(case, tool, question, answer)


def image_is_right(case, original=None, image='image'):
    copy = restore(case, case.path(image), '--pidns')
    copy.ask('?')
    copy.end()
    nobody_else(case, original)


def fail_checkpoint(case, *options, size=('small', '2')):
    victim = start(case, *size)
    harm = Harm(case, ['checkpoint', str(victim.pid), '-o', case.path('image'), '-q', *options])
    calls, status, _, said = harm.sample()
    if status:
        raise Failed('the checkpoint failed: %s' % said)
    clear(case)
    before, images = victim.snapshot(), 0

    def check(n, action, seed, status, done, said):
        nonlocal images
        lines = said.splitlines()
        there = image_or_nothing(case)
        if status == 1:
            clear_line(said)
            if there:
                raise Failed('an image in spite of an error: %s' % said)
            text = re.sub(r'\d+', 'N', lines[0])
            harm.said[text] = harm.said.get(text, 0) + 1
        elif status or not there or lines:
            raise Failed('exit status %d, %d lines: %s' % (status, len(lines), said))
        else:
            images += 1
            if done and (images % 8 == 0 or ALL):
                image_is_right(case, victim)
        clear(case)
        unharmed(case, victim, before)

    harm.over(FAILS, check, calls)
    victim.end()


def test_fail(case):
    fail_checkpoint(case)


def test_fail_precopy(case):
    fail_checkpoint(case, '--max-freeze', '100s', size=('small', '10'))


def test_fail_pty(case):
    fail_checkpoint(case, size=('small', '1', 'pty'))


def clear_line(said):
    lines = said.splitlines()
    if len(lines) != 1 or not re.match(r'reprise: .* \[[a-z0-9-]+\]$', lines[0]):
        raise Failed('not one clear line: %s' % said)
    return lines[0]


def test_kill_kill(case):
    """With --kill: no application has ended of which there is no image."""
    victim = start(case, 'small', '1')
    harm = Harm(case, ['checkpoint', str(victim.pid), '-o', case.path('image'), '-q', '--kill'])
    calls = harm.sample()[0]
    case.wait(victim.pid)

    def sample(n, action, seed):
        victim = start(case, 'small', '1')
        harm.command[1] = str(victim.pid)
        case.forget(victim.pid)
        before = victim.snapshot()
        _, status, done, said = harm.sample_once(n, action, seed)
        there = image_or_nothing(case)
        if action in FAILS and status == 1:
            clear_line(said)
        if there:
            for pid in [victim.pid] if not case.ended(victim.pid) else []:
                os.kill(pid, signal.SIGKILL)
        else:
            unharmed(case, victim, before)
            os.kill(victim.pid, signal.SIGKILL)
        case.wait(victim.pid)
        os.close(victim.question)
        os.close(victim.answer)
        nobody_else(case, None)
        clear(case)
        return n, status, done, said

    clear(case)
    harm.sample_once, harm.sample = harm.sample, sample
    harm.over(KILLS + FAILS, lambda *_: None, calls)


def finish_restart(case, copy, complete, inner):
    """Nothing is left of a restart that was killed, or all of it is there and well."""
    case.until(lambda: not case.others() or case.handed_over(copy.pid, 'victim', inner),
               'a restart is over: %s' % case.others())
    there = bool(case.others())
    if there:
        try:
            copy.ask('?')
        except (Failed, BrokenPipeError):
            if complete:
                raise
    os.close(copy.question)
    os.close(copy.answer)
    if not there and complete:
        raise Failed('nothing has been restarted')
    nobody_else(case, None)


def harm_restart(case, actions, *options):
    victim = start(case, 'small', '2', 'sockets')
    case.checkpoint(victim.pid, '-q', '--kill')
    case.wait(victim.pid)
    os.close(victim.question)
    os.close(victim.answer)
    nobody_else(case, None)
    # --privileged: if the key of this machine cannot be read, the image counts as a stranger's.
    harm = Harm(case, ['restart', '-i', case.path('image'), '-q', '-d', '--privileged',
                       '--pidfile', case.path('pid'), *options], depth=1)
    mounted, plain = mounts(), harm.sample

    def sample(n=0, action='none', seed=0):
        case.forget(victim.pid)
        stdin, question = os.pipe()
        answer, stdout = os.pipe()
        harm.more = {'stdin': stdin, 'stdout': stdout}
        result = plain(n, action, seed)
        os.close(stdin)
        os.close(stdout)
        finish_restart(case, Victim(case, victim.pid, question, answer),
                       result[1] == 0 and action != 'task', '--pidns' in options)
        return result

    def check(n, action, seed, status, done, said):
        if status == -1:
            raise Failed('it hangs: %s' % said)
        if status == 1:
            text = re.sub(r'\d+', 'N', clear_line(said))
            harm.said[text] = harm.said.get(text, 0) + 1
        elif status and action in FAILS:
            raise Failed('exit status %d: %s' % (status, said))
        clear(case, 'pid')
        case.expect_files('image')
        if mounts() != mounted:
            raise Failed('there are other mounts')

    harm.sample = sample
    calls, status, _, said = sample()
    if status:
        raise Failed('the restart failed: %s' % said)
    clear(case, 'pid')
    harm.over(actions, check, calls)


def test_kill_restart(case):
    harm_restart(case, KILLS + ['task'])


def test_kill_restart_pidns(case):
    harm_restart(case, KILLS + ['task'], '--pidns')


def test_fail_restart(case):
    harm_restart(case, FAILS)


def test_fail_restart_pidns(case):
    harm_restart(case, FAILS, '--pidns')


for function in [value for name, value in list(globals().items()) if name.startswith('test_')]:
    function.timeout = TIMEOUT
