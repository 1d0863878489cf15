# SPDX-License-Identifier: Apache-2.0
"""A shell with job control, on a pseudo-terminal that a test types on."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

from case import Failed, PATIENCE


class Terminal:
    """A pseudo terminal with a shell on it."""

    def __init__(self, case):
        self.case = case
        self.text = ''
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 50, 200, 0, 0))

        def before():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.shell = case.spawn(['/bin/bash', '--norc', '--noprofile', '-i'], stdin=slave,
                                stdout=slave, stderr=slave, before=before,
                                env={'PS1': 'ready> ', 'TERM': 'dumb', 'HISTFILE': '',
                                     'TEST_CONTROL': case.control})
        os.close(slave)
        self.expect('ready> ')

    def expect(self, pattern, seconds=15):
        """Waits until there is such text, and forgets all up to its end."""
        end = time.monotonic() + seconds * PATIENCE
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            if time.monotonic() > end:
                raise Failed('no "%s" on the terminal, but: %r' % (pattern, self.text))
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors='replace')
                except OSError:
                    raise Failed('the terminal was hung up before "%s": %r' % (pattern, self.text))
            self.case.reap()

    def type(self, text):
        os.write(self.master, text.encode())

    def line(self, text):
        self.type(text + '\n')

    def end(self):
        os.close(self.master)
        self.case.wait(self.shell)
