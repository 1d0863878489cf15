# SPDX-License-Identifier: Apache-2.0
"""Open files in a state that cannot be saved, and choices that there are."""

import os
import re
import time

from case import Failed, Skipped, system


def odd(case, *what):
    return case.start(program=os.path.join(case.build, 'test/lib/odd_files'), arguments=what)


def refused(case, what, code, *words):
    pid = odd(case, what)
    for command in (['check', str(pid)], ['checkpoint', str(pid), '-o', case.path('image')]):
        result = case.reprise(*command)
        case.refused((result[0], '', result[2]), code, *words)
    case.expect_files()
    return pid


def test_f_notify(case):
    """Only root can tell."""
    case.uid = 65534
    case.finish(refused(case, 'notify', 'file-state', 'F_NOTIFY', 'descriptor'))


def deciding(case, what):
    """While it runs it may answer: no obstacle for a check."""
    pid = odd(case, what)
    if case.reprise('check', str(pid))[0]:
        raise Failed('an obstacle for a check')
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'file-state',
                 'permission events', 'is waiting for its answer', 'descriptor')
    case.expect_files()
    case.kill_all()
    case.wait(pid)


def test_permission_events(case):
    deciding(case, 'permission')


def test_permission_events_told(case):
    deciding(case, 'permission+')


def test_removed_file_that_is_decided_about(case):
    """By a group of the tree, which cannot answer while all stand still."""
    if not os.path.exists('/sys/kernel/btf/vmlinux'):
        raise Skipped('the memory of the kernel cannot be read')
    pid = odd(case, 'decided')
    begin = time.monotonic()
    code, _, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'))
    if code != 1 or 'decides about accesses' not in err or 'here' not in err:
        raise Failed('%d: %s' % (code, err))
    case.expect_files()
    if time.monotonic() - begin > 10:
        raise Failed('it took %.1f s' % (time.monotonic() - begin))
    case.go()
    case.until(lambda: case.verdicts('*'), 'the program')
    case.kill_all()
    case.wait(pid)


def test_removed_file_that_others_decide_about(case):
    """They answer."""
    decider = odd(case, 'decided')
    with open(os.path.join(case.work, 'guarded', 'file'), 'w') as file:
        file.write('contents')
    case.forget(decider)
    pid = case.spawn(['/usr/bin/python3', '-c', 'import os, time\nf = open("guarded/file")\nos.unlink("guarded/file")\n'
                      'open("up", "w")\nwhile not os.path.exists("on"): time.sleep(0.01)\n'
                      'raise SystemExit(7 if f.read() == "contents" else 1)'])
    case.until(lambda: os.path.exists(os.path.join(case.work, 'up')), 'the program')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    restart = case.restart()
    open(os.path.join(case.work, 'on'), 'w').close()
    if case.wait(restart) != 7:
        raise Failed('status %d' % case.exit_code(restart))
    case.kill_all()


def test_watched_mounts(case):
    case.finish(refused(case, 'mounts', 'file-state', 'FAN_MARK_MNTNS', 'descriptor'))


def test_lease_on_a_removed_file(case):
    case.finish(refused(case, 'lease', 'file-state', 'lease', 'descriptor'))


def test_file_below_a_mount(case):
    """It was opened before something was mounted over it."""
    pid = refused(case, 'covered', 'file-state', 'covered/file', 'mounted over')
    case.finish(pid)


def test_detached_mounts(case):
    """Others are mounted on it."""
    case.finish(refused(case, 'detached-tree', 'file-state', 'attached nowhere', 'others are mounted on it', 'descriptor'))


def test_file_on_a_detached_mount(case):
    """Of which nobody has a directory."""
    case.finish(refused(case, 'detached-file', 'file-state', 'attached nowhere', 'no directory', 'descriptor'))


def test_detached_mount_of_a_user(case):
    """What it shows is told to root only. It is none of those of its namespace."""
    case.uid = 65534
    case.finish(refused(case, 'detached-user', 'file-outside', 'descriptor', '/file'))


def test_detached_mount_and_users(case):
    """To whom its path seems to lead to the file."""
    if os.stat('/').st_dev != os.stat(case.directory).st_dev:
        raise Skipped('the directory of the test is on a mount of its own')
    pid = odd(case, 'detached-given-up')
    case.uid = 65534
    result = case.reprise('check', str(pid))
    case.refused((result[0], '', result[2]), 'file-state', 'attached nowhere', 'only root', 'descriptor')
    case.finish(pid)


def test_mount_that_is_being_made(case):
    case.finish(refused(case, 'fscontext', 'file-kind', 'fsopen', 'descriptor'))


def test_link_in_a_removed_directory(case):
    pid = odd(case, 'linked-far')
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q',
                              '--deleted=link'), 'file-state', '--deleted=save', 'near/here')
    case.expect_files()
    case.finish(pid)


def test_secret_memory(case):
    case.finish(refused(case, 'secret', 'file-kind', 'memfd_secret', 'descriptor'))


def test_file_of_a_task_outside(case):
    case.finish(refused(case, 'proc', 'file-outside', '/proc/1/status', 'outside the tree'))


