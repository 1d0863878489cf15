# SPDX-License-Identifier: Apache-2.0
"""No allocation that fails does harm, or is passed over: an error in one line, or the same result as without it.

test/harm/alloc.c counts the allocations of a command, and of what it forks, and makes one of them fail, or that one and
all behind it. Each test tries places from which allocations come, in random order, for some seconds. The environment
changes that as it does for harm.py; HARM_ALL=1 makes each allocation fail, in both ways, and takes all programs
of test/state.
"""

import glob
import json
import os
import re
import signal
import struct
import time

from case import NOBODY, Failed, Skipped
from harming import ALL, SECONDS, STEP, TIMEOUT, Chances, clear, clear_line, log, mounts, nobody_else, start, unharmed

SITES = 1 << 16
LACK = 'Cannot allocate memory|cannot make a thread'
WRONG_MAX, LENGTH_MAX = 20, 300
PROGRAMS = os.environ.get('ALLOC_PROGRAMS', 'epoll_sets sysv_msg files_kinds mqueue').split()


class Failing:
    """Runs commands of the tool in which allocations fail."""

    def __init__(self, case, *command, **more):
        self.case, self.command, self.more = case, list(command), more
        self.chances = Chances(case)
        self.library = os.path.join(case.build, 'test/harm/liballoc.so')
        self.said, self.done, self.at = {}, {'error': 0, 'no effect': 0}, 'no failure'
        self.wrong, self.lack = [], LACK
        if not os.path.exists(self.library):
            raise Skipped('a build with sanitizers has a malloc() of its own')

    def run(self, n=0, last=0):
        """Allocations made, those that failed, exit status, output, errors."""
        self.at = 'allocations %d to %d' % (n, last)
        path = self.case.path('alloc')
        with open(path, 'wb') as file:
            file.write(struct.pack('=QQQQ', 0, n, last, 0))
            file.truncate(32 + 8 * SITES)
        os.chmod(path, 0o666)
        code, out, err = self.case.run([self.case.reprise_path] + self.command, env={
            'LD_PRELOAD': self.library, 'ALLOC_FILE': path, 'TMPDIR': self.case.control}, **self.more)
        with open(path, 'rb') as file:
            text = file.read()
        os.unlink(path)
        calls, _, _, failed = struct.unpack('=QQQQ', text[:32])
        self.places = struct.unpack('=%dQ' % min(calls, SITES), text[32:32 + 8 * min(calls, SITES)])
        if n and code == 1:
            # On request the error is in the document.
            document = json.loads(out) if out and not err else {}
            text = ''.join('reprise: %s\n' % e['text'] for e in [document.get('error')] + document.get('problems', []) if e) or err
            said = re.sub(r'\d+', 'N', clear_line(text))
            # Where much fails another reason may come first; a restart may miss the one that got none.
            if n == last and self.command[0] != 'restart' and not said.endswith('[no-memory]') and not re.search(self.lack, said):
                raise Failed('it does not say that memory is missing: %s' % said)
            self.said[said] = self.said.get(said, 0) + 1
            self.done['error'] += 1
        elif code:
            raise Failed('exit status %d: %s' % (code, err))
        elif n:
            self.done['no effect'] += 1
        return calls, failed, code, out, err

    def points(self, calls):
        if ALL:
            for n in range(1 + self.chances.seed % STEP, calls + 1, STEP):
                yield n, n
                yield n, 1 << 40
            return
        firsts = {}
        for n, place in enumerate(self.places, 1):
            firsts.setdefault(place, n)
        some = list(firsts.values())
        self.chances.random.shuffle(some)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            n = some.pop() if some else self.chances.random.randint(1, calls)
            yield n, self.chances.random.choice((n, 1 << 40))

    def over(self, check, again=lambda: None):
        calls = self.run()[0]
        again()
        for n, last in self.points(calls):
            try:
                check(*self.run(n, last)[2:])
            except Failed as failed:
                self.wrong.append('%s: %s' % (self.at, str(failed)[:LENGTH_MAX]))
                if len(self.wrong) == WRONG_MAX or self.case.verdicts('early'):
                    break
                clear(self.case)
        log('%s: %s: %d allocations; %s' % (self.case.name, self.command[0], calls, self.done))
        for text, count in sorted(self.said.items()):
            log('    %5d %s' % (count, text))
        if self.wrong:
            raise Failed('%s:\n%s' % (self.command[0], '\n'.join(self.wrong)))


def renumbered(value, ids, key=''):
    """Ids of objects in the order in which they are met: what else has got one does not matter."""
    if type(value) is dict:
        return {k: renumbered(v, ids, k) for k, v in value.items()}
    if type(value) is list:
        return [renumbered(v, ids, key) for v in value]
    return ids.setdefault(value, len(ids)) if key in ('id', 'mm', 'files', 'fs', 'file') and value else value


