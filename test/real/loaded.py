# SPDX-License-Identifier: Apache-2.0
"""BPF programs that a compiler has made and libbpf has loaded."""

import ctypes.util
import os
import platform

from case import Failed, Skipped

# It runs the program again and again, which counts: each time one more than it has noted itself.
RUN = r"""
import ctypes, struct, sys, time
libbpf, libc = ctypes.CDLL('libbpf.so.1'), ctypes.CDLL(None)
libbpf.libbpf_set_print(None)
libbpf.bpf_object__open_file.restype = ctypes.c_void_p
libbpf.bpf_object__find_program_by_name.restype = ctypes.c_void_p
made = ctypes.c_void_p(libbpf.bpf_object__open_file(sys.argv[1].encode(), None))
if not made or libbpf.bpf_object__load(made):
    sys.exit('skip: it cannot be loaded')
fd = libbpf.bpf_program__fd(ctypes.c_void_p(libbpf.bpf_object__find_program_by_name(made, b'count')))
packet = ctypes.create_string_buffer(64)
expected = 0
while True:
    attr = ctypes.create_string_buffer(struct.pack('<IIIIQQII', fd, 0, 64, 0, ctypes.addressof(packet), 0, 1, 0), 128)
    if libc.syscall(321, 10, attr, 128):
        sys.exit('it cannot be run')
    expected += 1
    is_now = struct.unpack_from('<I', attr, 4)[0]
    if is_now != expected:
        sys.exit('%d in place of %d' % (is_now, expected))
    with open(sys.argv[2], 'w') as file:
        file.write(str(expected))
    time.sleep(0.02)
"""


def count(path):
    try:
        with open(path) as file:
            return int(file.read() or 0)
    except OSError:
        return 0


def test_loaded(case):
    if not os.path.exists('/usr/bin/clang') or not ctypes.util.find_library('bpf'):
        raise Skipped('no clang, or no libbpf')
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'loaded.bpf.c')
    made, counter, said = case.path('loaded.o'), case.path('n'), case.path('said')
    code, _, err = case.run(['/usr/bin/clang', '-O2', '-g', '-target', 'bpf', '-I/usr/include/%s-linux-gnu' % platform.machine(),
                             '-c', source, '-o', made])
    if code:
        raise Skipped('it makes no BPF: %s' % err)
    errors = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    pid = case.spawn(['/usr/bin/python3', '-c', RUN, made, counter], setsid=True, stderr=errors)
    os.close(errors)
    case.until(lambda: count(counter) > 3 or case.ended(pid), 'it counts')
    if case.ended(pid):
        raise Skipped(open(said).read())
    case.checkpoint(pid, '-q', '--kill')
    case.wait(pid)
    before = count(counter)
    out = case.reprise('inspect', '--files', case.path('image'))[1]
    if 'BPF types' not in out:
        raise Failed('no types in %s' % out)
    new = case.restart()
    case.until(lambda: count(counter) > before + 3 or case.ended(new), 'it goes on')
    if case.ended(new):
        raise Failed('it has ended: %s' % open(said).read())
    case.kill_all()
    case.reap()
