# SPDX-License-Identifier: Apache-2.0
"""Devices that cannot be saved are refused by name."""

import os

from case import Skipped


def refused(case, path, *words):
    if not os.path.exists(path):
        raise Skipped('no %s' % path)
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as err:
        raise Skipped('%s cannot be opened: %s' % (path, err))
    pid = case.victim('open', path, 'wait', 'pass')
    result = case.reprise('checkpoint', str(pid), '-o', case.path('image'))
    case.refused(result, 'file-kind', path, *words)
    case.expect_files()
    case.finish(pid)


def test_fuse(case):
    refused(case, '/dev/fuse', 'FUSE')


def test_loop(case):
    refused(case, '/dev/loop0', 'block device 7:0', 'loop')


def test_loop_control(case):
    refused(case, '/dev/loop-control', 'loop')


def test_rtc(case):
    refused(case, '/dev/rtc0', 'cannot be saved')


def test_kvm(case):
    refused(case, '/dev/kvm', 'virtual machines')


def test_memory(case):
    refused(case, '/dev/mem', 'memory of the machine')


def test_hpet(case):
    refused(case, '/dev/hpet', 'timer')


def test_unnamed(case):
    """One that no table has."""
    refused(case, '/dev/vga_arbiter', 'character device')
