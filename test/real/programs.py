# SPDX-License-Identifier: Apache-2.0
"""Real programs in the middle of their work: saved, killed and brought back, twice.

What they print and make must be the same as in a run that nothing disturbed.
"""

import os
import random
import shutil
import signal
import socket

import time

from case import Failed, Skipped

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))

def needs(*programs):
    for program in programs:
        if not os.path.exists(program):
            raise Skipped('no %s' % program)

def lines(path):
    try:
        with open(path, 'rb') as file:
            return file.read().count(b'\n')
    except FileNotFoundError:
        return 0

def read(path):
    with open(path, 'rb') as file:
        return file.read()

def begin(case, argv, name, env=None, cwd=None):
    """Starts a program whose output is a file."""
    output = os.open(os.path.join(case.work, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    errors = os.open(case.log_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.close(errors)
    pid = case.spawn(argv, stdout=output, setsid=True, env=env, cwd=cwd)
    os.close(output)
    return pid

def kill_and_restart(case, pid, *args):
    image = 'image.%d' % time.monotonic_ns()
    case.checkpoint(pid, '--kill', '-q', image=image)
    return case.restart(*args, image=image)

def running(pid):
    """It exists again, and nobody traces it any more."""
    try:
        with open('/proc/%d/status' % pid) as file:
            return 'TracerPid:\t0\n' in file.read()
    except OSError:
        return False

def twice(case, pid, middle, later):
    """Killed and brought back at two moments, in two ways; the exit status in the end."""
    def reached(moment, tool, what):
        case.until(lambda: moment() or case.ended(tool), what)
        if case.ended(tool):
            raise Failed('it ended before its time: %d' % case.exit_code(tool))

    reached(middle, pid, 'half of the work')
    comm = case.comm(pid)
    restart = kill_and_restart(case, pid)
    if case.wait(pid) != 128 + signal.SIGKILL:
        raise Failed('it was not killed')
    case.until_handed_over(restart, pid, comm)
    reached(later, restart, 'more of the work')
    again = kill_and_restart(case, pid, '--pidns')
    if case.wait(restart) != 128 + signal.SIGKILL:
        raise Failed('the restart did not end like its root')
    return case.wait(again, 'the end')

def compare(case, argv, results=(), env=None, cwd=None, clean=None, moments=None,
            contents=read):
    """One run without and one with disturbance, at two moments: when a quarter and when a half of
    the output is there, or as given."""
    results = ['output'] + list(results)

    def path(name):
        return os.path.join(cwd or case.work, name) if name != 'output' else \
            os.path.join(case.work, name)

    code = case.wait(begin(case, argv, 'output', env, cwd), 'the undisturbed run')
    if code:
        raise Failed('undisturbed: exit status %d, %s' % (code, read(path('output'))[-300:]))
    expected = {name: contents(path(name)) for name in results}
    all_lines = lines(path('output'))
    for name in results:
        os.unlink(path(name))
    if clean:
        clean()
    pid = begin(case, argv, 'output', env, cwd)
    if not moments:
        moments = [lambda n=n: lines(path('output')) >= n
                   for n in (all_lines // 4, all_lines // 2)]
    code = twice(case, pid, *moments)
    if code:
        raise Failed('exit status %d' % code)
    for name in results:
        found = contents(path(name))
        if found != expected[name]:
            at = len(os.path.commonprefix([found, expected[name]]))
            raise Failed('%s differs from an undisturbed run after %d bytes: %r, should be %r' % (
                name, at, found[at:at + 100], expected[name][at:at + 100]))

def test_static(case):
    compare(case, [os.path.join(case.build, 'test/real/static')])

def test_numpy(case):
    needs('/usr/bin/python3')
    if case.run(['/usr/bin/python3', '-c', 'import numpy'])[0]:
        raise Skipped('no numpy')
    compare(case, ['/usr/bin/python3', os.path.join(HERE, 'count.numpy')],
            env={'OPENBLAS_NUM_THREADS': '2'})

def test_pipeline(case):
    temporary = os.path.join(case.work, 'tmp')
    os.mkdir(temporary)
    chance = random.Random(9)
    with open(os.path.join(case.work, 'input'), 'w') as file:
        for _ in range(40):
            block = ''.join('%06d some more text to be sorted\n' % (chance.random() ** 2 * 300000)
                            for _ in range(10000))
            file.write(block * 3)
    compare(case, ['/bin/sh', '-c', 'sort -S 8M input | uniq -c | sort -k1,1nr -k2 >result'],
            ['result'], env={'TMPDIR': temporary, 'LC_ALL': 'C'},
            moments=[lambda n=n: len(os.listdir(temporary)) >= n for n in (1, 3)])

def test_make(case):
    """make -j2 compiles a part of this project."""
    needs('/usr/bin/make', '/usr/bin/gcc')
    source = os.path.join(case.work, 'src')
    for part in ('src', 'include'):
        shutil.copytree(os.path.join(TOP, part), os.path.join(case.work, part))
    files = [os.path.join('src', part, name) for part in ('core', 'image')
             for name in sorted(os.listdir(os.path.join(source, part))) if name.endswith('.c')][:14]
    objects = [name[:-2] + '.o' for name in files]
    with open(os.path.join(case.work, 'Makefile'), 'w') as file:
        file.write('all.a: %s\n\tar rcD $@ $^\n\t@echo done\n' % ' '.join(objects))
        file.write('%%.o: %%.c\n\tgcc -O2 -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 '
                   '-Isrc -Iinclude -I%s/proto -c -o $@ $<\n\t@echo $@ is made\n' % case.build)

    def clean():
        for name in objects:
            os.unlink(os.path.join(case.work, name))
    os.mkdir(os.path.join(case.work, 'tmp'))
    compare(case, ['/usr/bin/make', '-j2', '-s'], ['all.a'],
            env={'TMPDIR': os.path.join(case.work, 'tmp'), 'LC_ALL': 'C'}, clean=clean,
            contents=lambda path: b'\n'.join(sorted(read(path).split(b'\n'))))

def test_java(case):
    needs('/usr/bin/java')
    compare(case, ['/usr/bin/java', '-Xmx128m', '-cp', os.path.join(HERE, 'java'), 'Count'])

def test_node(case):
    needs('/usr/bin/node')
    compare(case, ['/usr/bin/node', os.path.join(HERE, 'count.js')])

def test_go(case):
    needs('/usr/bin/go')
    program = os.path.join(case.work, 'count')
    code, out, err = case.run(
        ['/usr/bin/go', 'build', '-o', program, os.path.join(HERE, 'count.go')],
        env={'GOCACHE': os.path.join(case.build, 'test/real/go-cache'), 'CGO_ENABLED': '0',
             'GO111MODULE': 'off', 'GOFLAGS': '', 'HOME': case.work})
    if code:
        raise Failed('go build: %s' % err)
    compare(case, [program])

class Redis:
    """A client that makes a connection for a few commands at a time."""

    def __init__(self, port):
        self.port, self.acknowledged, self.lost = port, 0, 0

    def commands(self, *commands):
        with socket.create_connection(('127.0.0.1', self.port), timeout=5) as connection:
            stream = connection.makefile('rwb')
            answers = []
            for command in commands:
                words = [word.encode() for word in command.split()]
                stream.write(b'*%d\r\n' % len(words) + b''.join(
                    b'$%d\r\n%s\r\n' % (len(word), word) for word in words))
                stream.flush()
                answers.append(self.answer(stream))
            return answers

    def answer(self, stream):
        line = stream.readline()
        if not line.endswith(b'\r\n'):
            raise ConnectionError('the connection was closed')
        if line[:1] == b'$':
            size = int(line[1:])
            return stream.read(size + 2)[:-2].decode() if size >= 0 else None
        return line[1:-2].decode()

    def step(self):
        """A few increments; what was not answered may have been done or not."""
        sent = 5
        try:
            for answer in self.commands(*['INCR counter'] * sent):
                self.acknowledged += 1
        except OSError:
            self.lost += sent

def test_redis(case):
    """A hundred thousand keys, and clients that reconnect."""
    needs('/usr/bin/redis-server')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    pid = begin(case, ['/usr/bin/redis-server', '--port', str(port), '--bind', '127.0.0.1',
                       '--save', '', '--dir', case.work, '--logfile', '', '--appendonly', 'no'],
                'output')
    client = Redis(port)

    def alive():
        try:
            return client.commands('PING') == ['PONG']
        except OSError:
            return False

    case.until(alive, 'the server')
    for i in range(0, 100000, 5000):
        client.commands(*['MSET ' + ' '.join('key:%d value-%d' % (j, j * j)
                                             for j in range(k, k + 500))
                          for k in range(i, i + 5000, 500)])
    client.commands('SET counter 0', 'EXPIRE key:0 1000', 'SADD set a b c',
                    'ZADD sorted 1 one 2 two')
    tools = []
    for args in ((), ('--pidns',)):
        for _ in range(50):
            client.step()
        # The loop runs on while it is saved; it must not have a connection just then.
        feeder = os.fork()
        if feeder == 0:
            end = time.monotonic() + 2
            while time.monotonic() < end and os.getppid() == 1:
                try:
                    client.commands('PING')
                except OSError:
                    pass
                time.sleep(0.05)
            os._exit(0)
        image = case.path('image%d' % len(tools))
        for _ in range(60):
            code, out, err = case.reprise('checkpoint', str(pid), '-o', image, '--kill', '-q')
            if code == 0:
                break
            time.sleep(0.02)
        else:
            raise Failed('checkpoint: %s' % err)
        tools.append(case.start_reprise('restart', '-i', image, '-q', *args))
        case.until(lambda: alive() or case.ended(tools[-1]), 'the server is back')
        if case.ended(tools[-1]):
            raise Failed('the restart ended: %d' % case.exit_code(tools[-1]))
        case.wait(feeder)
    for _ in range(50):
        client.step()
    value = int(client.commands('GET counter')[0])
    if not client.acknowledged <= value <= client.acknowledged + client.lost:
        raise Failed('the counter is %d after %d answers and %d without one' % (
            value, client.acknowledged, client.lost))
    if client.commands('DBSIZE')[0] != '100003':
        raise Failed('%s keys are there' % client.commands('DBSIZE')[0])
    for i in range(0, 100000, 1):
        if i % 1000 == 0:
            answers = client.commands(*['GET key:%d' % j for j in range(i, i + 1000, 7)])
            for j, answer in zip(range(i, i + 1000, 7), answers):
                if answer != 'value-%d' % (j * j):
                    raise Failed('key %d is %s' % (j, answer))
    if not 0 < int(client.commands('TTL key:0')[0]) <= 1000:
        raise Failed('the time to live of a key was lost')
    try:
        client.commands('SHUTDOWN NOSAVE')
    except OSError:
        pass
    if case.wait(tools[-1], 'the server to shut down'):
        raise Failed('exit status %d' % case.exit_code(tools[-1]))

for _name in list(globals()):
    if _name.startswith('test_'):
        globals()[_name].timeout = 150
