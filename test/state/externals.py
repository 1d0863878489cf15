# SPDX-License-Identifier: Apache-2.0
"""What was declared external is left out of an image, and replaced at the restart."""

import json
import os
import signal
import socket
import threading

from case import Failed, Skipped, libc, system

DEVICE = '/dev/fuse'
HIGH = 5000  # spawn() leaves it open


class Giving:
    """Descriptors that a program is started with."""

    def __init__(self, **numbers):
        self.numbers = {int(name[2:]): fd for name, fd in numbers.items()}

    def __call__(self):
        for number in self.numbers:
            os.dup2(HIGH + number, number)

    def __enter__(self):
        for number, fd in self.numbers.items():
            os.dup2(fd, HIGH + number)
        return self

    def __exit__(self, *unused):
        for number in self.numbers:
            os.close(HIGH + number)


def server(case, name):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(20)
    one.bind(case.path(name))
    one.listen(5)
    return one


def echo(one):
    with one.accept()[0] as connection:
        connection.send(connection.recv(64))


class Program:
    def __init__(self, case):
        if not os.path.exists(DEVICE):
            raise Skipped('there is no ' + DEVICE)
        self.case = case
        self.server = server(case, 'server')
        self.reader, writer = os.pipe()
        self.tcp = socket.create_server(('127.0.0.1', 0))
        self.address = 'tcp:127.0.0.1:%d' % self.tcp.getsockname()[1]
        self.pipe = os.readlink('/proc/self/fd/%d' % writer)
        with Giving(fd20=writer) as give:
            self.pid = case.start(program=os.path.join(case.build, 'test/lib/externals'), before=give,
                                  arguments=[os.path.dirname(case.path('x')), DEVICE,
                                             self.address.split(':')[2]])
        os.close(writer)
        self.client = self.server.accept()[0]

    def externals(self):
        return ['--external', self.pipe, '--external', self.address, '--external', 'unix:*/server', '--external', '/dev/f?se']

    def save(self):
        self.case.checkpoint(self.pid, '--kill', '-q', *self.externals())
        if self.case.wait(self.pid) != 128 + signal.SIGKILL:
            raise Failed('the program was not killed')
        self.client.close()
        self.tcp.close()
        os.close(self.reader)

    def finish(self, restart):
        self.case.go()
        self.case.expect_pass(1, [self.case.wait_verdict(restart, 'the restart')])


def expect(is_, *wanted):
    if sorted(is_) != sorted(wanted):
        raise Failed('%s instead of %s' % (is_, wanted))


def test_refused(case):
    """Each by name, and all of them not if they are declared."""
    program = Program(case)
    _, _, err = case.reprise('check', str(program.pid))
    for code, word in (('file-outside', program.pipe), ('file-outside', 'server'),
                       ('file-kind', DEVICE), ('tcp-connection', program.address[4:])):
        if not [line for line in err.splitlines() if word in line and '[%s]' % code in line
                and '--external' in line]:
            raise Failed('%s is not refused: %s' % (word, err))
    if case.reprise('check', str(program.pid), *program.externals())[0]:
        raise Failed('refused in spite of --external')
    by_number = ['pid:%d/fd:20' % program.pid] + program.externals()[3::2]
    code, _, err = case.reprise('check', str(program.pid),
                                *[word for x in by_number for word in ('--external', x)])
    if code:
        raise Failed('refused in spite of --external by number: ' + err)
    os.close(program.reader)
    case.kill_all()
    case.wait(program.pid)


def restart_with(case, *more):
    program = Program(case)
    program.save()
    image = case.path('image')
    names = [one['detail'].split(',')[0]
             for one in json.loads(case.reprise('inspect', image, '--json')[1])['open_files']
             if one['kind'] == 'external']
    expect(names, program.address, program.pipe, 'unix:' + case.path('server'), DEVICE)
    case.refused(case.reprise('restart', '-i', image, '--replace', '/dev/fuse=null', '--replace',
                              'unix:*=null'), 'file-external', program.pipe, 'externals')
    for bad in ('/no/such=null', 'pid:%d/fd:999=null' % program.pid):
        case.refused(case.reprise('restart', '-i', image, '--replace', bad), 'file-replace',
                     bad.partition('=')[0])
    reader, writer = os.pipe()
    glue, given = socket.socketpair()
    with Giving(fd7=writer, fd8=given.fileno()) as give:
        restart = case.restart('--replace', program.pipe + '=fd:7', '--replace', 'tcp:*=fd:8',
                               '--replace',
                               '/dev/fuse=file:/dev/fuse', *more, before=give)
    os.close(writer)
    given.close()
    program.finish(restart)
    if glue.recv(64) != b'request' or glue.recv(64):
        raise Failed('no request instead of the connection')
    text = b''
    while b'flight' not in text:
        part = os.read(reader, 64)
        if not part:
            break
        text += part
    if text != b'childcopyflight' or os.read(reader, 64):
        raise Failed('the pipe got %s' % text)
    os.close(reader)
    return program


