# SPDX-License-Identifier: Apache-2.0
"""Containers in user namespaces, and those of ordinary users."""

import json
import os
import random
import signal
import time

from case import Failed, NOBODY, Skipped, expect_killed


def begin(case, uid=NOBODY):
    case.uid = uid
    case.environment['REPRISE_DIR'] = os.path.join(case.control, 'state', 'reprise')
    with open('/proc/sys/user/max_user_namespaces') as file:
        if file.read() == '0\n':
            raise Skipped('no user namespaces')


def good(result):
    code, out, err = result
    if code:
        raise Failed('exit status %d: %s' % (code, err))
    return out


def listed(case):
    return {c['name']: c for c in json.loads(good(case.reprise('ps', '--json')))['containers']}


def run_victim(case, name, *options):
    pid = case.start(program=case.reprise_path, arguments=[
        'run', '--name', name, *options] + case.volumes() +
        ['--', os.path.join(case.build, 'test/lib/victim'), 'child', 'wait', 'pass'])
    case.until(lambda: listed(case)[name]['state'] == 'running', 'the container is noted')
    return pid


def inside(case, name, script):
    return good(case.reprise('exec', name, 'sh', '-c', script))


SAVED = 'id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; cat /tmp/f /var/tmp/g; ' \
        'cut -d" " -f 5 /proc/1/mountinfo; ip -br addr; cat /proc/2/status | grep -E "^(Uid|Gid|Groups|Cap)"; ' \
        'nft list ruleset 2>/dev/null; iptables-legacy-save -c 2>/dev/null | grep -v "^#"; true'

# Where there are such programs and such a kernel.
FIREWALL = '''exec 2>/dev/null
nft add table ip t
nft add chain ip t c "{ type filter hook input priority 0; }"
nft add rule ip t c tcp dport 9 counter packets 3 bytes 4 drop
iptables-legacy -A INPUT -p tcp --dport 7 -j DROP -c 5 6
true'''


def goes_on(case, *options):
    pid = run_victim(case, 'web', *options)
    inside(case, 'web', 'echo one > /tmp/f; echo two > /var/tmp/g')
    inside(case, 'web', FIREWALL)
    before = inside(case, 'web', SAVED)
    case.checkpoint('web', '-q', '--kill')
    if case.wait(pid) != 128 + signal.SIGKILL:
        raise Failed('it ended by itself')
    good(case.reprise('rm', 'web'))
    case.expect_files('image', 'state')
    pids = [case.restart('--name', name) for name in ('web', 'copy')]
    case.until(lambda: sum(c['state'] == 'running' for c in listed(case).values()) == 2, 'two run')
    for name in 'web', 'copy':
        after = inside(case, name, SAVED)
        if after != before:
            raise Failed('there was\n%s\nthere is\n%s' % (before, after))
    case.go()
    case.expect_pass(2, [case.wait_verdict(p, 'one of two') for p in pids])
    good(case.reprise('rm', 'web', 'copy'))
    if listed(case):
        raise Failed('rm left %s' % listed(case))
    return before


def test_ordinary_user(case):
    begin(case)
    text = goes_on(case)
    if not text.startswith('%d\n' % NOBODY) or 'CapEff:\t0000000000000000' not in text:
        raise Failed(text)


def test_root_inside(case):
    begin(case)
    text = goes_on(case, '--user')
    if not text.startswith('0\n') or 'CapEff:\t0000000000000000' in text:
        raise Failed(text)


def test_of_root(case):
    """All ids, and no power over what is outside."""
    begin(case, 0)
    text = goes_on(case, '--user')
    if '4294967295' not in text:
        raise Failed(text)


def run_filtered(case, *arguments):
    begin(case, 0)
    pid = case.start(program=case.reprise_path, arguments=[
        'run', '--name', 'web', '--user'] + case.volumes() + ['--', case.program('seccomp_filter'), *arguments])
    case.until(lambda: listed(case)['web']['state'] == 'running', 'the container is noted')
    return pid


def test_filters(case):
    """Of seccomp: suspended by who stays outside, at the checkpoint and at the restart."""
    pid = run_filtered(case)
    good(case.reprise('check', 'web'))
    case.checkpoint('web', '-q')
    case.checkpoint('web', '-q', '--kill', '--force')
    case.wait(pid)
    good(case.reprise('rm', 'web'))
    case.finish(case.restart('--name', 'web'))


