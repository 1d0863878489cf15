# SPDX-License-Identifier: Apache-2.0
"""The vDSO of another kernel, played by that of this one."""

import os
import signal

from case import Failed, Skipped

FOREIGN = {'REPRISE_FAULT': 'foreign-vdso'}


def mappings(pid):
    with open('/proc/%d/maps' % pid) as file:
        return [line.split()[-1] for line in file]


def foreign(case, program):
    """Calls into the old code lead to the new; and that can be saved and restarted again."""
    pid = case.start(program)
    for i in range(3):
        image = 'image.%d' % i
        case.checkpoint(pid, '--kill', '-q', image=image)
        if i == 0 and case.wait(pid) != 128 + signal.SIGKILL:
            raise Failed('the program was not killed')
        if i > 0:
            case.wait(restart)
        restart = case.restart(image=image, env=FOREIGN if i < 2 else None)
        case.until_handed_over(restart, pid, program[:15])
        if mappings(pid).count('[vdso]') != 1:
            raise Failed('there is not one vDSO')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the last copy')])


def test_foreign_vdso(case):
    foreign(case, 'memory_clock')


def test_foreign_vdso_narrow(case):
    """That of 32-bit programs, through which their system calls go."""
    if not os.path.exists(case.program('narrow_memory_clock')):
        raise Skipped('no 32-bit programs can be made here')
    foreign(case, 'narrow_memory_clock')

