# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of what goes on running: each image is one instant, and the program notices nothing."""

import os
import signal
import time

from case import Failed, Skipped


def registered(pid):
    """Mappings that something is still watched in."""
    with open('/proc/%d/smaps' % pid) as file:
        return [line for line in file if line.startswith('VmFlags') and ' uw' in line]


def descriptors(pid):
    return sorted(os.listdir('/proc/%d/fd' % pid))


def copied_in_advance(case, name):
    with open(case.path(name)) as file:
        return 'while the tasks ran' in file.read()


def complain(why):
    raise Failed(why)


def instants(case, images, options, *env, program='memory_written', check=lambda name: None):
    """INSTANTS=N: so many images, for a long run by hand."""
    pid = case.start(program, env=dict(env))
    before = descriptors(pid)
    images = ['image.%d' % i for i in range(int(os.environ.get('INSTANTS', images)))]
    for name in images:
        case.checkpoint(pid, '-q', *options, '--log-file', case.path('log.' + name), image=name)
        if registered(pid) or descriptors(pid) != before:
            raise Failed('something was left in the program')
        if not copied_in_advance(case, 'log.' + name):
            raise Failed('nothing was copied while the program ran')
        check(name)
    case.kill(pid)
    for name in images:
        restart = case.restart('--pidns', image=name)
        case.go(name)
        case.expect_pass(1, [case.wait_verdict(restart, 'the copy of ' + name, name)], name)
        case.hold()
        os.unlink(case.path(name))


def test_instant_many(case):
    """Memory is written at full speed during each of several checkpoints."""
    instants(case, 4, [])


def test_instant_compressed(case):
    """The same in an image that is compressed while the program runs."""
    instants(case, 2, ['--compress', 'lz4'])


def test_instant_busy(case):
    """The same when more is written meanwhile than is kept in memory."""
    instants(case, 1, [], ('MEMORY_BUSY', '1'))


def copied_by_fork(case, name):
    with open(case.path('log.' + name)) as file:
        return 'left to copies of the memory' in file.read()


PRIVATE = ('MEMORY_PRIVATE', '1')


def test_instant_copied(case):
    """Nothing of what is written all the time is copied in advance: it is read from a copy that fork makes."""
    check = lambda name: copied_by_fork(case, name) or complain('no copy was made')
    instants(case, 4, [], ('MEMORY_BUSY', '1'), PRIVATE, check=check)


def narrow(case):
    if not os.path.exists(case.program('narrow_memory_written')):
        raise Skipped('no 32-bit programs are made here')
    return 'narrow_memory_written'


def test_instant_copied_narrow(case):
    """The same of a 32-bit program."""
    check = lambda name: copied_by_fork(case, name) or complain('no copy was made')
    instants(case, 2, [], ('MEMORY_BUSY', '1'), PRIVATE, program=narrow(case), check=check)


