# SPDX-License-Identifier: Apache-2.0
"""Namespaces of tasks below a root that is not in them: what cannot be saved is refused by name."""

import os

from case import Failed


def refused(case, code, options, commands, *words, above=''):
    """A shell in its own namespaces below another shell."""
    done = case.path('done')
    pid = case.spawn(['/bin/sh', '-c', '%s unshare %s sh -c "%s; echo >%s; exec sleep 1000" & wait' % (
        above, options, commands, done)])
    case.until(lambda: os.path.exists(done) or case.ended(pid), 'the namespaces')
    if case.ended(pid):
        raise Failed('it has ended')
    os.unlink(done)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), code, *words)
    case.expect_files()
    status, _, err = case.reprise('check', str(pid))
    if status != 1 or not all(word in err for word in words):
        raise Failed('check: %d, %s' % (status, err))
    case.kill_all()
    case.reap()


LIBC = 'import ctypes, os, time; libc = ctypes.CDLL(None, use_errno=True); libc.shmat.restype = ctypes.c_void_p; '


def python(program):
    """As a word for refused(), which quotes once more."""
    return "/usr/bin/python3 -c '%s%s; time.sleep(1000)'" % (LIBC, program.replace('"', '\\"'))


def test_segment_of_another_namespace(case):
    """It was attached before the task left its namespace."""
    ready = case.path('attached')
    refused(case, 'ipc-state', '--uts', python(
        'number = libc.shmget(0, 4096, 0o600); libc.shmat(number, None, 0); libc.shmctl(number, 0, None); '
        'libc.unshare(0x08000000); os.mkdir("%s")' % ready) + ' & while ! [ -e %s ]; do sleep 0.1; done; rmdir %s' % (
            ready, ready), 'mapping', 'System V segment of another IPC namespace')


def test_queue_that_is_shared(case):
    """A queue of a nested namespace that somebody outside has open."""
    ready, done = case.path('opened'), case.path('done')
    pid = case.spawn(['/usr/bin/python3', '-c', LIBC + """
child = os.fork()
if not child:
    fd = libc.syscall(240, b'some', 0o102, 0o600, None)
    pid = os.fork()
    if not pid:
        libc.unshare(0x08000000)
        os.dup2(libc.syscall(240, b'some', 0o102, 0o600, None), 20)
        open(%r, 'w')
    time.sleep(1000)
while not os.path.exists(%r):
    time.sleep(0.01)
inner = int(open('/proc/%%d/task/%%d/children' %% (child, child)).read())
libc.syscall(438, os.pidfd_open(inner), 20, 0)
libc.syscall(241, b'some')
open(%r, 'w').write(str(child))
time.sleep(1000)
""" % (ready, ready, done)])
    case.until(lambda: os.path.exists(done) and open(done).read() or case.ended(pid), 'the queues')
    if case.ended(pid):
        raise Failed('it has ended')
    child = open(done).read()
    case.refused(case.reprise('checkpoint', child, '-o', case.path('image')), 'file-outside',
                 'message queue', 'outside the tree', 'IPC namespace of the tree')
    os.unlink(ready)
    os.unlink(done)
    case.kill_all()
    case.reap()


def test_queues_of_others(case):
    """A mount that shows the queues of another namespace than that of who is there."""
    refused(case, 'container-mount', '--mount', 'unshare --ipc mount -t mqueue q /mnt', 'mount /mnt',
            'message queues of another IPC namespace')


def inside(case, *args):
    """A process joins the pid namespace of the only child of the last job, which a user namespace owns."""
    return ('while ! child=$(pgrep -P $!); do sleep 0.1; done; nsenter -t $child ' + ' '.join(args)).replace('$', '\\$')


def test_outsider_of_a_user_namespace(case):
    """Whose parent has gone is adopted by a process of a user namespace in which he is not."""
    done = case.path('joined')
    refused(case, 'task-namespace', '--uts', 'unshare --user --map-root-user --pid --fork sleep 1000 & ' +
            inside(case, '--pid', 'sh -c \'sleep 1000 & echo >%s\'' % done) + '; rm ' + done,
            'not in the user namespace', 'owns the pid namespace')


def test_ended_in_a_user_namespace(case):
    refused(case, 'task-namespace', '--uts', '/usr/bin/python3 -c \'import ctypes, time; '
            'pid = ctypes.CDLL(None).syscall(56, 0x30000000 | 17, 0, 0, 0, 0); pid and time.sleep(1000)\' & sleep 0.1; '
            'while ! pgrep -r Z -P \$! >/dev/null; do sleep 0.1; done', 'has ended', 'user namespace owns')


def test_unborn_in_a_user_namespace(case):
    """Nobody tells whose the pid namespace is that has no process yet."""
    refused(case, 'task-namespace', '--user --map-root-user --pid', ':', 'user namespace', 'next child')