def contents(case, path, *opening):
    """What must be the same in two images of one program that sleeps."""
    code, out, err = case.run([case.reprise_path, 'inspect', '--json', path, *opening])
    if code:
        raise Failed('inspect: %s' % (out + err))
    document = json.loads(out)
    for key in ('created_ns', 'uuid'):
        document['image'].pop(key)
    document.pop('digest')
    document['sizes'] = {'state_bytes': document['sizes']['state_bytes']}
    return renumbered(document, {})


def differences(was, now, at=''):
    if type(was) is type(now) is dict and was.keys() == now.keys():
        return [d for key in was for d in differences(was[key], now[key], '%s %s' % (at, key))]
    if type(was) is type(now) is list and len(was) == len(now):
        return [d for i in range(len(was)) for d in differences(was[i], now[i], '%s %d' % (at, i))]
    # What is done for a moment below a stack remains there, and makes some runs of pages more, 16 bytes each.
    if was == now or at.endswith(' memory_bytes') and now >= was or at.endswith(' state_bytes') and abs(was - now) < 128:
        return []
    return ['%s: %s, %s' % (at, was, now)]


def let_go(case):
    def held():
        for pid, _ in case.others():
            for tid in os.listdir('/proc/%d/task' % pid):
                with open('/proc/%d/task/%s/status' % (pid, tid)) as file:
                    if 'TracerPid:\t0\n' not in file.read():
                        return True
        return False
    case.until(lambda: not held(), 'all tasks are let go')


def checkpoint(case, pid, *options, settled=None, opening=()):
    there = sorted(os.listdir(case.control))

    def check(code, out, err):
        let_go(case)
        if settled:
            settled()
        image = case.path('image')
        if code == 0:
            now = contents(case, image, *opening)
            # One that never sleeps.
            if settled:
                now['sizes'] = before['sizes']
            if differences(before, now):
                raise Failed('another image: %s' % '; '.join(differences(before, now)))
            os.unlink(image)
        if sorted(os.listdir(case.control)) != there:
            raise Failed('files are left: %s' % os.listdir(case.control))

    failing = Failing(case, 'checkpoint', str(pid), '-o', case.path('image'), '-q', *options)
    failing.run()
    before = contents(case, case.path('image'), *opening)
    os.unlink(case.path('image'))
    failing.over(check, again=lambda: os.unlink(case.path('image')))


def make_checkpoint(name):
    def test(case):
        pid = case.start(name)
        time.sleep(0.02)
        checkpoint(case, pid)
        case.finish(pid)
    test.__name__ = 'test_checkpoint_' + name
    test.timeout = TIMEOUT
    return test


if PROGRAMS == ['all']:
    PROGRAMS = sorted(os.path.basename(path)[:-2] for path in
                      glob.glob(os.path.join(os.path.dirname(os.path.realpath(__file__)), '../state/*.c'))
                 if not path.endswith('/harness.c'))
for program in PROGRAMS:
    globals()['test_checkpoint_' + program] = make_checkpoint(program)


def test_victim(case):
    victim = start(case, 'small', '10', 'sockets', 'pty')
    before = victim.snapshot()

    def settled():
        nobody_else(case, victim)
        unharmed(case, victim, before)
    checkpoint(case, victim.pid, settled=settled)
    victim.end()


def reads(case, *command, **more):
    """What only reads: the same output, or an error."""
    failing = Failing(case, *command, **more)
    expected = failing.run()[3]

    def check(code, out, err):
        if code == 0 and out != expected:
            raise Failed('another output: %s' % out)
    failing.over(check)


def test_reads(case):
    pid = case.start('files_kinds')
    image = case.checkpoint(pid, '-q', image='one.rp')
    for command in (['inspect', image], ['inspect', '--json', image], ['inspect', '--maps', image], ['verify', image],
                    ['check', str(pid)], ['check', '--json', str(pid)], ['restart', '--plan', '-i', image]):
        reads(case, *command)
    case.finish(pid)


def test_sealed(case):
    """Signed and encrypted, in a process of its own."""
    key, public = case.path('key'), case.path('key.pub')
    code, _, err = case.reprise('keygen', key)
    if code:
        raise Failed('keygen: %s' % err)
    opening = ['--identity', key, '--trust', public]
    pid = case.start('files_kinds')
    checkpoint(case, pid, '--sign', key, '--encrypt', public, opening=opening)
    image = case.checkpoint(pid, '-q', '--sign', key, '--encrypt', public, image='one.rp')
    reads(case, 'verify', image, *opening)
    case.finish(pid)


test_sealed.timeout = 2 * TIMEOUT
test_reads.timeout = 7 * TIMEOUT


