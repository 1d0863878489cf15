# SPDX-License-Identifier: Apache-2.0
"""Descriptors of interfaces of the kernel that nobody can make anew: refused by name, at the check
and at the checkpoint, with what can be done."""

import os

from case import NOBODY, Skipped


def refused(case, what, code, *words):
    program = os.path.join(case.build, 'test/lib/anon_inodes')
    pid = case.start(program=program, arguments=[what])
    for command in (['check', str(pid)], ['checkpoint', str(pid), '-o', case.path('image')]):
        result = case.reprise(*command)
        case.refused((result[0], '', result[2].split('\n')[0]), code, pid, *words)
    case.expect_files()
    case.finish(pid)


def needs_kernel_memory():
    if not os.path.exists('/sys/kernel/btf/vmlinux'):
        raise Skipped('the memory of the kernel cannot be read')


def test_landlock(case):
    refused(case, 'landlock', 'file-kind', 'landlock-ruleset', 'read back', 'close it')


def test_seccomp_notify(case):
    refused(case, 'notify', 'file-kind', 'SECCOMP_RET_USER_NOTIF')


def test_perf_event(case):
    refused(case, 'perf', 'file-kind', 'perf_event_open', 'close it')


def test_pidfd_attribute(case):
    refused(case, 'pidfd', 'file-state', 'extended attributes')


def test_bpf_link(case):
    refused(case, 'link', 'file-kind', 'BPF link', 'close it')


def test_btf_of_kernel(case):
    refused(case, 'btf', 'file-kind', 'BTF', 'of this kernel', 'close it')


def test_bpf_attach(case):
    refused(case, 'attach', 'file-kind', 'attach_btf_id', 'close it')


def test_bpf_kfunc(case):
    needs_kernel_memory()
    refused(case, 'kfunc', 'file-kind', 'kfunc', 'close it')


def test_bpf_dead_code(case):
    needs_kernel_memory()
    refused(case, 'dead', 'file-kind', 'never reached', 'close it')


def test_bpf_counters(case):
    refused(case, 'counters', 'file-kind', 'performance counters')


def test_bpf_ring(case):
    needs_kernel_memory()
    refused(case, 'ring', 'file-state', 'a ring', 'no message begins')


def test_bpf_exclusive(case):
    needs_kernel_memory()
    refused(case, 'exclusive', 'file-state', 'one program alone')


def test_bpf_bloom(case):
    refused(case, 'bloom', 'file-kind', 'Bloom filter', 'hashes')


def test_bpf_arena(case):
    needs_kernel_memory()
    refused(case, 'arena', 'file-state', 'arena', 'mapped by no process')


def test_bpf_value_of_a_task_outside(case):
    needs_kernel_memory()
    refused(case, 'storage-task', 'file-outside', 'a value for a task')


def test_bpf_value_of_a_closed_file(case):
    needs_kernel_memory()
    refused(case, 'storage-file', 'file-outside', 'a value for a file')


def test_bpf_value_of_a_group_that_has_gone(case):
    needs_kernel_memory()
    refused(case, 'storage-group', 'file-outside', 'a value for a control group')


def test_bpf_memory(case):
    needs_kernel_memory()
    refused(case, 'memory', 'vma-kind', 'BPF map', 'nobody')


def test_bpf_timers(case):
    refused(case, 'timers', 'file-state', "'bpf_timer'")


def test_bpf_stats(case):
    refused(case, 'stats', 'file-kind', 'statistics', 'close it')


def test_timer_looks_cancelled(case):
    """As far as an ordinary user can tell, a step of the clock has cancelled it."""
    program = os.path.join(case.build, 'test/lib/anon_inodes')
    pid = case.start(program=program, arguments=['timer-looks'], uid=NOBODY)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY),
                 'file-state', pid, 'TFD_TIMER_CANCEL_ON_SET', 'as it seems')
    case.expect_files()
    # Root knows better.
    if os.path.exists('/sys/kernel/btf/vmlinux'):
        case.checkpoint(pid, '-q')
    case.finish(pid)


def test_timer_cancelled(case):
    if 'TEST_OWN_MACHINE' not in os.environ:
        raise Skipped('it would set the clock of the machine')
    refused(case, 'timer', 'file-state', 'TFD_TIMER_CANCEL_ON_SET', 'not been read;')
