# SPDX-License-Identifier: Apache-2.0
# Matrices, in the threads of the linear algebra library: a line for each step.
import sys

import numpy

numbers = numpy.random.default_rng(5)
a = numbers.standard_normal((200, 200))
b = numbers.standard_normal((200, 200))
for step in range(30):
    for _ in range(2):
        a = a @ b
        a /= numpy.abs(a).max()
        b = numpy.sort(b.T, axis=1)[:, ::-1] + numpy.sin(a) / 3
    values, _ = numpy.linalg.eigh(a + a.T)
    print(step, '%.12e %.12e' % (values[0], numpy.fft.fft(b).real.sum()), flush=True)
