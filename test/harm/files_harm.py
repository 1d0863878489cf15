# SPDX-License-Identifier: Apache-2.0
"""Files that a restart makes: where a call fails, directories are as they were."""

import os
import stat

from case import Failed
from harming import FAILS, Harm, clear, clear_line, nobody_else

BIND, MKDIRAT, FCHOWNAT, RENAMEAT2, FCHMODAT = 49, 258, 260, 316, 268

# A name from the root, one from a directory, and one that was renamed.
HOLDER = """
import os, socket, sys, time
os.chdir(sys.argv[1])
sockets = [socket.socket(socket.AF_UNIX) for _ in range(3)]
for s, name in zip(sockets, (sys.argv[1] + '/absolute', 'relative', 'before')):
    s.bind(name)
    os.chmod(name.split('/')[-1], 0o640)
os.rename('before', 'after')
open('../ready', 'w').close()
time.sleep(1000)
"""


def files(where):
    return sorted((name, oct(os.lstat(os.path.join(where, name)).st_mode)) for name in os.listdir(where))


def test_sockets(case):
    """Those that the original has left are there, or others in their place; where there were none, there are none."""
    where = os.path.join(case.work, 'directory')
    os.mkdir(where)
    pid = case.spawn(['/usr/bin/python3', '-c', HOLDER, where], setsid=True)
    case.until(lambda: os.path.exists(os.path.join(case.work, 'ready')) or case.ended(pid), 'the program')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    left = files(where)
    if [mode for _, mode in left] != [oct(stat.S_IFSOCK | 0o640)] * 3:
        raise Failed('the original has left %s' % left)
    for before in (left, []):
        for call in (BIND, MKDIRAT, FCHOWNAT, RENAMEAT2, FCHMODAT):
            fail_all(case, where, before, call)


def fail_all(case, where, before, call):
    harm = Harm(case, ['restart', '-i', case.path('image'), '-q', '-d', '--pidfile', case.path('pid')], depth=1,
                inject=['-y', str(call)], every=True)

    def prepare():
        for name in os.listdir(where):
            if not before:
                os.unlink(os.path.join(where, name))
        if files(where) != before:
            raise Failed('there are %s instead of %s' % (files(where), before))

    def end():
        for other, _ in case.others():
            case.forget(other)
            os.kill(other, 9)
        nobody_else(case, None)
        clear(case, 'pid')

    def check(n, action, seed, status, done, said):
        if status == 1:
            clear_line(said)
            end()
            if files(where) != before:
                raise Failed('there are %s instead of %s: %s' % (files(where), before, said))
        elif status:
            raise Failed('exit status %d: %s' % (status, said))
        end()
        prepare()

    prepare()
    calls, status, _, said = harm.sample()
    if status:
        raise Failed('the restart failed: %s' % said)
    end()
    prepare()
    harm.over(['fail'], check, calls)
