# SPDX-License-Identifier: Apache-2.0
"""Of who opened a file the kernel asks later what he may do (f_cred), though he could not open it any more."""

import os
import re

from case import Failed, Skipped

OTHER = 4711
# FileOpener, field 701 of a file, and in it the user.
OPENED_BY_OTHER = re.compile(rb'\xea\x2b[\x03-\x20]\x08\xe7\x24')

PROGRAM = '''
import os, sys, time
path = sys.argv[1]
os.chown(path, %d, 0)
os.seteuid(%d)
held = os.open(path, os.O_RDWR)
os.seteuid(0)
os.chown(path, 0, 0)
os.chmod(path, 0)
os.write(1, b'held')
while True:
    time.sleep(1000)
''' % (OTHER, OTHER)


def openers(case):
    with open(case.path('image'), 'rb') as file:
        return len(OPENED_BY_OTHER.findall(file.read()))


def group(case):
    for above in ('/sys/fs/cgroup', '/sys/fs/cgroup/unified'):
        path = os.path.join(above, 'test-%s' % os.path.basename(case.directory))
        if os.path.exists(os.path.join(above, 'cgroup.procs')):
            try:
                os.mkdir(path)
                return path
            except OSError:
                pass
    raise Skipped('no control group can be made')


def test_may_not_any_more(case):
    """He has left the file, and cannot come in again."""
    made = group(case)
    try:
        may_not_any_more(case, os.path.join(made, 'cgroup.procs'))
    finally:
        case.kill_all()
        case.until(lambda: not case.others(), 'the end of the program')
        os.rmdir(made)


def may_not_any_more(case, path):
    reader, writer = os.pipe()
    null = os.open('/dev/null', os.O_RDWR)
    pid = case.spawn(['/usr/bin/python3', '-c', PROGRAM, path], stdout=writer, stdin=null)
    os.close(writer)
    if os.read(reader, 16) != b'held':
        raise Failed('it could not begin')
    os.close(reader)
    case.checkpoint(pid, '-q', '--kill')
    case.wait(pid)
    if not openers(case):
        raise Skipped('who may not read the memory of the kernel does not see who opened a file')
    case.statuses.clear()
    code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '-q', '--privileged', stdin=null, stdout=null)
    if code:
        raise Failed('restart: %s' % err)
    case.checkpoint(pid, '-q', '--kill', '--force')
    case.until(lambda: not case.others(), 'the end of the program')
    if openers(case) != 1:
        raise Failed('somebody else holds the file open now')
