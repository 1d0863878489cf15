# SPDX-License-Identifier: Apache-2.0
"""States of an io_uring that cannot be saved: each by name, at the check and at the checkpoint."""

import os
import time

from case import NOBODY, Skipped


def refused(case, what, code, *words, check=True):
    program = os.path.join(case.build, 'test/lib/ring')
    pid = case.start(program=program, arguments=[what])
    time.sleep(0.02)
    for look in (['check'] if check else []) + ['checkpoint']:
        more = ['-o', case.path('image')] if look == 'checkpoint' else []
        result = case.reprise(look, str(pid), *more)
        if result[2].rstrip().endswith(('[permission]', '[kernel-too-old]')):
            raise Skipped(result[2].strip())
        # The first, where several are in the way.
        case.refused((result[0], '', result[2].split('\n')[0]), code, pid, 'ring', *words)
    case.expect_files()
    case.finish(pid)


def test_wait_in_flight(case):
    """IORING_OP_WAITID, for children that stop, while one is stopped: known when all stand still."""
    refused(case, 'waitid', 'file-state', 'in flight', 'to stop', check=False)


def test_message_in_flight(case):
    """The kernel will write to a header that is not there."""
    refused(case, 'header', 'file-state', 'no longer has')


def test_other_credentials(case):
    refused(case, 'credentials', 'file-state', 'in flight with other credentials')


def test_other_buffer(case):
    refused(case, 'buffer-changed', 'file-state', 'registered buffer whose slot')


def test_other_file(case):
    refused(case, 'file-changed', 'file-state', 'in flight for a file that nobody has')


def test_drained_of_another_user(case):
    refused(case, 'drained', 'file-state', 'IOSQE_IO_DRAIN', 'other credentials than reprise')


def test_drain_after_chain(case):
    refused(case, 'drain', 'file-state', 'IOSQE_IO_DRAIN')


def test_shared_thread(case):
    refused(case, 'sqpoll-shared', 'file-state', 'IORING_SETUP_ATTACH_WQ')


def test_thread_with_other_credentials(case):
    refused(case, 'sqpoll-changed', 'file-state', 'IORING_SETUP_SQPOLL', 'other credentials')


def test_personality_of_more(case):
    """Credentials that whoever restarts does not have are not registered either."""
    pid = case.start(program=os.path.join(case.build, 'test/lib/ring'), arguments=['personality-root'])
    result = case.reprise('checkpoint', '-q', '--kill', '-o', case.path('image'), str(pid))
    if result[2].rstrip().endswith(('[permission]', '[kernel-too-old]')):
        raise Skipped(result[2].strip())
    case.wait(pid)
    os.chmod(case.path('image'), 0o644)
    case.refused(case.reprise('restart', '-q', '--pidns', '-i', case.path('image'), uid=NOBODY), 'credentials',
                 'user 0', 'io_uring')
    case.expect_nobody()
    copy = case.restart('--privileged')
    case.go()
    case.expect_pass(1, [case.wait_verdict(copy, 'the restarted program')])


def test_personality_of_a_user_namespace(case):
    refused(case, 'personality-user', 'file-state', 'personality 1', 'user namespace')


def test_personality_with_a_keyring(case):
    refused(case, 'personality-key', 'file-state', 'personality 1', 'keyring')


def test_personality_under_rules(case):
    refused(case, 'personality-landlock', 'file-state', 'personality 1', 'Landlock')


def test_own_memory_with_a_thread(case):
    refused(case, 'own-polled', 'file-state', 'IORING_SETUP_NO_MMAP', 'IORING_SETUP_SQPOLL')


def test_own_memory_that_is_gone(case):
    refused(case, 'own-gone', 'file-state', 'IORING_SETUP_NO_MMAP', 'no longer')


def test_provided_buffers(case):
    refused(case, 'provided', 'file-state', 'group 0', 'no longer in the memory')


def test_provided_buffers_of_the_kernel(case):
    refused(case, 'provided-mmap', 'file-state', 'IOU_PBUF_RING_MMAP')


def test_restrictions(case):
    refused(case, 'restricted', 'file-state', 'restrictions')


def test_registered_ring(case):
    """Only the thread itself can tell, when it stands still."""
    refused(case, 'number', 'file-state', 'IORING_REGISTER_RING_FDS', check=False)


def test_file_without_descriptor(case):
    refused(case, 'slot', 'file-state', 'slot 0')


def test_locked_file_without_descriptor(case):
    refused(case, 'slot-locked', 'file-state', 'slot 0')


def test_removed_file_without_descriptor(case):
    refused(case, 'slot-removed', 'file-state', 'slot 0')


def test_mapped_file_without_descriptor(case):
    refused(case, 'slot-mapped', 'file-state', 'slot 0')


def test_buffer_that_is_gone(case):
    refused(case, 'buffer', 'file-state', 'buffer 0')


def test_mapping_alone(case):
    refused(case, 'mapping', 'vma-kind', 'io_uring')


def test_overflow(case):
    refused(case, 'overflow', 'file-state', 'full')
