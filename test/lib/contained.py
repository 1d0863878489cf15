# SPDX-License-Identifier: Apache-2.0
"""What tests of containers have in common."""

import json
import os

from case import Failed, Skipped, own_network


def begin(case):
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')


def begin_network(case):
    """In a network of its own, from which containers are reached."""
    if not os.path.exists('/usr/sbin/ip'):
        raise Skipped('no iproute2')
    own_network()
    begin(case)


def good(result):
    code, out, err = result
    if code:
        raise Failed('exit status %d: %s' % (code, err))
    return out


def ip(case, *args):
    return good(case.run(['/usr/sbin/ip'] + list(args)))


def inside(case, name, *args):
    return good(case.reprise('exec', name, '--', *args))


def links(case):
    return sorted(link['ifname'] for link in json.loads(ip(case, '-j', 'link')))


def expect(case, result, out=None, code=0):
    if result[0] != code:
        raise Failed('exit status %d: %s' % (result[0], result[2]))
    if out is not None and result[1] != out:
        raise Failed('printed %r, not %r' % (result[1], out))


def listed(case):
    code, out, err = case.reprise('ps', '--json')
    if code:
        raise Failed('ps: %s' % err)
    return {c['name']: c for c in json.loads(out)['containers']}


def needs_controllers(case):
    """Groups that can be limited: not where whoever started us was given none."""
    code, _, err = case.reprise('run', '--rm', '--memory', '100M', '--pids', '50', '--cpus', '1',
                                '--', 'true')
    if code and 'hands down' in err:
        raise Skipped('no controllers are handed down to us')


# Binds a directory elsewhere with other owners. AT_EMPTY_PATH, OPEN_TREE_CLONE, MOUNT_ATTR_IDMAP.
IDMAPPED = r"""
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
ready, go = os.pipe(), os.pipe()
child = os.fork()
if not child:
    libc.unshare(0x10000000)
    os.write(ready[1], b' ')
    os.read(go[0], 1)
    os._exit(0)
os.read(ready[0], 1)
open('/proc/%d/uid_map' % child, 'w').write('0 1000 1\n5 2000 10')
open('/proc/%d/gid_map' % child, 'w').write('0 1000 1')
space = os.open('/proc/%d/ns/user' % child, os.O_RDONLY)
tree = libc.syscall(428, -100, sys.argv[1].encode(), 1)
attr = struct.pack('QQQQ', 0x00100000, 0, 0, space)
if tree < 0 or libc.syscall(442, tree, b'', 0x1000, attr, len(attr)) < 0:
    sys.exit('skip: ' + os.strerror(ctypes.get_errno()))
if libc.syscall(429, tree, b'', -100, sys.argv[2].encode(), 4) < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(go[1], b' ')
os.wait()
"""
