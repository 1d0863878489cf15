# SPDX-License-Identifier: Apache-2.0
"""All that files of a container can be: what lstat(2) and the like say of each, before and after."""

import os
import re

from case import Failed, Skipped
from contained import begin, good, inside

# Files of all kinds, in a directory of the writable layer, or of a tmpfs.
MAKE = r'''
import fcntl, os, socket, struct, sys
top = os.fsencode(sys.argv[1])
os.makedirs(top, exist_ok=True)
os.chdir(top)

def make(name, text=b'text'):
    with open(name, 'wb') as file:
        file.write(text)
    return name

def flags(name, more):
    """Whether the file system has them at all."""
    fd = os.open(name, os.O_RDONLY)
    try:
        now, = struct.unpack('l', fcntl.ioctl(fd, 0x80086601, bytes(8)))
        fcntl.ioctl(fd, 0x40086602, struct.pack('l', now | more))
    except OSError:
        pass
    os.close(fd)

os.mkdir(b'n' * 255)
make(b'n' * 255 + b'/' + b'f' * 255)
make(b'line\nfeed')
make(b'not \xff\xfe utf-8')
make(b'no rights')
os.chmod(b'no rights', 0)
deep = b'deep'
for i in range(60):
    os.mkdir(deep)
    deep += b'/d'
make(b'empty', b'')
for name, times in (b'early', (-1000000001, -999999999)), (b'late', (5000000000123456789, 6000000000987654321)), \
        (b'now', (1600000000111111111, 1700000000222222222)):
    os.utime(make(name), ns=times)
for name in b'fifo', b'socket', b'link', b'dir':
    if name == b'fifo':
        os.mkfifo(name)
    elif name == b'socket':
        socket.socket(socket.AF_UNIX).bind(name)
    elif name == b'link':
        os.symlink(b'/nowhere/' + b'x' * 3000, name)
    else:
        os.mkdir(name)
    os.chown(name, 7, 8, follow_symlinks=False)
    os.utime(name, ns=(1500000000333333333, 1400000000444444444), follow_symlinks=False)
os.mknod(b'char', 0o20640, os.makedev(1, 7))
os.mknod(b'block', 0o60640, os.makedev(7, 200))
make(b'one')
os.link(b'one', b'dir/two')
os.link(b'dir/two', b'a third')
os.link(b'fifo', b'dir/fifo')
os.link(b'link', b'dir/link')
with open(b'sparse', 'wb') as file:
    file.truncate(5 << 30)
    os.pwrite(file.fileno(), b'data', 3 << 30)
    os.pwrite(file.fileno(), b'end', (5 << 30) - 3)
with open(b'reserved', 'wb') as file:
    os.posix_fallocate(file.fileno(), 0, 1 << 20)
    os.pwrite(file.fileno(), b'data', 9000)
make(b'attributes')
for name, value in ('user.short', b''), ('user.long', b'v' * 3000), ('trusted.other', b'\0\1'), \
        ('security.capability', struct.pack('<5I', 0x02000001, 1 << 10, 0, 0, 0)):
    try:
        os.setxattr(b'attributes', name, value)
    except OSError:
        pass
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in (
    (1, 6, 0xffffffff), (2, 4, 77), (4, 4, 0xffffffff), (8, 5, 88), (16, 7, 0xffffffff), (32, 0, 0xffffffff)))
os.setxattr(make(b'acl'), 'system.posix_acl_access', acl)
os.mkdir(b'acl.dir')
os.setxattr(b'acl.dir', 'system.posix_acl_default', acl)
os.chmod(make(b'program'), 0o6755)
flags(make(b'fixed'), 0x10)
flags(make(b'grows'), 0x20)
flags(make(b'not dumped'), 0x40 | 0x80)
os.mkdir(b'fixed.dir')
make(b'fixed.dir/file')
flags(b'fixed.dir', 0x10)
'''

# Of the files of the host.
CHANGE = r'''
import os, shutil
os.unlink('/etc/passwd')
shutil.rmtree('/usr/share/doc/tar', ignore_errors=True)
shutil.rmtree('/etc/apt')
os.mkdir('/etc/apt')
open('/etc/apt/only', 'w').close()
os.chmod('/etc/hosts', 0o600)
os.chown('/etc/shells', 5, 6)
os.link('/etc/profile', '/var/profile')
os.setxattr('/etc/services', 'trusted.mine', b'1')
os.rename('/etc/issue', '/etc/issue.moved')
os.utime('/etc/networks', ns=(1200000000000000001, 1100000000000000001)) if os.path.exists('/etc/networks') else None
os.unlink('/etc/debian_version')
os.mkdir('/etc/debian_version')
'''

