# SPDX-License-Identifier: Apache-2.0
"""Images that say more than is true: no task gets more than whoever restarts it has."""

import os
import stat

from case import NOBODY, Failed, Skipped
from contained import begin, good


def forge(case, *edits, image='image', out='forged'):
    code, _, err = case.run([os.path.join(case.build, 'test/lib/forge'), case.path(image), case.path(out)] + list(edits),
                            uid=0)
    if code:
        raise Failed('forge: %s' % err)
    os.chmod(case.path(out), 0o644)
    return case.path(out)


def saved(case, name='pipes', **more):
    """The image of a program of an ordinary user, made by that user."""
    pid = case.start(name, uid=NOBODY, **more)
    case.checkpoint(pid, '--kill', '-q', uid=NOBODY)
    case.wait(pid)
    mode = stat.S_IMODE(os.stat(case.path('image')).st_mode)
    if mode != 0o600:
        raise Failed('the image has mode %o' % mode)


def passes(case, path):
    copy = case.start_reprise('restart', '-i', path, '--pidns', '-q', uid=NOBODY)
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])


def refused(case, path, codes, what, *args):
    code, _, err = case.reprise('restart', '-i', path, *args, uid=NOBODY)
    if code != 1 or not any(err.rstrip('\n').endswith('[%s]' % c) for c in codes):
        raise Failed('%s: exit status %d, %s' % (what, code, err))
    case.expect_nobody()


def test_unchanged(case):
    """What is put together again without a change is as good as before."""
    saved(case)
    passes(case, forge(case, 'nothing'))


def test_users(case):
    saved(case)
    for edit in ('uid=0', 'uid=1000', 'gid=0', 'uid=4294967295'):
        refused(case, forge(case, edit), ('credentials', 'restore', 'image-invalid'), edit, '--pidns')


def test_capabilities(case):
    """Only of the user namespace in which an ordinary user restarts, at most."""
    saved(case)
    path = forge(case, 'caps=1ffffffffff')
    refused(case, path, ('credentials', 'pid-choose', 'restore'), 'all capabilities')
    for args in ((), ('--pidns',)):
        pidfile = case.path('pid')
        code, _, err = case.reprise('restart', '-i', path, '-d', '--pidfile', pidfile, *args, uid=NOBODY)
        if code:
            continue
        with open(pidfile) as file:
            pid = int(file.read())
        with open('/proc/%d/uid_map' % pid) as file:
            if file.read().split()[2] != '1':
                raise Failed('capabilities outside of a user namespace')
        case.kill_all()


def test_limits(case):
    saved(case)
    with open('/proc/sys/fs/nr_open') as file:
        most = int(file.read())
    refused(case, forge(case, 'limit=%d' % (most - 1)), ('credentials', 'restore'), 'more open files', '--pidns')
    refused(case, forge(case, 'oom=-1000'), ('credentials', 'restore'), 'never killed when out of memory', '--pidns')
    refused(case, forge(case, 'nice=-20'), ('credentials', 'restore'), 'a better priority', '--pidns')


def test_paths(case):
    """A file that the user may not open stays closed, by whatever name it is asked for."""
    secret = os.path.join(case.work, 'secret')
    target = os.path.join(case.work, 'target')
    link = os.path.join(case.work, 'link')
    for path, text in ((secret, 'secret'), (target, 'target')):
        with open(path, 'w') as file:
            file.write(text)
    os.chmod(secret, 0o600)
    os.symlink(secret, link)
    os.utime(secret, ns=(0, os.stat(target).st_mtime_ns))
    with open(target) as file:
        saved(case, 'pipes', stdin=file.fileno())
    passes(case, forge(case, 'nothing'))
    for path in (secret, link, os.path.join(case.work, 'nowhere', '..', 'secret'), case.work, 'secret', '/proc/kcore',
                 '/dev/mem'):
        for args in (('--pidns',), ('--pidns', '--changed-files=allow')):
            refused(case, forge(case, 'path=' + path),
                    ('file-open', 'file-changed', 'file-missing', 'image-invalid', 'restore', 'file-device'), path, *args)


def test_pressure(case):
    """What a program has written to wait for pressure is written to files about that only."""
    target = os.path.join(case.work, 'target')
    with open(target, 'w') as file:
        file.write('as it was, and as it is to be')
    os.chmod(target, 0o666)
    with open(target, 'r+') as file:
        saved(case, 'pipes', stdin=file.fileno())
    refused(case, forge(case, 'pressure=some 150000 1000000'), ('image-invalid',), 'pressure', '--pidns')
    with open(target) as file:
        if file.read() != 'as it was, and as it is to be':
            raise Failed('a file was written to')


def refused_below(case, name, *edits):
    """Of an image of root's, of tasks in namespaces below the root's."""
    pid = case.start(name)
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    for edit in edits:
        code, _, err = case.reprise('restart', '-i', forge(case, edit), '--pidns', '--privileged')
        if code != 1 or not err.rstrip('\n').endswith('[image-invalid]'):
            raise Failed('%s: exit status %d, %s' % (edit, code, err))
        case.expect_nobody()


