# SPDX-License-Identifier: Apache-2.0
"""A file system (FUSE) that keeps its files in memory, has neither O_TMPFILE nor holes, as NFS has not, and fails when it is told to."""

import errno
import os
import select
import signal
import stat
import struct

from case import Skipped, system

OPERATIONS = {1: 'lookup', 2: 'forget', 3: 'getattr', 4: 'setattr', 10: 'unlink', 12: 'rename', 13: 'link', 14: 'open', 15: 'read',
              16: 'write', 17: 'statfs', 18: 'release', 20: 'fsync', 25: 'flush', 26: 'init', 27: 'opendir', 28: 'readdir',
              29: 'release', 30: 'fsyncdir', 35: 'create', 42: 'forget', 45: 'rename2'}
ROOT = 1


def name_of(text):
    return bytes(text).split(b'\0')[0]


class Server:
    def __init__(self, fd, fails):
        self.fd, self.fails = fd, dict(fails)
        self.contents, self.names, self.last = {}, {}, ROOT

    def attributes(self, node):
        mode = stat.S_IFDIR | 0o777 if node == ROOT else stat.S_IFREG | 0o600
        size = len(self.contents.get(node, b''))
        links = list(self.names.values()).count(node) or 1
        return struct.pack('=6Q10I', node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, links, os.getuid(), os.getgid(), 0, 4096, 0)

    def entry(self, node):
        return struct.pack('=4Q2I', node, 1, 0, 0, 0, 0) + self.attributes(node)

    def attr(self, node):
        return struct.pack('=Q2I', 0, 0, 0) + self.attributes(node)

    def lookup(self, node, body):
        return self.entry(self.names[name_of(body)])

    def getattr(self, node, body):
        return self.attr(node)

    def setattr(self, node, body):
        valid, _, _, size = struct.unpack('=2I2Q', body[:24])
        if valid & 8:
            self.contents[node] = self.contents[node][:size].ljust(size, b'\0')
        return self.attr(node)

    def create(self, node, body):
        self.last += 1
        self.contents[self.last] = bytearray()
        self.names[name_of(body[16:])] = self.last
        return self.entry(self.last) + self.open(node, body)

    def open(self, node, body):
        return struct.pack('=Q2I', 0, 0, 0)

    opendir = open

    def read(self, node, body):
        _, at, size = struct.unpack('=2QI', body[:20])
        return bytes(self.contents[node][at:at + size])

    def write(self, node, body):
        _, at, size = struct.unpack('=2QI', body[:20])
        file = self.contents[node]
        if len(file) < at:
            file.extend(bytes(at - len(file)))
        file[at:at + size] = body[40:40 + size]
        return struct.pack('=2I', size, 0)

    def readdir(self, node, body):
        _, at, _ = struct.unpack('=2QI', body[:20])
        text = b''
        for i, (name, inode) in enumerate(sorted(self.names.items())[at:]):
            text += struct.pack('=2Q2I', inode, at + i + 1, len(name), stat.S_IFREG >> 12) + name.ljust((len(name) + 7) & ~7, b'\0')
        return text

    def unlink(self, node, body):
        del self.names[name_of(body)]
        return b''

    def link(self, node, body):
        old, = struct.unpack('=Q', body[:8])
        if name_of(body[8:]) in self.names:
            raise FileExistsError(errno.EEXIST, '')
        self.names[name_of(body[8:])] = old
        return self.entry(old)

    def rename(self, node, body, head=8):
        old, new = bytes(body[head:]).split(b'\0')[:2]
        self.names[new] = self.names.pop(old)
        return b''

    def rename2(self, node, body):
        _, flags = struct.unpack('=QI', body[:12])
        if flags & 1 and bytes(body[16:]).split(b'\0')[1] in self.names:
            raise FileExistsError(errno.EEXIST, '')
        return self.rename(node, body, 16)

    def statfs(self, node, body):
        return struct.pack('=5Q10I', 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, *[0] * 7)

    def init(self, node, body):
        major, minor = struct.unpack('=2I', body[:8])
        return struct.pack('=IIIIHHIIHHI7I', major, minor, 0, 0, 12, 9, 1 << 16, 1, 16, 0, 0, *[0] * 7)

    def flush(self, node, body):
        return b''

    release = fsync = fsyncdir = flush

    def answer(self, operation, node, body):
        """The n-th of these and all behind it fail."""
        if operation in self.fails:
            number, n = self.fails[operation]
            self.fails[operation] = number, n - 1
            if n <= 1:
                return -number, b''
        try:
            return 0, getattr(self, operation or 'none')(node, body)
        except AttributeError:
            return -errno.ENOSYS, b''
        except KeyError:
            return -errno.ENOENT, b''
        except OSError as err:
            return -err.errno, b''

    def before(self):
        """Before a question is taken."""

    def serve(self):
        ready = select.poll()
        ready.register(self.fd, select.POLLIN)
        while True:
            ready.poll()
            self.before()
            try:
                text = os.read(self.fd, 1 << 18)
            except OSError as err:
                if err.errno in (errno.ENOENT, errno.EINTR):
                    continue
                return
            _, opcode, unique, node = struct.unpack('=IIQQ', text[:24])
            operation = OPERATIONS.get(opcode)
            if operation == 'forget':
                continue
            error, body = self.answer(operation, node, memoryview(text)[40:])
            try:
                os.write(self.fd, struct.pack('=IiQ', 16 + len(body), error, unique) + body)
            except OSError:  # nobody waits for it any more
                pass


class Faulty:
    """with Faulty(case, write=(errno.EDQUOT, 3)) as path: the third write, and all behind it, fail."""

    def __init__(self, case, server=None, **fails):
        self.case = case
        self.make = server or (lambda fd: Server(fd, fails))
        self.path = os.path.join(case.work, 'faulty')

    def __enter__(self):
        try:
            fd = os.open('/dev/fuse', os.O_RDWR)
        except OSError:
            raise Skipped('no FUSE')
        os.makedirs(self.path, exist_ok=True)
        try:
            system('mount', b'test', self.path.encode(), b'fuse', 0,
                   ('fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other' % (fd, os.getuid(), os.getgid())).encode())
        except OSError as err:
            raise Skipped('no FUSE here: %s' % err)
        self.server = os.fork()
        if self.server == 0:
            try:
                self.make(fd).serve()
            finally:
                os._exit(0)
        os.close(fd)
        return self.path

    def __exit__(self, *_):
        system('umount2', self.path.encode(), 2)
        os.kill(self.server, signal.SIGKILL)
        self.case.wait(self.server)
