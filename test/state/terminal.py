# SPDX-License-Identifier: Apache-2.0
"""Programs at a terminal: saved at one, restarted at another, under a shell with job control."""

import fcntl
import os
import pty
import random
import re
import select
import signal
import struct
import termios
import time

from case import Failed
from shell import Terminal


def victim(case, terminal):
    """Starts the program in the shell's foreground; its pid."""
    terminal.line(os.path.join(case.build, 'test/lib/victim') + ' talk')
    terminal.expect('talk: terminal 1, foreground 1')
    return foreground(terminal)


def foreground(terminal):
    return struct.unpack('i', fcntl.ioctl(terminal.master, termios.TIOCGPGRP, b'1234'))[0]


def converse(terminal, count):
    """What is typed arrives, and control characters do what they should."""
    terminal.line('hello')
    terminal.expect('talk %d: <hello>' % count)
    terminal.line('tty')
    terminal.expect('talk %d: <tty>' % (count + 1))
    terminal.expect('talk %d: /dev/tty opened' % (count + 1))
    terminal.expect('talk %d: /dev/tty kept' % (count + 1))
    terminal.type('\x03')
    terminal.expect('talk: interrupted')
    terminal.type('\x1a')
    terminal.expect(r'Stopped')
    terminal.expect('ready> ')
    terminal.line('fg')
    terminal.expect(r'reprise|victim')
    terminal.line('after fg')
    terminal.expect('talk %d: <after fg>' % (count + 2))
    return count + 3


def at_a_terminal(case, *args):
    first = Terminal(case)
    pid = victim(case, first)
    first.line('before')
    first.expect('talk 1: <before>')
    image = case.checkpoint(pid, '--kill', '-q')
    first.expect('Killed')
    first.expect('ready> ')
    first.end()
    second = Terminal(case)
    second.line('%s restart -i %s %s' % (case.reprise_path, image, ' '.join(args)))
    count = converse(second, 2)
    second.line('quit')
    second.expect('talk %d: <quit>' % count)
    second.expect('ready> ')
    second.line('echo status $?')
    second.expect('status 42')
    second.end()
    case.expect_nobody()


def test_tree(case):
    at_a_terminal(case)


def test_pidns(case):
    at_a_terminal(case, '--pidns')


def test_same_terminal(case):
    """Saved and killed, and restarted on the terminal where it was."""
    terminal = Terminal(case)
    pid = victim(case, terminal)
    image = case.checkpoint(pid, '--kill', '-q')
    terminal.expect('ready> ')
    terminal.line('%s restart -i %s' % (case.reprise_path, image))
    count = converse(terminal, 1)
    terminal.line('quit')
    terminal.expect('talk %d: <quit>' % count)
    terminal.end()


def test_left_running(case):
    """A checkpoint does not disturb a program that reads from its terminal."""
    terminal = Terminal(case)
    pid = victim(case, terminal)
    for i in range(5):
        case.checkpoint(pid, '-q', '--force')
    count = converse(terminal, 1)
    if foreground(terminal) != pid:
        raise Failed('the program is not in the foreground')
    terminal.line('quit')
    terminal.expect('talk %d: <quit>' % count)
    terminal.line('echo status $?')
    terminal.expect('status 42')
    terminal.end()


def test_background(case):
    """Restarted in the background, it is stopped when it wants to read, like any program."""
    first = Terminal(case)
    pid = victim(case, first)
    image = case.checkpoint(pid, '--kill', '-q')
    first.expect('ready> ')
    first.end()
    second = Terminal(case)
    second.line('%s restart -i %s &' % (case.reprise_path, image))
    second.expect(r'\[1\] \d+')
    time.sleep(0.3)
    second.line('')
    second.expect('Stopped')
    second.line('fg')
    second.line('in front')
    second.expect('talk 1: <in front>')
    second.line('quit')
    second.expect('talk 2: <quit>')
    second.end()


def test_interrupt_kills(case):
    """Ctrl-C ends a program that does nothing about it, and the shell sees that."""
    first = Terminal(case)
    first.line('sleep 1000')
    case.until(lambda: foreground(first) != first.shell, 'sleep in the foreground')
    time.sleep(0.1)
    image = case.checkpoint(foreground(first), '--kill', '-q')
    first.expect('Killed')
    first.expect('ready> ')
    first.line('%s restart -i %s' % (case.reprise_path, image))
    time.sleep(0.3)
    first.type('\x03')
    first.expect('ready> ')
    first.line('echo status $?')
    first.expect('status 130')
    first.end()
    case.expect_nobody()


def test_from_pipe(case):
    """The image from a pipe, the terminal from standard output."""
    first = Terminal(case)
    pid = victim(case, first)
    image = case.checkpoint(pid, '--kill', '-q')
    first.expect('ready> ')
    first.line('cat %s | %s restart -i -' % (image, case.reprise_path))
    time.sleep(0.3)
    first.line('by pipe')
    first.expect('talk 1: <by pipe>')
    first.line('quit')
    first.expect('talk 2: <quit>')
    first.end()


