# SPDX-License-Identifier: Apache-2.0
"""System V IPC at a restart: what is gone, changed, taken by others or shared with them."""

import ctypes
import json
import os

from case import MS_NOSUID, Failed, expect_killed, libc, system

KEY, QUEUE = 0x5eaf00d, 0xfeed
IPC_RMID, GETVAL, SETVAL, IPC_CREAT = 0, 12, 16, 0o1000


class Operation(ctypes.Structure):
    _fields_ = [('num', ctypes.c_ushort), ('op', ctypes.c_short), ('flags', ctypes.c_short)]


def operate(set_id, num, op):
    if libc.semop(set_id, ctypes.byref(Operation(num, op, 0)), 1) < 0:
        raise Failed('semop: %s' % os.strerror(ctypes.get_errno()))


def listed(kind='sem'):
    """Numbers of all objects."""
    with open('/proc/sysvipc/' + kind) as file:
        return [int(line.split()[1]) for line in file.readlines()[1:]]


def remove(kind='sem'):
    for number in listed(kind):
        if kind == 'sem':
            libc.semctl(number, 0, IPC_RMID)
        else:
            libc.msgctl(number, IPC_RMID, None)


def saved(case, name):
    pid = case.start(name)
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    case.forget(pid)


def passes(case, *args):
    tool = case.restart(*args)
    case.go()
    case.expect_pass(1, [case.wait_verdict(tool, 'the restarted program')])


def refused(case, code, *words, args=()):
    case.refused(case.reprise('restart', '-i', case.path('image'), '-q', *args), code, *words)
    case.expect_nobody()


def test_gone(case):
    """Made again with numbers, keys, values and lists."""
    for name, kind in (('sysv_sem', 'sem'), ('sysv_undo', 'sem'), ('sysv_msg', 'msg')):
        saved(case, name)
        numbers = listed(kind)
        remove(kind)
        passes(case)
        if listed(kind):
            raise Failed('%s are there after the end, of %s' % (listed(kind), numbers))
        case.hold()
        for verdict in os.listdir(case.control):
            os.unlink(case.path(verdict))


def test_changed(case):
    """A value that is not the one of the image, nor the one that the end of the tree left."""
    saved(case, 'sysv_undo')
    number, = listed()
    operate(number, 1, 1)
    refused(case, 'ipc-changed', 'semaphore set %d' % number)
    operate(number, 1, -1)
    passes(case)


def test_changed_but_allowed(case):
    saved(case, 'sysv_sem')
    number = libc.semget(KEY, 0, 0)
    operate(number, 0, 1)
    refused(case, 'ipc-changed', 'semaphore set %d (key %#x)' % (number, KEY))
    tool = case.restart('--changed-files=allow')
    case.go()
    case.wait_verdict(tool, 'the restarted program')
    if not any('is 6' in text for text in case.verdicts()):
        raise Failed('not used as it is: %s' % case.verdicts())
    case.kill_all()


def test_held_by_others(case):
    """What a task held by SEM_UNDO was taken by somebody else meanwhile."""
    saved(case, 'sysv_undo')
    number, = listed()
    operate(number, 0, -1)
    refused(case, 'ipc-changed', number, args=['--changed-files=allow'])
    if libc.semctl(number, 1, GETVAL) != 0x1000:
        raise Failed('a restart that failed has changed it')


def test_message_changed(case):
    saved(case, 'sysv_msg')
    number = libc.msgget(QUEUE, 0)
    text = ctypes.create_string_buffer((1).to_bytes(8, 'little') + b'surplus')
    libc.msgsnd(number, text, 7, 0)
    refused(case, 'ipc-changed', 'message queue %d (key %#x)' % (number, QUEUE))


def test_key_taken(case):
    saved(case, 'sysv_sem')
    remove()
    other = libc.semget(KEY, 1, 0o600 | IPC_CREAT)
    refused(case, 'ipc-taken', '%#x' % KEY)
    if listed() != [other]:
        raise Failed('something was left: %s' % listed())
    passes(case, '--pidns')


