# SPDX-License-Identifier: Apache-2.0
"""How long an application stands still, against how much memory it has and how much it writes: as a picture (SVG)."""

import math

import watched
from works import GIB, MIB, Watched

SIZES = [4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, GIB, 4 * GIB, 8 * GIB]
PAGES = [1, 16, 64, 256, 1024, 4096, 16384, 65536]

WIDTH, HEIGHT, LEFT, TOP, GAP = 420, 300, 60, 60, 90
STYLE = ('text{font:12px sans-serif;fill:#333}.title{font-size:14px}.axis{stroke:#333}'
         '.grid{stroke:#ddd}.first{stroke:#b35900;fill:none}.later{stroke:#0059b3;fill:none}'
         '.dot-first{fill:#b35900}.dot-later{fill:#0059b3}')


def size_name(size):
    return '%d GiB' % (size // GIB) if size >= GIB else '%d MiB' % (size // MIB)


def measure(tool, place, fits, say):
    """Two lists of (x, first freeze, later freeze), in ns."""
    by_size, by_pages = [], []
    for size in SIZES:
        work = Watched('', size, 0)
        if fits(work):
            say('plot: %s' % size_name(size))
            by_size.append((size, work))
    for pages in PAGES:
        by_pages.append((pages, Watched('', GIB, pages)))
    done = []
    for works in (by_size, by_pages):
        points = []
        for x, work in works:
            found = watched.measure_watched(work, tool, place)
            place.end_all()
            points.append((x, found[tool.name, 'first freeze'], found[tool.name, 'later freeze']))
        done.append(points)
    return done


class Panel:
    def __init__(self, number, xs, ys):
        self.left = LEFT + number * (WIDTH + GAP)
        self.xs = (math.log2(min(xs)), math.log2(max(xs)))
        self.ys = ys

    def at(self, x, y):
        low, high = self.xs
        bottom, top = (math.log10(v) for v in self.ys)
        return (self.left + WIDTH * (math.log2(x) - low) / (high - low),
                TOP + HEIGHT * (top - math.log10(max(y, self.ys[0]))) / (top - bottom))

    def axes(self, title, ticks):
        yield '<text class="title" x="%d" y="%d">%s</text>' % (self.left, TOP - 14, title)
        y = self.ys[0]
        while y <= self.ys[1]:
            place = self.at(2 ** self.xs[0], y)[1]
            yield '<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>' % (
                self.left, self.left + WIDTH, place, place)
            yield '<text x="%d" y="%.1f" text-anchor="end">%g ms</text>' % (
                self.left - 6, place + 4, y / 1e6)
            y *= 10
        for x, name in ticks:
            place = self.at(x, self.ys[0])
            yield '<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>' % (
                place[0], place[1] + 18, name)
        yield '<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>' % (
            self.left, self.left + WIDTH, TOP + HEIGHT, TOP + HEIGHT)

    def line(self, points, kind):
        places = [self.at(x, y) for x, y in points]
        yield '<polyline class="%s" points="%s"/>' % (kind, ' '.join('%.1f,%.1f' % p for p in places))
        for (x, y), (_, value) in zip(places, points):
            yield '<circle class="dot-%s" cx="%.1f" cy="%.1f" r="3"><title>%.2f ms</title></circle>' % (
                kind, x, y, value / 1e6)


def draw(by_size, by_pages, machine):
    values = [y for points in (by_size, by_pages) for p in points for y in p[1:]]
    ys = (10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values))))
    left, right = Panel(0, [p[0] for p in by_size], ys), Panel(1, [p[0] for p in by_pages], ys)
    width, height = LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + 60
    yield '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">' % (
        width, height, width, height)
    yield '<style>%s</style><rect width="100%%" height="100%%" fill="#fff"/>' % STYLE
    yield '<text x="%d" y="22">How long an application stands still. %s</text>' % (LEFT - 40, machine)
    yield from left.axes('Memory, nothing written', [(p[0], size_name(p[0])) for p in by_size])
    yield from left.line([(p[0], p[1]) for p in by_size], 'first')
    yield from left.line([(p[0], p[2]) for p in by_size], 'later')
    yield from right.axes('1 GiB, pages written since the image before',
                          [(p[0], '%d' % p[0]) for p in by_pages])
    yield from right.line([(p[0], p[2]) for p in by_pages], 'later')
    for number, (kind, name) in enumerate((('first', 'first image'), ('later', 'later images'))):
        yield '<circle class="dot-%s" cx="%d" cy="%d" r="4"/>' % (
            kind, LEFT + number * 140, height - 14)
        yield '<text x="%d" y="%d">%s</text>' % (LEFT + number * 140 + 10, height - 10, name)
    yield '</svg>'
