# SPDX-License-Identifier: Apache-2.0
"""Programs that have terminals for others: script, tmux with a bash and a vim in it."""

import os
import signal
import time

from case import Failed, Skipped

SCRIPT, TMUX, VIM, BASH = '/usr/bin/script', '/usr/bin/tmux', '/usr/bin/vim.tiny', '/bin/bash'


def needs(*programs):
    for program in programs:
        if not os.path.exists(program):
            raise Skipped('no %s' % program)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ''


def killed(case, pid):
    if case.wait(pid) != 128 + signal.SIGKILL:
        raise Failed('it was not killed')
    case.forget(pid)
    case.expect_nobody()


def test_script(case):
    """A shell in script(1), which is fed through a fifo; the typescript is what shows."""
    needs(SCRIPT, BASH)
    typescript = os.path.join(case.work, 'typescript')
    fifo = os.path.join(case.work, 'fifo')
    os.mkfifo(fifo)
    program = 'exec 3<>fifo; n=0; while read -r line <&3; do n=$((n + 1)); ' \
              'echo "line $n: $line, $(tty <&2 | cut -c1-8), $(stty size <&2)"; ' \
              '[ "$line" = end ] && exit 7; done'
    with open(os.path.join(case.work, 'program'), 'w') as file:
        file.write(program)
    pid = case.spawn([SCRIPT, '-q', '-e', '-f', '-c', 'stty cols 77 rows 33; . ./program',
                      typescript], setsid=True, env={'SHELL': BASH, 'TERM': 'dumb'})

    def say(line, answer):
        with open(fifo, 'w') as file:
            file.write(line + '\n')
        case.until(lambda: answer in read(typescript), 'the answer to ' + line)

    case.until(lambda: len(case.others()) > 1, 'the shell')
    say('one', 'line 1: one, /dev/pts, 33 77')
    case.checkpoint(pid, '--kill', '-q')
    killed(case, pid)
    restart = case.restart()
    case.until_handed_over(restart, pid, 'script')
    say('two', 'line 2: two, /dev/pts, 33 77')
    case.checkpoint(pid, '--kill', '-q', image='second')
    case.wait(restart)
    restart = case.restart('--pidns', image='second')
    say('end', 'line 3: end, /dev/pts, 33 77')
    if case.wait(restart) != 7:
        raise Failed('script ended with %d' % case.exit_code(restart))


class Tmux:
    def __init__(self, case):
        self.case = case
        self.socket = os.path.join(case.work, 'socket')
        self.env = {'TERM': 'screen', 'SHELL': BASH}

    def __call__(self, *args):
        code, out, err = self.case.run([TMUX, '-f', '/dev/null', '-S', self.socket] + list(args),
                                       env=self.env)
        if code:
            raise Failed('tmux %s: %s' % (args, err))
        return out

    def screen(self, window):
        return self('capture-pane', '-p', '-t', 't:%d' % window)

    def screens(self):
        return [self.screen(window) for window in (0, 1)] + \
            [self('display', '-p', '-t', 't:%d' % window, '#{cursor_x} #{cursor_y} #{alternate_on}')
             for window in (0, 1)]

    def shows(self, window, text):
        self.case.until(lambda: text in self.screen(window), '"%s" on the screen' % text)

    def shows_line(self, window, text):
        self.case.until(lambda: text in self.screen(window).split('\n'), 'the line "%s"' % text)

    def quiet(self):
        """The screens, when they do not change any more."""
        seen = []

        def same():
            seen.append(self.screens())
            time.sleep(0.1)
            return len(seen) > 1 and seen[-1] == seen[-2]
        self.case.until(same, 'quiet screens')
        return seen[-1]

    def type(self, window, *keys):
        self('send-keys', '-t', 't:%d' % window, *keys)


def work_on(tmux, case, number):
    tmux.type(0, 'echo number $((%d * 111))' % number, 'Enter')
    tmux.shows(0, 'number %d' % (number * 111))
    tmux.type(1, 'otext of round %d' % number, 'Escape', ':w', 'Enter')
    case.until(lambda: 'text of round %d\n' % number in read(os.path.join(case.work, 'file')),
               'the file of vim')


def test_tmux(case):
    needs(TMUX, VIM, BASH)
    tmux = Tmux(case)
    tmux('new-session', '-d', '-s', 't', '-x', '90', '-y', '25',
         '%s --norc --noprofile -i' % BASH)
    tmux('new-window', '-t', 't:1', '%s -u NONE -n file' % VIM)
    pid = int(tmux('display', '-p', '#{pid}'))
    tmux.shows(0, 'bash-')
    tmux.shows(1, '~')
    work_on(tmux, case, 1)
    # Half typed, in both.
    tmux.type(0, 'echo ha')
    tmux.type(1, 'ofurther te')
    for i, more in enumerate(([], ['--pidns'])):
        before = tmux.quiet()
        case.checkpoint(pid, '--kill', '-q', image='image.%d' % i)
        case.until(lambda: not case.others(), 'the end of all')
        case.restart(*more, image='image.%d' % i)
        case.until(lambda: any(comm.startswith('tmux') for _, comm in case.others()), 'the server')
        after = tmux.screens()
        if after != before:
            raise Failed('the screens are %r, not %r' % (after, before))
        tmux.type(0, 'lf %d' % i, 'Enter')
        tmux.shows_line(0, 'half %d' % i)
        tmux.type(1, 'xt', 'Escape', ':w', 'Enter')
        case.until(lambda: 'further text\n' in read(os.path.join(case.work, 'file')), 'the text')
        work_on(tmux, case, i + 2)
        tmux.type(0, 'clear; echo ha')
        tmux.type(1, 'ofurther te')
        if i == 0:
            pid = int(tmux('display', '-p', '#{pid}'))
    tmux('kill-server')


test_script.timeout = test_tmux.timeout = 150