def test_pid_namespaces(case):
    """Numbers in namespaces below the root's: of all who are in one, the same wrong thing."""
    refused_below(case, 'pid_nested', 'inner-pid=0', 'inner-pid=1', 'inner-pid=7', 'inner-pids=0', 'pid-namespace=0',
                  'pid-namespace=99999999', 'children=1', 'above=1')


def test_proc(case):
    refused_below(case, 'pid_proc', 'proc=1', 'proc-mounts=1', 'proc-mounts=0', 'proc-tmpfs')


def test_events(case):
    """A file system that is made for events has the inodes that it may have, and no other."""
    refused_below(case, 'fanotify_names', 'event-inode=0', 'event-inode=7', 'event-inode=268435456', 'event-inode=4294967295',
                  'event-overflow')


def test_epoll(case):
    """A signalfd whose number in a set nobody has: nor have those who have ended."""
    saved(case, 'anon_fds')
    for number in 2, 7, 1000, 1 << 29:
        refused(case, forge(case, 'epoll-number=%d' % number), ('image-invalid', 'restore'), 'number %d' % number, '--pidns')


def test_mounts(case):
    """An overlay is made of what stands in its fields, and a new file system of nothing that is there."""
    begin(case)
    good(case.reprise('run', '-d', '--name', 'c', '--', 'sleep', '1000'))
    case.checkpoint('c', '-q')
    for edit in ('options=xino=off,upperdir=/etc', 'options=lowerdir+=/root', 'options=redirect_dir=/etc', 'options=,',
                 'lower=/,upperdir=/etc', 'lower=', 'lower=/../..', 'type=ext4', 'type=tmpfs', 'type='):
        code, _, err = case.reprise('restart', '-d', '-i', forge(case, edit), '--name', 'other', '--privileged')
        if code != 1 or not err.rstrip('\n').endswith('[image-invalid]'):
            raise Failed('%s: exit status %d, %s' % (edit, code, err))
    good(case.reprise('restart', '-d', '-q', '-i', forge(case, 'options=xino=off,redirect_dir=nofollow'), '--name', 'other', '--privileged'))
    for name in ('c', 'other'):
        good(case.reprise('stop', '-t', '0', name))
        good(case.reprise('rm', name))
    case.reap()


# Exchanges two names over and over.
EXCHANGE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
while not libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2):
    pass
"""
# Has sockets by two names, and a removed file by another.
HOLDER = """
import os, socket, sys, time
os.chdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1] + '/precious')
os.chmod('precious', 0o777)
t = socket.socket(socket.AF_UNIX)
t.bind(sys.argv[1] + '/fresh')
f = open('valuable', 'w')
os.unlink('valuable')
f.write('text')
f.flush()
open('../ready', 'w').close()
time.sleep(1000)
"""


def precious(where):
    found = []
    for name in ('precious', 'valuable'):
        st = os.lstat(os.path.join(where, name))
        found.append((name, st.st_mode, st.st_uid, st.st_size))
    return found


def test_exchanged_directory(case):
    """Of a user's program that root restarts: the user puts a link to another directory in the place of his own, at any
    moment. Nothing there is removed or made, or gets other owners and modes."""
    mine, link, others = (os.path.join(case.work, name) for name in ('mine', 'link', 'others'))
    os.mkdir(mine)
    os.chown(mine, NOBODY, NOBODY)
    os.chmod(case.work, 0o777)
    os.mkdir(others)
    for name in ('precious', 'valuable'):
        with open(os.path.join(others, name), 'w') as file:
            file.write('of root')
        os.chmod(file.name, 0o600)
    before = precious(others)
    pid = case.spawn(['/usr/bin/python3', '-c', HOLDER, mine], uid=NOBODY, setsid=True)
    case.until(lambda: os.path.exists(os.path.join(case.work, 'ready')) or case.ended(pid), 'the program')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    os.symlink(others, link)
    attacker = case.spawn(['/usr/bin/python3', '-c', EXCHANGE, mine, link], uid=NOBODY)
    restarted = 0
    for _ in range(40):
        code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '-q', '--pidfile', case.path('pid'), '--pidns')
        if code not in (0, 1) or code and len(err.splitlines()) != 1:
            raise Failed('exit status %d: %s' % (code, err))
        if precious(others) != before or len(os.listdir(others)) != 2:
            raise Failed('what is of others is now %s, %s' % (precious(others), os.listdir(others)))
        if case.ended(attacker):
            raise Failed('who exchanges the directories has ended')
        if code == 0:
            restarted += 1
            with open(case.path('pid')) as file:
                os.kill(int(file.read()), 9)
            case.until(lambda: len(case.others()) == 1, 'the end of the program')
    if not restarted:
        raise Skipped('it was not restarted once')
    case.kill(attacker)
    if sorted(os.listdir(others)) != ['precious', 'valuable']:
        raise Failed('left there: %s' % os.listdir(others))


test_exchanged_directory.timeout = 90
