# SPDX-License-Identifier: Apache-2.0
"""What cannot be saved: a clear refusal, the program untouched, no file left."""

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import time

from case import Failed, MS_NODEV, NOBODY, PATIENCE, Skipped, libc, system

PTRACE_SEIZE, PTRACE_DETACH, PTRACE_INTERRUPT = 0x4206, 17, 0x4207
MS_RDONLY, MS_REMOUNT = 1, 32


def save(case, pid, *args, image='image', **more):
    return case.reprise('checkpoint', str(pid), '-o', case.path(image), *args, **more)


def unharmed(case, pid, *files):
    """No file was left, and the program goes on as if nothing had been."""
    case.expect_files(*files)
    case.finish(pid)


def bpf(command, *attributes):
    attr = ctypes.create_string_buffer(b''.join(attributes), 128)
    fd = libc.syscall(321, command, attr, 128)
    if fd < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
        raise Skipped('no BPF here')
    if fd < 0:
        raise Failed('bpf(%d): %s' % (command, os.strerror(ctypes.get_errno())))
    return fd


def bpf_program(code=struct.pack('<QQ', 0xb7, 0x95)):
    """A socket filter that keeps nothing."""
    size = len(code) // 8
    code = ctypes.create_string_buffer(code, len(code))
    name = ctypes.create_string_buffer(b'GPL')
    return bpf(5, struct.pack('<IIQQ', 1, size, ctypes.addressof(code), ctypes.addressof(name)))


def test_no_such_process(case):
    for number in ('0', '2147483648', '99999999999', '9' * 40):
        case.refused(save(case, number), 'pid-none', number)
        case.refused(case.reprise('check', number), 'pid-none', number)
    case.refused(save(case, 2345678), 'pid-none', 2345678)
    case.refused(case.reprise('check', '2345678'), 'pid-none', 2345678)
    case.expect_files()


def test_process_that_has_gone(case):
    pid = case.victim('exit', 3)
    case.wait(pid)
    case.refused(save(case, pid), 'pid-none', pid)
    case.expect_files()


def test_usage(case):
    pid = case.victim('wait', 'pass')
    for args in (['checkpoint'], ['checkpoint', '12nonsense', '-o', 'x'], ['checkpoint', '-o', 'x'],
                 ['checkpoint', str(pid)], ['checkpoint', '-5', '-o', 'x'],
                 ['checkpoint', '%d.5' % pid, '-o', 'x'], ['checkpoint', '', '-o', 'x'],
                 ['checkpoint', str(pid), str(pid), '-o', 'x'],
                 ['checkpoint', str(pid), '-o', 'x', '--nonsense'],
                 ['checkpoint', str(pid), '-o', 'x', '--compress', 'nonsense'],
                 ['checkpoint', str(pid), '-o', 'x', '--kill', '--stop'],
                 ['checkpoint', str(pid), '-o', 'x', '--deleted=nonsense'],
                 ['checkpoint', str(pid), '-o', 'x', '--inotify=nonsense'],
                 ['checkpoint', str(pid), '-o', 'x', '-j', '-1'], ['restart'],
                 ['restart', '-i'], ['restart', 'x'], ['verify'], ['inspect'], ['nonsense'], [],
                 ['restart', '-i', 'x', '--changed-files=nonsense']):
        case.refused(case.reprise(*args), 'usage', status=2)
    if os.listdir(case.work):
        raise Failed('there is a file: %s' % os.listdir(case.work))
    unharmed(case, pid)


def test_zombie(case):
    pid = case.spawn(['/bin/true'])
    # Not reaped as long as we do not look.
    while True:
        with open('/proc/%d/stat' % pid) as file:
            if file.read().rpartition(')')[2].split()[0] == 'Z':
                break
    reader, writer = os.pipe()
    tool = os.fork()
    if tool == 0:
        os.dup2(writer, 2)
        os.execv(case.reprise_path, [case.reprise_path, 'checkpoint', str(pid), '-o',
                                     case.path('image')])
    os.close(writer)
    os.waitpid(tool, 0)
    with open(reader) as file:
        case.refused((1, '', file.read()), 'pid-zombie', pid)
    case.expect_files()


