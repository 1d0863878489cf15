# SPDX-License-Identifier: Apache-2.0
"""A checkpoint never harms: the tool is killed, or its system calls fail, at every moment.

test/harm/inject.c counts the system calls of a command and does something at one of them;
test/harm/victim.c is what is checkpointed, and notices what is done to it. What can be seen from
outside is compared here.

Each test does a fixed sample, and random ones for some seconds. The environment changes that:

  HARM_SECONDS=N  of random ones in each test
  HARM_ALL=1      each system call in turn, in every way
  HARM_STEP=N     only each Nth; HARM_SEED modulo N tells with which one it begins
  HARM_FROM=N     not those before the Nth
  HARM_WAYS=N     at most N ways at each call
  HARM_ONLY=N     each call of that number
  HARM_DISTINCT=1 passes over what only repeats, and what nobody can notice before a kill
  HARM_SEED=N     the seed that a failed test has told
  HARM_LOG=FILE   figures are appended to it, as well as what the tool said when calls failed
"""

import os
import re
import signal

from case import Failed
from harming import (ALL, FAILS, KILLS, PARENT, TIMEOUT, Harm, Victim, clear, clear_line, image_is_right, image_or_nothing, mounts,
                     nobody_else, read, start, unharmed)


PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SETOPTIONS = 0x4200


def incremental(case, victim):
    """Options for an image that needs another one, which is there."""
    case.checkpoint(victim.pid, '-q', image=PARENT)
    return ['--parent', case.path(PARENT)]


def kill_checkpoint(case, *options, size=('small', '2'), more=lambda case, victim: [], actions=KILLS, inject=(),
                    after=lambda case, victim: None):
    victim = start(case, *size)
    options += tuple(more(case, victim))
    harm = Harm(case, ['checkpoint', str(victim.pid), '-o', case.path('image'), '-q', *options], inject=inject)
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
        nobody_else(case, victim)
        unharmed(case, victim, before)
        if mounts() != mounted:
            raise Failed('there are other mounts')

    harm.over(actions, check, calls)
    after(case, victim)
    victim.end()


def test_kill(case):
    kill_checkpoint(case)


def test_kill_precopy(case):
    kill_checkpoint(case, '--max-freeze', '100s', size=('small', '10'))


def test_kill_copied(case):
    """While a copy of the memory is made and read."""
    kill_checkpoint(case, size=('small', '24', 'private'))


def test_kill_advised(case):
    """The same before or after the helper runs, that says to mappings what is to be copied."""
    kill_checkpoint(case, size=('small', '24', 'private'), actions=['all'], inject=['-p', str(PTRACE_CONT)])


def test_kill_born(case):
    """Right after the birth of that helper, for which the application waits then."""
    kill_checkpoint(case, size=('small', '24', 'private'), actions=['all'], inject=['-p', str(PTRACE_SETOPTIONS)])


def test_kill_promised(case):
    """While the application makes a call for us, as it does for that helper's birth, and when it has waited for it."""
    kill_checkpoint(case, size=('small', '24', 'private'), actions=['all'], inject=['-p', str(PTRACE_SYSCALL)])


def test_kill_sockets(case):
    kill_checkpoint(case, size=('small', '1', 'sockets'))


def test_kill_incremental(case):
    kill_checkpoint(case, size=('small', '10'), more=incremental)


def test_kill_pty(case):
    """But for who has taken out what waits in the terminal, and puts it back: with that one it would be lost."""
    kill_checkpoint(case, size=('small', '1', 'pty'), inject=['-d', '1'])


PTRACE_SETSIGMASK = 0x420b


def stack_is_clean(case, victim):
    """What was left below the stacks by those who were killed, and by handlers, goes with the next checkpoint."""
    case.checkpoint(victim.pid, '-q')
    clear(case)
    for pid in victim.pids():
        stack, = [line for line in read('/proc/%d/maps' % pid).splitlines() if line.endswith('[stack]')]
        begin = int(stack.split('-')[0], 16)
        with open('/proc/%d/mem' % pid, 'rb') as file:
            file.seek(begin)
            if any(file.read(12 * 4096)):
                raise Failed('something is left below the stack of %d' % pid)


def test_kill_mask(case):
    """Before or after a thread gets another signal mask, with a signal for it: a handler runs while it is at our frames."""
    for size in ('small', 'full'):
        kill_checkpoint(case, size=(size, '1'), actions=['this', 'all'], after=stack_is_clean,
                        inject=['-p', str(PTRACE_SETSIGMASK), '-k', str(signal.SIGUSR2.value)])


def fail_checkpoint(case, *options, size=('small', '2'), more=lambda case, victim: [], inject=(), every=False):
    victim = start(case, *size)
    options += tuple(more(case, victim))
    harm = Harm(case, ['checkpoint', str(victim.pid), '-o', case.path('image'), '-q', *options], inject=inject, every=every)
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


def test_fail_copied(case):
    fail_checkpoint(case, size=('small', '24', 'private'))


