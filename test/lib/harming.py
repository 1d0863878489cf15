# SPDX-License-Identifier: Apache-2.0
"""What harms the tool: test/harm/inject.c, which does something at one of its system calls, and test/harm/alloc.c,
which makes its allocations fail; and what is checkpointed meanwhile (test/harm/victim.c)."""

import os
import random
import re
import signal
import time

from case import PATIENCE, Failed

ALL = bool(os.environ.get('HARM_ALL'))
STEP = int(os.environ.get('HARM_STEP', '1'))
FROM = int(os.environ.get('HARM_FROM', '1'))
WAYS = int(os.environ.get('HARM_WAYS', '3'))
DISTINCT = bool(os.environ.get('HARM_DISTINCT'))
ONLY = os.environ.get('HARM_ONLY')
SECONDS = float(os.environ.get('HARM_SECONDS', '3'))
FIXED = 6
BEYOND = 4
LIMIT = 90
TIMEOUT = 100000 if ALL or SECONDS > 10 else LIMIT

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


class Chances:
    """Random numbers that can be had again."""

    def __init__(self, case):
        self.seed = int(os.environ.get('HARM_SEED', str(time.time_ns() % 1000000)))
        self.random = random.Random(self.seed)
        case.note('seed %d' % self.seed)


class Harm:
    """Runs a command again and again, with something done to it."""

    def __init__(self, case, command, depth=16, seconds=60, inject=(), every=False, **more):
        self.case, self.command, self.depth, self.more = case, command, depth, more
        self.seconds, self.inject, self.every = seconds, list(inject) + (['-y', ONLY] if ONLY else []), every or bool(ONLY)
        self.done = {}
        self.said = {}
        self.at = None
        self.chances = Chances(case)

    def sample(self, n=0, action='none', seed=0):
        """Calls that were made, exit status (-1: hung), what was done, what was said."""
        report = self.case.path('report')
        passed = ['-r'] + (['-c'] if action not in FAILS else []) if DISTINCT and action != 'none' else []
        argv = [os.path.join(self.case.build, 'test/harm/inject'), '-o', report, '-n', str(n),
                '-a', action, '-s', str(seed), '-d', str(self.depth), '-t', str(int(self.seconds * PATIENCE)), *passed, *self.inject, '--',
                self.case.reprise_path] + self.command
        self.at = 'call %d, %s, seed %d' % (n, action, seed)
        # In a long run each of them has the time that a short one has as a whole.
        if ALL or ONLY:
            self.case.deadline = time.monotonic() + LIMIT * PATIENCE
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
        if self.every:
            for n in range(1, calls + 1):
                for action in actions:
                    yield n, action, 0
            return
        if ALL:
            for n in range(FROM + self.chances.seed % STEP, calls + 1, STEP):
                # A transfer that is cut short comes behind calls that fail.
                ways = actions if actions is FAILS else self.chances.random.sample(actions, len(actions))
                for action in ways[:WAYS]:
                    yield n, action, self.chances.random.randrange(1 << 16)
            return
        for i in range(FIXED):
            yield 1 + i * calls // FIXED, actions[i % len(actions)], i
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            yield (self.chances.random.randint(1, calls), self.chances.random.choice(actions),
                   self.chances.random.randrange(1 << 16))

    def over(self, actions, check, calls):
        beyond = 0
        try:
            for n, action, seed in self.each(actions, calls):
                made, status, done, said = self.sample(n, action, seed)
                check(n, action, seed, status, done, said)
                # What is passed over has been counted in the beginning.
                beyond = beyond + 1 if DISTINCT and made < n else 0
                if beyond == BEYOND:
                    break
        except Failed as failed:
            raise Failed('%s: %s' % (self.at, failed))
        if not self.done:
            raise Failed('nothing was done')
        log('%s: %d calls, up to %d; %s' % (self.case.name, calls, n, ', '.join(
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


PARENT = 'parent.rp'  # of incremental images


def image_or_nothing(case, name='image'):
    found = [other for other in os.listdir(case.control) if other != PARENT]
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


def clear_line(said):
    lines = said.splitlines()
    if len(lines) != 1 or not re.match(r'reprise: .* \[[a-z0-9-]+\]$', lines[0]):
        raise Failed('not one clear line: %s' % said)
    if ALL and lines[0].endswith('[internal]'):
        raise Failed('nobody has said why: %s' % said)
    return lines[0]