def test_killed_in_between(case):
    """What is in pseudo-terminals survives a checkpoint that is killed at any moment."""
    pid = case.start('pty_contents')
    chance = random.Random(int(time.time()))
    for i in range(10):
        tool = case.start_reprise('checkpoint', str(pid), '-o', case.path('image.%d' % i), '-q')
        time.sleep(chance.random() * 0.12)
        workers = [other for other, comm in case.others() if comm == 'reprise' and other != tool]
        for process in workers[:1] + [tool]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        case.wait(tool)
        case.until(lambda: not any(comm == 'reprise' for _, comm in case.others()),
                   'the end of the checkpoint')
    case.finish(pid)


OWN = """
import fcntl, os, pty, struct, termios, time
master, slave = pty.openpty()
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
open('up', 'w').close()
while not os.path.exists('on'):
    time.sleep(0.01)
session, = struct.unpack('i', fcntl.ioctl(slave, 0x5429, b'1234'))
text = '%d %d' % (session == os.getpid(), os.tcgetpgrp(slave) == os.getpgrp())
with open('new', 'w') as file:
    file.write(text)
os.rename('new', 'answer')
"""


def test_own_terminal(case):
    """A session whose terminal is of the program's own making keeps it, wherever it is restarted."""
    def there(name):
        return os.path.exists(os.path.join(case.work, name))

    pid = case.spawn(['/usr/bin/python3', '-c', OWN])
    case.until(lambda: there('up'), 'the start')
    image = case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    terminal = Terminal(case)
    terminal.line('%s restart -i %s' % (case.reprise_path, image))
    open(os.path.join(case.work, 'on'), 'w').close()
    terminal.expect('ready> ')
    case.until(lambda: there('answer'), 'the answer')
    with open(os.path.join(case.work, 'answer')) as file:
        text = file.read()
    if text != '1 1':
        raise Failed('the terminal is not its own: %s' % text)
    terminal.end()


def shown_while_slow(case, pid, *args):
    """What a checkpoint shows on a terminal while nobody takes the image from it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 50, 200, 0, 0))
    reader, writer = os.pipe()
    tool = case.spawn([case.reprise_path, 'checkpoint', str(pid), '-o', '-'] + list(args),
                      stdout=writer, stderr=slave)
    os.close(writer)
    os.close(slave)
    # Longer than what is not worth a line, then slower than lines are drawn.
    time.sleep(0.5)
    while os.read(reader, 1 << 20):
        time.sleep(0.004)
    os.close(reader)
    if case.wait(tool):
        raise Failed('the checkpoint failed')
    text = b''
    while select.select([master], [], [], 0)[0]:
        try:
            text += os.read(master, 65536)
        except OSError:
            break
    os.close(master)
    return text.decode()


def test_progress(case):
    """Bytes, rate and the time that is left, on a line that is gone at the end."""
    pid = case.victim('memory', '24', 'wait', 'pass')
    text = shown_while_slow(case, pid)
    if not re.search(r'saving  [0-9.]+ [KM]iB of [0-9.]+ MiB  [0-9]+%  [0-9.]+ [KM]iB/s  '
                     r'[0-9]+:[0-9]{2} left', text):
        raise Failed('no progress: %r' % text)
    if ''.join(text.split('\r')[-2:]).strip():
        raise Failed('the line is left on the terminal: %r' % text)
    text = shown_while_slow(case, pid, '-q')
    if text:
        raise Failed('-q, and yet: %r' % text)
    case.finish(pid)


def test_given(case):
    """A terminal that nobody works at: the restart is begun there, by no shell."""
    first = Terminal(case)
    pid = victim(case, first)
    image = case.checkpoint(pid, '--kill', '-q')
    first.expect('ready> ')
    first.end()
    master, slave = pty.openpty()
    name = os.ttyname(slave).encode()
    tool = case.spawn([case.reprise_path, 'restart', '-i', image], stdin=slave, stdout=slave, stderr=slave, setsid=True,
                      before=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(slave)

    def answers(line, answer):
        os.write(master, line)
        text = b''
        while answer not in text:
            if not select.select([master], [], [], 20)[0]:
                raise Failed('%r instead of %r' % (text, answer))
            try:
                text += os.read(master, 4096)
            except OSError as error:
                raise Failed('%r, then the end' % text) from error

    answers(b'hello\n', b'talk 1: <hello>')
    if name not in [os.readlink('/proc/%d/fd/0' % other).encode() for other, comm in case.others() if comm.startswith('victim')]:
        raise Failed('its input is not the terminal that was given')
    answers(b'quit\n', b'talk 2: <quit>')
    status = case.wait(tool)
    os.close(master)  # before that, it would be hung up
    if status != 42:
        raise Failed('status %d' % status)