def test_fail_incremental(case):
    fail_checkpoint(case, size=('small', '10'), more=incremental)


def test_fail_sockets(case):
    fail_checkpoint(case, size=('small', '1', 'sockets'))


SETSOCKOPT, GETSOCKOPT = 54, 55


def test_fail_options(case):
    """Where an option cannot be read it is put back all the same."""
    fail_checkpoint(case, size=('small', '1', 'sockets'), inject=['-y', str(GETSOCKOPT)])


def test_fail_to_set(case):
    """Where one cannot be put back, it is tried again."""
    fail_checkpoint(case, size=('small', '1', 'sockets'), inject=['-y', str(SETSOCKOPT)], every=True)


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
        calls, status, done, said = harm.sample_once(n, action, seed)
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
        return calls, status, done, said

    clear(case)
    harm.sample_once, harm.sample = harm.sample, sample
    harm.over(KILLS + FAILS, lambda *_: None, calls)


def finish_restart(case, copy, complete, whole, inner):
    """Nothing is left of a restart that was killed, or all of it is there and well.

    complete: it must be there; whole: nothing of it was killed, and nothing that it needs.
    """
    case.until(lambda: not case.others() or case.handed_over(copy.pid, 'victim', inner),
               'a restart is over: %s' % case.others())
    there = bool(case.others())
    if there:
        try:
            copy.ask('?')
            if whole and len([1 for _, name in case.others() if name == 'victim']) != 2:
                raise Failed('a part of the tree is missing')
        except (Failed, BrokenPipeError):
            if complete:
                raise
            there = False
            if whole:
                case.until(lambda: not case.others(), 'the end of a tree that was not handed over')
    os.close(copy.question)
    os.close(copy.answer)
    if not there and complete:
        raise Failed('nothing has been restarted')
    nobody_else(case, None)
    return there


def harm_restart(case, actions, *options, inject=()):
    victim = start(case, 'small', '2', 'sockets')
    case.checkpoint(victim.pid, '-q', '--kill')
    case.wait(victim.pid)
    os.close(victim.question)
    os.close(victim.answer)
    nobody_else(case, None)
    # --privileged: if the key of this machine cannot be read, the image counts as a stranger's.
    harm = Harm(case, ['restart', '-i', case.path('image'), '-q', '-d', '--privileged',
                       '--pidfile', case.path('pid'), *options], depth=1, inject=inject, every=bool(inject))
    mounted, plain, ends = mounts(), harm.sample, set()

    def sample(n=0, action='none', seed=0):
        case.forget(victim.pid)
        stdin, question = os.pipe()
        answer, stdout = os.pipe()
        harm.more = {'stdin': stdin, 'stdout': stdout}
        result = plain(n, action, seed)
        os.close(stdin)
        os.close(stdout)
        # one that serves memory, or a task, may be what was killed
        whole = action != 'task' and (action in FAILS or '--lazy' not in options)
        ends.add(finish_restart(case, Victim(case, victim.pid, question, answer), result[1] == 0 and whole, whole,
                                '--pidns' in options))
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
    ends.clear()
    harm.over(actions, check, calls)
    return ends


def test_kill_handover(case):
    """While one task after the other is let go, those who have been are not on their own yet."""
    for options in ([], ['--pidns']):
        ends = harm_restart(case, ['this', 'all'], *options, inject=['-p', str(PTRACE_DETACH)])
        if ends != {False}:
            raise Failed('a tree was there before all of its tasks were let go')
        os.unlink(case.path('image'))


def test_kill_restart(case):
    harm_restart(case, KILLS + ['task'])


def test_kill_restart_pidns(case):
    harm_restart(case, KILLS + ['task'], '--pidns')


def test_kill_restart_lazy(case):
    harm_restart(case, KILLS + ['task'], '--lazy')


def test_fail_restart(case):
    harm_restart(case, FAILS)


def test_fail_restart_pidns(case):
    harm_restart(case, FAILS, '--pidns')


def test_fail_restart_lazy(case):
    harm_restart(case, FAILS, '--lazy')


def chain(case):
    """Three images of a program that goes on from one to the next; it is ended."""
    pid = case.start('memory_steps')
    case.checkpoint(pid, '-q', image='0.rp')
    for i in (1, 2):
        case.checkpoint(pid, '-q', '--parent', case.path('%d.rp' % (i - 1)), image='%d.rp' % i)
    case.kill_all()
    case.until(lambda: not case.others(), 'the end of the program')


def bytes_of(path):
    with open(path, 'rb') as file:
        return file.read()


