# SPDX-License-Identifier: Apache-2.0
"""Mounts of a container: the whole tree is what it was, as mountinfo and the files in it tell."""

import os
import random

from case import Failed, Skipped
from contained import IDMAPPED, begin, good, inside


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


# In a mount namespace of its own, which has two of these mounts elsewhere, and a part of a third that it has not any more.
MOVED = """
mkdir -p /mnt/a /mnt/b; mount -t tmpfs all /mnt; mkdir /mnt/a /mnt/b /mnt/c /mnt/d /mnt/e
for name in a b c; do mount -t tmpfs $name /mnt/$name; mkdir /mnt/$name/part; echo $name >/mnt/$name/part/text; done
setsid unshare -m --propagation private sh -ec 'cd /; mount --move /mnt/a /mnt/d; mount --move /mnt/b /mnt/a
    mount --bind /mnt/c/part /mnt/e; umount /mnt/c; touch /tmp/ready; exec sleep 2000' >/dev/null 2>&1 </dev/null &
until test -e /tmp/ready; do :; done
"""


def test_moved(case):
    """What a copy of the mounts has at other places than the original."""
    kept(case, MOVED, probe="""for p in /proc/[0-9]*; do grep -aq 2000 $p/cmdline && grep -q sleep $p/comm || continue
        cat $p/root/mnt/a/part/text $p/root/mnt/d/part/text $p/root/mnt/e/text; ls $p/root/mnt/c; cut -d' ' -f5- $p/mountinfo | grep ^/mnt; done
        cat /mnt/a/part/text /mnt/b/part/text /mnt/c/part/text""")


# What runs, and where it works, is on a file system that is covered; a file of the layer is, too.
COVERED = """
mount -t tmpfs below /mnt
cp /bin/sleep /mnt/snore; echo below >/mnt/text; echo layer >/opt/text; mkdir -p /opt/deep; touch /opt/file
cd /mnt; exec 3</mnt/text 4</opt/text 5</opt/deep 6</opt/file 7</proc/sys/kernel/ostype
setsid /mnt/snore 1000 >/dev/null 2>&1 <&3 &
until readlink /proc/$!/exe | grep -q snore; do :; done
mount -t tmpfs over /mnt; mount --bind /bin/sh /opt/file; mount -t tmpfs over /opt; mount -t tmpfs over /proc/sys
"""


def test_covered(case):
    """Files that are open below what was mounted since."""
    kept(case, COVERED, probe="""for p in /proc/[0-9]*; do readlink $p/exe | grep -q snore || continue
        readlink $p/exe $p/cwd $p/fd/3 $p/fd/4 $p/fd/5 $p/fd/6 $p/fd/7; cat $p/fd/3 $p/fd/4 $p/fd/7 $p/cwd/text; stat -c %s $p/exe $p/fd/6; done""")


def idmapped(one, other):
    return "python3 - %s %s <<'END'\n%s\nEND" % (one, other, IDMAPPED)


def test_idmapped(case):
    """A part of what goes into the image, shown with other owners, and what is made there."""
    try:
        kept(case, """mount -t tmpfs mine /mnt; mkdir /mnt/a /mnt/b; touch /mnt/a/0 /mnt/a/7 /mnt/a/99
                      chown 7:0 /mnt/a/7; chown 99:99 /mnt/a/99; """ + idmapped('/mnt/a', '/mnt/b') +
             '\nsetsid sleep 1500 </mnt/b/7 >/dev/null 2>&1 &\nuntil readlink /proc/$!/exe | grep -q sleep; do :; done',
             probe='cd /mnt; for p in /proc/[0-9]*; do readlink $p/fd/0; stat -Lc %u $p/fd/0; done | grep -A1 /mnt; stat -c "%n %u:%g" a/* b/*; chown 2003:1000 b/0; stat -c "%u:%g" a/0; chown 0:0 a/0')
    except Failed as failed:
        if 'skip: ' in str(failed):
            raise Skipped(str(failed)) from failed
        raise


def test_idmapped_of_the_host(case):
    """In a copy of the host's mounts, over the same directory as well."""
    begin(case)
    top = case.path('mapped')
    os.makedirs(top + '/there')
    with open(case.path('script'), 'w') as file:
        file.write('set -e\n%s\n%s\nexec sleep 1000' % (idmapped(top, top + '/there'), idmapped('/srv', '/srv')))
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', 'sh', case.path('script')],
                      stderr=os.open(case.path('log'), os.O_CREAT | os.O_RDWR))

    def sleeping():
        return [pid for pid, comm in case.others() if comm == 'sleep']
    case.until(lambda: sleeping() or case.ended(tool), 'the mounts')
    if case.ended(tool):
        with open(case.path('log')) as file:
            text = file.read()
        raise (Skipped if 'skip: ' in text else Failed)(text)

    def seen():
        look = ['/usr/bin/nsenter', '-m', '-t', str(sleeping()[0]), 'sh', '-c',
                'grep idmapped /proc/1/mountinfo | cut -d" " -f4-6; cd %s; stat -c "%%n %%u:%%g" . there /srv' % top]
        return good(case.run(look))
    before = seen()
    if before.count('idmapped') != 2 or 'there 1000:1000' not in before:
        raise Failed('there is %s' % before)
    case.checkpoint(sleeping()[0], '-q', '--kill')
    case.wait(tool)
    tool = case.restart('--pidns')
    case.until_handed_over(tool, 1, 'sleep', True)
    if seen() != before:
        raise Failed('there was %s, there is %s' % (before, seen()))
    case.kill_all()
    case.reap()


