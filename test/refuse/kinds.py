# SPDX-License-Identifier: Apache-2.0
"""As many kinds of descriptors as can be had here: what is refused is refused with task, descriptor, kind and advice, and what
is not comes back."""

import os
import re

from case import Failed, Skipped

LINE = re.compile(r'reprise: descriptor (\d+) \((.+)\) of task (\d+) \(([^)]+)\): (.+?)(?:; |, or )(.+) \[(file-[a-z]+)\]')
# What no kernel lets anybody save, by what /proc calls it.
NEVER = ('anon_inode:[perf_event]', 'anon_inode:[fscontext]', 'anon_inode:[landlock-ruleset]', '/secretmem (deleted)', '/dev/fuse',
         '/dev/kvm', '/dev/loop', 'anon_inode:kvm', 'anon_inode:[kvm', 'anon_inode:bpf-stats')


def read(case, name):
    with open(case.path(name), encoding='ascii') as file:
        return file.read()


def say(case, name, text=''):
    with open(case.path(name) + '.new', 'w', encoding='ascii') as file:
        file.write(text)
    os.rename(case.path(name) + '.new', case.path(name))


def test_all_kinds(case):
    program = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib', 'many_kinds.py')
    pid = case.spawn(['/usr/bin/python3', program], env={'TEST_CONTROL': case.control})
    case.until(lambda: os.path.exists(case.path('all')) or case.ended(pid), 'the descriptors')
    made = {int(n): os.readlink('/proc/%d/fd/%s' % (pid, n)) for n in read(case, 'made').split()}
    if len(made) < 30:
        raise Skipped('only %d descriptors can be had' % len(made))
    _, _, err = case.reprise('check', str(pid))
    refused = set()
    for line in err.strip().split('\n'):
        parts = LINE.fullmatch(line)
        if not parts or int(parts[3]) != pid or not parts[4].startswith('python3'):
            raise Failed('a refusal without task, descriptor, kind or advice: ' + line)
        if made.get(int(parts[1])) != parts[2]:
            raise Failed('another descriptor, or none of it: ' + line)
        refused.add(int(parts[1]))
    for fd, link in made.items():
        if link.startswith(NEVER) and fd not in refused:
            raise Failed('descriptor %d (%s) is not refused' % (fd, link))
    say(case, 'close', ' '.join(map(str, refused)))
    case.until(lambda: os.path.exists(case.path('closed')), 'the rest')
    case.checkpoint(pid, '--kill', '-q')
    case.wait(pid)
    case.forget(pid)
    restart = case.restart()
    say(case, 'look')
    if case.wait(restart) != 7:
        raise Failed('what came back is not what was saved')


test_all_kinds.timeout = 100
test_all_kinds.network = True
