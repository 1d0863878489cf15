# SPDX-License-Identifier: Apache-2.0
"""For which pressure a program waits, as the kernel has it, before and after a restart."""

import os

from case import Failed, Skipped

WANTED = ('memory, waits for "some 150000 2000000"', 'io, waits for "full 200000 4000000"')


def look(case, image):
    code, out, err = case.reprise('inspect', '--files', case.path(image))
    if code:
        raise Failed(err)
    for text in WANTED:
        if out.count(text) != 1:
            raise Failed('%s: not once %s in: %s' % (image, text, out))
    return out.count('waits for')


def test_same(case):
    if not os.path.exists('/sys/kernel/btf/vmlinux'):
        raise Skipped('the memory of this kernel cannot be read')
    pid = case.start('pressure')
    case.checkpoint(pid, '-q', '--kill')
    case.wait(pid)
    restart = case.restart()
    case.until_handed_over(restart, pid, 'pressure')
    case.checkpoint(pid, '-q', image='second')
    if look(case, 'image') != look(case, 'second'):
        raise Failed('not as many as before')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the program')])


def test_user(case):
    """Who cannot know is refused."""
    pid = case.victim('update', '/proc/pressure/memory', 'wait', 'pass', uid=65534)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q', uid=65534),
                 'permission', pid, 'pressure')
    case.expect_files()
    case.finish(pid)