def test_zombie_of_another_user(case):
    """How it ended is shown as 0 to whoever may not look at it."""
    pid = case.victim('left-zombie', 'wait', 'pass')
    case.refused(save(case, pid, uid=65534), 'permission', 'victim', 'how it ended')
    unharmed(case, pid)


def test_thread(case):
    pid = case.victim('thread', 'wait', 'pass')
    tid = max(int(name) for name in os.listdir('/proc/%d/task' % pid))
    case.refused(save(case, tid), 'pid-thread', tid, pid)
    unharmed(case, pid)


def test_ourselves(case):
    """The tool, the shell it was started from, and that one's parent."""
    script = '%s checkpoint %s -o %s; echo $? >&2' % (case.reprise_path, '%s', case.path('image'))
    for script, more in ((script % '$$', {}),
                         ('/bin/sh -c \'%s\'; :' % (script % '$PPID'), {})):
        code, out, err = case.run(['/bin/sh', '-c', script], **more)
        lines = err.splitlines()
        if len(lines) != 2 or lines[1] != '1':
            raise Failed('not one line and a status of 1: %s' % err)
        case.refused((1, out, lines[0] + '\n'), 'pid-self')
    case.expect_files()


def test_itself(case):
    """The tool's own pid, which a shell can name with exec."""
    for command in ('checkpoint $$ -o %s' % case.path('image'), 'check $$'):
        case.refused(case.run(['/bin/sh', '-c', 'exec %s %s' % (case.reprise_path, command)]),
                     'pid-self')
    case.expect_files()


def test_init(case):
    """Pid 1, an ancestor of all."""
    case.refused(save(case, 1), 'pid-self', 1)
    case.expect_files()


def test_kernel_thread(case):
    if not os.path.exists('/proc/2/stat'):
        raise Skipped('no kernel thread is seen from here')
    with open('/proc/2/stat') as file:
        if int(file.read().rpartition(')')[2].split()[6]) & 0x200000 == 0:
            raise Skipped('pid 2 is not a kernel thread')
    case.refused(save(case, 2), 'pid-kernel', 2)
    case.expect_files()


# Kernel threads are seen in the first pid namespace only.
test_kernel_thread.outside = True


def test_vfork(case):
    """Where the kernel's memory may not be read. Nothing is stopped to wait for what will not come."""
    pid = case.start('vfork_user')
    blind = {'REPRISE_FAULT': 'no-kernel-memory'}
    for look in (lambda: case.reprise('check', str(pid), env=blind),
                 lambda: save(case, pid, env=blind)):
        begin = time.monotonic()
        case.refused(look(), 'task-vfork', 'vfork_user')
        if time.monotonic() - begin > 5 * PATIENCE:
            raise Failed('it took %.1f s' % (time.monotonic() - begin))
    unharmed(case, pid)


def vfork_refused(how, *words):
    """A parent in vfork() of which something cannot be saved, or that its child is in the way of."""
    def test(case):
        pid = case.victim('vfork', how, 'pass')
        status, output, errors = save(case, pid)
        if 'the memory of the kernel cannot be read' in errors:
            unharmed(case, pid)
            raise Skipped('the memory of the kernel cannot be read here')
        case.refused((status, output, errors), 'task-vfork', *words)
        unharmed(case, pid)
    test.__name__ = 'test_vfork_' + how
    return test


test_vfork_pending = vfork_refused('pending', 'signals are pending')
test_vfork_timer = vfork_refused('timer', 'POSIX timers')
test_vfork_profile = vfork_refused('profile', 'processor time')
test_vfork_memory = vfork_refused('memory', 'memory of its own')
test_vfork_children = vfork_refused('children', 'children')
test_vfork_tsc = vfork_refused('tsc', 'prctl')
test_vfork_pidfd = vfork_refused('pidfd', 'refers to task')
test_vfork_owner = vfork_refused('owner', 'refers to task')


def test_traced(case):
    pid = case.victim('wait', 'pass')
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) < 0:
        raise Skipped('no ptrace here')
    case.refused(save(case, pid), 'task-traced', pid, 'victim')
    libc.ptrace(PTRACE_INTERRUPT, pid, None, None)
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    unharmed(case, pid)


def test_another_user(case):
    pid = case.victim('wait', 'pass')
    case.refused(save(case, pid, uid=65534), 'permission', pid, 'victim')
    unharmed(case, pid)


