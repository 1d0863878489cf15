# SPDX-License-Identifier: Apache-2.0
"""Continuous checkpoints: every image that is there can be restarted, and the program notices nothing."""

import os
import signal

from case import Failed, Skipped, libc

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


def images(case):
    return sorted(name for name in os.listdir(case.path('images')) if not name.startswith('.'))


def number(case):
    names = images(case)
    return int(names[-1].split('.')[0]) if names else 0


def watch(case, pid, *args):
    os.makedirs(case.path('images'), exist_ok=True)
    return case.start_reprise('watch', str(pid), '-q', '-d', case.path('images'), *args,
                              '--log-file', case.path('watch.log'))


def step(case, pid, i):
    os.kill(pid, signal.SIGUSR1)
    path = os.path.join(case.work, 'step.%d' % i)
    case.until(lambda: os.path.exists(path), 'step %d' % i)
    os.unlink(path)


def step_and_image(case, pid, tool, i):
    before = number(case)
    step(case, pid, i)
    case.until(lambda: number(case) > before + 1 or case.ended(tool), 'an image of step %d' % i)
    if case.ended(tool):
        raise Failed('the tool ended: %s' % case.exit_code(tool))


def check(case, name, turn):
    path = case.path(os.path.join('images', name))
    code, _, err = case.reprise('verify', path)
    if code:
        raise Failed('verify %s: %s' % (name, err))
    restart = case.start_reprise('restart', '-q', '--pidns', '-i', path)
    case.go(turn)
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy of ' + name, turn)], turn)
    case.hold()


