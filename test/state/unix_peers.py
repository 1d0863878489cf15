# SPDX-License-Identifier: Apache-2.0
"""Unix sockets whose other side is outside the tree: refused, disconnected, connected again."""

import os
import signal
import socket
import struct

from case import Failed, system


class Outside:
    """What the program is connected to."""

    def __init__(self, case, how):
        self.case, self.clients = case, []
        self.server = self.bound('server', socket.SOCK_STREAM)
        self.server.listen(5)
        self.log = self.bound('log', socket.SOCK_DGRAM)
        self.pid = case.start(program=os.path.join(case.build, 'test/lib/unix_peers'),
                              arguments=[how, os.path.dirname(case.path('own'))],
                              ready=False)
        self.client = self.server.accept()[0]
        if self.client.recv(5) != b'hello':
            raise Failed('no hello')
        if how == 'unread':
            self.client.send(b'a word')
        else:
            self.connect().send(b'greeting')
            self.connect()
        case.until(lambda: os.path.exists(case.path('ready')) or case.ended(self.pid),
                   'the program gets ready')
        if not os.path.exists(case.path('ready')):
            case.verdict_of_early_end(self.pid)
        os.unlink(case.path('ready'))

    def bound(self, name, kind):
        one = socket.socket(socket.AF_UNIX, kind)
        one.settimeout(20)
        one.bind(self.case.path(name))
        return one

    def connect(self):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.connect(self.case.path('own'))
        self.clients.append(one)
        return one

    def close(self):
        for one in self.clients + [self.client, self.server, self.log]:
            one.close()
        for name in ('server', 'log'):
            os.unlink(self.case.path(name))

    def save(self, *args):
        self.case.checkpoint(self.pid, '--kill', '-q', *args)
        if self.case.wait(self.pid) != 128 + signal.SIGKILL:
            raise Failed('the program was not killed')

    def finish(self, restart):
        self.case.go()
        self.case.expect_pass(1, [self.case.wait_verdict(restart, 'the restart')])


def test_refused(case):
    for how, args, code, words in (
            ('disconnect', (), 'file-outside', (case.path('server'), '--unix')),
            ('disconnect', ('--unix=refuse',), 'file-outside', (case.path('server'), '--unix')),
            ('unread', ('--unix=reconnect',), 'file-state', ('--unix=disconnect',))):
        outside = Outside(case, how)
        code_is, out, err = case.reprise('checkpoint', str(outside.pid), '-o', case.path('image'),
                                         '-q', *args)
        # Several are in the way.
        lines = [line for line in err.splitlines() if words[0] in line]
        case.refused((code_is, out, lines[0] if lines else ''), code, outside.pid, *words)
        case.kill(outside.pid)
        case.wait(outside.pid)
        outside.close()
        os.unlink(case.path('own'))


def test_disconnected(case):
    outside = Outside(case, 'disconnect')
    outside.save('--unix=disconnect')
    restart = case.restart()
    outside.finish(restart)
    if outside.log.recv(64) != b'logged' or outside.client.recv(64):
        raise Failed('something else than the end')


def test_connected_again(case):
    outside = Outside(case, 'reconnect')
    outside.save('--unix=reconnect')
    restart = case.restart()
    outside.finish(restart)
    again = outside.server.accept()[0]
    if again.recv(64) != b'again' or outside.log.recv(64) != b'logged':
        raise Failed('not connected again')
    made_by = struct.unpack('iii', again.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if made_by != (outside.pid, 0, 0):
        raise Failed('connected by %s' % (made_by,))


def test_nobody_there(case):
    outside = Outside(case, 'gone')
    outside.save('--unix=reconnect')
    outside.close()
    case.refused(case.reprise('restart', '-i', case.path('image')), 'restore', 'server')
    outside.finish(case.restart('--unix=disconnect'))


BINDER = 'import os, socket, time; s = socket.socket(socket.AF_UNIX); s.bind("merged/name"); ' \
         's.listen(1); open("bound", "w"); time.sleep(1000)'


def test_name_of_stranger(case):
    """On overlayfs, of whose sockets sock_diag tells another device than stat(2)."""
    for name in ('lower', 'upper', 'work', 'merged'):
        os.mkdir(os.path.join(case.work, name))
    os.chdir(case.work)
    system('mount', b'lower', b'lower', b'tmpfs', 0, None)
    system('mount', b'overlay', b'merged', b'overlay', 0,
           b'lowerdir=lower,upperdir=upper,workdir=work,xino=off')
    pid = case.spawn(['/usr/bin/python3', '-c', BINDER], setsid=True, cwd=case.work)
    case.until(lambda: os.path.exists('bound'), 'the socket')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.forget(pid)
    case.expect_nobody()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        os.unlink('merged/name')
        with socket.socket(socket.AF_UNIX, kind) as stranger:
            stranger.bind('merged/name')
            case.refused(case.reprise('restart', '-i', case.path('image')), 'restore', 'name',
                         'in use by another program')
    restart = case.restart()
    case.until_handed_over(restart, pid, 'python3')
    with socket.socket(socket.AF_UNIX) as client:
        client.connect('merged/name')
    os.kill(pid, signal.SIGKILL)
    case.wait(restart)
    for name in (b'merged', b'lower'):
        system('umount2', name, 2)