def test_nothing_left(case):
    """One is made again before another is refused."""
    saved(case, 'sysv_sem')
    number = libc.semget(KEY, 0, 0)
    rest = [other for other in listed() if other != number]
    libc.semctl(number, 0, IPC_RMID)
    libc.semctl(rest[-1], 0, SETVAL, 3)
    refused(case, 'ipc-changed', rest[-1])
    if listed() != rest:
        raise Failed('%s are there instead of %s' % (listed(), rest))


def test_shared(case):
    """Used by us, too: it must be there, and the same."""
    pid = case.start('sysv_sem')
    number = libc.semget(KEY, 0, 0)
    operate(number, 3, 1)
    operate(number, 3, -1)
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    case.forget(pid)
    refused(case, 'ipc-shared', number, args=['--pidns'])
    passes(case)
    libc.semctl(number, 0, IPC_RMID)
    refused(case, 'ipc-shared', number)


def test_undo_of_an_ordinary_user(case):
    """Who may not look into the kernel cannot know the adjustments."""
    pid = case.start('sysv_undo', uid=65534)
    result = case.reprise('checkpoint', str(pid), '-o', case.path('image'), uid=65534)
    lines = result[2].splitlines()
    if result[0] != 1 or not lines or any('[ipc-state]' not in line for line in lines):
        raise Failed('exit status %d: %s' % result[::2])
    if 'SEM_UNDO' not in lines[0] or 'sysv_undo' not in lines[0]:
        raise Failed(lines[0])
    case.expect_files()
    case.finish(pid)


QUEUES = ('named', 'waited', 'full', 'notified', 'quiet')


def queue_open(name, flags=os.O_RDWR | os.O_NONBLOCK):
    fd = libc.mq_open(b'/' + name.encode(), flags)
    if fd < 0:
        raise Failed('no queue %s' % name)
    return fd


def queues_remove():
    for name in QUEUES:
        libc.mq_unlink(b'/' + name.encode())


def test_queue_gone(case):
    saved(case, 'mqueue')
    queues_remove()
    passes(case)


def test_queue_changed(case):
    saved(case, 'mqueue')
    fd = queue_open('named')
    libc.mq_send(fd, b'surplus', 7, 1)
    os.close(fd)
    refused(case, 'ipc-changed', 'message queue /named')
    # Made again for the first attempt, they are not left by it.
    queues_remove()
    passes(case)


def end_of_all(case):
    case.until(lambda: not case.others(), 'the end of all')
    case.statuses.clear()


def again(case, name, forget):
    """What a restarted tree has left is what the original left; and what it has made is its own."""
    saved(case, name)
    forget()
    tool = case.restart()
    case.until_handed_over(tool, 2, name)
    case.checkpoint(2, image='second')
    case.kill_all()
    case.expect_nobody()  # all pids are free again
    end_of_all(case)
    passes(case)
    end_of_all(case)
    case.hold()
    forget()
    tool = case.restart(image='second')
    case.go()
    case.wait_verdict(tool, 'the restarted program')
    if case.verdicts() != ['PASS', 'PASS']:
        raise Failed('%s: %s' % (name, case.verdicts()))


def test_semaphores_again(case):
    again(case, 'sysv_sem', remove)


def test_undo_again(case):
    again(case, 'sysv_undo', remove)


def test_messages_again(case):
    again(case, 'sysv_msg', lambda: remove('msg'))


def test_queues_again(case):
    again(case, 'mqueue', queues_remove)


def test_queue_shared(case):
    pid = case.start('mqueue')
    fd = queue_open('waited')
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    case.forget(pid)
    refused(case, 'ipc-shared', '/waited', args=['--pidns'])
    libc.mq_unlink(b'/waited')
    refused(case, 'ipc-shared', '/waited')
    os.close(fd)


def test_queue_without_name_shared(case):
    pid = case.start('mqueue')
    for number in os.listdir('/proc/%d/fd' % pid):
        path = '/proc/%d/fd/%s' % (pid, number)
        if os.readlink(path) == '/gone (deleted)':
            fd = os.open(path, os.O_RDONLY)
            case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')),
                         'file-outside', '/gone', pid)
            os.close(fd)
            break
    case.expect_files()
    case.finish(pid)


