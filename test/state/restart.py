# SPDX-License-Identifier: Apache-2.0
"""What the commands promise, beside the state that they save."""

import fcntl
import hashlib
import json
import os
import pty
import random
import signal
import time

from case import Failed, libc


def digest(path):
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()


def save_and_kill(case, pid, *args):
    image = case.checkpoint(pid, '--kill', '-q', *args)
    if case.wait(pid) != 128 + signal.SIGKILL:
        raise Failed('the program was not killed')
    return image


def test_ten_copies(case):
    """One image, ten restarts at once, beside the original."""
    pid = case.start('pipes')
    image = case.checkpoint(pid, '-q')
    before = digest(image)
    copies = [case.restart('--pidns') for _ in range(10)]
    case.go()
    codes = [case.wait_verdict(one, 'one of eleven') for one in [pid] + copies]
    case.expect_pass(11, codes)
    if digest(image) != before:
        raise Failed('the image was changed by a restart')


test_ten_copies.timeout = 90


def test_again_and_again(case):
    """Each restart is saved again and killed, with the pids that it had."""
    pid = case.start('tree')
    case.checkpoint(pid, '--kill', '-q', image='image.0')
    case.wait(pid)
    for i in range(3):
        restart = case.restart(image='image.%d' % i)
        case.until_handed_over(restart, pid, 'tree')
        case.checkpoint(pid, '--kill', '-q', image='image.%d' % (i + 1))
        if case.wait(restart) != 128 + signal.SIGKILL:
            raise Failed('the restart did not end like its root task')
    restart = case.restart(image='image.3')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the last copy')])


def test_exit_status(case):
    for steps, expected in ((('exit', 37), 37), (('exit', 0), 0), (('signal', 10), 128 + 10),
                            (('signal', 9), 128 + 9)):
        for args in ((), ('--pidns',)):
            pid = case.victim('wait', *steps)
            save_and_kill(case, pid, '--force')
            restart = case.restart(*args)
            case.go()
            code = case.wait(restart)
            if code != expected:
                raise Failed('%s: exit status %d instead of %d' % (steps, code, expected))
            case.hold()


def test_own_namespaces_without_mounts(case):
    """A new pid namespace has its own /proc, which nobody else sees: also of a tree that has other namespaces, but the
    mounts of the host."""
    for name, flag in ('net', 0x40000000), ('uts', 0x04000000), ('ipc', 0x08000000):
        pid = case.victim('wait', 'pass', before=lambda: libc.unshare(flag) and os._exit(1))
        save_and_kill(case, pid, '--force')
        with open('/proc/self/mountinfo') as file:
            before = file.read()
        restart = case.restart('--pidns')
        case.go(name)
        case.expect_pass(1, [case.wait_verdict(restart, 'the copy', name)], name)
        with open('/proc/self/mountinfo') as file:
            if file.read() != before:
                raise Failed('there are other mounts')
        case.hold()


def test_pid_taken(case):
    pid = case.victim('wait', 'pass')
    image = case.checkpoint(pid, '-q')
    case.refused(case.reprise('restart', '-i', image), 'pid-taken', pid, 'victim', '--pidns')
    case.finish(pid)


def test_detach(case):
    for args in ((), ('--pidns',)):
        pid = case.victim('wait', 'pass')
        image = save_and_kill(case, pid, '--force')
        case.forget(pid)
        pidfile = case.path('pid')
        code, out, err = case.reprise('restart', '-i', image, '--detach', '--pidfile', pidfile,
                                      *args)
        if code or out or err:
            raise Failed('exit status %d, %s%s' % (code, out, err))
        with open(pidfile) as file:
            new = int(file.read())
        if not args and new != pid:
            raise Failed('the pid is %d, was %d' % (new, pid))
        with open('/proc/%d/comm' % new) as file:
            if file.read() != 'victim\n':
                raise Failed('%d is not the program' % new)
        case.expect_files('image', 'pid')
        case.go('detached%d' % len(args))
        case.until(lambda: not os.path.exists('/proc/%d' % new) or case.ended(new), 'the end')
        case.expect_pass(1, name='detached%d' % len(args))
        case.expect_nobody()
        case.hold()
        os.unlink(pidfile)


def test_stop(case):
    """--stop leaves it stopped, as by SIGSTOP."""
    pid = case.victim('thread', 'wait', 'pass')
    case.checkpoint(pid, '--stop')

    def stopped():
        """A thread takes its signal when it has its turn."""
        with open('/proc/%d/stat' % pid) as file:
            return file.read().rpartition(')')[2].split()[0] == 'T'
    case.until(stopped, 'the stop')
    os.kill(pid, signal.SIGCONT)
    case.finish(pid)
    # The image is not that of a stopped program.
    restart = case.restart('--pidns')
    case.expect_pass(2, [case.wait_verdict(restart, 'the copy')])