def test_merge(case):
    """Also an incremental checkpoint, and one that is signed and encrypted."""
    pid = case.start('memory_steps')
    first = case.checkpoint(pid, '-q', image='0.rp')
    checkpoint(case, pid, '--parent', first)
    second = case.checkpoint(pid, '-q', '--parent', first, image='1.rp')
    reads(case, 'verify', second)
    output = case.path('image')

    def check(code, out, err):
        there = sorted(os.listdir(case.control))
        if there != ['0.rp', '1.rp'] + (['image'] if code == 0 else []):
            raise Failed('exit status %d, files are %s' % (code, there))
        if code == 0:
            for number in (second, output):
                result = case.run([case.reprise_path, 'verify', '-q', number])
                if result[0]:
                    raise Failed('verify: %s' % result[2])
            if contents(case, output) != before:
                raise Failed('another image')
            os.unlink(output)
    failing = Failing(case, 'merge', second, '-o', output)
    failing.run()
    before = contents(case, output)
    os.unlink(output)
    failing.over(check, again=lambda: os.unlink(output))
    case.kill_all()


test_merge.timeout = 4 * TIMEOUT


def test_watch(case):
    """Every image that has a name is good, and the program goes on to its end."""
    images = case.path('images')
    os.mkdir(images)
    failing = Failing(case, 'watch', '0', '-d', images, '-q', '--every', '20ms', '--keep', '2')
    plain = failing.run

    def run(*which):
        pid = case.spawn(['/bin/sleep', '0.3'])
        failing.command[1] = str(pid)
        case.until(lambda: case.comm(pid) == 'sleep', 'the program')
        result = plain(*which)
        let_go(case)
        if case.wait(pid):
            raise Failed('the program: exit status %d' % case.exit_code(pid))
        case.forget(pid)
        return result

    def check(*_):
        case.until(lambda: not case.others(), 'the end of all')
        for name in sorted(os.listdir(images)):
            path = os.path.join(images, name)
            code, _, err = (0, 0, 0) if name.startswith('.') else case.run([case.reprise_path, 'verify', '-q', path])
            if code:
                raise Failed('%s is no good: %s' % (name, err))
        for name in os.listdir(images):
            os.unlink(os.path.join(images, name))
    # The program may end before, or meanwhile.
    failing.lack += r'|\[pid-none\]$|\[task-gone\]$'
    failing.run = run
    failing.over(check, again=check)


test_watch.timeout = TIMEOUT


def restarts(case, name, *options, expect=None):
    """All of it is back and passes, or nothing is there."""
    pid = case.start(name)
    time.sleep(0.02)
    case.checkpoint(pid, '--kill', '-q', image='one.rp')
    case.wait(pid)
    case.until(lambda: not case.others(), 'the end of what was killed')
    pidfile, before, turn = case.path('pid'), mounts(), [0]

    def end(code):
        there = os.path.exists(pidfile)
        if there != (code == 0):
            raise Failed('exit status %d, and the pidfile is %sthere' % (code, '' if there else 'not '))
        if there:
            turn[0] += 1
            verdict = 'turn%d' % turn[0]
            case.go(verdict)
            case.until(lambda: case.verdicts(verdict), 'the verdict')
            if case.verdicts(verdict) != ['PASS']:
                raise Failed('the restarted program: %s' % case.verdicts(verdict))
            os.unlink(pidfile)
        case.until(lambda: not case.others(), 'the end of all: %s' % case.others())
        case.statuses.clear()
        case.hold() if there else None
        if mounts() != before:
            raise Failed('there are other mounts')
        for path in os.listdir(case.control):
            if path.startswith('verdict'):
                os.unlink(case.path(path))
        if os.listdir(case.control) != ['one.rp']:
            raise Failed('files are left: %s' % os.listdir(case.control))

    # Its errors could not be told from those of the program.
    failing = Failing(case, 'restart', '-i', case.path('one.rp'), '-d', '-q', '--privileged', '--pidfile', pidfile, *options)
    failing.over(lambda code, out, err: end(code), again=lambda: end(0))


def make_restart(name, *options):
    def test(case):
        restarts(case, name, *options)
    test.__name__ = 'test_restart_%s%s' % (name, ''.join(options))
    test.timeout = TIMEOUT
    return test


for program, options in [('tree', ()), ('unix_stream', ('--pidns',)), ('memory_cow', ('--lazy',)), ('files_kinds', ()), ('sysv_msg', ('--pidns',))] + (
        [(program, ('--pidns',)) for program in PROGRAMS] if 'ALLOC_PROGRAMS' in os.environ else []):
    globals()['test_restart_' + program + ''.join(options)] = make_restart(program, *options)