def test_directory_of_a_task_outside(case):
    case.finish(refused(case, 'proc-cwd', 'file-outside', '/proc/1', 'working directory'))


def test_file_of_a_descriptor(case):
    case.finish(refused(case, 'proc-fd', 'file-state', 'stands for a descriptor'))


def test_lease_that_is_broken(case):
    pid = refused(case, 'breaking', 'file-state', 'lease', 'try again')
    case.kill_all()
    case.wait(pid)


def test_write_that_failed(case):
    """What was written is lost, and one description has not been told yet."""
    if not os.path.exists('/dev/fuse'):
        raise Skipped('no FUSE')
    os.chdir(case.work)
    os.mkdir('lossy')
    pid = case.start(program=os.path.join(case.build, 'test/lib/unwritten'), arguments=['lossy'])
    try:
        for command in (['check', str(pid)], ['checkpoint', str(pid), '-o', case.path('image')]):
            result = case.reprise(*command)
            case.refused((result[0], '', result[2]), 'file-state', 'is lost (Input/output error)', 'lossy/file')
        case.expect_files()
        case.finish(pid)
    finally:
        if os.path.ismount('lossy'):
            system('umount2', b'lossy', 2)


def unread(case, what, *options, words=()):
    """While it runs they may be read any moment: no obstacle for a check."""
    pid = odd(case, what)
    if case.reprise('check', str(pid))[0]:
        raise Failed('an obstacle for a check')
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image'), *options),
                 'file-events', re.split('[-=+]', what)[0], 'event', 'descriptor', *words)
    case.expect_files()
    case.finish(pid)


def test_events(case):
    """One that cannot be made again."""
    unread(case, 'inotify')


def test_events_unprivileged(case):
    case.uid = 65534
    unread(case, 'inotify-plain')


def test_events_fanotify(case):
    unread(case, 'fanotify', words=['no longer where it was'])


def test_events_fanotify_created(case):
    """A file that is there cannot be made once more, nor a double of tmpfs."""
    unread(case, 'fanotify+', words=['without changing'])


def test_events_fanotify_thread(case):
    unread(case, 'fanotify=thread', words=['FAN_REPORT_TID'])


def test_events_fanotify_unlimited(case):
    unread(case, 'fanotify-unlimited', '--inotify=overflow')


def test_unknown_link(case):
    case.finish(refused(case, 'linked', 'file-linked', 'here', '--deleted=link'))


def restarted(case, what, *options):
    pid = odd(case, *what)
    before = sorted(os.listdir(case.work))
    code, _, err = case.reprise('check', str(pid), *options)
    if code or sorted(os.listdir(case.work)) != before:
        raise Failed('check: %d, %s, files %s' % (code, err, os.listdir(case.work)))
    case.checkpoint(pid, '--kill', *options)
    case.wait(pid)
    case.forget(pid)
    tool = case.restart()
    case.go()
    case.expect_pass(1, [case.wait_verdict(tool, 'the restarted program')])
    return sorted(name for name in os.listdir(case.work) if '.reprise-' in name)


def test_events_lost(case):
    """The application is told."""
    restarted(case, ['inotify', 'lost'], '--inotify=overflow')


def test_events_lost_fanotify(case):
    restarted(case, ['fanotify', 'lost'], '--inotify=overflow')


def test_events_lost_fanotify_by_name(case):
    restarted(case, ['fanotify+', 'lost'], '--inotify=overflow')


def test_deleted_save(case):
    if restarted(case, ['linked', '0'], '--deleted=save'):
        raise Failed('a name was made')


def test_deleted_link(case):
    names = restarted(case, ['linked', '1'], '--deleted=link')
    if len(names) != 1 or not names[0].startswith('here.reprise-'):
        raise Failed('names are %s' % names)


def test_deleted_link_taken_back(case):
    """No name is left if no image is made."""
    pid = odd(case, 'linked', '1')
    case.refused(case.reprise('checkpoint', str(pid), '-o', '/dev/full', '--deleted=link'),
                 'output')
    if [name for name in os.listdir(case.work) if '.reprise-' in name]:
        raise Failed('a name was left')
    case.finish(pid)


def test_watched_pipe_of_others(case):
    """A pipe that nobody of the tree has open any more, but somebody outside; what nobody has open is as good as gone."""
    there, ready = os.pipe()
    pid = case.spawn(['/usr/bin/python3', '-c', """
import ctypes, os, time
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(0)
assert libc.inotify_add_watch(watch, b'/proc/self/fd/0', 0xfff) == 1
os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
os.closerange(watch + 1, 10)
os.mkdir(%r)
time.sleep(1000)
""" % case.path('ready')], stdin=there)
    os.close(there)
    case.until(lambda: os.path.exists(case.path('ready')) or case.ended(pid), 'the watch')
    os.rmdir(case.path('ready'))
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image')), 'file-state', 'watch 1', 'cannot be found')
    os.close(ready)
    if os.geteuid() == 0 and os.path.exists('/sys/kernel/btf/vmlinux'):
        code, _, err = case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q')
        if code:
            raise Failed('nobody has it open: %s' % err)
    case.kill_all()
    case.reap()