def test_by_command(case):
    restart_with(case, '--replace', 'unix:*=exec:cat')
    if open(os.path.join(case.work, 'file')).read() != 'beforeafter':
        raise Failed('the file is not what it was')


def test_by_name_in_a_pid_namespace(case):
    """And a file, which goes on at its position in another one."""
    other = server(case, 'other')
    answers = threading.Thread(target=echo, args=[other])
    answers.start()
    with open(os.path.join(case.work, 'second'), 'w') as file:
        file.write('BEFORE')
    restart_with(case, '--pidns', '--replace', 'unix:*=unix:' + case.path('other'), '--replace',
                 os.path.join(case.work, 'file') + '=file:' + os.path.join(case.work, 'second'))
    answers.join()
    if open(os.path.join(case.work, 'second')).read() != 'BEFOREafter':
        raise Failed('the file was not replaced')


def test_container(case):
    """What leads from a container to the host through a volume."""
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')
    one = server(case, 'server')
    pid = case.start(program=case.reprise_path,
                     arguments=['run', '--name', 'first', '-w', case.work] + case.volumes()
                     + ['--', os.path.join(case.build, 'test/lib/externals'),
                        os.path.dirname(case.path('x'))])
    client = one.accept()[0]
    code, _, err = case.reprise('checkpoint', 'first', '-o', case.path('image'), '--kill', '-q',
                                '--external', 'unix:*/server')
    if code:
        raise Failed('exit status %d: %s' % (code, err))
    case.wait(pid)
    client.close()
    answers = threading.Thread(target=echo, args=[one])
    answers.start()
    restart = case.restart('--name', 'second', '--replace', 'unix:*=unix:' + case.path('server'))
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the restart')])
    answers.join()
    for name in ('first', 'second'):
        case.reprise('rm', name)


SYS_PIDFD_GETFD = 438


def take(pid, number):
    pidfd = os.pidfd_open(pid)
    fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
    os.close(pidfd)
    return fd


def counter():
    with open('mnt/counter') as file:
        return file.read()


def test_fuse(case):
    """The server of a file system comes back to its mount, through the same connection."""
    if not os.path.exists(DEVICE):
        raise Skipped('there is no ' + DEVICE)
    os.chdir(case.work)
    os.mkdir('mnt')
    pid = case.start(program=os.path.join(case.build, 'test/lib/fuse_server'), arguments=['mnt'])
    fd = next(int(n) for n in os.listdir('/proc/%d/fd' % pid)
              if os.readlink('/proc/%d/fd/%s' % (pid, n)) == DEVICE)
    fuse = take(pid, fd)
    if counter() != '1':
        raise Failed('the file system does not work')
    case.checkpoint(pid, '--kill', '-q', '--external', DEVICE)
    case.wait(pid)
    with Giving(fd9=fuse) as give:
        restart = case.restart('--replace', DEVICE + '=fd:9', before=give)
    os.close(fuse)
    if counter() != '2':
        raise Failed('the file system does not work any more')
    case.go()
    case.expect_pass(1, [case.wait_verdict(restart, 'the restart')])
    system('umount2', b'mnt', 2)


def test_usage(case):
    open(case.path('image'), 'w').close()
    for bad in ('x', '=null', 'x=', 'x=nothing', 'x=fd:', 'x=fd:seven', 'x=fd:77', 'x=file:'):
        code, _, err = case.reprise('restart', '-i', case.path('image'), '--replace', bad)
        if code != 2:
            raise Failed('--replace %s: exit status %d, %s' % (bad, code, err))
    for command in (['checkpoint', '1', '-o', 'x'], ['check', '1'], ['watch', '1', '-d', 'x']):
        if case.reprise(*command, '--external', '')[0] != 2:
            raise Failed('--external without a name')
