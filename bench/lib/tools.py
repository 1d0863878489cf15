# SPDX-License-Identifier: Apache-2.0
"""The tools that are measured: each saves a tree, and brings it back once it has ended.

checkpoint() and restart() return times in ns and sizes in bytes, by name:
  freeze      how long the application stood still, as the tool reports it
  checkpoint  wall time of the whole command
  restart     wall time of the whole command, which leaves the application behind
  running     until the application runs, as the tool reports it
  image       size
  memory      the most that one process of the tool has used, as wait4() tells
"""

import json
import os
import shutil


class Reprise:
    name = 'reprise'

    def __init__(self, path, kill=False, under=None):
        self.argv = (under or []) + [path]
        self.more = ['--kill'] if kill else []

    def checkpoint(self, place, pid, end=False, options=()):
        more = (['--kill'] if end else self.more) + list(options)
        wall, output = place.run(self.argv + ['checkpoint', str(pid), '-o', place.path('image'),
                                              '--json'] + more)
        figures = json.loads(output)['figures']
        return {'freeze': figures['stood_still_ns'], 'checkpoint': wall, 'memory': place.peak,
                'image': os.stat(place.path('image')).st_size}

    def restart(self, place, more=()):
        wall, output = place.run(self.argv + ['restart', '-i', place.path('image'), '--detach',
                                              '--json'] + list(more))
        return {'restart': wall, 'running': json.loads(output)['figures']['running_ns']}

    def remove(self, place):
        place.remove('image')


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Fields of a protobuf message, of the two kinds that CRIU's statistics have."""
    at, found = 0, {}
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            found[key >> 3], at = varint(data, at)
        else:
            length, at = varint(data, at)
            found[key >> 3] = data[at:at + length]
            at += length
    return found


class Criu:
    name = 'criu'

    def __init__(self, path, kill=False):
        self.path = path
        self.more = [] if kill else ['--leave-running']

    def run(self, place, log, args):
        try:
            return place.run([self.path] + args + ['-D', place.path('criu'), '-o', log,
                                                   '--manage-cgroups=ignore'])[0]
        except Exception as error:
            with open(os.path.join(place.path('criu'), log), errors='replace') as file:
                lines = [line for line in file if 'Error' in line]
            raise type(error)('%s: %s' % (error, ''.join(lines[:3]).strip()))

    def checkpoint(self, place, pid, end=False, options=()):
        self.remove(place)
        os.mkdir(place.path('criu'))
        wall = self.run(place, 'dump.log', ['dump', '-t', str(pid)] + ([] if end else self.more))
        directory = place.path('criu')
        # Two magic numbers, the length, and a message whose first field is that of a dump.
        with open(os.path.join(directory, 'stats-dump'), 'rb') as file:
            dump = fields(fields(file.read()[12:])[1])
        return {'freeze': dump[2] * 1000, 'checkpoint': wall,
                'image': sum(entry.stat().st_size for entry in os.scandir(directory))}

    def restart(self, place):
        return {'restart': self.run(place, 'restore.log', ['restore', '-d'])}

    def remove(self, place):
        shutil.rmtree(place.path('criu'), ignore_errors=True)