LAYERS = """
mount -t tmpfs -o size=4m base /mnt
cd /mnt; mkdir l u w m; echo lower >l/file; echo gone >l/gone
mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w layers m
echo upper >m/new; rm m/gone
"""


def test_overlay(case):
    """Mounted in the container, of directories of its own."""
    kept(case, LAYERS, probe='cd /mnt/m; ls; cat file new; ls ../u')


def test_overlay_volatile(case):
    """It forbids to be mounted again."""
    kept(case, LAYERS.replace('workdir=/mnt/w', 'workdir=/mnt/w,volatile'), probe='cd /mnt/m; ls; cat file new')


PARTS = """
mount -t tmpfs -o size=1m below /mnt
mkdir -p /mnt/part/in /mnt/on /opt/part /opt/file; echo part >/mnt/part/text; touch /mnt/on/file /opt/file/a
for name in c b a d; do echo $name >/mnt/$name; done
mount --bind /mnt/part /mnt/on; mount --bind /mnt/part /opt/part; mount --bind /mnt/a /opt/file/a
mount -t tmpfs -o size=1m over /mnt/part; echo over >/mnt/part/text
mount -t sysfs again /mnt/part; mount -o remount,ro /mnt
mount -t tmpfs -o size=1m last /mnt; mkdir /mnt/part
echo of the layer >/opt/text
"""


def test_parts(case):
    """Bound parts of what is covered since, in a file system that is read-only since; files of the layer, too."""
    kept(case, PARTS, probe="""exec unshare -m sh -ec 'cat /opt/text /opt/part/text /opt/file/a; umount /mnt; ls -U /mnt; cat /mnt/on/text
                               umount /mnt/part; cat /mnt/part/text; umount /mnt/part; cat /mnt/part/text; ! touch /mnt/new'""")


def test_overlay_readonly(case):
    """Of directories that nobody can write to any more, and itself read-only."""
    kept(case, LAYERS, 'mount -o remount,bind,ro /mnt', probe='cat /mnt/m/file; echo 1 >/mnt/m/more; ! touch /mnt/x')
    os.unlink(case.path('image'))
    kept(case, LAYERS, 'mount -o remount,ro /mnt/m', probe='cat /mnt/m/file; ! touch /mnt/m/x')


def at_random(seed, top):
    """Commands that may fail."""
    pick = random.Random(seed).choice
    places = [top + place for place in ('/a', '/b', '/a/a', '/a/b', '/b/a', '/b/b', '/a/a/a')]
    yield 'mkdir %s; mount -t tmpfs base %s; mkdir -p %s/a/a %s/a/b %s/b; echo base >%s/a/text' % ((top,) * 6)
    for n in range(16):
        one, other = pick(places), pick(places)
        yield pick([
            'mount -t tmpfs -o size=%dk m%d %s && mkdir -p %s/a/b %s/b/a && echo %d >%s/b/text' % (100 + n, n, one, one, one, n, one),
            'mount -t %s m%d %s' % (pick(['sysfs', 'proc', 'mqueue', 'ramfs']), n, one),
            'mount --bind %s %s' % (one, other),
            'mount --bind %s %s' % (one, other),
            'mount --move %s %s' % (one, other),
            'mount --make-%s %s' % (pick(['private', 'shared', 'slave', 'rshared', 'rprivate']), one),
            'mount -o remount,bind,%s %s' % (pick(['ro', 'nosuid', 'nodev', 'noexec', 'noatime', 'ro,nosuid']), one),
            'mount -o remount,ro %s' % one,
            'umount %s' % one])


LOOK = """
exec unshare -m sh -c 'for n in $(seq 8); do
    for top in /mnt/*; do
        find $top -xdev -not -path "*/proc/*" -not -fstype sysfs -not -fstype proc -printf "%%p %%y %%m %%s %%T@\\n" -name text -exec cat {} + | sort
        for place in $top/a/a/a $top/a/b $top/a/a $top/b/b $top/b/a $top/a $top/b; do umount $place 2>/dev/null && break; done
    done
done; true'
"""


def test_random(case):
    """Mounted, bound, moved and changed at random; looked at while one after the other is taken away."""
    kept(case, 'mount -t tmpfs all /mnt', *['\n'.join('{ %s; } 2>/dev/null || true' % line for line in at_random(seed, '/mnt/%d' % seed)) for seed in SEEDS],
         probe=LOOK.replace('%%', '%'))


SEEDS = range(1, 7)