def test_filters_and_kills(case):
    """Whichever of its processes is killed, the application goes on. Its filters do not kill: they might, for a call of ours that is
    about to be made (doc/security.md)."""
    pid = run_filtered(case, 'mild')
    chance = random.Random(int.from_bytes(os.urandom(4), 'little'))
    mine = {p for p, _ in case.others()}
    for _ in range(20):
        tool = case.start_reprise('checkpoint', 'web', '-q', '-o', case.path('image'), '--force')
        time.sleep(chance.random() * 0.15)
        ours = [p for p, comm in case.others() if p not in mine and comm == 'reprise']
        for victim in chance.sample(ours, min(1, len(ours))):
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        case.wait(tool)
        case.until(lambda: not [p for p, comm in case.others() if p not in mine and comm == 'reprise'], 'all of it has ended')
        if case.ended(pid):
            raise Failed('the application has ended')
    case.finish(pid)


def test_network_of_the_host(case):
    """Where /sys cannot be mounted."""
    begin(case)
    good(case.reprise('run', '-d', '--name', 'web', '--net', 'host', '--', 'sleep', '1000'))
    before = inside(case, 'web', 'readlink /proc/self/ns/net; ls /sys; cut -d" " -f 5 /proc/1/mountinfo')
    if os.readlink('/proc/self/ns/net') not in before:
        raise Failed('another network: %s' % before)
    case.checkpoint('web', '-q', '--kill')
    good(case.reprise('rm', 'web'))
    good(case.reprise('restart', '-i', case.path('image'), '-d'))
    after = inside(case, 'web', 'readlink /proc/self/ns/net; ls /sys; cut -d" " -f 5 /proc/1/mountinfo')
    if after != before:
        raise Failed('%s, not %s' % (after, before))
    good(case.reprise('stop', '-t', '0', 'web'))
    good(case.reprise('rm', 'web'))
    case.reap()


def test_no_power(case):
    begin(case, 0)
    good(case.reprise('run', '-d', '--name', 'web', '--user', '--', 'sleep', '1000'))
    code, _, _ = case.reprise('exec', 'web', 'sh', '-c', 'mknod /tmp/sda b 8 0')
    if not code:
        raise Failed('a device was made')
    good(case.reprise('stop', '-t', '0', 'web'))
    good(case.reprise('rm', 'web'))
    case.reap()


def test_saved_by_root(case):
    """It does not become root's by that."""
    begin(case)
    pid = run_victim(case, 'web')
    case.uid = 0
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    case.refused(case.reprise('restart', '-i', case.path('image'), '--name', 'copy'), 'namespace',
                 'user %d' % NOBODY)
    os.chown(case.path('image'), NOBODY, NOBODY)
    case.uid = NOBODY
    good(case.reprise('rm', 'web'))
    pid = case.restart('--name', 'web')
    case.until(lambda: listed(case).get('web', {}).get('state') == 'running', 'it runs')
    case.finish(pid)


def test_files(case):
    """What it writes where it may write is its own, and travels with the image."""
    begin(case)
    code, _, err = case.reprise('run', '--rm', '--', '/no/such/program')
    if code != 1 or '/no/such/program' not in err or listed(case):
        raise Failed('no such program: %d, %s, %s' % (code, err, listed(case)))
    if good(case.reprise('run', '--rm', '--', 'sh', '-c', 'echo a > /etc/x; echo b > /tmp/x; '
                         'cat /tmp/x; exit 0')) != 'b\n':
        raise Failed('it cannot write')
    if os.path.exists('/etc/x'):
        raise Failed('a container wrote /etc/x of the host')


def test_locked_files(case):
    """Directories in which their owner may do nothing, or not all."""
    begin(case)
    root = case.path('root')
    for name in 'usr', 'proc', 'sys', 'dev', 'tmp', 'run', 'srv':
        os.makedirs(os.path.join(root, name))
    for name in 'bin', 'lib', 'lib64':
        os.symlink('usr/' + name, os.path.join(root, name))
    for where, _, _ in os.walk(root):
        os.chown(where, NOBODY, NOBODY)
    good(case.reprise('run', '--name', 'web', '--rootfs', root, '-V', '/usr:/usr:ro', '--', 'sh', '-ec', """cd /srv
        for i in 0 555 444 333; do mkdir -p d$i/in/deep; echo text >d$i/in/file; chmod $i d$i/in/deep d$i/in d$i; done"""))
    found = [os.path.join(where, name) for where, names, _ in os.walk(os.path.join(case.environment['REPRISE_DIR'], 'web'))
             for name in names if name == 'd555']
    if len(found) != 1 or not os.path.exists(found[0] + '/in/file'):
        raise Failed('it is not there: %s' % found)
    good(case.reprise('rm', 'web'))
    if os.listdir(case.environment['REPRISE_DIR']):
        raise Failed('rm left %s' % os.listdir(case.environment['REPRISE_DIR']))