def ordinary_user(*groups):
    def change():
        os.setgroups(groups)
        os.setgid(65534)
        os.setuid(65534)
    return change


def test_groups_of_an_ordinary_user(case):
    """They are kept if the restart has them, too, and refused if it has others."""
    pid = case.victim('wait', 'pass', before=ordinary_user(50, 100))
    image = case.checkpoint(pid, '--kill', before=ordinary_user(50, 100))
    case.wait(pid)
    result = case.reprise('restart', '-i', image, '--pidns', before=ordinary_user(50))
    case.refused(result, 'credentials')
    restart = case.restart('--pidns', '--pidfile', case.path('pid'),
                           before=ordinary_user(50, 100))
    case.until(lambda: os.path.exists(case.path('pid')), 'the copy runs')
    with open(case.path('pid')) as file:
        status = '/proc/%s/status' % file.read().strip()
    with open(status) as file:
        found = [line.split()[1:] for line in file if line.startswith('Groups:')]
    if found != [['50', '100']]:
        raise Failed('the groups are %s' % found)
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the copy')])


def test_signals_are_passed_on(case):
    pid = case.victim('wait', 'pass')
    save_and_kill(case, pid)
    for sig in (signal.SIGTERM, signal.SIGHUP):
        restart = case.restart('--pidns')
        time.sleep(0.2)
        os.kill(restart, sig)
        if case.wait(restart) != 128 + sig:
            raise Failed('not ended by signal %d' % sig)
        case.expect_nobody()


def test_compression(case):
    sizes = []
    for how in ('none', 'lz4', 'lz4:1', 'lz4:12', 'zstd', 'zstd:9'):
        pid = case.victim('memory', 5, 'wait', 'pass')
        image = save_and_kill(case, pid, '--compress', how, '--jobs', str(1 + 3 * len(sizes)), '--force')
        code, out, err = case.reprise('verify', image)
        if code:
            raise Failed('verify: %s' % err)
        restart = case.restart()
        case.go(how)
        case.expect_pass(1, [case.wait_verdict(restart, how)], name=how)
        case.hold()
        sizes.append(os.path.getsize(image))
    none, lz4, fast, best = sizes[:4]
    if not best < lz4 < none or abs(lz4 - fast) > (lz4 - best) / 2:
        raise Failed('sizes by level: %s' % sizes)


def test_figures(case):
    pid = case.victim('memory', 3, 'child', 'wait', 'pass')
    code, out, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'), '--json')
    if code or err:
        raise Failed('exit status %d: %s' % (code, err))
    figures = json.loads(out)
    text = json.dumps(figures)
    for name in ('stood_still', 'caller_resumed', 'durable', 'pages', 'image_bytes', 'ratio', 'per_second'):
        if name not in text:
            raise Failed('no %s in %s' % (name, text))
    code, out, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'), '--force')
    if code or out or err:
        raise Failed('not quiet: exit status %d, %s%s' % (code, out, err))
    code, out, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'), '--force',
                                  '-v')
    if code or not err:
        raise Failed('no figures: exit status %d' % code)
    code, out, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'), '--force',
                                  '--log-file', case.path('trace'))
    if code or err or os.path.getsize(case.path('trace')) < 10:
        raise Failed('no trace: exit status %d, %s' % (code, err))
    case.expect_files('image', 'trace')
    case.finish(pid)


def test_detach_outlives_the_tool(case):
    """Also what is to end with its parent: that was another one, and the tool does not stay."""
    pid = case.victim('parent-death', 'wait', 'pass')
    save_and_kill(case, pid)
    case.forget(pid)
    pidfile = case.path('pid')
    case.wait(case.restart('--pidfile', pidfile, '--detach'))
    case.go()
    case.until(lambda: not os.path.exists('/proc/%d' % pid) or case.ended(pid), 'the end')
    case.expect_pass(1)


def test_detach_own_group(case):
    """What a terminal sends to the group of the restart does not reach what was detached."""
    for detach in (False, True):
        name = 'group%d' % detach
        pid = case.victim('wait', 'pass', setsid=False)
        if os.getpgid(pid) != os.getpgid(0):
            raise Failed('the program is in a group of its own from the start')
        image = save_and_kill(case, pid, '--force')
        case.forget(pid)
        pidfile = case.path('pid')
        tool = case.restart('--pidfile', pidfile, *(['--detach'] if detach else []))
        if detach:
            case.wait(tool)
        case.until(lambda: os.path.exists(pidfile), 'the pidfile')
        with open(pidfile) as file:
            new = int(file.read())
        if (os.getpgid(new) != os.getpgid(0)) != detach:
            raise Failed('the group of the program is %d, ours is %d' %
                         (os.getpgid(new), os.getpgid(0)))
        case.go(name)
        case.until(lambda: not os.path.exists('/proc/%d' % new) or case.ended(new), 'the end')
        case.expect_pass(1, name=name)
        if not detach:
            case.wait(tool)
        case.expect_nobody()
        case.hold()


