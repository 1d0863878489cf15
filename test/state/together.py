# SPDX-License-Identifier: Apache-2.0
"""One program uses the library for several things at once, each in a thread of its own (test/lib/together.c).

TOGETHER=PROGRAM is another build of it: with the thread sanitizer, which looks at the threads of the program. Operations are
processes of their own; what threads they have it does not follow, hence the options."""

import os

from case import Failed

TURNS = os.environ.get('TOGETHER_TURNS', '4')


def test_together(case):
    other = case.start('tree')
    image = case.checkpoint(other, '-q', '--kill', image='one.rp')
    case.wait(other)
    case.statuses.clear()
    first, second = case.start('pipes'), case.start('memory_cow')
    program = os.environ.get('TOGETHER', os.path.join(case.build, 'test/lib/together'))
    code, out, err = case.run([program, TURNS, image, case.control, str(first), str(second)],
                              env={'TSAN_OPTIONS': 'die_after_fork=0:report_thread_leaks=0',
                                   'JOBS': os.environ.get('TOGETHER_JOBS', '0')})
    if code or err:
        raise Failed('exit status %d: %s%s' % (code, out, err))
    case.until(lambda: not [name for _, name in case.others() if name not in ('pipes', 'memory_cow')],
               'the end of the others: %s' % case.others())
    for name in ('0.rp', '1.rp'):
        code, _, err = case.reprise('verify', '-q', case.path(name))
        if code:
            raise Failed('verify %s: %s' % (name, err))
    case.go()
    case.expect_pass(2, [case.wait_verdict(pid, 'the program') for pid in (first, second)])


test_together.timeout = 120
