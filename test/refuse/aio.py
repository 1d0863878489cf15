# SPDX-License-Identifier: Apache-2.0
"""Asynchronous I/O that cannot be saved."""

import os

from case import Failed

SETUP = '''
import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
context = ctypes.c_ulong(0)
if libc.syscall(206, 10, ctypes.byref(context)) < 0:
    sys.exit(3)
'''

FORK = SETUP + '''
if os.fork() == 0:
    open('up', 'w').close()
time.sleep(100)
'''


def refused(case, program, *words):
    pid = case.spawn(['/usr/bin/python3', '-c', program])
    case.until(lambda: 'up' in os.listdir(case.work) or case.ended(pid), 'the start')
    if case.ended(pid):
        raise Failed('the program ended: %d' % case.exit_code(pid))
    result = case.reprise('checkpoint', str(pid), '-o', case.path('image'))
    case.refused(result, 'vma-kind', *words)
    case.expect_files()
    case.kill_all()


def test_left_by_fork(case):
    refused(case, FORK, 'left by a fork')