def test_refused(case):
    begin(case)
    code, _, err = case.reprise('run', '--net', 'veth', '--', 'true')
    if code != 1 or 'takes root' not in err:
        raise Failed('veth: %d, %s' % (code, err))


def user_namespaces(case):
    """How many there are of the first process and of what it runs."""
    web = listed(case).get('web', {})
    return len({os.readlink('/proc/%d/ns/user' % pid) for pid in (web['init'], web['pid'])}) if 'pid' in web else 0


def map_of(pid):
    with open('/proc/%d/uid_map' % pid) as file:
        return file.read().split()


def test_user_namespace_inside(case):
    """What runs there has one of its own, as sandboxes have."""
    begin(case)
    good(case.reprise('run', '-d', '--name', 'web', '--', 'unshare', '-Ur', 'sleep', '1000'))
    case.until(lambda: user_namespaces(case) == 2, 'a namespace inside')
    pid = listed(case)['web']['pid']
    case.until(lambda: map_of(pid)[:1] == ['0'], 'its map')
    before = map_of(pid)
    case.checkpoint('web', '-q', '--kill')
    case.until(lambda: listed(case)['web']['state'] != 'running', 'its end')
    good(case.reprise('rm', 'web'))
    good(case.reprise('restart', '-q', '-i', case.path('image'), '--detach', '--name', 'web'))
    if user_namespaces(case) != 2 or map_of(listed(case)['web']['pid']) != before:
        raise Failed('%d namespaces, map %s, was %s' % (user_namespaces(case), map_of(listed(case)['web']['pid']), before))
    good(case.reprise('stop', '-t', '0', 'web'))
    case.reap()


# Of /proc: by the name of its process 1, which is that of the pid namespace that it is to show.
SHOWN = 'case "$(cat /proc/1/comm)" in %s) ;; *) exit 9;; esac'


def unshared(case, uid, options, first='sh'):
    """The program `unshare` is the root of the tree, and what it has made is below."""
    case.uid = uid
    shown = SHOWN % first
    pid = case.start(program='/usr/bin/unshare', arguments=options.split() + [
        'sh', '-c', '%s; "$0" child wait pass && %s' % (shown, shown), os.path.join(case.build, 'test/lib/victim')])
    case.checkpoint(pid, '-q', '--kill')
    expect_killed(case, pid)
    case.forget(pid)
    tool = case.restart('--pidns')
    case.go()
    case.expect_pass(1, [case.wait_verdict(tool, 'the copy')])


def test_unshare(case):
    unshared(case, NOBODY, '-Urpf --mount-proc')


def test_unshare_of_root(case):
    unshared(case, 0, '-Urpf --mount-proc')


def test_unshare_without_user(case):
    unshared(case, 0, '-pf --mount-proc')


SHIFTED = """
import ctypes, os
libc = ctypes.CDLL(None)
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    for kind in 'uid', 'gid':
        with open('/proc/%d/%s_map' % (child, kind), 'w') as file:
            file.write('0 100000 65536')
    os.write(go[1], b' ')
    os.wait()
assert libc.unshare(0x10000000) == 0
os.write(ready[1], b' ')
os.read(go[0], 1)
os.closerange(3, 20)
os.execvp('sleep', ['sleep', '1000'])
"""


def test_no_name_inside(case):
    """Somebody there is nobody, for he has not become anybody: no call makes that again."""
    case.spawn(['/usr/bin/python3', '-c', SHIFTED])

    def sleeping():
        return [pid for pid, comm in case.others() if comm == 'sleep']
    case.until(sleeping, 'the namespace')
    case.refused(case.reprise('checkpoint', str(sleeping()[0]), '-o', case.path('image')), 'task-namespace', 'no name')
    case.kill_all()
    case.reap()


SOMEBODY_ELSE = 'import os, time; os.setgroups([]); os.setgid(6); os.setuid(5); os.close(os.open("/tmp/ready", os.O_CREAT | os.O_WRONLY)); time.sleep(1000)'


