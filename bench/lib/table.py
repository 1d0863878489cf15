# SPDX-License-Identifier: Apache-2.0
"""From samples to rows, and from rows to a table."""

from statistics import median

from works import Linear

FIGURES = ['run', 'more than by hand', 'freeze', 'checkpoint', 'restart', 'running', 'lazy running',
           'lazy, all used', 'first freeze', 'later freeze', 'later image', 'from image to image',
           'request', 'processor', 'p99 more', 'p99 more, watched', 'write', 'image', 'memory']
HEADER = ['work', 'figure', 'median', 'min - max', 'limit beside it', 'ratio', 'target', 'verdict']


def time_text(ns):
    ms = ns / 1e6
    return '%.0f ms' % ms if ms >= 100 else '%.1f ms' % ms if ms >= 10 else '%.2f ms' % ms


def item_text(ns):
    return '%.1f us' % (ns / 1e3)


def size_text(n):
    for unit in ('B', 'KiB', 'MiB'):
        if n < 1024:
            break
        n /= 1024
    else:
        unit = 'GiB'
    return '%.0f %s' % (n, unit) if unit == 'B' else '%.2f %s' % (n, unit)


def short_text(ns):
    return '%.1f ns' % ns


TEXTS = {'image': size_text, 'later image': size_text, 'memory': size_text, 'write': short_text}


def verdict(value, most):
    return 'ok' if value <= most else 'MISSED'


class Row:
    def __init__(self, work, figure, text, samples):
        self.work, self.figure, self.text, self.samples = work, figure, text, samples
        self.limits = []  # (name, samples); the first is the one of the ratio
        self.ratio = self.target = None
        self.verdict = self.note = ''

    def cells(self):
        spread = '%s - %s' % (self.text(min(self.samples)), self.text(max(self.samples)))
        if len(self.samples) < 2 or min(self.samples) == max(self.samples):
            spread = ''
        limits = ', '.join('%s %s' % (name, self.text(median(s))) for name, s in self.limits)
        target = ''
        if self.target:
            kind, most = self.target
            target = '<= ' + ('%g x' % most if kind == 'x' else self.text(most))
        return [self.work, self.figure, self.text(median(self.samples)), spread,
                limits or self.note, '%.2f' % self.ratio if self.ratio is not None else '',
                target, self.verdict]

    def json(self):
        return {'work': self.work, 'figure': self.figure, 'samples': self.samples,
                'median': median(self.samples), 'min': min(self.samples),
                'max': max(self.samples),
                'limits': [{'name': name, 'samples': s, 'median': median(s)}
                           for name, s in self.limits],
                'ratio': self.ratio,
                'target': {'kind': self.target[0], 'most': self.target[1]} if self.target else None,
                'verdict': self.verdict or None}


def paired_ratio(samples, limits):
    """The limit was measured next to each sample: the noise of the hour is in both."""
    return median(s / l for s, l in zip(samples, limits))


def work_rows(work, tool, samples):
    """samples: figure or limit -> list, in the order of measurement."""
    for figure in FIGURES:
        values = samples.get((tool, figure))
        if not values:
            continue
        name = figure if tool == 'reprise' else '%s (%s)' % (figure, tool)
        row = Row(work.name, name, TEXTS.get(figure, time_text), values)
        row.limits = [(limit, samples[limit]) for limit in work.beside.get(figure, [])
                      if samples.get(limit)]
        if row.limits:
            row.ratio = paired_ratio(values, row.limits[0][1])
        target = work.targets.get(figure)
        if target and tool == 'reprise':
            row.target = target
            row.verdict = verdict(row.ratio if target[0] == 'x' else median(values), target[1])
        if figure == 'image':
            rate = median(values) / median(samples[tool, 'checkpoint'])
            row.note = 'written at %.2f GB/s' % rate
        yield row


def linear_rows(linear, works, samples):
    larger, smaller = (next((w for w in works if getattr(w, 'name', '') == name), None)
                       for name in (linear.larger, linear.smaller))
    if not larger or not smaller:
        return
    for figure in linear.figures:
        values = [[s / work.items for s in samples[work.name].get(('reprise', figure), [])]
                  for work in (larger, smaller)]
        if not all(values):
            continue
        row = Row(larger.name, figure + linear.each, item_text if linear.each else time_text,
                  values[0])
        row.limits = [('of ' + smaller.name, values[1])]
        # Not paired: the smaller work is measured more often.
        row.ratio = median(values[0]) / median(values[1])
        row.target = ('x', linear.most)
        row.verdict = verdict(row.ratio, linear.most)
        yield row


def make_rows(works, tools, samples):
    for work in works:
        if isinstance(work, Linear):
            yield from linear_rows(work, works, samples)
        else:
            for tool in tools:
                yield from work_rows(work, tool.name, samples[work.name])


def table(rows):
    lines = [HEADER] + [row.cells() for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    last = None
    for number, line in enumerate(lines):
        if number and line[0] == last:
            line = [''] + line[1:]
        else:
            if number:
                yield ''
            last = line[0]
        yield '  '.join(cell.rjust(width) if i in (2, 5) else cell.ljust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
