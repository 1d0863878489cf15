# SPDX-License-Identifier: Apache-2.0
"""Mounts of a container that cannot be made again: refused by name."""

import os

import bpf
from case import Failed, Skipped
from contained import IDMAPPED, begin, good

def container(case, *commands, options=()):
    begin(case)
    good(case.reprise('run', '-d', '--name', 'c', *options, '--', 'sleep', '1000'))
    for command in commands:
        code, _, err = case.reprise('exec', 'c', *command)
        if code and 'skip: ' in err:
            raise Skipped('no such mounts: %s' % err)
        if code:
            raise Failed('%s: %s' % (command, err))


def refused(case, *words, who='c'):
    case.refused(case.reprise('checkpoint', who, '-o', case.path('image')), 'container-mount', *words)
    code, _, err = case.reprise('check', who)
    if code != 1 or not all(word in err for word in words):
        raise Failed('check: %d, %s' % (code, err))
    if who == 'c':
        good(case.reprise('stop', '-t', '0', 'c'))
        good(case.reprise('rm', 'c'))
    case.kill_all()
    case.reap()


def test_idmapped(case):
    """Its files would go into the image with the owners that it shows."""
    container(case, ['mount', '-t', 'tmpfs', 'mine', '/mnt'], ['mkdir', '/mnt/a'],
              ['python3', '-c', IDMAPPED, '/mnt', '/opt'], ['umount', '/mnt'])
    refused(case, '/opt', 'idmapped')


PIN = r"""
import sys
sys.path.insert(0, sys.argv[1])
import bpf
bpf.pin(bpf.load(1), sys.argv[2])
"""


def test_pinned(case):
    """In a file system of the container, where nobody has it open. An empty one is no obstacle."""
    bpf.load(1)
    container(case, ['sh', '-c', 'mount -t bpf mine /mnt || echo skip: >&2; test -d /mnt && grep -q "/mnt bpf" /proc/mounts'],
              options=['-V', '%s:/srv:ro' % os.path.dirname(bpf.__file__)])
    case.checkpoint('c', '-q')
    os.unlink(case.path('image'))
    good(case.reprise('exec', 'c', 'python3', '-c', PIN, '/srv', '/mnt/held'))
    refused(case, '/mnt', 'pinned', 'held')


def directories(case):
    found = [os.path.join(case.path('d'), name) for name in ('lower', 'upper', 'work', 'over')]
    for name in found:
        os.makedirs(name)
    return 'lowerdir=%s,upperdir=%s,workdir=%s' % tuple(found[:3]), found


def test_overlay_unseen(case):
    """Made of directories that are hidden now, while the host has some of the same names."""
    option, names = directories(case)
    top = case.path('d')
    container(case, ['mkdir', '-p', top], ['mount', '-t', 'tmpfs', 'mine', top], ['mkdir', '-p'] + names,
              ['mount', '-t', 'overlay', '-o', option, 'over', names[3]],
              ['mount', '-t', 'tmpfs', 'cover', names[1]])
    refused(case, names[3], names[1], 'neither')


def test_removed(case):
    """A directory that has gone, and is mounted elsewhere."""
    container(case, ['sh', '-ec', 'mount -t tmpfs mine /mnt; mkdir /mnt/a /mnt/b; mount --bind /mnt/a /mnt/b; rmdir /mnt/a'])
    refused(case, '/mnt/b', 'removed')


def test_overlay_relative(case):
    container(case, ['mount', '-t', 'tmpfs', 'mine', '/mnt'], ['mkdir', '/mnt/l', '/mnt/u', '/mnt/w', '/mnt/m'],
              ['sh', '-c', 'cd /mnt && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w over m'])
    refused(case, '/mnt/m', 'from the root')


def test_index(case):
    option, names = directories(case)
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', 'sh', '-c',
                       'mount -t overlay -o %s,index=on over %s && exec sleep 1000' % (option, names[3])])
    path = '/proc/%d/task/%d/children' % (tool, tool)

    def first():
        pid = open(path).read().strip() if os.path.exists(path) else ''
        return pid and open('/proc/%s/comm' % pid).read() == 'sleep\n' and pid
    case.until(lambda: case.ended(tool) or first(), 'the overlay')
    if case.ended(tool):
        raise Skipped('no such overlay')
    refused(case, names[3], 'index', who=first())


