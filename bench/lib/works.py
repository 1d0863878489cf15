# SPDX-License-Identifier: Apache-2.0
"""What is measured, what limits it, and what it must reach."""

import os

MIB, GIB = 1 << 20, 1 << 30
MS = 1000000
CORES = os.cpu_count() or 1


class Limit:
    """A figure of the machine that a figure of the tool is compared with."""

    def __init__(self, name, *args):
        self.name, self.args = name, [str(a) for a in args]

    def measure(self, place):
        argv = [place.path(a[1:]) if a.startswith('@') else a for a in self.args]
        return int(place.run([place.program('limit')] + argv)[1])


class CopyLimit(Limit):
    """Writes a new file, which is removed afterwards."""

    def __init__(self, name, size, threads):
        super().__init__(name, 'copy', size, '@copy', threads)

    def measure(self, place):
        try:
            return super().measure(place)
        finally:
            place.remove('copy')


class FillLimit(Limit):
    """Fills memory from the image that is there: after a restart."""

    def __init__(self, name, size, threads):
        super().__init__(name, 'fill', size, '@image', threads)


class DescriptorsLimit(Limit):
    def measure(self, place):
        os.makedirs(place.path('limit.files'), exist_ok=True)
        return super().measure(place)


class Work:
    """
    before, after: limits that are measured before the checkpoint and after the restart
    beside: which of them a figure is shown beside, the first being the one of the ratio
    targets: figure -> ('ns', most) or ('x', most times the limit)
    files: descriptors of one process
    end: let the tool end the application, instead of letting it go on
    options: more options of the checkpoint
    lazy: restart once more so that memory follows, and compare until all of it has been used
    counts: the program counts what it does, and is watched while it is saved
    """

    def __init__(self, name, program, *args, memory=0, items=0, repeat=1, before=(), after=(),
                 beside=None, targets=None, quick=True, files=0, end=False, options=(),
                 counts=False, lazy=False):
        self.name, self.program, self.args = name, program, args
        self.memory, self.items, self.repeat = memory, items, repeat
        self.before, self.after = before, after
        self.beside, self.targets = beside or {}, targets or {}
        self.files = files
        self.end, self.options, self.counts, self.lazy = end, list(options), counts, lazy
        self.quick = quick


class Container(Work):
    """The same in a container of its own; outside: so many processes of the host beside it."""

    def __init__(self, *args, outside=0, **more):
        super().__init__(*args, **more)
        self.outside = outside


class FirstInstruction(Work):
    """From `reprise run` to the first instruction of the command, against doing it by hand."""


class Watched(Work):
    """Images one after the other, `written` pages being written between two."""

    def __init__(self, name, size, written, **more):
        super().__init__(name, 'scatter', size, written, memory=size, items=1, **more)
        self.written = written


class Redis(Work):
    """A redis under load, saved meanwhile."""

    needs = '/usr/bin/redis-server'


# What others cannot be asked for.
OWN = (Container, FirstInstruction, Watched, Redis)


class Linear:
    """Cost per item of the larger work against that of the smaller."""

    def __init__(self, larger, smaller, most=1.5, figures=('checkpoint', 'restart'), each=' per item'):
        self.larger, self.smaller, self.most, self.figures = larger, smaller, most, figures
        self.each = each


def memory(name, size, targets=None, **more):
    copies = [CopyLimit('plain copy', size, 1), CopyLimit('on %d cores' % CORES, size, CORES)]
    fills = [FillLimit('populate and fill', size, 1),
             FillLimit('fill on %d cores' % CORES, size, CORES)]
    return Work(name, 'memory', size, memory=size, before=copies, after=fills,
                beside={'lazy, all used': ['eager, all used'],
                        'checkpoint': ['plain copy', 'on %d cores' % CORES],
                        'restart': ['populate and fill', 'fill on %d cores' % CORES]},
                targets=targets, **more)