def test_not_dumpable(case):
    pid = case.victim('quiet', 'wait', 'pass', uid=65534)
    case.refused(save(case, pid, uid=65534), 'permission', pid, 'victim')
    unharmed(case, pid)


def switches(pid):
    """How often its threads have slept and run: nobody can stop one unnoticed."""
    total = 0
    for tid in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/status' % (pid, tid)) as file:
            total += sum(int(line.split()[1]) for line in file if 'ctxt_switches' in line)
    return total


def seen_unfrozen(case, pid, code, *words, uid=None):
    """Root sees it in the kernel's memory: the check and the checkpoint leave the program alone."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    before = switches(pid)
    for look in (lambda: case.reprise('check', str(pid)), lambda: save(case, pid, '--kill')):
        case.refused(look(), code, 'victim', *words)
    if switches(pid) != before:
        raise Failed('it has been touched')
    os.kill(pid, signal.SIGCONT)


def kernel_memory(case):
    """Can the kernel's memory be read?"""
    _, out, _ = case.reprise('check')
    return any(line.split()[:2] == ['kernel-memory', 'yes'] for line in out.splitlines())


def confined(case, how, *words, uid=None, code='task-security'):
    """By what would not be there any more after a restart."""
    pid = case.victim('confine', how, 'wait', 'pass', uid=uid)
    if uid is None and kernel_memory(case):
        seen_unfrozen(case, pid, code, *words)
    else:
        case.refused(save(case, pid, uid=uid), code, 'victim', *words)
    unharmed(case, pid)


def test_landlock(case):
    confined(case, 'landlock', 'Landlock')


def test_landlock_of_an_ordinary_user(case):
    confined(case, 'landlock', 'Landlock', uid=65534)


def test_landlock_of_another_user(case):
    """Where the kernel's memory may not be read, root looks for it with a process of that user."""
    pid = case.victim('confine', 'landlock', 'wait', 'pass', uid=65534)
    blind = {'REPRISE_FAULT': 'no-kernel-memory'}
    status, _, errors = case.reprise('check', str(pid), env=blind)
    if status:
        raise Failed('how does the check know? %s' % errors)
    case.refused(save(case, pid, env=blind), 'task-security', 'victim', 'Landlock')
    unharmed(case, pid)


def test_landlock_in_a_pid_namespace(case):
    """Who does not see reprise has a process to look at where he is."""
    ready = case.path('ready')
    pid = case.spawn(['/usr/bin/unshare', '--pid', '--fork', os.path.join(case.build, 'test/lib/victim'),
                      'confine', 'landlock', 'wait', 'pass'], env={'TEST_CONTROL': case.control})
    case.until(lambda: os.path.exists(ready) or case.ended(pid), 'the victim')
    os.unlink(ready)
    blind = {'REPRISE_FAULT': 'no-kernel-memory'}
    case.refused(save(case, pid, env=blind), 'task-security', 'victim', 'Landlock')
    case.kill_all()


def test_keyring(case):
    confined(case, 'keyring', 'process keyring')


def test_keyring_of_a_thread(case):
    confined(case, 'thread-keyring', 'thread keyring')


def test_seccomp_that_asks(case):
    confined(case, 'notify', 'USER_NOTIF')


def test_dispatched_calls(case):
    confined(case, 'dispatch', 'dispatched to itself', code='task-state')


def test_ports(case):
    confined(case, 'ports', 'ports', code='task-state')


def test_ports_by_level(case):
    if not kernel_memory(case):
        raise Skipped('the memory of the kernel cannot be read here')
    confined(case, 'level', 'ports', code='task-state')


def test_too_many_timers(case):
    confined(case, 'timers', '300 POSIX timers', code='task-state')


def test_large_descriptor_table(case):
    confined(case, 'ldt', 'local descriptor table', code='task-state')


def infeasible(how, *words):
    """A tree that no restart could make: nothing is ended for an image of it."""
    def test(case):
        pid = case.victim('tree', how, 'wait', 'pass')
        for look in (lambda: case.reprise('check', str(pid)), lambda: save(case, pid, '--kill')):
            case.refused(look(), 'task-state', 'victim', *words)
        unharmed(case, pid)
    test.__name__ = 'test_tree_' + how
    return test


test_tree_files = infeasible('files', 'share descriptors')
test_tree_session = infeasible('session', 'session', 'whose leader has gone')


