# SPDX-License-Identifier: Apache-2.0
"""Restarts under the limit of open files that the program has itself."""

import resource
import signal

from case import Failed


def test_gaps(case):
    """The control socket needs no number above all others."""
    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    pid = case.start('files_gaps')
    case.checkpoint(pid, '--kill', '-q')
    if case.wait(pid) != 128 + signal.SIGKILL:
        raise Failed('the program was not killed')
    case.forget(pid)
    tool = case.restart('--pidns', before=lower)
    case.go()
    case.expect_pass(1, [case.wait_verdict(tool, 'the restarted program')])
