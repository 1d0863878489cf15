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
import re
import signal

from case import Failed
from harming import (ALL, FAILS, KILLS, TIMEOUT, Harm, Victim, clear, clear_line, image_is_right, image_or_nothing, mounts,
                     nobody_else, start, unharmed)


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
