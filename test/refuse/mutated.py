# SPDX-License-Identifier: Apache-2.0
"""Images of which one field says something else, with checksums that fit (test/lib/mutate.c), restarted in earnest.

Each is refused with one line, or restarted with no more than whoever restarts it has; nothing is left of it, nothing
crashes or hangs. Of each program some are taken at random, by a seed that a failure tells; by hand

  MUTATE_ALL=1        all of them
  MUTATE_LOOK=1       looked at by inspect and --plan as well
  MUTATE_STEP=N       one in N, with MUTATE_ALL
  MUTATE_LOG=FILE     failures are told there at once
  MUTATE_EACH=N       N of the things that stand at the same place (1)
  MUTATE_PROGRAMS=    of these programs
  MUTATE_SEED=N       the same ones again
  MUTATE_FROM=N       begins with that number
  MUTATE_ONLY=TEXT    of what is told of them with that text"""

import os
import random
import resource
import time

from case import NOBODY, PATIENCE, Failed, Skipped
from contained import begin, good

ALL = bool(os.environ.get('MUTATE_ALL'))
EACH = os.environ.get('MUTATE_EACH', '1')
SEED = int(os.environ.get('MUTATE_SEED') or random.randrange(1 << 30))
LOOK = bool(os.environ.get('MUTATE_LOOK'))
STEP = int(os.environ.get('MUTATE_STEP', '1'))
FROM = int(os.environ.get('MUTATE_FROM', '0'))
ONLY = os.environ.get('MUTATE_ONLY', '')
PROGRAMS = os.environ.get('MUTATE_PROGRAMS', '').split()
SAMPLE = 6
APART, APART_END = 1879048192, 1879048192 + 65536
LONGEST = 20  # seconds
MEMORY = 1 << 20  # KiB


def mutate(case, *args):
    return good(case.run([os.path.join(case.build, 'test/lib/mutate'), EACH] + list(args), uid=0))


def tasks(case):
    """The fields of /proc/PID/status of all others."""
    for pid, _ in case.others():
        try:
            with open('/proc/%d/status' % pid, errors='replace') as file:
                yield dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)
        except OSError:
            continue


def user_space(pid):
    try:
        return os.readlink('/proc/%s/ns/user' % pid)
    except OSError:
        return None


def too_mighty(case, uids):
    """Somebody who has other users' ids, or capabilities in our user namespace."""
    for status in tasks(case):
        ids = [int(n) for name in ('Uid', 'Gid') for n in status[name].split()]
        if status['State'][0] not in 'ZX' and any(n not in uids for n in ids):
            return '%s with the ids %s' % (status['Name'], ids)
        if status['State'][0] not in 'ZX' and int(status['CapPrm'], 16) and user_space(status['Pid']) == user_space('self'):
            return '%s with the capabilities %s' % (status['Name'], status['CapPrm'])
    return None


def confined(case, uids, what):
    """A helper of the restart may be just about to end."""
    end = time.monotonic() + 2 * PATIENCE
    while too_mighty(case, uids):
        if time.monotonic() > end:
            raise Failed('%s: restarted is %s' % (what, too_mighty(case, uids)))
        time.sleep(0.01)


def one_line(case, what, code, err, refused):
    lines = err.split('\n')
    if code == 0 and not refused:
        return
    if code != 1 or len(lines) != 2 or lines[1] or not err.isprintable() and not lines[0].isprintable():
        raise Failed('%s: exit status %d, %r' % (what, code, err[:500]))
    if not lines[0].endswith(']') or '[internal]' in lines[0]:
        raise Failed('%s: %s' % (what, lines[0][:500]))


def run(case, what, *args, refused=False, **more):
    """To its end, which has to be soon."""
    begun = time.monotonic()
    code, _, err = case.reprise(*args, **more)
    if time.monotonic() - begun > LONGEST * PATIENCE:
        raise Failed('%s: %s took %d s' % (what, args[0], time.monotonic() - begun))
    if code == 0:  # a warning may be there
        err = ''
    one_line(case, what, code, err, refused)
    return code


def remains(case):
    with open('/proc/self/mountinfo') as file:
        mounts = file.read()
    with open('/proc/self/net/dev') as file:
        links = [line.split(':')[0] for line in file]
    # A program may find what was changed in it before it is killed.
    return mounts, links, sorted(os.listdir(case.work)), sorted(
        name for name in os.listdir(case.control) if not name.startswith('verdict-'))