def test_queue_of_an_ordinary_user(case):
    """Messages are not taken out to be read."""
    pid = case.start('mqueue', uid=65534)
    result = case.reprise('checkpoint', str(pid), '-o', case.path('image'), uid=65534)
    lines = result[2].splitlines()
    if result[0] != 1 or not lines or any('[ipc-state]' not in line for line in lines):
        raise Failed('exit status %d: %s' % result[::2])
    if '5 messages' not in result[2] or 'notified by a signal' not in result[2]:
        raise Failed(result[2])
    case.expect_files()
    case.finish(pid)


def queues_as_files(case, name, queues, uid):
    """A new IPC namespace has its own queues, also where they are mounted."""
    where = os.path.join(case.directory, 'queues')
    os.mkdir(where)
    system('mount', b'mqueue', where.encode(), b'mqueue', MS_NOSUID, None)
    pid = case.start(name, uid=uid)
    case.checkpoint(pid, uid=uid)
    copy = case.restart('--pidns', uid=uid)
    case.until_handed_over(copy, pid, name, True)
    inner = [other for other, comm in case.others() if comm == name and
             os.readlink('/proc/%d/ns/ipc' % other) != os.readlink('/proc/self/ns/ipc')]
    libc.mq_unlink(b'/' + queues[-1].encode())
    names = sorted(os.listdir('/proc/%d/root%s' % (inner[0], where)))
    if names != sorted(queues):
        raise Failed('queues there are %s' % names)
    libc.mq_open(b'/' + queues[-1].encode(), os.O_RDONLY | os.O_CREAT, 0o666, None)
    os.chown(os.path.join(where, queues[-1]), uid, uid)
    case.go()
    case.expect_pass(2, [case.wait_verdict(tool, 'the program') for tool in (pid, copy)])


def test_queues_as_files(case):
    queues_as_files(case, 'mqueue', QUEUES, 0)


def test_queues_as_files_of_a_user(case):
    queues_as_files(case, 'mqueue_empty', ['empty'], 65534)


def force(value):
    with open('/proc/sys/kernel/shm_rmid_forced', 'w') as file:
        file.write(value)


def test_segment_that_would_go(case):
    """Attached nowhere, where such a one ends with who made it, at the checkpoint or at the restart."""
    pid = case.start('sysv_shm')
    force('1')
    for command in (['check', str(pid)], ['checkpoint', str(pid), '-o', case.path('image')]):
        result = case.reprise(*command)
        case.refused((result[0], '', result[2].split('\n')[0]), 'ipc-state', 'segment', 'shm_rmid_forced')
    case.expect_files()
    force('0')
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    case.forget(pid)
    force('1')
    refused(case, 'ipc-state', 'segment', 'shm_rmid_forced')
    force('0')
    passes(case)


class Attachment:
    """A segment in the address space of the test."""

    def __init__(self, number):
        libc.shmat.restype = ctypes.c_void_p
        self.at = libc.shmat(number, None, 0)
        if self.at in (None, 2 ** 64 - 1):
            raise Failed('cannot attach segment %d' % number)

    def write(self, offset, data):
        ctypes.memmove(self.at + offset, data, len(data))

    def read(self, offset, length):
        return ctypes.string_at(self.at + offset, length)

    def end(self):
        libc.shmdt(ctypes.c_void_p(self.at))


def test_segment_left_behind(case):
    """What was written where the image has nothing does not stay."""
    saved(case, 'sysv_shm')
    for number in listed('shm'):
        segment = Attachment(number)
        segment.write(4096, b'surplus')
        segment.write(10, b'surplus')
        segment.end()
    passes(case)


def test_segment_gone(case):
    saved(case, 'sysv_shm')
    for number in listed('shm'):
        libc.shmctl(number, IPC_RMID, None)
    passes(case)


def test_segment_taken(case):
    saved(case, 'sysv_shm')
    for number in listed('shm'):
        libc.shmctl(number, IPC_RMID, None)
    other = libc.shmget(0x5e6, 4096, 0o600 | IPC_CREAT)
    refused(case, 'ipc-taken', 'segment', '0x5e6')
    if listed('shm') != [other]:
        raise Failed('something was left: %s' % listed('shm'))