LOOK = r'''
import fcntl, hashlib, os, stat, struct, sys
numbers = {}

def flags(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME)
    try:
        return hex(struct.unpack('l', fcntl.ioctl(fd, 0x80086601, bytes(8)))[0])
    except OSError as e:
        return e.errno
    finally:
        os.close(fd)

def contents(path, size):
    digest, fd, at = hashlib.sha1(), os.open(path, os.O_RDONLY | os.O_NOATIME), 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        some = os.pread(fd, min(4096 - at % 4096, size - at), at)
        if some.strip(b'\0'):
            digest.update(b'%d' % at + some)
        at += len(some)
    os.close(fd)
    return digest.hexdigest()

def look(path):
    s = os.lstat(path)
    said = [oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns, s.st_rdev, s.st_nlink if not stat.S_ISDIR(s.st_mode) else 0]
    if not stat.S_ISDIR(s.st_mode):
        said += ['inode', numbers.setdefault(s.st_ino, path), s.st_size]
    said += ['%s=%s' % (name, os.getxattr(path, name, follow_symlinks=False)) for name in
             sorted(os.listxattr(path, follow_symlinks=False))]
    if stat.S_ISREG(s.st_mode) or stat.S_ISDIR(s.st_mode):
        said.append(flags(path))
        said.append(s.st_atime_ns)
    if stat.S_ISREG(s.st_mode):
        said += [contents(path, s.st_size), s.st_blocks * 512 < s.st_size]
    if stat.S_ISLNK(s.st_mode):
        said.append(os.readlink(path))
    print(ascii(path), *said)
    if stat.S_ISDIR(s.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        names = sorted(map(os.fsencode, os.listdir(fd)))
        os.close(fd)
        for name in names:
            look(path + b'/' + name)

for top in sys.argv[1:]:
    if os.path.lexists(top):
        look(os.fsencode(top))
'''

CHANGED = ['/usr/share/doc/tar', '/var/profile'] + ['/etc/' + name for name in (
    'passwd', 'apt', 'hosts', 'shells', 'profile', 'services', 'issue', 'issue.moved', 'networks', 'debian_version')]


def look(case, name, *tops):
    return inside(case, name, 'python3', '-c', LOOK, *tops).split('\n')


def compare(before, after):
    gone = [line for line in before if line not in after]
    more = [line for line in after if line not in before]
    if gone or more:
        raise Failed('there was %s, there is %s' % ('\n'.join(gone), '\n'.join(more)))


def run(case, name, *mounts):
    begin(case)
    good(case.reprise('run', '-d', '--name', name, '--', 'sleep', '1000'))
    for line in mounts:
        inside(case, name, *line)


def again(case, name, *options):
    case.checkpoint(name, '-q', '--kill', *options)
    good(case.reprise('rm', name))
    good(case.reprise('restart', '-q', '-d', '-i', case.path('image'), '--name', name))
    os.unlink(case.path('image'))


def end(case, name):
    good(case.reprise('stop', '-t', '0', name))
    good(case.reprise('rm', name))
    case.reap()


def test_kinds(case):
    """Twice, since the second time they are files that a restart has made."""
    run(case, 'files', ['mount', '-t', 'tmpfs', '-o', 'size=64m,nr_inodes=5k,mode=1770,uid=5,gid=6', 'mine', '/mnt'])
    tops = '/opt/all', '/mnt/all'
    for top in tops:
        inside(case, 'files', 'python3', '-c', MAKE, top)
    inside(case, 'files', 'python3', '-c', CHANGE)
    before = look(case, 'files', *tops, *CHANGED)
    mounts = inside(case, 'files', 'grep', ' /mnt ', '/proc/mounts')
    for _ in range(2):
        again(case, 'files')
        compare(before, look(case, 'files', *tops, *CHANGED))
        if inside(case, 'files', 'grep', ' /mnt ', '/proc/mounts') != mounts:
            raise Failed('the mount was %s' % mounts)
    end(case, 'files')


