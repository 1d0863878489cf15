# SPDX-License-Identifier: Apache-2.0
"""Unread events of fanotify by whom the tasks of a container do not see, or who has ended there."""

import os

from case import Failed, Skipped
from contained import begin, good, inside

WATCH = r'''
import ctypes, os, struct, time
libc = ctypes.CDLL(None)
group = libc.fanotify_init(0xc03, 0)             # FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME
if libc.fanotify_mark(group, 1, ctypes.c_uint64(0x08000008), -100, b'/vol'):    # FAN_CLOSE_WRITE of files in it
    os.mkdir('/vol/cannot')
os.mkdir('/vol/ready')
while not os.path.exists('/vol/go'):
    time.sleep(0.01)
data, told = os.read(group, 4096), []
while data:
    size, _, _, _, mask, fd, pid = struct.unpack_from('<IBBHQii', data)
    handle, = struct.unpack_from('<I', data, 36)
    told.append('%#x %d %s' % (mask, pid, data[44 + handle:size].split(b'\0')[0].decode()))
    data = data[size:]
with open('/vol/telling', 'w') as file:
    file.write('\n'.join(told))
os.rename('/vol/telling', '/vol/told')
'''


def test_container(case):
    vol = case.path('vol')
    os.mkdir(vol)
    begin(case)
    good(case.reprise('run', '-d', '--name', 'watch', '-V', vol + ':/vol', '--',
                      'python3', '-c', WATCH))
    case.until(lambda: os.path.exists(vol + '/ready'), 'the program to be ready')
    if os.path.exists(vol + '/cannot'):
        raise Skipped('no fanotify')
    for name in 'first', 'last':
        with open(os.path.join(vol, name), 'w') as file:
            file.write('outside')
        inside(case, 'watch', 'sh', '-c', 'echo $$ >/vol/by-' + name)
    result = case.reprise('checkpoint', 'watch', '-o', case.path('image'), '--kill')
    if result[0] and 'memory of the kernel' in result[2]:
        raise Skipped('its memory is not told')
    good(result)
    good(case.reprise('restart', '-d', '-i', case.path('image')))
    os.mkdir(vol + '/go')
    case.until(lambda: os.path.exists(vol + '/told'), 'the events')
    with open(vol + '/told') as file:
        told = file.read().split('\n')
    wanted = []
    for name in 'first', 'last':
        with open(vol + '/by-' + name) as file:
            wanted += ['0x8 0 ' + name, '0x8 %s by-%s' % (file.read().strip(), name)]
    if told != wanted:
        raise Failed('it is told %s, not %s' % (told, wanted))
