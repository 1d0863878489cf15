# SPDX-License-Identifier: Apache-2.0
"""Images that hold what has changed since the one before, as `reprise watch` makes them."""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import time

from place import Failed

UNITS = {'ns': 1, 'us': 1e3, 'ms': 1e6, 's': 1e9}
IMAGES = 6
PAGE = 4096
SERVER = '/usr/bin/redis-server'
KEYS, SECONDS = 850000, 3
# One SET changes about four pages: of the value, of the one before it, of tables.
SETS = 650


class Images:
    """What a watch has said of its images."""

    def __init__(self, tool, place, pid, every, *options):
        self.place = place
        self.directory = place.path('watched')
        self.output = place.path('watch.out')
        os.mkdir(self.directory)
        self.pid = place.spawn(tool.argv + [
            'watch', str(pid), '-v', '-d', self.directory, '--every', every, '--keep', '100',
            *options], self.output, place.path('watch.err'))

    def all(self):
        """Pairs: bytes, and how long the application stood still."""
        with open(self.output) as file:
            lines = [line for line in file if line.endswith('\n')]
        found = []
        for line in lines:
            path, stood, unit = re.match(r'(\S+)  .* for ([\d.]+) ([a-z]+)$', line).groups()
            found.append((os.stat(path).st_size, float(stood) * UNITS[unit]))
        return found

    def until(self, number, what):
        self.place.until(lambda: len(self.all()) >= number, what, self.pid)
        return self.all()

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        _, status, usage = os.wait4(self.pid, 0)
        shutil.rmtree(self.directory)
        if status:
            with open(self.place.path('watch.err')) as file:
                raise Failed('the watch ended: %s' % file.read()[-300:])
        return usage.ru_maxrss * 1024


def measure_watched(work, tool, place):
    """Of each image, of which some hold what was written on purpose."""
    pid, ready = place.start(work.program, *work.args)
    images = Images(tool, place, pid, '200ms')
    first = images.until(2, 'the first images')[0]
    stood, sizes = [], []
    for _ in range(IMAGES):
        number, count = len(images.all()), place.count(pid)
        if work.written:
            os.kill(pid, signal.SIGUSR2)
            place.until(lambda: place.count(pid) > count, 'pages being written', pid)
        # the one that was under way, and the one after it
        both = images.until(number + 2, 'an image')[number:number + 2]
        stood.append(max(s for _, s in both))
        sizes.append(sum(size for size, _ in both))
    found = {(tool.name, 'first freeze'): first[1],
             (tool.name, 'later freeze'): statistics.median(stood),
             (tool.name, 'later image'): statistics.median(sizes),
             'pages written': work.written * PAGE}
    found[tool.name, 'memory'] = images.end()
    place.remove(ready + '.alive')  # SIGUSR2 woke it as well
    place.check_alive(pid, ready)
    return found


@contextlib.contextmanager
def one_processor():
    """
    For what is started within. Who asks and who answers wake each other; where that is another
    processor, it costs three times the rest of a request if that one sleeps, and nothing if it
    is busy with saving: a server that is watched would be the faster one.
    """
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def load(place, *args):
    with one_processor():
        return place.run([place.program('load'), place.path('redis'), str(KEYS)] +
                         [str(a) for a in args])[1]


def processor_time(pid):
    """Of all threads, in ns."""
    total = 0
    for tid in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/schedstat' % (pid, tid)) as file:
            total += int(file.read().split()[0])
    return total


def asked(place, pid):
    """`each`: processor time of the server for a request."""
    before = processor_time(pid)
    found = json.loads(load(place, SECONDS, SETS))
    found['each'] = (processor_time(pid) - before) / found['requests']
    return found


def start_redis(place):
    place.remove('redis')
    with one_processor():
        pid = place.spawn([SERVER, '--port', '0', '--unixsocket', place.path('redis'), '--save',
                           '', '--appendonly', 'no', '--daemonize', 'no', '--dir',
                           place.directory], setsid=True)
    place.until(lambda: os.path.exists(place.path('redis')), 'redis', pid)
    load(place)
    return pid


def measure_redis(work, tool, place):
    """
    Under load: alone, while images are made ten times a second, while one is made.

    What a server loses is the time that it stands still, and what each request costs it more
    (pages that are write-protected, caches): the second is told apart, as `processor`.
    """
    pid = start_redis(place)
    alone = asked(place, pid)
    images = Images(tool, place, pid, '100ms', '--unix', 'disconnect')
    images.until(10, 'images')
    before, begun = len(images.all()), time.monotonic_ns()
    watched = asked(place, pid)
    took = time.monotonic_ns() - begun
    made = len(images.all()) - before
    again = asked_after(place, pid, images)
    saved = asked_while(place, tool, pid)
    return {'alone': 1e9 / statistics.mean([alone['rate'], again['rate']]),
            (tool.name, 'request'): 1e9 / watched['rate'],
            'processor alone': statistics.mean([alone['each'], again['each']]),
            (tool.name, 'processor'): watched['each'],
            (tool.name, 'from image to image'): took / max(1, made),
            (tool.name, 'p99 more, watched'): max(0, watched['p99'] - alone['p99']),
            (tool.name, 'p99 more'): max(0, saved['p99'] - alone['p99'])}


def asked_after(place, pid, images):
    images.end()
    return asked(place, pid)


def asked_while(place, tool, pid):
    """During as many complete checkpoints as there is time for."""
    output = place.path('asked')
    with one_processor():
        asking = place.spawn([place.program('load'), place.path('redis'), str(KEYS), str(SECONDS),
                              str(SETS)], output)
    while os.waitpid(asking, os.WNOHANG)[0] == 0:
        place.run(tool.argv + ['checkpoint', str(pid), '--unix', 'disconnect', '--force', '-q',
                               '-o', place.path('image')])
    with open(output) as file:
        return json.load(file)