def test_removed_file(case):
    """Bound elsewhere, and removed: there is nothing to bind any more (systemd-nspawn does so)."""
    container(case, ['sh', '-c', 'mount -t tmpfs mine /mnt; echo text > /mnt/a; touch /mnt/b; '
                     'mount --bind /mnt/a /mnt/b; rm /mnt/a'])
    refused(case, '/mnt/b', 'a file that has been removed')


def test_terminal(case):
    """As a console is bound."""
    container(case, ['sh', '-c', 'mount -t tmpfs mine /mnt; touch /mnt/a; exec 3<>/dev/ptmx; '
                     'for i in /dev/pts/[0-9]*; do mount --bind $i /mnt/a; done'])
    refused(case, '/mnt/a', 'a terminal of the container')


def test_overlay_moved(case):
    """Made of a file system that is elsewhere now; another one has its place. Only root is told."""
    container(case, ['sh', '-ec', 'mount -t tmpfs mine /mnt; cd /mnt; mkdir l o u w m; mount -t tmpfs lower l; echo lower > l/file; '
                     'mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w over m; mount --move l o'])
    refused(case, '/mnt/m', '/mnt/l', 'is not there any more')


def test_lower(case):
    """An overlay that was made outside, of two directories of which one is elsewhere at the restart."""
    begin(case)
    here = case.path('given')
    for name in 'upper', 'work', 'merged', 'first', 'second/usr', 'second/lib', 'second/lib64', 'second/bin', 'second/proc', 'first/tmp':
        os.makedirs(os.path.join(here, name))
    good(case.run(['/bin/mount', '-t', 'overlay', 'overlay', '-o', 'lowerdir=%s/first:%s/second,upperdir=%s/upper,workdir=%s/work' % (
        (here,) * 4), here + '/merged']))
    tool = case.spawn(['/usr/bin/unshare', '--kill-child', '-pfiun', 'unshare', '-m', 'sh', '-ec',
                       'cd merged; for i in usr bin lib lib64; do mount --rbind /$i $i; done; mount -t proc proc proc; '
                       'pivot_root . tmp; cd /; umount -l /tmp; echo kept > /kept; exec sleep 1000'], cwd=here, setsid=True)
    case.until(lambda: [p for p, comm in case.others() if comm == 'sleep' and os.path.exists('/proc/%d/root/kept' % p)], 'it runs')
    first = [p for p, comm in case.others() if comm == 'sleep'][0]
    case.checkpoint(first, '-q', '--kill')
    case.wait(tool)
    good(case.run(['/bin/umount', here + '/merged']))
    os.rename(here + '/second', here + '/moved')
    case.refused(case.reprise('restart', '-i', case.path('image'), '-d'), 'container-source', here + '/second below', '--map-mount')
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'c', '--map-mount', '%s/second=%s/moved' % (here, here)))
    if good(case.reprise('exec', 'c', '/bin/cat', '/kept')) != 'kept\n':
        raise Failed('it has not its file')
    good(case.reprise('stop', '-t', '0', 'c'))
    good(case.reprise('rm', 'c'))


def test_rootfs(case):
    """A directory that is given from where one is, one that is none, and one that has gone."""
    begin(case)
    for wrong, word in (('nowhere', 'cannot be found'), ('passwd', 'is none')):
        case.refused(case.reprise('run', '--rootfs', wrong, '--', 'true', cwd='/etc'), 'usage', wrong, word, status=2)
    top = case.path('top')
    os.mkdir(top)
    good(case.run(['/bin/mount', '--bind', '/', top]))
    good(case.reprise('run', '-d', '--name', 'c', '--rootfs', 'top', '--', 'sleep', '1000', cwd=os.path.dirname(top)))
    good(case.reprise('checkpoint', 'c', '-q', '--kill', '-o', case.path('image')))
    good(case.reprise('rm', 'c'))
    good(case.run(['/bin/umount', top]))
    os.rmdir(top)
    case.refused(case.reprise('restart', '-i', case.path('image'), '-d'), 'container-source', top, '--map-mount')
    good(case.reprise('restart', '-i', case.path('image'), '-d', '--name', 'c', '--map-mount', top + '=/'))
    good(case.reprise('stop', 'c'))