def test_threads_of_a_user_namespace(case):
    """A thread has kept an id that has no name there."""
    program, changed = case.path('threads.py'), case.path('changed')
    with open(program, 'w') as f:
        f.write("""import ctypes, os, threading, time
libc, (there, ready), (go, mapped) = ctypes.CDLL(None), os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(there, 1)
    open('/proc/' + str(os.getppid()) + '/uid_map', 'w').write('0 1234 1')
    os.write(mapped, b' ')
    os.read(there, 1)
    open(%r, 'w')
    os._exit(0)
libc.unshare(0x10000000)
os.write(ready, b' ')
os.read(go, 1)
threading.Thread(target=time.sleep, args=(1000,)).start()
libc.setfsuid(0)
os.write(ready, b' ')
os.wait()
time.sleep(1000)
""" % changed)
    refused(case, 'task-namespace', '--fork', '/usr/bin/python3 %s & while ! [ -e %s ]; do sleep 0.1; done; rm %s %s' % (
        program, changed, changed, program), 'user namespace', 'other ids')


def test_next_clocks_of_a_user_namespace(case):
    refused(case, 'task-namespace', '--user --map-root-user --time --fork', ':', 'unshare', 'next child',
            'time namespace', 'user namespace')


def next_clocks(case, program, *words):
    """NEWTIME for the next child (0x80)."""
    ready = case.path('ready')
    refused(case, 'task-namespace', '--uts', python(
        'import threading; thread = threading.Thread(target=time.sleep, args=(1000,)); ' + program +
        '; os.mkdir("%s")' % ready) + ' & while ! [ -e %s ]; do sleep 0.1; done; rmdir %s' % (ready, ready),
            'next child', 'time namespace', *words)


def test_next_clocks_entered_by_threads(case):
    """Who was there before, has entered it and has threads by now."""
    next_clocks(case, 'there, ready = os.pipe(); child = os.fork(); '
                'child or (libc.unshare(0x80), os.write(ready, b" "), time.sleep(1000)); os.read(there, 1); '
                'libc.setns(os.open("/proc/" + str(child) + "/ns/time_for_children", 0), 0x80); thread.start()',
                'with threads is in that does not descend')


def test_next_clocks_of_one_thread(case):
    next_clocks(case, 'thread.start(); libc.unshare(0x80); os.fork() or time.sleep(1000)', 'not those of all threads')


def test_next_clocks_of_the_root(case):
    """Of whom the root task has entered the one."""
    ready = case.path('ready')
    pid = case.spawn(['/usr/bin/python3', '-c', LIBC + """
child = os.fork()
if child == 0:
    libc.unshare(0x80)
    os.mkdir(%r)
    time.sleep(1000)
while not os.path.exists(%r):
    time.sleep(0.01)
libc.setns(os.open('/proc/%%d/ns/time_for_children' %% child, 0), 0x80)
os.rmdir(%r)
time.sleep(1000)
""" % (ready, ready, ready)])
    case.until(lambda: os.readlink('/proc/%d/ns/time' % pid) != os.readlink('/proc/self/ns/time') or case.ended(pid),
               'the namespace')
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'task-namespace', 'next child',
                 'in that of the root task')
    case.kill_all()
    case.reap()


def test_next_clocks_on_a_file(case):
    ready = case.path('ready')
    refused(case, 'container-mount', '--mount', python('libc.unshare(0x80); os.mkdir("%s")' % ready) +
            ' & while ! [ -e %s ]; do sleep 0.1; done; rmdir %s; mount -t tmpfs none /mnt; touch /mnt/held; '
            'mount --bind /proc/\\$!/ns/time_for_children /mnt/held' % (ready, ready), 'mount', '/mnt/held', 'next child')


def test_pid_namespace_that_has_ended_twice(case):
    """One was made in another, and nobody is left in either."""
    ready = case.path('ready')
    program = case.path('twice.py')
    with open(program, 'w') as f:
        f.write("""import ctypes, os, time
libc, (go, done), (there, made) = ctypes.CDLL(None), os.pipe(), os.pipe()
libc.unshare(0x20000000)
child = os.fork()
if child == 0:
    libc.unshare(0x20000000)
    os.fork() or os._exit(0)
    os.wait()
    os.write(made, b' ')
    os.read(go, 1)
    os._exit(0)
os.read(there, 1)
held = os.open('/proc/%%d/ns/pid_for_children' %% child, 0)
os.write(done, b' ')
os.wait()
os.unlink(%r)
os.mkdir(%r)
time.sleep(1000)
""" % (program, ready))
    refused(case, 'task-namespace', '--uts', '/usr/bin/python3 %s & while ! [ -e %s ]; do sleep 0.1; done; rmdir %s' % (
        program, ready, ready), 'descriptor', 'has ended, too')