def rewritten(name, size, hot):
    """By a program on a processor of its own; its throughput may be 15% down meanwhile."""
    return Work(name, 'rewrite', size, hot, memory=size, counts=True,
                beside={'write': ['undisturbed']}, targets={
                    'write': ('x', 1 / 0.85), 'memory': ('bytes', 64 * MIB + size // 500)})


def shared(name, size, **more):
    """Of two processes."""
    return Work(name, 'memory', size, 'shared', memory=size, **more)


def watched(size, written, **more):
    return Watched('%d GiB, %d pages written' % (size // GIB, written), size, written, **more)


def counted(program, n, noun, limit, targets=None, **more):
    return Work('%d %s' % (n, noun), program, n, items=n, before=[limit],
                beside={'restart': [limit.name]}, targets=targets, **more)


def processes(n, **more):
    return counted('processes', n, 'process' if n == 1 else 'processes',
                   Limit('fork and exit', 'fork', n), **more)


def threads(n, **more):
    return counted('threads', n, 'threads', Limit('create and join', 'threads', n), **more)


def descriptors(n, **more):
    return counted('descriptors', n, 'descriptors',
                   DescriptorsLimit('open', 'descriptors', n, '@limit.files'), files=n, **more)


def pipes(n, **more):
    return counted('pipes', n, 'pipes', Limit('make and write', 'pipes', n), files=2 * n, **more)


def waits(n, **more):
    return counted('waits', n, 'in an epoll set', Limit('make and add', 'waits', n), files=n, **more)


def sockets(n, **more):
    return counted('sockets', n, 'sockets', Limit('open and send', 'sockets', n), **more)


ALL = [
    memory('1 MiB', MIB, repeat=4, targets={
        'freeze': ('ns', 3 * MS // 2), 'checkpoint': ('ns', 15 * MS), 'restart': ('ns', 15 * MS)}),
    memory('256 MiB', 256 * MIB),
    memory('256 MiB, zstd', 256 * MIB, options=['--compress', 'zstd']),
    memory('256 MiB, zstd, 1 job', 256 * MIB, options=['--compress', 'zstd', '--jobs', '1']),
    memory('256 MiB, lz4', 256 * MIB, options=['--compress', 'lz4']),
    memory('1 GiB', GIB, targets={
        'freeze': ('ns', 6 * MS), 'checkpoint': ('x', 1.15), 'restart': ('x', 1.1),
        'memory': ('bytes', 64 * MIB + GIB // 500)}),
    rewritten('1 GiB, 32 MiB rewritten', GIB, 32 * MIB),
    rewritten('512 MiB, 256 MiB rewritten', 512 * MIB, 256 * MIB),
    shared('512 MiB, shared by two', 512 * MIB, targets={'freeze': ('ns', 6 * MS)}),
    memory('1 GiB, ended', GIB, end=True),
    memory('1 GiB, lazy', GIB, end=True, lazy=True, targets={
        'lazy running': ('ns', 10 * MS), 'lazy, all used': ('x', 1.5)}),
    memory('4 GiB', 4 * GIB, quick=False),
    watched(GIB, 0, targets={
        'first freeze': ('ns', 6 * MS), 'later freeze': ('ns', 5 * MS // 2),
        'memory': ('bytes', 64 * MIB + GIB // 500)}),
    watched(GIB, 4096, beside={'later image': ['pages written']},
            targets={'later image': ('x', 1.1)}),
    watched(8 * GIB, 4096, quick=False, beside={'later image': ['pages written']},
            targets={'later image': ('x', 1.1), 'memory': ('bytes', 64 * MIB + 8 * GIB // 500)}),
    Redis('redis, 1 GiB', None, memory=GIB,
          beside={'request': ['alone'], 'processor': ['processor alone']},
          targets={'request': ('x', 1.05), 'from image to image': ('ns', 105 * MS),
                   'p99 more': ('ns', 2 * MS)}),
    processes(1, repeat=2),
    processes(10, repeat=2),
    processes(100, repeat=2, targets={
        'checkpoint': ('ns', 120 * MS), 'restart': ('ns', 150 * MS)}),
    processes(1000),
    FirstInstruction('start of a container', None, repeat=4,
                     beside={'run': ['by hand'], 'more than by hand': []},
                     targets={'more than by hand': ('ns', 25 * MS)}),
    processes(20, repeat=2),
    Container('20 processes, container', 'processes', 19, items=20, repeat=2,
              targets={'freeze': ('ns', 15 * MS), 'restart': ('ns', 80 * MS)}),
    Container('20 processes, 300 outside', 'processes', 19, items=20, repeat=2, outside=300),
    threads(200, repeat=2),
    threads(2000),
    descriptors(1000, repeat=2),
    descriptors(10000),
    descriptors(100000, quick=False),
    pipes(1000, repeat=2),
    pipes(9000),
    pipes(10000, quick=False),
    waits(1000, repeat=2),
    waits(10000),
    sockets(1000, repeat=2),
    sockets(10000),
    Linear('8 GiB, 4096 pages written', '1 GiB, 0 pages written', most=3, figures=('later freeze',),
           each=''),
    Linear('1000 processes', '100 processes'),
    Linear('20 processes, container', '20 processes', most=2,
           figures=('freeze', 'checkpoint', 'restart')),
    Linear('20 processes, 300 outside', '20 processes, container', most=2, figures=('freeze',)),
    Linear('2000 threads', '200 threads'),
    Linear('10000 descriptors', '1000 descriptors'),
    Linear('100000 descriptors', '10000 descriptors'),
    Linear('9000 pipes', '1000 pipes'),
    Linear('10000 pipes', '1000 pipes'),
    Linear('10000 in an epoll set', '1000 in an epoll set'),
    Linear('10000 sockets', '1000 sockets'),
]