def test_pipe_to_the_outside(case):
    """A descriptor above the standard ones, whose other end nobody of the tree has."""
    reader, writer = os.pipe()

    def before():
        os.dup2(0, 9)
        null = os.open('/dev/null', os.O_RDONLY)
        os.dup2(null, 0)

    pid = case.victim('wait', 'pass', stdin=reader, before=before)
    case.refused(save(case, pid), 'file-outside', pid, 'victim', '9')
    unharmed(case, pid)
    os.close(writer)


def test_one_kind_only(case):
    """Two obstacles, two lines."""
    pid = case.victim('odd', 'wait', 'pass')
    code, out, err = save(case, pid, '--kill')
    lines = err.splitlines()
    if code != 1 or len(lines) != 2 or any(not line.endswith('[file-kind]') for line in lines):
        raise Failed('exit status %d: %s' % (code, err))
    if 'performance counter' not in lines[0] or 'descriptor' not in lines[0]:
        raise Failed('it does not say what: %s' % lines[0])
    unharmed(case, pid)


def refuse_descriptor(case, made, code, *words):
    def before():
        os.dup2(0, 9)
        null = os.open('/dev/null', os.O_RDONLY)
        os.dup2(null, 0)

    pid = case.victim('wait', 'pass', stdin=made, before=before)
    os.close(made)
    for look in (lambda: case.reprise('check', str(pid)), lambda: save(case, pid)):
        case.refused(look(), code, pid, 'victim', 'descriptor 9', *words)
    unharmed(case, pid)


def insn(code, dst=0, src=0, off=0, imm=0):
    return struct.pack('<BBhi', code, dst | src << 4, off, imm)


def test_bpf_attached(case):
    """A program that a socket outside of the tree uses."""
    made = bpf_program()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.setsockopt(socket.SOL_SOCKET, 50, made)  # SO_ATTACH_BPF
        refuse_descriptor(case, made, 'file-outside', 'BPF program', 'attached')


def test_bpf_on_a_socket(case):
    """One that cannot be saved, and that nothing but a socket has."""
    made = bpf_program(insn(0xb7, imm=1) + insn(0x55, off=1, imm=1) + insn(0x95) +
                       insn(0xb7, imm=2) + insn(0x95))
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    own.setsockopt(socket.SOL_SOCKET, 50, made)  # SO_ATTACH_BPF
    os.close(made)
    refuse_descriptor(case, own.detach(), 'file-kind', 'BPF program', 'cannot be found')


def test_bpf_on_a_socket_of_others(case):
    made = bpf_program()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        outside.setsockopt(socket.SOL_SOCKET, 50, made)
        own.setsockopt(socket.SOL_SOCKET, 50, made)
        os.close(made)
        refuse_descriptor(case, own.detach(), 'file-outside', 'BPF program', 'attached')


def test_bpf_without_way_back(case):
    """What is never reached is not kept by the kernel: r0 = 1; if r0 != 1 goto +1; exit; r0 = 2."""
    made = bpf_program(insn(0xb7, imm=1) + insn(0x55, off=1, imm=1) + insn(0x95) +
                       insn(0xb7, imm=2) + insn(0x95))
    refuse_descriptor(case, made, 'file-kind', 'BPF program', 'cannot be found')


def test_bpf_program_of_an_ordinary_user(case):
    """It is not for him to look at it."""
    made = bpf_program()
    pid = case.victim('wait', 'pass', stdin=made, uid=NOBODY)
    os.close(made)
    result = case.reprise('checkpoint', str(pid), '-o', '/dev/null', uid=NOBODY)
    case.refused(result, 'permission', pid, 'bpf-prog')
    case.finish(pid)


def bpf_map(kind, key=4, value=4):
    return bpf(0, struct.pack('<IIIII', kind, key, value, 8, 0))


def test_bpf_map_outside(case):
    """Somebody else has it open."""
    made = bpf_map(1)
    number = ctypes.create_string_buffer(104)
    bpf(15, struct.pack('<IIQ', made, 104, ctypes.addressof(number)))
    kept = bpf(14, struct.pack('<III', struct.unpack('<I', number[4:8])[0], 0, 0))
    refuse_descriptor(case, made, 'file-outside', 'BPF map')
    os.close(kept)


