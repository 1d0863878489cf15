# SPDX-License-Identifier: Apache-2.0
"""The commands of containers are killed at any moment: what is left is seen and can be removed."""

import os
import random
import signal
import time

from case import Failed
from contained import begin, expect, listed

TRIES = 12


def mounts():
    with open('/proc/self/mountinfo') as file:
        return file.read()


def children(pid):
    try:
        with open('/proc/%d/task/%d/children' % (pid, pid)) as file:
            return [int(p) for p in file.read().split()]
    except OSError:
        return []


def kill_at(case, after, worker, *args):
    """Starts the command and kills it, or the process that works for it, some time later."""
    pid = case.start_reprise(*args)
    time.sleep(after)
    victims = [c for c in children(pid) if case_comm(c) == 'reprise'] if worker else [pid]
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
    case.wait(pid)


def case_comm(pid):
    try:
        with open('/proc/%d/comm' % pid) as file:
            return file.read().rstrip('\n')
    except OSError:
        return ''


def quiet(case):
    """Nobody is left of containers that nobody knows: only those that are listed run."""
    def known():
        inits = {c['init'] for c in listed(case).values() if c['state'] == 'running'}
        for pid, comm in case.others():
            if pid not in inits and comm == 'reprise-init' and os.path.exists('/proc/%d' % pid):
                return False
        return not any(comm == 'reprise' for _, comm in case.others())
    case.until(known, 'nobody runs that ps does not list')


def clean(case):
    """What the next command finds can be ended and removed, all of it."""
    quiet(case)
    for name, one in listed(case).items():
        if one['state'] not in ('running', 'ended'):
            raise Failed('%s is %s' % (name, one['state']))
        expect(case, case.reprise('stop', '-t', '0', name))
        expect(case, case.reprise('rm', name))
    if listed(case):
        raise Failed('rm left %s' % listed(case))
    directory = case.environment['REPRISE_DIR']
    if os.path.exists(directory) and os.listdir(directory):
        raise Failed('%s holds %s' % (directory, os.listdir(directory)))
    case.until(lambda: not case.others(), 'nobody is left')


def moments(case):
    """The same number of early and late ones; the seed is noted for whoever wants to see it again."""
    seed = random.randrange(1 << 30)
    case.note('seed %d' % seed)
    chance = random.Random(seed)
    return [(chance.random() * 0.03, chance.random() < 0.3) for _ in range(TRIES)]


def test_run(case):
    begin(case)
    before = mounts()
    for after, worker in moments(case):
        kill_at(case, after, worker, 'run', '-d', '--name', 'killed', '--', 'sleep', '1000')
        clean(case)
    if mounts() != before:
        raise Failed('mounts were left')


def saved(case):
    expect(case, case.reprise('run', '-d', '--name', 'saved', '--', 'sleep', '1000'), 'saved\n')
    case.checkpoint('saved', '-q')


def test_checkpoint(case):
    begin(case)
    saved(case)
    for i, (after, worker) in enumerate(moments(case)):
        kill_at(case, after, worker, 'checkpoint', 'saved', '-o', case.path('killed-%d' % i))
        quiet(case)
        if listed(case)['saved']['state'] != 'running':
            raise Failed('the container has ended')
        # whole, or not there
        if os.path.exists(case.path('killed-%d' % i)):
            expect(case, case.reprise('verify', case.path('killed-%d' % i), '-q'))
    case.checkpoint('saved', '-q', '--force')
    clean(case)


def test_restart(case):
    begin(case)
    saved(case)
    clean(case)
    before = mounts()
    for after, worker in moments(case):
        kill_at(case, after, worker, 'restart', '-d', '-i', case.path('image'), '--name', 'killed')
        clean(case)
    if mounts() != before:
        raise Failed('mounts were left')


def test_stop_and_remove(case):
    begin(case)
    for after, _ in moments(case)[:6]:
        expect(case, case.reprise('run', '-d', '--name', 'one', '--', 'sh', '-c',
                                  'mkdir /opt/deep; touch /opt/deep/file; exec sleep 1000'), 'one\n')
        kill_at(case, after / 3, False, 'stop', '-t', '1', 'one')
        expect(case, case.reprise('stop', '-t', '0', 'one'))
        kill_at(case, after / 10, False, 'rm', 'one')
        clean(case)


for test in (test_run, test_checkpoint, test_restart, test_stop_and_remove):
    test.timeout = 90
