# SPDX-License-Identifier: Apache-2.0
"""Images that root of this machine did not make, restarted as root."""

import glob
import os
import stat

from case import NOBODY, Failed, system

STATE = '/var/lib/reprise'
KEY = STATE + '/key'
APART = '         0 1879048192      65536\n'


def uid_map(pid):
    with open('/proc/%d/uid_map' % pid) as file:
        return file.read()


def users(pid):
    with open('/proc/%d/status' % pid) as file:
        for line in file:
            if line.startswith('Uid:'):
                return line.split()[1:]


def another_machine():
    """For this test alone: with no key yet."""
    os.makedirs(STATE, 0o700, exist_ok=True)
    system('mount', b'none', STATE.encode(), b'tmpfs', 0, b'mode=700')


def restarted(case, *args, warned=False, image='image'):
    """Restarts it in the background; the pid of its first process."""
    pidfile = case.path('pid')
    case.reap()
    case.statuses.clear()
    code, _, err = case.reprise('restart', '-i', case.path(image), '-d', '--pidfile', pidfile, *args)
    if code:
        raise Failed('restart: %s' % err)
    if ('[image-foreign]' in err) != warned:
        raise Failed('warned of a foreign image or not: %s' % err)
    with open(pidfile) as file:
        return int(file.read())


def end(case, pid):
    """Lets it go on to its end, and to a verdict that is good."""
    with open('/proc/%d/stat' % pid) as file:
        parent = int(file.read().rsplit(')', 1)[1].split()[1])
    root = pid if parent == os.getpid() else parent
    case.go()
    case.expect_pass(1, [case.wait_verdict(root, 'the restarted program')])
    case.hold()
    for path in glob.glob(case.path('verdict-go.*')):
        os.unlink(path)


def test_own(case):
    """What root saves here has all its rights again, over and over."""
    another_machine()
    pid = case.start('memory_anon')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    mode = os.stat(KEY)
    if stat.S_IMODE(mode.st_mode) != 0o600 or mode.st_size != 32:
        raise Failed('the key: mode %o, %d bytes' % (mode.st_mode, mode.st_size))
    with open(KEY, 'rb') as file:
        key = file.read()
    for _ in range(3):
        copy = restarted(case)
        if uid_map(copy) == APART or users(copy) != ['0'] * 4:
            raise Failed('restarted with less than it had')
        case.checkpoint(copy, '--kill', '--force', '-q')
    with open(KEY, 'rb') as file:
        if file.read() != key:
            raise Failed('the key has changed')
    end(case, restarted(case))


def test_of_another_machine(case):
    """In a user namespace, where root is nobody; with all rights where that was asked for."""
    case.reprise('keygen', case.path('alice'))
    pid = case.start('tree')
    case.checkpoint(pid, '-q')
    case.checkpoint(pid, '--kill', '-q', '--sign', case.path('alice'), image='signed')
    case.wait(pid)
    another_machine()
    for args, image, apart in (((), 'image', True), (('--privileged',), 'image', False), ((), 'signed', True),
                               (('--trust', case.path('alice.pub')), 'signed', False)):
        copy = restarted(case, *args, warned=apart, image=image)
        if (uid_map(copy) == APART) != apart:
            raise Failed('%s %s: %s' % (image, args, uid_map(copy)))
        for task in os.listdir('/proc/%d/task' % copy):
            if apart and any(int(u) < 1879048192 for u in users(int(task))):
                raise Failed('task %s is %s outside' % (task, users(int(task))))
        end(case, copy)  # all that it was inside: it looked for itself


def test_lazily(case):
    """Memory follows into the user namespace, and a checkpoint waits for it."""
    pid = case.start('memory_anon')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    another_machine()
    case.environment['REPRISE_FAULT'] = 'lazy-slow'
    copy = restarted(case, '--lazy', warned=True)
    if uid_map(copy) != APART or not [pid for pid, name in case.others() if name == 'lazy-pages']:
        raise Failed('nothing follows: %s' % case.others())
    case.checkpoint(copy, '-q', '--force')
    if [pid for pid, name in case.others() if name == 'lazy-pages']:
        raise Failed('the checkpoint has not waited: %s' % case.others())
    end(case, copy)