def test_bpf_map_in_a_program(case):
    made = bpf_map(2)
    # r1 = map (LD_IMM64), r0 = 0, exit
    bpf_program(struct.pack('<BBhiQQQ', 0x18, 0x11, 0, made, 0, 0xb7, 0x95))
    refuse_descriptor(case, made, 'file-outside', 'BPF map')


def test_directory_is_missing(case):
    pid = case.victim('wait', 'pass')
    case.refused(save(case, pid, image='no/image'), 'output', case.path('no/image'))
    unharmed(case, pid)


def test_directory_instead(case):
    pid = case.victim('wait', 'pass')
    os.mkdir(case.path('directory'))
    case.refused(save(case, pid, '--force', image='directory'), 'output', case.path('directory'))
    case.refused(save(case, pid, image='missing/'), 'output', 'no such directory')
    unharmed(case, pid, 'directory')


def test_long_name(case):
    """As long as one can be, also where there is one already."""
    pid = case.victim('wait', 'pass')
    name = 'n' * 255
    for _ in range(2):
        case.checkpoint(pid, '-q', '--force', image=name)
    case.refused(save(case, pid, image=name + 'n'), 'output')
    unharmed(case, pid, name)


def mounted(case, options, flags=0):
    where = case.path('mounted')
    os.mkdir(where)
    system('mount', b'none', where.encode(), b'tmpfs', MS_NODEV | flags, options.encode())
    return where


def test_read_only(case):
    pid = case.victim('wait', 'pass')
    where = mounted(case, 'size=1m', MS_RDONLY)
    case.refused(save(case, pid, image='mounted/image'), 'output', where + '/image')
    case.expect_files(directory=where)
    unharmed(case, pid, 'mounted')


def test_full(case):
    for mode in ('--kill', '--stop', '-q'):
        pid = case.victim('memory', 4, 'wait', 'pass')
        where = case.path('mounted')
        if not os.path.exists(where):
            mounted(case, 'size=1m')
        case.refused(save(case, pid, mode, image='mounted/image'), 'output', where + '/image',
                     'space')
        case.expect_files(directory=where)
        case.expect_files('mounted')
        case.go(mode)
        case.expect_pass(1, [case.wait_verdict(pid, 'the program')], name=mode)
        case.hold()


def test_full_device(case):
    pid = case.victim('wait', 'pass')
    full = os.open('/dev/full', os.O_WRONLY)
    case.refused(case.reprise('checkpoint', str(pid), '-o', '-', '--kill', stdout=full), 'output',
                 'space')
    unharmed(case, pid)


def test_reader_goes_away(case):
    pid = case.victim('memory', 4, 'wait', 'pass')
    reader, writer = os.pipe()
    os.close(reader)
    case.refused(case.reprise('checkpoint', str(pid), '-o', '-', '--kill', stdout=writer),
                 'output')
    unharmed(case, pid)


def test_file_size_limit(case):
    pid = case.victim('memory', 4, 'wait', 'pass')

    def before():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    case.refused(save(case, pid, '--kill', before=before), 'output', case.path('image'))
    unharmed(case, pid)


def test_terminal_as_output(case):
    import pty
    pid = case.victim('wait', 'pass')
    master, slave = pty.openpty()
    result = case.reprise('checkpoint', str(pid), '-o', '-', stdout=slave)
    case.refused(result, 'usage' if result[0] == 2 else 'output', status=result[0])
    unharmed(case, pid)


def test_interrupted(case):
    """Ctrl-C while it is being written: the program goes on, and nothing is left."""
    pid = case.victim('memory', 64, 'wait', 'pass')
    reader, writer = os.pipe()
    tool = case.start_reprise('checkpoint', str(pid), '-o', '-', '--kill', stdout=writer)
    os.close(writer)
    os.read(reader, 1)
    os.kill(tool, signal.SIGINT)
    code = case.wait(tool)
    if code not in (1, 130):
        raise Failed('exit status %d' % code)
    os.close(reader)
    tool = case.start_reprise('checkpoint', str(pid), '-o', case.path('image'), '--kill')
    time.sleep(0.01)
    os.kill(tool, signal.SIGTERM)
    code = case.wait(tool)
    if code == 0:
        raise Skipped('it was over before it could be interrupted')
    unharmed(case, pid)