def test_segment_shared(case):
    """We are attached, too: the same memory it must be, with what is in it."""
    pid = case.start('memory_sysv')
    kept = [Attachment(number) for number in listed('shm')]
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    case.forget(pid)
    refused(case, 'ipc-shared', 'segment', args=['--pidns'])
    kept[0].write(2, b'hello')
    tool = case.restart()
    case.until_handed_over(tool, 2, 'memory_sysv')
    with open('/proc/sysvipc/shm') as file:
        attached = [int(line.split()[6]) for line in file.readlines()[1:]]
    if sorted(attached) != [3, 7] or kept[0].read(2, 5) != b'hello':
        raise Failed('not the same memory: %s, %s' % (attached, kept[0].read(0, 10)))
    for segment in kept:
        segment.end()
    case.go()
    case.expect_pass(1, [case.wait_verdict(tool, 'the restarted program')])
    refused(case, 'ipc-shared', 'segment')


def test_perhaps(case):
    """Of the same user, and who used it has ended: it comes back where it can, and is left alone
    where another one is."""
    pid = case.start('mqueue_empty')
    child = os.fork()
    if child == 0:
        operate(libc.semget(0x77, 2, 0o600 | IPC_CREAT), 1, 5)
        os._exit(0)
    case.wait(child)
    number = libc.semget(0x77, 0, 0)
    other = libc.semget(0x78, 1, 0o600 | IPC_CREAT)
    operate(other, 0, 3)
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    case.forget(pid)
    remove()
    # Taken by another one: no obstacle, but it is told.
    taken = libc.semget(0x77, 1, 0o600 | IPC_CREAT)
    tool = case.start_reprise('restart', '-i', case.path('image'))
    case.until_handed_over(tool, 2, 'mqueue_empty')
    case.kill_all()
    end_of_all(case)
    with open(case.log_path()) as log:
        if 'key 0x77): may have been used by the tree, but another one has its' not in log.read():
            raise Failed('no warning')
    libc.semctl(taken, 0, IPC_RMID)
    passes(case)
    if libc.semget(0x77, 0, 0) != number or libc.semctl(number, 1, GETVAL) != 5:
        raise Failed('it was not made again: %s' % listed())
    if libc.semget(0x78, 0, 0) >= 0:
        raise Failed('one that only we have used was made again')


def test_inspect(case):
    saved(case, 'sysv_sem')
    code, out, err = case.reprise('inspect', case.path('image'), '--json')
    objects = json.loads(out)['ipc_objects']
    first = [o for o in objects if o['key'] == '%x' % KEY]
    if code or len(objects) != 3 or first[0]['relation'] != 'own' or \
            first[0]['detail'] != '5 semaphores' or first[0]['kind'] != 'semaphore set':
        raise Failed('%d: %s' % (code, objects))
    out = case.reprise('inspect', case.path('image'))[1]
    if '3 System V objects\n' not in out:
        raise Failed(out)


def test_lists_of_threads(case):
    """Two threads that share a list, but not with the first one."""
    pid = case.victim('thread', 'thread', 'leave', 'wait', 'pass')
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'task-state',
                 'SEM_UNDO', pid, 'victim')
    case.expect_files()
    case.finish(pid)


def test_list_of_one_thread(case):
    pid = case.victim('thread', 'leave', 'wait', 'pass')
    case.checkpoint(pid, '--kill')
    expect_killed(case, pid)
    passes(case)


def test_limits(case):
    """Those of the namespace, in a new one."""
    limits = {'kernel/msgmax': '9000\n', 'kernel/sem': '300\t4000\t40\t50\n',
              'fs/mqueue/msg_max': '25\n'}
    for name, value in limits.items():
        with open('/proc/sys/' + name, 'w') as file:
            file.write(value)
    pid = case.start('sysv_sem')
    case.checkpoint(pid)
    copy = case.restart('--pidns')
    case.until_handed_over(copy, pid, 'sysv_sem', True)
    inner = [other for other, name in case.others() if name == 'sysv_sem' and
             os.readlink('/proc/%d/ns/ipc' % other) != os.readlink('/proc/self/ns/ipc')]
    for name, value in limits.items():
        code, out, err = case.run(['/usr/bin/nsenter', '-t', str(inner[0]), '-i', '/bin/cat',
                                   '/proc/sys/' + name])
        if out != value:
            raise Failed('%s is %s' % (name, out + err))
    case.go()
    case.expect_pass(2, [case.wait_verdict(tool, 'the program') for tool in (pid, copy)])