def harm_merge(case, actions, onto):
    """The result is there as a whole or not at all; what was there before is not touched."""
    chain(case)
    before = {name: bytes_of(case.path(name)) for name in ('0.rp', '1.rp', '2.rp')}
    harm = Harm(case, ['merge', case.path('2.rp'), '-o', case.path(onto), '-q', '--force'])

    def restore():
        for name in os.listdir(case.control):
            os.unlink(case.path(name))
        for name, text in before.items():
            with open(case.path(name), 'wb') as file:
                file.write(text)

    def check(n, action, seed, status, done, said):
        nobody_else(case, None)
        if status == 1:
            clear_line(said)
        elif status and (action in FAILS or status == -1):
            raise Failed('exit status %d: %s' % (status, said))
        # A name that --force takes for a moment; the next one removes it.
        found = sorted(name for name in os.listdir(case.control) if not re.match(r'\..*\.tmp$', name))
        if action in FAILS and len(found) != len(os.listdir(case.control)):
            raise Failed('files are left: %s' % os.listdir(case.control))
        if found != sorted(set(before) | ({onto} if onto in found else set())) or (status == 0 and onto not in found):
            raise Failed('exit status %d, files are %s' % (status, found))
        for name in found:
            if name != onto and bytes_of(case.path(name)) != before[name]:
                raise Failed('%s has changed' % name)
        changed = onto in found and bytes_of(case.path(onto)) != before.get(onto)
        if changed:
            code, _, err = case.run([case.reprise_path, 'verify', '-q', case.path(onto)])
            if code:
                raise Failed('an image that is no good: %s' % err)
        if changed and status == 1:
            raise Failed('an image in spite of an error: %s' % said)
        restore()

    calls, status, _, said = harm.sample()
    if status:
        raise Failed('the merge failed: %s' % said)
    restore()
    harm.over(actions, check, calls)


def test_kill_merge(case):
    harm_merge(case, KILLS, 'image')


def test_fail_merge(case):
    harm_merge(case, FAILS, 'image')


def test_kill_merge_onto(case):
    """In the place of the image that is read."""
    harm_merge(case, KILLS, '2.rp')


def test_fail_merge_onto(case):
    harm_merge(case, FAILS, '2.rp')


def watch_left(case, victim, before, images):
    """Every image that has a name is good, and so are those that it needs; the application is unharmed."""
    unharmed(case, victim, before)
    for name in sorted(os.listdir(images)):
        if not name.startswith('.'):
            code, _, err = case.run([case.reprise_path, 'verify', '-q', os.path.join(images, name)])
            if code:
                raise Failed('%s is no good: %s' % (name, err))


def begin_anew(images):
    for name in os.listdir(images):
        os.unlink(os.path.join(images, name))


def harm_watch(case, actions):
    victim = start(case, 'small', '2')
    images = case.path('images')
    os.mkdir(images)
    # All of it is killed in the end: it goes on otherwise.
    harm = Harm(case, ['watch', str(victim.pid), '-d', images, '-q', '--every', '1ms', '--keep', '2'], seconds=1)
    before = victim.snapshot()
    calls = harm.sample()[0]

    def check(n, action, seed, status, done, said):
        if status == 1:
            clear_line(said)
        elif status == 0:
            raise Failed('it has ended by itself: %s' % said)
        watch_left(case, victim, before, images)
        # Now and then the next one begins anew.
        if seed % 3 == 0:
            begin_anew(images)
    harm.over(actions, check, calls)
    victim.end()


def test_kill_watch(case):
    harm_watch(case, KILLS)


def test_fail_watch(case):
    harm_watch(case, FAILS)


# An image before the last one that is waited for: with the first, the third is merged.
LAST_IMAGE = '00000004.rp'


def harm_watching(case, actions):
    """The process that watches, and merges: what works for it is harmed as a checkpoint and a merge are."""
    victim = start(case, 'small', '2')
    images = case.path('images')
    os.mkdir(images)
    harm = Harm(case, ['watch', str(victim.pid), '-d', images, '-q', '--every', '1ms', '--keep', '1'], depth=0, seconds=60,
                inject=['-e', os.path.join(images, LAST_IMAGE)])
    before = victim.snapshot()

    def check(n, action, seed, status, done, said):
        if status == -1:
            raise Failed('it hangs: %s' % said)
        # Checkpoints that fail are reported, and the next one is tried.
        for line in said.splitlines():
            text = re.sub(r'\d+', 'N', clear_line(line))
            harm.said[text] = harm.said.get(text, 0) + 1
        if status == 1 and not said:
            raise Failed('it failed, and said nothing')
        if status not in (0, 1) and action in FAILS:
            raise Failed('exit status %d: %s' % (status, said))
        if status == 0 and LAST_IMAGE not in os.listdir(images):
            raise Failed('it has ended by itself: %s' % os.listdir(images))
        watch_left(case, victim, before, images)
        begin_anew(images)

    calls, status, _, said = harm.sample()
    check(0, 'none', 0, status, False, said)
    harm.over(actions, check, calls)
    victim.end()


def test_kill_watching(case):
    harm_watching(case, ['this', 'task'])


def test_fail_watching(case):
    harm_watching(case, FAILS)


for function in [value for name, value in list(globals().items()) if name.startswith('test_')]:
    function.timeout = TIMEOUT
