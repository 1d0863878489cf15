# SPDX-License-Identifier: Apache-2.0
"""What only reads, and merge, under valgrind: nothing that is not initialised is used, and no memory is lost."""

import os
import shutil

from case import Failed, Skipped


def check(case, *args):
    code, out, err = case.run([shutil.which('valgrind'), '-q', '--error-exitcode=99', '--leak-check=full', '--errors-for-leak-kinds=definite',
                               '--show-leak-kinds=definite', case.reprise_path] + list(args))
    if code or err:
        raise Failed('%s: exit status %d: %s' % (' '.join(args), code, err))


def test_valgrind(case):
    if not shutil.which('valgrind'):
        raise Skipped('no valgrind')
    if not os.path.exists(os.path.join(case.build, 'test/harm/liballoc.so')):
        raise Skipped('a build with sanitizers looks for itself')
    pid = case.start('memory_steps')
    case.checkpoint(pid, '-q', image='0.rp')
    case.checkpoint(pid, '-q', '--parent', case.path('0.rp'), '--compress', 'zstd', image='1.rp')
    check(case, 'inspect', case.path('1.rp'))
    check(case, 'inspect', '--json', case.path('1.rp'))
    check(case, 'verify', '-q', case.path('1.rp'), '--parent', case.path('0.rp'))
    check(case, 'merge', '-q', case.path('1.rp'), '-o', case.path('2.rp'))
    check(case, 'restart', '--plan', '-i', case.path('2.rp'))
    case.kill_all()


test_valgrind.timeout = 120