def remove_container(case):
    if 'REPRISE_DIR' in case.environment:
        case.reprise('stop', '-t', '0', 'copy')
        case.reprise('rm', 'copy')


def try_one(case, n, args, uids, uid):
    what = mutate(case, case.path('image'), case.path('mutated'), str(n)).strip()
    os.chmod(case.path('mutated'), 0o644)
    before = remains(case)
    if LOOK:
        run(case, what, 'inspect', case.path('mutated'), uid=uid)
        run(case, what, 'restart', '-i', case.path('mutated'), '--plan', *args, uid=uid)
    # A descriptor that is restarted as a standard stream is this one.
    if run(case, what, 'restart', '-i', case.path('mutated'), '-d', '-q', *args, uid=uid) == 0:
        if uids:
            confined(case, uids, what)
        remove_container(case)
        case.kill_all()
    case.expect_nobody()
    case.statuses.clear()
    after = remains(case)
    for one, other in zip(before, after):
        if one != other:
            raise Failed('%s: left %r instead of %r' % (what, other, one))


def try_some(case, args, uids=None, uid=0):
    """With the image that is there."""
    os.rename(case.path('image'), case.path('kept'))
    case.run(['/bin/cp', case.path('kept'), case.path('image')], uid=0)
    os.chmod(case.path('image'), 0o644)
    open(case.path('mutated'), 'w').close()
    numbers = [int(line.split()[0]) for line in mutate(case, case.path('image')).split('\n') if line and ONLY in line]
    chance = random.Random(SEED)
    failed = []
    for n in numbers[FROM::STEP] if ALL else chance.sample(numbers, min(SAMPLE, len(numbers))):
        try:
            try_one(case, n, args, uids, uid)
        except Failed as why:
            failed.append('%d (of %s, seed %d): %s' % (n, case.name, SEED, why))
            case.note(failed[-1])
            if ALL and os.environ.get('MUTATE_LOG'):
                with open(os.environ['MUTATE_LOG'], 'a') as log:
                    log.write('%s\n' % failed[-1])
            remove_container(case)
            case.kill_all()
            case.expect_nobody()
        case.deadline = max(case.deadline, time.monotonic() + 60)
    if failed:
        raise Failed('%d images: %s' % (len(failed), '\n'.join(failed[:20])))
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if most > MEMORY:
        raise Failed('%d KiB of memory were used' % most)


def save(case, name, uid):
    pid = case.start(name, uid=uid)
    case.checkpoint(pid, '--kill', '-q', uid=uid)
    case.kill_all()
    case.expect_nobody()
    case.statuses.clear()


def tried(kind, name, args, uids, uid, owner):
    def test(case):
        save(case, name, owner)
        try_some(case, args, uids, uid)
    test.timeout = 36000 if ALL else 120
    test.network = True
    test.__name__ = 'test_%s_%s' % (kind, name)
    globals()[test.__name__] = test


OF_USERS = ['anon_fds', 'epoll_sets', 'files_regular', 'inet_options', 'memory_anon', 'mqueue_empty',
            'pipes', 'regs', 'signal_pending', 'sysv_msg', 'threads', 'timers_posix', 'unix_flight']
OF_ROOT = ['bpf_storages', 'credentials', 'files_deleted', 'io_uring_own', 'io_uring_personalities', 'locks_leases',
           'memory_sysv', 'namespaces', 'networks', 'packet_ring', 'pid_nested', 'seccomp_filter', 'tun', 'unix_backlog',
           'users']


# Made by a user and restarted by root: in a user namespace.
for _name in PROGRAMS or OF_USERS:
    tried('user', _name, ['--pidns'], {NOBODY}, NOBODY, NOBODY)
    tried('root', _name, ['--pidns'], range(APART, APART_END), 0, NOBODY)
for _name in PROGRAMS or OF_ROOT:
    tried('privileged', _name, ['--pidns', '--privileged'], None, 0, 0)


def test_container(case):
    begin(case)
    good(case.reprise('run', '-d', '--name', 'c', '--', 'sleep', '1000'))
    case.checkpoint('c', '-q', '--kill')
    good(case.reprise('rm', 'c'))
    case.reap()
    case.statuses.clear()
    if case.others():
        raise Skipped('somebody is left of the container')
    try_some(case, ['--name', 'copy', '--privileged'])


test_container.timeout = 36000 if ALL else 120
test_container.network = True