def test_pid_namespace_of_others(case):
    """Its first process is not in the tree."""
    other = case.spawn(['/usr/bin/unshare', '--pid', '--fork', 'sleep', '1000'])
    listed = '/proc/%d/task/%d/children' % (other, other)
    case.until(lambda: open(listed).read(), 'the other one')
    child = int(open(listed).read())
    refused(case, 'task-namespace', '--uts', 'nsenter -t %d -p sleep 1000 & while ! pgrep -P \\$! '
            '>/dev/null; do sleep 0.1; done' % child, 'first process')


def test_copy_of_a_proc(case):
    """In the copy it is not told where what lies on it comes from."""
    done = case.path('copied')
    refused(case, 'container-mount', '--pid --fork --mount-proc',
            'mount --bind /dev/null /proc/interrupts; unshare --mount sh -c \\"echo >%s; exec sleep 1000\\" & '
            'while ! [ -e %s ]; do sleep 0.1; done; rm %s' % (done, done, done),
            'mount /proc/interrupts', 'copy')


def test_mounted_pid_namespace(case):
    refused(case, 'container-mount', '--pid --fork --mount',
            'mount --bind /proc/self/ns/pid /etc/hostname', 'mount /etc/hostname', 'pid namespace')


def test_proc_of_a_pid_namespace(case):
    refused(case, 'container-mount', '--pid --fork --mount-proc', 'mount -t tmpfs mine /proc',
            'mount /proc', 'pid namespace', 'hidden')


def of_root(case, script, *words):
    """The mounts of the root task itself."""
    done = case.path('done')
    pid = case.spawn(['/usr/bin/unshare', '--mount', 'sh', '-c', script % done])
    case.until(lambda: case.ended(pid) or os.path.exists(done), 'the mounts')
    if case.ended(pid):
        raise Failed('it has ended')
    os.unlink(done)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'container-mount', *words)
    case.expect_files()
    case.kill_all()
    case.reap()


def test_below_a_namespace_of_outside(case):
    """Whoever is in the user namespace of the root task cannot leave it for a namespace of outside."""
    done = case.path('done')
    pid = case.spawn(['/usr/bin/unshare', '--user', '--map-root-user', 'sh', '-c',
                      'unshare --uts sh -c "echo >%s; exec sleep 1000"; true' % done])
    case.until(lambda: case.ended(pid) or os.path.exists(done), 'the namespaces')
    if case.ended(pid):
        raise Failed('it has ended')
    os.unlink(done)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'task-namespace',
                 'uts namespace of task', 'does not belong to its user namespace')
    case.refused(case.reprise('check', str(pid)), 'task-namespace', 'does not belong to its user namespace')
    case.expect_files()
    case.kill_all()
    case.reap()


def test_proc_of_others(case):
    """It shows a pid namespace that is not of the tree."""
    other = case.spawn(['/usr/bin/unshare', '--pid', '--fork', 'sleep', '1000'])
    listed = '/proc/%d/task/%d/children' % (other, other)
    case.until(lambda: open(listed).read(), 'the other one')
    of_root(case, 'nsenter -t %d -p mount -t proc other /mnt; echo >%%s; exec sleep 1000' % int(open(listed).read()),
            'mount /mnt', 'another pid namespace', 'first process of that one')


def test_proc_that_has_ended(case):
    of_root(case, 'unshare --pid --fork mount -t proc gone /mnt; echo >%s; exec sleep 1000',
            'mount /mnt', 'pid namespace that has ended')


def test_hidden_proc(case):
    """Which pid namespace it shows cannot be seen."""
    of_root(case, 'unshare --pid --fork sh -c "mount -t proc mine /mnt; mount -t tmpfs mine /mnt; echo >%s; exec sleep 1000"',
            'mount /mnt', 'hidden')


def test_common_memory(case):
    """Two mount namespaces with the same tmpfs, which nobody above them has any more; one belongs to a user namespace."""
    done = case.path('done')
    below = 'unshare %s --mount sh -c \'echo >%s.%d; exec sleep 1000\' <&3 3<&- & '
    refused(case, 'container-mount', '--mount',
            'exec 3<&0; mount -t tmpfs mine /mnt; ' + below % ('', done, 1) + below % ('--user', done, 2) +
            'exec 3<&-; while ! [ -e %s.1 -a -e %s.2 ]; do sleep 0.1; done; rm %s.1 %s.2; '
            'umount /mnt' % (done, done, done, done),
            'mount /mnt', 'too')


def test_hidden(case):
    """A mount that gets mounts from the root's namespace, and that no path leads to."""
    case.run(['/bin/mount', '--make-rshared', '/'])
    refused(case, 'container-mount', '--mount --propagation slave', ':', 'shares its mounts',
            'hidden')


def test_hidden_of_a_user_namespace(case):
    """What mounts share with others is set from outside, and no path leads to this one."""
    refused(case, 'container-mount', '--user --map-root-user --mount', 'mount -t tmpfs one /mnt; mount --make-shared /mnt; mount -t tmpfs two /mnt',
            'mount /mnt', 'hidden', 'user namespace')