def test_instant_copied_chain(case):
    """The same in an image that is based on another one."""
    pid = case.start('memory_written', env=dict([('MEMORY_BUSY', '1'), PRIVATE]))
    case.checkpoint(pid, '-q', image='first')
    case.checkpoint(pid, '-q', '--parent', case.path('first'), '--log-file', case.path('log.image'))
    if not copied_by_fork(case, 'image'):
        raise Failed('no copy was made')
    case.kill(pid)
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def copies():
    """Processes that hold a copy."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % pid) as file:
                if '(reprise-copy) ' in (stat := file.read()) and ') Z' not in stat:
                    found.append(int(pid))
        except OSError:
            pass
    return found


def killed_while_copied(case, pid, of_tool):
    """SIGKILL to the tool, or to the copy. Returns the exit code of the tool, None if it was faster."""
    tool = case.start_reprise('checkpoint', str(pid), '-q', '-o', case.path('image'), '--force',
                              '--log-file', case.path('log.image'))
    case.until(lambda: copies() or case.ended(tool), 'a copy of the memory')
    found = copies()
    if found:
        os.kill(tool if of_tool else found[0], signal.SIGKILL)
    code = case.wait(tool)
    return code if found else None


def copied_killed(case, program):
    pid = case.start(program, env=dict([('MEMORY_BUSY', '1'), ('MEMORY_KILLED', '1'), PRIVATE]))
    for _ in range(3):
        killed_while_copied(case, pid, True)
        case.until(lambda: not copies(), 'the end of the copy')
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the end of the program')])


def test_instant_copied_killed(case):
    """The copy ends with the tool, and the program goes on."""
    copied_killed(case, 'memory_written')


def test_instant_copied_narrow_killed(case):
    """The same of a 32-bit program."""
    copied_killed(case, narrow(case))


def test_instant_copied_lost(case):
    """The copy is ended, as when memory is short: all is done again, without one."""
    pid = case.start('memory_written', env=dict([('MEMORY_BUSY', '1'), PRIVATE]))
    for again in range(30):
        if killed_while_copied(case, pid, False):
            raise Failed('the checkpoint failed')
        with open(case.path('log.image')) as file:
            if 'was of no use' in file.read():
                break
        if again == 29:
            raise Failed('the copy was not missed')
        os.unlink(case.path('log.image'))
    case.kill(pid)
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def without_copy(case, how):
    check = lambda name: copied_by_fork(case, name) and complain('a copy was made')
    instants(case, 1, [], ('MEMORY_BUSY', '1'), PRIVATE, ('MEMORY_WITHOUT', how), check=check)


def test_instant_copied_subreaper(case):
    """An application that takes in orphans is not told of ours."""
    without_copy(case, 'subreaper')


def with_copy(case, how, *env):
    check = lambda name: copied_by_fork(case, name) or complain('no copy was made')
    instants(case, 2, [], ('MEMORY_BUSY', '1'), ('MEMORY_WITHOUT', how), *env, check=check)


def left_out(pid):
    """Mappings that a fork would leave out."""
    with open('/proc/%d/smaps' % pid) as file:
        return [line for line in file if line.startswith('VmFlags') and ' dc' in line]


def segments_of(pid):
    """How often the segments that a process has made are attached, by whom last, and when."""
    with open('/proc/sysvipc/shm') as file:
        return [line for line in file if line.split()[4] == str(pid)]


def test_instant_copied_segment(case):
    """A segment is not attached to the copy: who counts sees nothing."""
    pid = case.start('memory_written', env=dict([('MEMORY_BUSY', '1'), PRIVATE, ('MEMORY_WITHOUT', 'segment')]))
    before, left = segments_of(pid), left_out(pid)
    case.checkpoint(pid, '-q', '--log-file', case.path('log.image'))
    if not copied_by_fork(case, 'image'):
        raise Failed('no copy was made')
    if left_out(pid) != left:
        raise Failed('the segment would not be inherited any more')
    if not before or segments_of(pid) != before:
        raise Failed('the segment has changed: %s to %s' % (before, segments_of(pid)))
    case.kill(pid)
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def test_instant_copied_unforked(case):
    """What fork leaves out is forked for the copy alone."""
    with_copy(case, 'unforked', PRIVATE)


def test_instant_copied_wiped(case):
    """What fork empties is not empty in the copy."""
    with_copy(case, 'wiped')


def test_instant_copied_locked(case):
    """Locked memory is copied as any other."""
    with_copy(case, 'locked', PRIVATE)


def test_instant_copied_huge(case):
    """Private huge pages beside it stay out of the copy, and not of what is inherited."""
    pid = case.start('memory_written', env=dict([('MEMORY_BUSY', '1'), PRIVATE, ('MEMORY_WITHOUT', 'huge')]))
    before = left_out(pid)
    case.checkpoint(pid, '-q', '--log-file', case.path('log.image'))
    if not copied_by_fork(case, 'image'):
        raise Failed('no copy was made')
    if left_out(pid) != before:
        raise Failed('huge pages would not be inherited any more')
    case.kill(pid)
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def limited_group(case, pid, size):
    """Puts a process into a control group that may have so much memory. Returns its directory."""
    with open('/proc/self/cgroup') as file:
        groups = dict(line.strip().split(':')[1:] for line in file)
    top, limit = '/sys/fs/cgroup/memory', 'memory.limit_in_bytes'
    if 'memory' not in groups:
        top, limit = '/sys/fs/cgroup', 'memory.max'
    path = '%s%s/reprise-test-%d' % (top, groups.get('memory', groups.get('', '')).rstrip('/'), os.getpid())
    try:
        os.mkdir(path)
        with open(os.path.join(path, limit), 'w') as file:
            file.write(str(size))
        with open(os.path.join(path, 'cgroup.procs'), 'w') as file:
            file.write(str(pid))
    except OSError as why:
        if os.path.isdir(path):
            os.rmdir(path)
        raise Skipped('no control group can be limited: %s' % why)
    return path


def test_instant_copied_short(case):
    """No copy is made where the control group of the program has no room for it."""
    pid = case.start('memory_written', env=dict([('MEMORY_BUSY', '1'), PRIVATE]))
    # what the program has already is counted elsewhere; so a limit that leaves too little for a copy
    group = limited_group(case, pid, 100 << 20)
    try:
        case.checkpoint(pid, '-q', '--log-file', case.path('log.image'))
    finally:
        case.kill(pid)
        case.until(lambda: not os.path.exists('/proc/%d' % pid), 'the end of the program')
        os.rmdir(group)
    with open(case.path('log.image')) as file:
        if 'there is no room for it' not in file.read():
            raise Failed('the limit was not seen')
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def test_instant_limited(case):
    """The same with a limit to the freeze."""
    instants(case, 2, ['--max-freeze', '100s'])


def test_instant_shared(case):
    """Shared memory of all kinds that two processes write to, in advance but for what was written."""
    instants(case, 3, [], program='memory_shared_written')


def test_instant_shared_strange(case):
    """The same when it is written by calls, by children, and through mappings that come and go."""
    instants(case, 3, [], ('MEMORY_STRANGE', '1'), program='memory_shared_written')


def test_instant_shared_growing(case):
    """The same when a mapping gets longer for a moment, and is written to there."""
    instants(case, 2, [], ('MEMORY_STRANGE', 'grow'), program='memory_shared_written')


def test_instant_killed(case):
    """The tool is killed at some moment: the program is as it was."""
    pid = case.start('memory_written')
    before = descriptors(pid)
    for moment in (0.004, 0.008, 0.012, 0.02, 0.03, 0.05):
        tool = case.start_reprise('checkpoint', str(pid), '-q', '-o', case.path('image'), '--force')
        time.sleep(moment)
        os.kill(tool, signal.SIGKILL)
        case.wait(tool)
        case.until(lambda: not registered(pid), 'the end of the tracking')
        if descriptors(pid) != before:
            raise Failed('a descriptor was left in the program')
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the end of the program')])


def kill_while_registered(case, tool, pid):
    """Was anything registered when the tool was killed?"""
    while not case.ended(tool):
        if registered(pid):
            os.kill(tool, signal.SIGKILL)
            return case.wait(tool) == 128 + signal.SIGKILL
    return False


def test_instant_shared_killed(case):
    """The tool is killed while shared memory is protected: nothing of that is left, and an image is right."""
    pid = case.start('memory_shared_written')
    before = descriptors(pid)
    hits = 0
    for _ in range(20):
        tool = case.start_reprise('checkpoint', str(pid), '-q', '-o', case.path('killed'), '--force')
        hits += kill_while_registered(case, tool, pid)
        case.until(lambda: not registered(pid), 'the end of the tracking')
        if descriptors(pid) != before:
            raise Failed('a descriptor was left in the program')
        if hits == 3:
            break
    if not hits:
        raise Failed('it was never killed while memory was protected')
    case.checkpoint(pid, '-q', '--kill')
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def pipe_without_reader(case, *env):
    pid = case.start('memory_written', env=dict(env))
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, True)
    tool = case.start_reprise('checkpoint', str(pid), '-q', '-o', '-', '--log-file',
                              case.path('tool.log'), stdout=write_end)
    os.close(write_end)
    # Once the image has begun, the program has to go on, though the pipe is full.
    first = os.read(read_end, 8)
    case.until(lambda: not registered(pid), 'the end of the tracking')
    with open('/proc/%d/status' % pid) as file:
        if 'TracerPid:\t0\n' not in file.read():
            raise Failed('the program is held')
    with open(case.path('image'), 'wb') as file:
        file.write(first)
        while True:
            some = os.read(read_end, 1 << 20)
            if not some:
                break
            file.write(some)
    os.close(read_end)
    if case.wait(tool):
        raise Failed('the checkpoint failed')
    case.kill(pid)
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def test_instant_pipe(case):
    """A reader that does not read holds up the tool, and not the program."""
    pipe_without_reader(case)


def test_instant_pipe_busy(case):
    """The same when nearly all memory is written all the time."""
    pipe_without_reader(case, ('MEMORY_BUSY', '1'))


def test_instant_limit(case):
    """A limit that cannot be kept: no image, and the program goes on; one that can."""
    pid = case.start('memory_written')
    case.refused(case.reprise('checkpoint', str(pid), '-q', '-o', case.path('image'),
                              '--max-freeze', '1us'), 'max-freeze', 'would stand still')
    case.expect_files()
    if registered(pid):
        raise Failed('something was left in the program')
    case.checkpoint(pid, '-q', '--max-freeze', '100s')
    code, _, err = case.reprise('checkpoint', str(pid), '-o', case.path('other'), '--max-freeze',
                                '5')
    if code != 2 or 'such as 5ms' not in err:
        raise Failed('a time without a unit: exit status %d, %s' % (code, err))
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the end of the program')])
