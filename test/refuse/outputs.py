# SPDX-License-Identifier: Apache-2.0
"""What is written to fails: for want of room, beyond a quota, because a disk or a server does not take it. There is one line that
says so, nothing is left, and nobody is harmed."""

import errno
import os
import resource

from case import Failed
from faulty import Faulty, Server

# The first write would be to an empty file, the third is among many; a server tells at a flush or fsync() what it could not store.
FAILURES = [('write', errno.EDQUOT, 1), ('write', errno.EDQUOT, 3), ('write', errno.EIO, 2), ('write', errno.ENOSPC, 4), ('fsync', errno.EIO, 1),
            ('fsync', errno.EDQUOT, 1), ('create', errno.EROFS, 1), ('create', errno.EDQUOT, 1)]


def nothing_in(where):
    if os.listdir(where):
        raise Failed('files are left: %s' % os.listdir(where))


NO_REPLACE = {'rename2': (errno.ENOSYS, 1)}
NO_LINKS = dict(NO_REPLACE, link=(errno.EPERM, 1))


class Quicker(Server):
    """Somebody else takes the name while the image is completed."""

    def fsync(self, node, body):
        self.names.setdefault(b'image', 1000)
        self.contents[1000] = bytearray(b'theirs')
        return b''


def test_names(case):
    """A name that is taken is not taken again, on file systems that cannot rename without replacing (NFS), or have no links either."""
    pid = case.victim('memory', 4, 'wait', 'pass')
    for fails in ({}, NO_REPLACE, NO_LINKS):
        with Faulty(case, server=lambda fd, fails=fails: Quicker(fd, fails)) as where:
            case.refused(case.reprise('checkpoint', str(pid), '-q', '-o', where + '/image'), 'output-exists')
            with open(where + '/image') as file:
                if os.listdir(where) != ['image'] or file.read() != 'theirs':
                    raise Failed('%s: it was replaced: %s' % (sorted(fails), os.listdir(where)))
        with Faulty(case, **fails) as where:
            code, _, err = case.reprise('checkpoint', str(pid), '-q', '-o', where + '/image')
            if code:
                raise Failed('%s: %s' % (sorted(fails), err))
            case.refused(case.reprise('checkpoint', str(pid), '-q', '-o', where + '/image'), 'output-exists')
            code, _, err = case.reprise('checkpoint', str(pid), '-q', '-o', where + '/image', '--force')
            if code or os.listdir(where) != ['image'] or case.reprise('verify', where + '/image')[0]:
                raise Failed('%s: there are %s, %s' % (sorted(fails), os.listdir(where), err))
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the program')])


def test_good(case):
    """That file system is good for an image if nothing fails."""
    pid = case.victim('memory', 4, 'wait', 'pass')
    with Faulty(case) as where:
        for options in ((), ('--force',), ('--kill', '--force')):
            code, _, err = case.reprise('checkpoint', str(pid), '-q', '-o', where + '/image', *options)
            if code:
                raise Failed('%s: %s' % (options, err))
            if os.listdir(where) != ['image'] or case.reprise('verify', where + '/image')[0]:
                raise Failed('there are %s' % os.listdir(where))
        case.wait(pid)
        case.forget(pid)
        tool = case.start_reprise('restart', '-q', '-i', where + '/image', '--pidns')
        case.go()
        case.expect_pass(1, [case.wait_verdict(tool, 'the restarted program')])


def test_checkpoint(case):
    for i, (operation, number, n) in enumerate(FAILURES):
        pid = case.victim('memory', 4, 'wait', 'pass')
        for options in (('-q',), ('--kill', '--force')):
            with Faulty(case, **{operation: (number, n)}) as where:
                case.refused(case.reprise('checkpoint', str(pid), '-o', where + '/image', *options), 'output', where + '/image',
                             os.strerror(number))
                nothing_in(where)
        case.go('verdict%d' % i)
        case.expect_pass(1, [case.wait_verdict(pid, 'the program')], name='verdict%d' % i)
        case.hold()


def test_merge(case):
    pid = case.start('memory_steps')
    case.checkpoint(pid, '-q', image='0.rp')
    case.checkpoint(pid, '-q', '--parent', case.path('0.rp'), image='1.rp')
    case.kill_all()
    for operation, number, n in FAILURES:
        with Faulty(case, **{operation: (number, n)}) as where:
            case.refused(case.reprise('merge', case.path('1.rp'), '-q', '-o', where + '/image'), 'output', where + '/image', os.strerror(number))
            nothing_in(where)


def test_watch(case):
    """The first image may not fail."""
    pid = case.victim('wait', 'pass')
    for operation, number, n in FAILURES:
        with Faulty(case, **{operation: (number, n)}) as where:
            case.refused(case.reprise('watch', str(pid), '-q', '-d', where), 'output', os.strerror(number))
            nothing_in(where)
    case.finish(pid)


