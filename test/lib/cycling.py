# SPDX-License-Identifier: Apache-2.0
"""Saved, killed and restarted over and over: nothing grows, and a program finds all as it left it.

The cycles themselves are made by test/lib/cycle.c, some at a time; between these it is looked what has grown.
"""

import os
import select
import struct
import time

from case import PATIENCE, Failed
from modes import refusal_allowed

CYCLES = int(os.environ.get('CYCLES', '4'))
AT_A_TIME = 10
# Pages come in as they are touched; they do not become ever more.
ROOM = {'resident': 1024}
# What has ended may be seen for a moment: a worker of io_uring that the restart has used.
MOMENT = 7


def of_process(at, found):
    """Adds what a process has; returns its namespaces."""
    found['processes'] += 1
    found['threads'] += len(os.listdir(at + 'task'))
    with open(at + 'maps') as file:
        found['mappings'] += len(file.readlines())
    with open(at + 'statm') as file:
        pages = file.read().split()
    found['virtual'] += int(pages[0])
    found['resident'] += int(pages[1])
    found['descriptors'] += len(os.listdir(at + 'fd'))
    return {os.readlink(at + 'ns/' + name) for name in os.listdir(at + 'ns')}


def numbers(case):
    """What must not grow: of all processes that there are, and of this place."""
    found = {'processes': 0, 'threads': 0, 'descriptors': 0, 'mappings': 0, 'virtual': 0, 'resident': 0}
    namespaces = set()
    for pid, _ in case.others():
        try:
            namespaces |= of_process('/proc/%d/' % pid, found)
        except OSError:
            pass  # it ended meanwhile, or is a zombie
    found['namespaces'] = len(namespaces)
    with open('/proc/self/mounts') as file:
        found['mounts'] = len(file.readlines())
    found['files'] = len(os.listdir(case.work)) + len(os.listdir(case.control))
    return found


def growth(case, first):
    """What has become more than it was after the first cycle, and stays so."""
    until = time.monotonic() + MOMENT * PATIENCE
    while True:
        now = numbers(case)
        more = ['%s: %d, and %d after the first' % (key, value, first[key]) for key, value in now.items()
                if value > first[key] + ROOM.get(key, 0)]
        if not more or time.monotonic() > until:
            return more
        time.sleep(0.05)


class Cycles:
    """Makes them, and is the parent of what is restarted."""

    def __init__(self, case, pid, options):
        asked, self.ask = os.pipe()
        self.told, told = os.pipe()
        self.case = case
        self.errors = case.path('cycle-errors')
        fd = os.open(self.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.pid = case.spawn([os.path.join(case.build, 'test/lib/cycle'), case.reprise_path, case.path('image'), str(pid)]
                              + options, stdin=asked, stdout=told, stderr=fd)
        for end in (asked, told, fd):
            os.close(end)

    def make(self, number):
        os.write(self.ask, struct.pack('=I', number))
        while not select.select([self.told], [], [], 0.01)[0]:
            self.case.reap()
        if os.read(self.told, 1) != b'\0':
            raise Failed(self.said() or 'no cycles were made')

    def said(self):
        with open(self.errors) as file:
            return file.read().strip()

    def end(self):
        os.close(self.ask)
        os.close(self.told)
        self.case.wait(self.pid)
        os.unlink(self.errors)


def timeout():
    """Many are a long run, at low priority."""
    return 40 + CYCLES * (1 if CYCLES < 100 else 20)


def run_cycles(case, meta):
    case.environment['TEST_DURATION'] = str(timeout())
    pid = case.start()
    cycles = Cycles(case, pid, meta['checkpoint'])
    first, done = None, 0
    while done < CYCLES:
        some = min(AT_A_TIME, CYCLES - done) if done else 1
        try:
            cycles.make(some)
        except Failed as why:
            if not done and refusal_allowed(case, meta, 1, str(why)):
                cycles.end()
                case.finish(pid)
                return
            raise Failed('cycle %d to %d: %s' % (done + 1, done + some, why))
        case.statuses.clear()
        done += some
        if first is None:
            first = numbers(case)
        more = growth(case, first)
        if more:
            raise Failed('cycle %d: %s' % (done, '; '.join(more)))
    cycles.end()
    case.go()
    case.expect_pass(1, [case.wait_verdict(pid, 'the program')])