def test_of_a_user(case):
    """What an ordinary user has made is no more trusted by root than what is from elsewhere."""
    pid = case.start('pipes', uid=NOBODY)
    case.checkpoint(pid, '--kill', '-q', uid=NOBODY)
    case.wait(pid)
    copy = restarted(case, warned=True)
    if uid_map(copy) != APART:
        raise Failed('an ordinary user can have root restart what he likes')
    end(case, copy)


def test_not_dumpable(case):
    """What cannot be restored so is refused."""
    pid = case.start('credentials')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    another_machine()
    case.refused(case.reprise('restart', '-i', case.path('image'), '-d', '-q'), 'image-foreign', 'dumpable')
    end(case, restarted(case, '--privileged'))


def test_files_of_root(case):
    """A foreign image reads nothing that only root may read."""
    secret = os.path.join(case.work, 'secret')
    with open(secret, 'w') as file:
        file.write('secret')
    os.chmod(secret, 0o600)
    with open(secret) as file:
        pid = case.start('memory_anon', stdin=file.fileno())
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    end(case, restarted(case))
    another_machine()
    code, _, err = case.reprise('restart', '-i', case.path('image'), '-d')
    if code != 1 or 'secret' not in err:
        raise Failed('a file of root was opened: %d, %s' % (code, err))


def test_container(case):
    """A container takes more than a user namespace gives."""
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')
    code, _, err = case.reprise('run', '-d', '--name', 'first', *case.volumes(), '--', 'sleep', '1000')
    if code:
        raise Failed('run: %s' % err)
    case.checkpoint('first', '--kill', '-q')
    another_machine()
    case.refused(case.reprise('restart', '-i', case.path('image'), '-d'), 'image-foreign')
    code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '--name', 'second', '--privileged')
    if code:
        raise Failed('restart: %s' % err)
    case.reprise('stop', '-t', '0', 'second')
    case.reprise('rm', 'first', 'second')
    case.reap()


def test_bad_keys(case):
    """A key that others could have read, or put there, is none."""
    another_machine()
    pid = case.start('memory_anon')
    case.checkpoint(pid, '-q')

    def expect(apart, what):
        copy = restarted(case, '--pidns', warned=apart)
        if (uid_map(copy) == APART) != apart:
            raise Failed(what)
        os.kill(copy, 9)
        case.until(lambda: not os.path.exists('/proc/%d' % copy), 'its end')

    expect(False, 'the right key is not taken')
    os.chmod(KEY, 0o644)
    expect(True, 'a key that everybody can read is taken')
    os.chmod(KEY, 0o600)
    os.chown(KEY, NOBODY, NOBODY)
    expect(True, 'a key of somebody else is taken')
    os.chown(KEY, 0, 0)
    os.chmod(STATE, 0o777)
    expect(True, 'a key in a directory of everybody is taken')
    os.chmod(STATE, 0o700)
    os.rename(KEY, STATE + '/real')
    os.symlink('real', KEY)
    expect(True, 'a symbolic link is followed to a key')
    os.unlink(KEY)
    os.rename(STATE + '/real', KEY)
    expect(False, 'the right key is not taken any more')
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the program')])


def test_sockets(case):
    """Where all directories are somebody else's."""
    pid = case.start('unix_stream', uid=NOBODY)
    case.checkpoint(pid, '--kill', '-q', uid=NOBODY)
    case.wait(pid)
    for name in os.listdir(case.work):
        if stat.S_ISSOCK(os.lstat(os.path.join(case.work, name)).st_mode):
            os.unlink(os.path.join(case.work, name))
    end(case, restarted(case, warned=True))
