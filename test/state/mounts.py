# SPDX-License-Identifier: Apache-2.0
"""Mounts of a container: the whole tree is what it was, as mountinfo and the files in it tell."""

from case import Failed
from contained import begin, good, inside


def lines(text):
    """Mount points with what is told of them; numbers stand for themselves no longer."""
    rows = [line.split(' ') for line in text.splitlines()]
    points = {row[0]: row[4] for row in rows}
    groups, found = {}, []
    for row in sorted(rows, key=lambda row: (row[4], len(points.get(row[1], '')))):
        rest = [word.split(':')[0] + ':%d' % groups.setdefault(word.split(':')[1], len(groups)) if ':' in word else word
                for word in row[6:row.index('-')]]
        # directories of a writable layer are each container's own
        source = [word for word in row[-1].split(',') if not word.startswith(('upperdir=', 'workdir='))]
        found.append([row[4], points.get(row[1]), row[3], row[5]] + rest + row[row.index('-') + 1:-1] + source)
    return found


def begin_container(case, *commands):
    begin(case)
    good(case.reprise('run', '-d', '--name', 'a', '--', 'sleep', '1000'))
    for command in commands:
        inside(case, 'a', 'sh', '-ec', command)


def state(case, name, probe):
    return lines(inside(case, name, 'cat', '/proc/2/mountinfo')), inside(case, name, 'sh', '-ec', probe)


def end_container(case, name):
    good(case.reprise('stop', '-t', '0', name))
    good(case.reprise('rm', name))


def kept(case, *commands, probe='true'):
    begin_container(case, *commands)
    before = state(case, 'a', probe)
    case.checkpoint('a', '-q')
    end_container(case, 'a')
    good(case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'a'))
    after = state(case, 'a', probe)
    end_container(case, 'a')
    case.reap()
    for old, new in zip(before[0] + before[1].splitlines(), after[0] + after[1].splitlines()):
        if old != new:
            raise Failed('%s is %s' % (old, new))
    if before != after:
        raise Failed('before: %s, after: %s' % (before, after))


def test_readonly(case):
    """File systems that are read-only as such, by whichever mount."""
    kept(case, 'mount -t sysfs -o ro sysfs /mnt', 'mkdir /tmp/p; mount -t proc -o hidepid=2,gid=7 p /tmp/p')


UNDER = """
mount -t tmpfs -o size=1m below /mnt
mkdir -p /mnt/deep; echo one >/mnt/text
mount -t tmpfs -o size=1m deep /mnt/deep; echo two >/mnt/deep/text
mount -t tmpfs -o size=1m over /mnt; echo three >/mnt/text
mount --make-shared /mnt; mkdir -p /opt/peer; mount --bind /mnt /opt/peer
"""


def test_hidden(case):
    """What lies below another mount, and what is mounted there."""
    kept(case, UNDER, probe="""exec unshare -m sh -ec 'cat /mnt/text /opt/peer/text; umount /mnt;
                               cat /mnt/text /mnt/deep/text; umount /mnt/deep; umount /mnt; ls -d /mnt'""")


LAYERS = """
mount -t tmpfs -o size=4m base /mnt
cd /mnt; mkdir l u w m; echo lower >l/file; echo gone >l/gone
mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w layers m
echo upper >m/new; rm m/gone
"""


def test_overlay(case):
    """Mounted in the container, of directories of its own."""
    kept(case, LAYERS, probe='cd /mnt/m; ls; cat file new; ls ../u')