def test_watch_later(case):
    """The others may: what there is stays, and after ten in a row, ever more slowly, it ends."""
    pid = case.victim('wait', 'pass')
    with Faulty(case, create=(errno.EDQUOT, 3)) as where:
        code, _, err = case.reprise('watch', str(pid), '-q', '-d', where, '--every', '1ms')
        if code != 1 or any(not line.endswith('[output]') or os.strerror(errno.EDQUOT) not in line for line in err.splitlines()):
            raise Failed('exit status %d: %s' % (code, err))
        if sorted(os.listdir(where)) != ['00000001.rp', '00000002.rp'] or case.reprise('verify', where + '/00000002.rp')[0]:
            raise Failed('there are %s' % os.listdir(where))
    case.finish(pid)


def test_pidfile(case):
    """Nothing has been restarted of which nobody would know the pid."""
    pid = case.victim('wait', 'pass')
    case.checkpoint(pid, '-q', '--kill')
    case.wait(pid)
    for operation, number, n in ('write', errno.EDQUOT, 1), ('create', errno.EROFS, 1):
        with Faulty(case, **{operation: (number, n)}) as where:
            case.refused(case.reprise('restart', '-q', '-d', '-i', case.path('image'), '--pidfile', where + '/pid'), 'output', where + '/pid',
                         os.strerror(number))
            nothing_in(where)
            case.until(lambda: len(case.others()) == 1, 'nobody is there but the server: %s' % case.others())


def test_log_file(case):
    """A trace that is not complete is told of; the image is none the worse."""
    pid = case.victim('wait', 'pass')
    for operation, number, n in ('write', errno.EDQUOT, 1), ('write', errno.EIO, 3):
        with Faulty(case, **{operation: (number, n)}) as where:
            code, _, err = case.reprise('checkpoint', str(pid), '-q', '-o', case.path('image'), '--force', '--log-file', where + '/log')
            if code or len(err.splitlines()) != 1 or 'log file' not in err or case.reprise('verify', '-q', case.path('image'))[0]:
                raise Failed('exit status %d: %s' % (code, err))
    with Faulty(case, create=(errno.EROFS, 1)) as where:
        case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('other'), '--log-file', where + '/log'), 'output', where + '/log')
    os.unlink(case.path('image'))
    case.expect_files()
    case.finish(pid)


def core_limits():
    """Of all that is reprise: soft limits of the size of core files."""
    for name in os.listdir('/proc'):
        try:
            with open('/proc/%s/comm' % name) as file:
                comm = file.read().strip()
            with open('/proc/%s/limits' % name) as file:
                yield comm == 'reprise', [line.split()[4] for line in file if line.startswith('Max core file size')][0]
        except OSError:
            continue


def test_no_core(case):
    """Who has memory of the application, or keys, leaves none if it crashes; the application may."""
    pid = case.victim('memory', 4, 'wait', 'pass')
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.prlimit(pid, resource.RLIMIT_CORE, (hard, hard))
    case.reprise('keygen', case.path('key'))

    def limited():
        return [limit for ours, limit in core_limits() if ours].count('1')

    # a program to which the kernel pipes it gets it with a limit of 0, too
    for number, options, soft in (1, (), hard), (1, (), 0), (2, ('--sign', case.path('key')), hard):
        reader, writer = os.pipe()
        tool = case.start_reprise('checkpoint', str(pid), '-q', '-o', '-', *options, stdout=writer,
                                  env={'ASAN_OPTIONS': 'disable_coredump=0:detect_leaks=0'},
                                  before=lambda: resource.setrlimit(resource.RLIMIT_CORE, (soft, hard)))
        os.close(writer)
        case.until(lambda: limited() >= number or case.ended(tool), 'processes without core files')
        os.close(reader)
        case.wait(tool)
    if resource.prlimit(pid, resource.RLIMIT_CORE)[0] != hard:
        raise Failed('the limit of the application has changed')
    case.checkpoint(pid, '-q', '--kill')
    case.wait(pid)
    case.reprise('restart', '-q', '-d', '-i', case.path('image'), '--pidns', '--pidfile', case.path('pid'))
    with open(case.path('pid')) as file:
        if resource.prlimit(int(file.read()), resource.RLIMIT_CORE)[0] != hard:
            raise Failed('the limit of the restarted application is another one')
    case.kill_all()


def test_keygen(case):
    """Half a key is none."""
    for operation, number, n in ('write', errno.EDQUOT, 1), ('write', errno.EDQUOT, 2), ('create', errno.EROFS, 1), ('create', errno.EROFS, 2):
        with Faulty(case, **{operation: (number, n)}) as where:
            case.refused(case.reprise('keygen', where + '/key'), 'output', os.strerror(number))
            nothing_in(where)


for function in [value for name, value in list(globals().items()) if name.startswith('test_')]:
    function.timeout = 90