def test_overlay_options(case):
    """Marks of an overlay mean what its options say: files that were moved, and of which only the rights were changed."""
    begin(case)
    top = case.path('overlay')
    for name in 'lower/dir', 'upper', 'work', 'over':
        os.makedirs('%s/%s' % (top, name))
    for name in 'file', 'dir/below':
        with open('%s/lower/%s' % (top, name), 'w') as file:
            file.write('text')
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', 'sh', '-c', 'cd %s; mount -t overlay -o '
                       'lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,redirect_dir=on,metacopy=on over over && '
                       'chmod 600 over/file && mv over/dir over/moved && exec sleep 1000' % (top, top, top, top)])

    def first():
        path = '/proc/%d/task/%d/children' % (tool, tool)
        pid = open(path).read().strip() if os.path.exists(path) else ''
        return pid and open('/proc/%s/comm' % pid).read() == 'sleep\n' and pid
    case.until(lambda: first() or case.ended(tool), 'the overlay')
    if case.ended(tool):
        raise Skipped('no such overlay')
    show = ['/usr/bin/nsenter', '-m', '-t', first(), '/usr/bin/python3', '-c', LOOK, top + '/over']
    before = good(case.run(show)).split('\n')
    case.checkpoint(first(), '-q', '--kill')
    case.wait(tool)
    good(case.reprise('restart', '-q', '-d', '-i', case.path('image'), '--name', 'moved'))
    compare(before, look(case, 'moved', top + '/over'))
    end(case, 'moved')


MOUNTS = r'''
set -e
mount -t tmpfs -o size=3m,nr_inodes=77,mode=1711,uid=5,gid=6,huge=within_size,mpol=interleave:0,noswap,nosuid,nodev,noexec,noatime one /mnt ||
    mount -t tmpfs -o size=3m,nr_inodes=77,mode=1711,uid=5,gid=6,nosuid,nodev,noexec,noatime one /mnt
mkdir /mnt/a /mnt/b /mnt/c /mnt/d /mnt/e /mnt/f /mnt/g
echo text > /mnt/a/file
touch /mnt/target '/mnt/a name
with a line' /mnt/under
mount --bind /mnt/a/file /mnt/target
mount --bind /mnt/a/file '/mnt/a name
with a line'
mount -o remount,bind,ro,nosymfollow /mnt/target
mount -t tmpfs -o lazytime,sync,strictatime,nodiratime,size=1m three /mnt/b
mkdir /mnt/b/deep
mount -t tmpfs none /mnt/b/deep
mount -t ramfs four /mnt/c
echo more > /mnt/c/file
mount -t proc -o hidepid=2,subset=pid proc /mnt/d 2>/dev/null || mount -t proc proc /mnt/d
mount -t tmpfs -o size=1m five /mnt/e
mkdir /mnt/e/x
mount --bind /mnt/e/x /mnt/f
mount -o remount,ro /mnt/e
mount --bind /etc/hosts /mnt/under
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,max=17 pts /mnt/g
mount --bind /mnt/f /mnt/f
'''


def mounts(case, name):
    lines = [line.split(' ') for line in inside(case, name, 'grep', ' /mnt', '/proc/self/mountinfo').strip().split('\n')]
    # Where the writable layer is nobody sees.
    return sorted(re.sub(r',(upper|work)dir=[^,]*', '', ' '.join(line[3:6] + line[line.index('-') + 1:])) for line in lines)


def test_mounts(case):
    """One on the other, of files, with their options, of the mount and of the file system."""
    run(case, 'mounts', ['sh', '-c', MOUNTS])
    before, files = mounts(case, 'mounts'), look(case, 'mounts', '/mnt/a', '/mnt/b', '/mnt/c', '/mnt/e')
    for _ in range(2):
        again(case, 'mounts')
        compare(before, mounts(case, 'mounts'))
        compare(files, look(case, 'mounts', '/mnt/a', '/mnt/b', '/mnt/c', '/mnt/e'))
    end(case, 'mounts')


def test_mounted_over_itself(case):
    """Of a copy of the mounts of the host: one of these, once more, and read-only."""
    begin(case)
    top = case.path('twice')
    os.mkdir(top)
    good(case.run(['/bin/mount', '-t', 'tmpfs', 'twice', top]))
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', 'sh', '-c', 'mount --bind %s %s && '
                       'mount -o remount,bind,ro %s && exec sleep 1000' % (top, top, top)])

    def sleeping():
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                if case.comm(int(pid)) == 'sleep':
                    return pid
            except OSError:
                pass  # it has just ended
        return None

    def seen():
        with open('/proc/%s/mountinfo' % sleeping()) as file:
            return [line.split(' ')[5] for line in file if ' %s ' % top in line]
    case.until(lambda: sleeping() or case.ended(tool), 'the mounts')
    before = seen()
    if [options.split(',')[0] for options in before] != ['rw', 'ro']:
        raise Failed('there are %s' % before)
    case.checkpoint(sleeping(), '-q', '--kill')
    case.wait(tool)
    tool = case.restart('--pidns')
    case.until_handed_over(tool, 1, 'sleep', True)
    if seen() != before:
        raise Failed('there was %s, there is %s' % (before, seen()))
    case.kill_all()
    case.reap()