def check_some(case, names):
    for name in sorted(set(names[:3] + names[len(names) // 2:][:1] + names[-2:])):
        check(case, name, 'turn' + name)


def test_watching(case):
    """Old images are merged and go; the end is asked for."""
    pid = case.start('memory_steps')
    tool = watch(case, pid, '--every', '20ms', '--keep', '3')
    for i in range(1, 16):
        step_and_image(case, pid, tool, i)
    # those that are merged are gone
    case.until(lambda: images(case)[0] != '00000001.rp' or case.ended(tool), 'merging')
    os.kill(tool, signal.SIGTERM)
    if case.wait(tool):
        raise Failed('exit status %s' % case.exit_code(tool))
    names = images(case)
    if len(names) < 3:
        raise Failed('only %s is left' % names)
    case.finish(pid)
    case.hold()
    check_some(case, names)


test_watching.timeout = 120


def test_watching_again(case):
    """What an earlier one has left stays, and is told of."""
    pid = case.start('memory_steps')
    tool = watch(case, pid, '--every', '10ms', '--keep', '1')
    case.until(lambda: number(case) >= 2 or case.ended(tool), 'images')
    os.kill(tool, signal.SIGTERM)
    case.wait(tool)
    before = images(case)
    said = case.path('said')
    tool = case.spawn([case.reprise_path, 'watch', str(pid), '-d', case.path('images'), '--every', '10ms', '--keep', '1'],
                      stderr=os.open(said, os.O_CREAT | os.O_WRONLY))
    case.until(lambda: number(case) >= int(before[-1].split('.')[0]) + 2 or case.ended(tool), 'more images')
    os.kill(tool, signal.SIGTERM)
    if case.wait(tool):
        raise Failed('exit status %s' % case.exit_code(tool))
    with open(said) as file:
        text = file.read()
    if len(text.splitlines()) != 1 or 'images holds %d image' % len(before) not in text or 'earlier watch' not in text:
        raise Failed('it says %s' % text)
    if images(case)[:len(before)] != before:
        raise Failed('%s were there, %s are' % (before, images(case)))
    os.unlink(said)
    case.finish(pid)
    case.hold()
    check_some(case, images(case))


test_watching_again.timeout = 120


def test_watching_killed(case):
    """The tool is killed at some moment, and another one goes on."""
    pid = case.start('memory_steps')
    for i in range(1, 4):
        tool = watch(case, pid, '--every', '1ms', '--keep', '2')
        step_and_image(case, pid, tool, i)
        os.kill(tool, signal.SIGKILL)
        case.wait(tool)
    with open('/proc/%d/status' % pid) as file:
        case.until(lambda: 'TracerPid:\t0\n' in file.read() or file.seek(0), 'the end of tracing')
    names = images(case)
    case.finish(pid)
    case.hold()
    check_some(case, names)


test_watching_killed.timeout = 120


def test_watching_end(case):
    """The application ends; and what cannot be watched."""
    pid = case.start('memory_steps')
    tool = watch(case, pid, '--every', '10ms', '--compress', 'lz4')
    step_and_image(case, pid, tool, 1)
    case.finish(pid)
    if case.wait(tool):
        raise Failed('exit status %s' % case.exit_code(tool))
    case.hold()
    check_some(case, images(case))
    case.refused(case.reprise('watch', str(pid), '-d', case.path('images')), 'pid-none')
    other = case.victim('odd', 'wait', 'pass')
    case.refused(case.reprise('watch', str(other), '-q', '-d', case.path('none')), 'output')
    code, _, err = case.reprise('watch', str(other), '-q', '-d', case.path('images'))
    if code != 1 or 'descriptor' not in err:
        raise Failed('what cannot be saved: %d, %s' % (code, err))
    case.kill(other)


test_watching_end.timeout = 120


def all_images(case, pid, tool):
    """The end is asked for; then each image that is there."""
    os.kill(tool, signal.SIGTERM)
    if case.wait(tool):
        raise Failed('exit status %s' % case.exit_code(tool))
    case.kill(pid)
    for name in images(case):
        check(case, name, 'turn' + name)


def tracked(pid):
    with open('/proc/%d/smaps' % pid) as file:
        return any(line.startswith('VmFlags') and ' uw' in line for line in file)


def test_watching_writer(case):
    """Memory is written at full speed; what was not written is known from one image to the next."""
    pid = case.start('memory_written')
    tool = watch(case, pid, '--every', '10ms', '--keep', '6')
    case.until(lambda: number(case) >= 8 or case.ended(tool), 'images')
    case.until(lambda: tracked(pid) or case.ended(tool), 'what lasts from one image to the next')
    all_images(case, pid, tool)


test_watching_writer.timeout = 120


def test_watching_changes(case):
    """All that makes memory other memory, between images: none holds what was there before."""
    pid = case.start('memory_tracked')
    tool = watch(case, pid, '--every', '10ms', '--keep', '3')
    for i in range(1, 10):
        step(case, pid, i)
        # one that began when the step was done
        last = number(case) + 2
        case.until(lambda: number(case) >= last or case.ended(tool), 'an image of step %d' % i)
    all_images(case, pid, tool)


test_watching_changes.timeout = 120


def test_watching_ended(case):
    """When it ends, by whatever way, nothing is left in the program."""
    pid = case.start('memory_written')
    os.makedirs(case.path('images'))
    for sig in (signal.SIGTERM, signal.SIGKILL):
        before = number(case)
        tool = watch(case, pid, '--every', '10ms', '--keep', '2')
        case.until(lambda: number(case) >= before + 3 or case.ended(tool), 'images')
        case.until(lambda: tracked(pid) or case.ended(tool), 'what lasts from one image to the next')
        os.kill(tool, sig)
        case.wait(tool)
        case.until(lambda: not tracked(pid), 'the end of the tracking')
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the end of the program')])


test_watching_ended.timeout = 120


def test_watching_beside(case):
    """What is watched can be saved by others."""
    pid = case.start('memory_written')
    tool = watch(case, pid, '--every', '5s', '--keep', '2')
    case.until(lambda: number(case) >= 1 and tracked(pid) or case.ended(tool), 'an image')
    case.checkpoint(pid, '-q', image='beside')
    all_images(case, pid, tool)
    restart = case.restart('--pidns', image='beside')
    case.go('beside')
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy', 'beside')], 'beside')


test_watching_beside.timeout = 60


def take_number(case):
    """A file that has the name of one of the next images."""
    while True:
        path = case.path('images/%08d.rp' % (number(case) + 8))
        try:
            with open(path, 'x') as file:
                file.write('not an image')
            return path
        except FileExistsError:
            pass


def test_watching_two(case):
    """Two would take each other's numbers; somebody's file is no obstacle."""
    pid = case.start('memory_steps')
    tool = watch(case, pid, '--every', '50ms')
    case.until(lambda: number(case) >= 1 or case.ended(tool), 'an image')
    case.refused(case.reprise('watch', str(pid), '-q', '-d', case.path('images')), 'output', 'another watch', case.path('images'))
    taken = take_number(case)
    after = number(case) + 12
    case.until(lambda: number(case) >= after or case.ended(tool), 'images behind it')
    with open(taken) as file:
        if file.read() != 'not an image':
            raise Failed('the file of somebody else is another one')
    os.unlink(taken)
    all_images(case, pid, tool)


test_watching_two.timeout = 120


def test_watching_patient(case):
    """What is in the way for a moment ends nothing, not even at the first image."""
    pid = case.start('memory_steps')
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) < 0:
        raise Skipped('no ptrace here')
    tool = watch(case, pid, '--every', '10ms')

    def told():
        with open(case.path('watch.log')) as log:
            return log.read().count('[task-traced]') >= 2
    case.until(lambda: os.path.exists(case.path('watch.log')) and told() or case.ended(tool), 'two failures')
    libc.ptrace(PTRACE_INTERRUPT, pid, None, None)
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    case.until(lambda: number(case) >= 2 or case.ended(tool), 'images')
    all_images(case, pid, tool)


test_watching_patient.timeout = 120