def test_somebody_else_inside(case):
    """Who gives up his power without executing a program is hidden from all but root of his user namespace, as servers are."""
    begin(case, 0)
    good(case.reprise('run', '-d', '--name', 'web', '--user', '--', '/usr/bin/python3', '-c', SOMEBODY_ELSE))
    case.until(lambda: case.reprise('exec', 'web', 'test', '-e', '/tmp/ready')[0] == 0, 'somebody else')
    look = 'grep -E "^(Uid|Gid|Cap)" /proc/2/status; ls -ldn /proc/2/fd'
    before = inside(case, 'web', look).split('/proc')[0].rsplit(' ', 4)[0]
    for name in 'one', 'two':
        case.checkpoint('web', '-q', '--kill', image=name)
        case.until(lambda: listed(case)['web']['state'] != 'running', 'its end')
        good(case.reprise('rm', 'web'))
        good(case.reprise('restart', '-q', '-i', case.path(name), '-d'))
        now = inside(case, 'web', look).split('/proc')[0].rsplit(' ', 4)[0]
        if now != before:
            raise Failed('there is %s, there was %s' % (now, before))
    good(case.reprise('stop', '-t', '0', 'web'))
    good(case.reprise('rm', 'web'))
    case.reap()


def test_owners_of_mounts(case):
    """In options of file systems: all terminals of a devpts belong to that group."""
    begin(case, 0)
    good(case.reprise('run', '-d', '--name', 'web', '--user', '--', 'sleep', '1000'))
    inside(case, 'web', 'mkdir /tmp/p /tmp/t; mount -t devpts -o newinstance,gid=5,mode=620 p /tmp/p; mount -t tmpfs -o uid=7,gid=8 t /tmp/t')
    look = 'grep " /tmp/" /proc/1/mountinfo | cut -d" " -f 5,6; grep -o "[ug]id=[0-9]*" /proc/1/mountinfo'
    before = inside(case, 'web', look)
    if 'gid=5' not in before or 'uid=7' not in before:
        raise Failed('there is %s' % before)
    case.checkpoint('web', '-q', '--kill')
    good(case.reprise('rm', 'web'))
    good(case.reprise('restart', '-i', case.path('image'), '-d', '-q'))
    if inside(case, 'web', look) != before:
        raise Failed('there was %s, there is %s' % (before, inside(case, 'web', look)))
    good(case.reprise('stop', '-t', '0', 'web'))
    good(case.reprise('rm', 'web'))
    case.reap()


def test_unshare_everything(case):
    unshared(case, NOBODY, '-UrmiunpCf --mount-proc --kill-child')


def test_rules_that_nobody_inside_may_list(case):
    """The list of tables is for root of the user namespace, and this one has none."""
    if not os.path.exists('/usr/sbin/iptables-legacy'):
        raise Skipped('no iptables-legacy')
    begin(case)

    def outside(*args):
        pid = str(listed(case)['web']['pid'])
        return case.run(['/usr/bin/nsenter', '-n', '-t', pid, *args], uid=0, env={'XTABLES_LOCKFILE': case.path('lock')})

    def tables():
        return good(outside('cat', '/proc/thread-self/net/ip_tables_names'))

    def again():
        case.checkpoint('web', '-q', '--kill')
        case.until(lambda: listed(case)['web']['state'] != 'running', 'its end')
        good(case.reprise('rm', 'web'))
        good(case.reprise('restart', '-q', '-i', case.path('image'), '--detach', '--name', 'web'))
        os.unlink(case.path('image'))
    good(case.reprise('run', '-d', '--name', 'web', '--', 'sleep', '1000'))
    again()
    if tables():
        raise Failed('there was none, there is %s' % tables())
    code, _, err = outside('iptables-legacy', '-A', 'INPUT', '-p', 'tcp', '--dport', '7', '-j', 'DROP', '-c', '5', '6')
    if code:
        raise Skipped(err.strip())
    good(outside('iptables-legacy', '-t', 'mangle', '-P', 'FORWARD', 'DROP'))
    again()
    if sorted(tables().split()) != ['filter', 'mangle']:
        raise Failed('there is %s' % tables())
    if '--dport 7 -c 5 6 -j DROP' not in good(outside('iptables-legacy', '-v', '-S')) or \
            '-P FORWARD DROP' not in good(outside('iptables-legacy', '-t', 'mangle', '-S')):
        raise Failed('rules are lost')
    good(case.reprise('stop', '-t', '0', 'web'))
    case.reap()