def test_inspect(case):
    pid = case.start('tree')
    image = case.checkpoint(pid)
    code, out, err = case.reprise('verify', image)
    if code or err:
        raise Failed('verify: exit status %d, %s' % (code, err))
    for args, words in (((), [str(pid), 'tree']), (('--tree',), [str(pid), 'tree']),
                        (('--maps',), ['anonymous', 'libc.so', 'rw-p']),
                        (('--files',), ['/dev/null'])):
        code, out, err = case.reprise('inspect', image, *args)
        if code or err:
            raise Failed('inspect %s: exit status %d, %s' % (args, code, err))
        for word in words:
            if word not in out:
                raise Failed('inspect %s: nothing about %s: %s' % (args, word, out))
    code, out, err = case.reprise('inspect', image, '--json')
    document = json.loads(out)
    if len(document['processes']) != 10 or document['root_pid'] != pid:
        raise Failed('inspect --json: %s' % out)
    code, out, err = case.reprise('restart', '-i', image, '--plan')
    if code or len(out.splitlines()) < 10:
        raise Failed('restart --plan: exit status %d, %s%s' % (code, out, err))
    case.finish(pid)
    code, out, err = case.reprise('inspect', '-', stdin=os.open(image, os.O_RDONLY))
    if code or str(pid) not in out:
        raise Failed('inspect of standard input: exit status %d, %s' % (code, err))


def test_check(case):
    pid = case.start('pipes')
    code, out, err = case.reprise('check', str(pid))
    if code:
        raise Failed('check: exit status %d, %s%s' % (code, out, err))
    case.finish(pid)
    code, out, err = case.reprise('check')
    if code not in (0, 2):
        raise Failed('check of the kernel: exit status %d, %s%s' % (code, out, err))


def test_check_lists_all(case):
    """All that stands in the way, at once, and nothing is touched."""
    pid = case.victim('odd', 'wait', 'pass')
    results = [case.reprise('check', str(pid)),
               case.reprise('checkpoint', str(pid), '-o', case.path('image'), '--kill')]
    for code, out, err in results:
        lines = [line for line in (out + err).splitlines() if '[file-kind]' in line]
        if code != 1 or len(lines) != 2:
            raise Failed('exit status %d, not two lines: %s' % (code, out + err))
        for line in lines:
            if str(pid) not in line or 'victim' not in line:
                raise Failed('whose is it? %s' % line)
    case.expect_files()
    case.finish(pid)


def test_explain(case):
    code, out, err = case.reprise('explain', 'pid-taken')
    if code or '--pidns' not in out:
        raise Failed('explain: exit status %d, %s%s' % (code, out, err))
    code, out, err = case.reprise('explain', 'nonsense')
    if code not in (1, 2) or len(err.splitlines()) != 1:
        raise Failed('explain of nothing: exit status %d, %s%s' % (code, out, err))


def test_changed_files(case):
    """Reported and refused, or reported and allowed; a missing one is named."""
    path = os.path.join(case.work, 'data')

    def write(text):
        with open(path, 'w') as file:
            file.write(text * 5000)

    def touch():
        os.utime(path)

    def replace():
        os.rename(path, path + '.old')
        write('a')
        old = os.stat(path + '.old')
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))

    def truncate():
        info = os.stat(path)
        os.truncate(path, 100)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    for i, (how, change) in enumerate([(how, change) for how in ('open', 'map')
                                       for change in (touch, replace, truncate)]):
        write('a')
        pid = case.victim(how, path, 'wait', 'pass')
        image = save_and_kill(case, pid, '--force')
        time.sleep(0.01)
        change()
        case.refused(case.reprise('restart', '-i', image), 'file-changed', path,
                     '--changed-files=allow')
        case.expect_nobody()
        restart = case.restart('--changed-files=allow')
        case.go('changed%d' % i)
        case.expect_pass(1, [case.wait_verdict(restart, change.__name__)], name='changed%d' % i)
        case.hold()
    write('b')
    pid = case.victim('open', path, 'map', path, 'wait', 'pass')
    image = save_and_kill(case, pid, '--force')
    os.rename(path, path + '.gone')
    for args in ((), ('--changed-files=allow',)):
        case.refused(case.reprise('restart', '-i', image, *args), 'file-missing', path)
    os.rename(path + '.gone', path)
    restart = case.restart()
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the file is back')])


