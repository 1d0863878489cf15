# SPDX-License-Identifier: Apache-2.0
"""Programs that do something of another width than their own."""

import os

from case import Skipped


def refused(case, narrow, what, code, *words):
    program = os.path.join(case.build, 'test/lib', 'narrow_odd_widths' if narrow else 'odd_widths')
    if not os.path.exists(program):
        raise Skipped('the compiler makes no 32-bit programs')
    pid = case.start(program=program, arguments=[what])
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), code, *words)
    case.expect_files()
    case.finish(pid)


def test_code_of_32_bits(case):
    refused(case, False, 'code', 'task-32bit', 'runs 32-bit code in a 64-bit program')


def test_code_of_64_bits(case):
    refused(case, True, 'code', 'task-32bit', 'runs 64-bit code in a 32-bit program')


def test_segment(case):
    refused(case, False, 'segment', 'task-32bit', 'segments of its own')


def test_segment_of_32_bits(case):
    refused(case, True, 'segment', 'task-32bit', 'segments of its own')


def test_call_of_32_bits(case):
    refused(case, False, 'call', 'task-32bit', 'int 0x80')


def test_ring_of_32_bits(case):
    refused(case, True, 'ring', 'file-state', 'an io_uring of a 32-bit program')
