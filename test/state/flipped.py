# SPDX-License-Identifier: Apache-2.0
"""A flipped bit is found: in an incremental image, and in those that it needs.

Each run takes some bytes, other ones each time; FLIP_ALL=1 takes every byte of the state part.
"""

import json
import os
import random

from case import Failed

ALL = bool(os.environ.get('FLIP_ALL'))


def chain(case):
    """Three images, with something new in each."""
    pid = case.start('memory_steps')
    for i in range(3):
        more = ['--parent', case.path('%d.rp' % (i - 1)), '--compress', 'lz4'] if i else []
        case.checkpoint(pid, '-q', *more, image='%d.rp' % i)
    case.kill_all()
    case.until(lambda: not case.others(), 'the end of the program')


def sizes(case, name):
    code, out, err = case.run([case.reprise_path, 'inspect', '--json', case.path(name)])
    if code:
        raise Failed('inspect: %s' % err)
    return json.loads(out)['sizes']


def flip(case, changed, begin, end, step, verified='2.rp'):
    seed = random.randrange(1 << 20)
    case.note('seed %d' % seed)
    code, out, err = case.run([os.path.join(case.build, 'test/lib/flip'), case.path(changed), str(begin), str(end),
                               str(step), str(seed), case.path(verified), case.control])
    if code:
        raise Failed('%s of %s, seed %d: %s%s' % (changed, verified, seed, out, err))
    return out


def steps(length, few):
    return max(1, length // few)


def test_incremental(case):
    """The state part, which names the parent and says what is there; and pages."""
    chain(case)
    state, total = (sizes(case, '2.rp')[key] for key in ('state_bytes', 'total_bytes'))
    case.note(flip(case, '2.rp', 0, state, 1 if ALL else steps(state, 400)))
    case.note(flip(case, '2.rp', state, total, steps(total - state, 2000 if ALL else 200)))
    # index, trailer, and the end record
    case.note(flip(case, '2.rp', total - 400, total, 1 if ALL else 5))


def test_parents(case):
    """Those that it is based on count as well."""
    chain(case)
    for name in ('0.rp', '1.rp'):
        state, total = (sizes(case, name)[key] for key in ('state_bytes', 'total_bytes'))
        case.note(flip(case, name, 0, state, 1 if ALL else steps(state, 100)))
        case.note(flip(case, name, state, total, steps(total - state, 1000 if ALL else 60)))


for function in (test_incremental, test_parents):
    function.timeout = 100000 if ALL else 60