def test_existing_output(case):
    pid = case.victim('wait', 'pass')
    with open(case.path('image'), 'w') as file:
        file.write('precious')
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'output-exists',
                 case.path('image'), '--force')
    with open(case.path('image')) as file:
        if file.read() != 'precious':
            raise Failed('it was written to')
    case.checkpoint(pid, '--force', '-q')
    if os.stat(case.path('image')).st_mode & 0o777 != 0o600:
        raise Failed('the image may be read by others')
    case.expect_files('image')
    case.finish(pid)


def test_killed_checkpoint(case):
    """Whenever the tool is killed, the program goes on."""
    # Not one that waits in epoll_wait() or the like: a bare stop makes those fail with EINTR, which
    # reprise puts right, unless it is killed in the few microseconds in between.
    chance = random.Random(5)
    pid = case.start('threads')
    regs = case.start('regs')
    took = time.monotonic()
    case.checkpoint(regs, '-q')
    took = time.monotonic() - took
    for i in range(40):
        target = (pid, regs)[i % 2]
        tool = case.start_reprise('checkpoint', str(target), '-o', case.path('cut'), '-q',
                                  '--force')
        time.sleep(chance.random() * took * 1.2)
        os.kill(tool, signal.SIGKILL)
        case.wait(tool)
    time.sleep(0.05)
    for one in (pid, regs):
        if case.ended(one):
            raise Failed('a killed checkpoint killed %s: exit status %d, %s' % (
                'regs' if one == regs else 'blocked_forever', case.exit_code(one),
                case.verdicts('*')))
        with open('/proc/%d/status' % one) as file:
            text = file.read()
        if 'TracerPid:\t0\n' not in text or '\nState:\tT' in text:
            raise Failed('a killed checkpoint left it stopped: %s' % text)
    case.go()
    codes = [case.wait_verdict(one, 'a program that was saved again and again')
             for one in (pid, regs)]
    case.expect_pass(2, codes)


test_killed_checkpoint.timeout = 90


def test_killed_restart(case):
    """Whenever the tool is killed, nothing is left behind."""
    chance = random.Random(6)
    pid = case.start('tree')
    image = save_and_kill(case, pid)
    before = digest(image)
    took = time.monotonic()
    restart = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'a first one')])
    took = time.monotonic() - took
    case.hold()
    for i in range(30):
        tool = case.restart(*(['--pidns'] if i % 2 else []))
        time.sleep(chance.random() * took)
        os.kill(tool, signal.SIGKILL)
        case.wait(tool)
        # What dies with the tool needs a moment for it.
        end = time.monotonic() + 0.5
        while case.others() and time.monotonic() < end:
            time.sleep(0.005)
        if not case.others():
            continue
        # What had been handed over already runs on, and must be complete.
        name = 'left%d' % i
        case.go(name)
        case.until(lambda: not case.others() or any(v != 'PASS' for v in case.verdicts(name)),
                   'the end of what a killed restart left')
        case.expect_pass(1, name=name)
        case.hold()
    if digest(image) != before:
        raise Failed('the image was changed')


test_killed_restart.timeout = 90


def test_self_checkpoint(case):
    """The example: a program that saves itself."""
    program = os.path.join(case.build, 'examples/self-checkpoint')
    if not os.path.exists(program):
        raise Failed('it was not built')
    image = case.path('image')

    def run(argv, start=case.spawn):
        reader, writer = os.pipe()
        pid = case.spawn(argv, stdout=writer)
        os.close(writer)
        code = case.wait(pid)
        with open(reader) as file:
            return code, file.read()

    code, out = run([program, image])
    if code or out != 'computed 42, saved in %s\n' % image:
        raise Failed('exit status %d, %s' % (code, out))
    for _ in range(2):
        code, out = run([case.reprise_path, 'restart', '-i', image, '--pidns'])
        if code or out != 'restarted: still know that it was 42\n':
            raise Failed('restarted: exit status %d, %s' % (code, out))


def flags_of_streams(case, mine, theirs):
    """A stream of the application has O_NONBLOCK, and what stands in for it is shared with others."""
    pid = case.victim('no-wait', 0, 'wait', 'waits-not', 0, 'pass', stdin=theirs)
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.statuses.clear()
    fcntl.fcntl(theirs, fcntl.F_SETFL, fcntl.fcntl(theirs, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    copy = case.restart(stdin=theirs)
    case.until_handed_over(copy, pid, 'victim')
    if fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK:
        raise Failed('the restart changed what it was given')
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])
    for fd in (mine, theirs):
        os.close(fd)


def test_flags_of_a_pipe(case):
    reader, writer = os.pipe()
    flags_of_streams(case, writer, reader)


def test_flags_of_a_terminal(case):
    flags_of_streams(case, *pty.openpty())
