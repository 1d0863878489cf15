# SPDX-License-Identifier: Apache-2.0
"""Containers: how soon a command runs in one, and how much longer than without it all takes."""

import json
import os
import signal
import time

from place import Failed

NAME = 'bench'
# Prints the time at which it runs.
FIRST = ['/bin/date', '+%s%N']


def environment(place):
    os.environ['REPRISE_DIR'] = place.path('containers')


def first_instruction(place, argv):
    start = time.time_ns()
    return int(place.run(argv + FIRST)[1]) - start


def measure_start(tool, place):
    environment(place)
    # What somebody does who makes the same by hand.
    hand = first_instruction(place, ['/usr/bin/unshare', '--pid', '--fork', '--mount', '--net', '--ipc',
                                     '--uts', '--cgroup', '--mount-proc', '/usr/sbin/chroot', '/'])
    run = first_instruction(place, tool.argv + ['run', '--rm', '--'])
    return {'by hand': hand, (tool.name, 'run'): run,
            (tool.name, 'more than by hand'): max(run - hand, 0)}


def pid_of(tool, place):
    found = json.loads(place.run(tool.argv + ['ps', '--json'])[1])['containers']
    init = next(c['init'] for c in found if c['name'] == NAME)
    with open('/proc/%d/task/%d/children' % (init, init)) as file:
        return int(file.read().split()[0])


def end(tool, place):
    place.run(tool.argv + ['stop', '--time', '0', NAME])
    place.run(tool.argv + ['rm', NAME])
    place.reap(os.WNOHANG)


def measure_container(work, tool, place):
    environment(place)
    ready = 'ready.container'
    place.remove(ready, ready + '.alive')
    outside = [place.spawn(['/bin/sleep', '1000']) for _ in range(work.outside)]
    place.run(tool.argv + ['run', '--detach', '--name', NAME, '--volume',
                           '%s:%s' % (place.directory, place.directory),
                           '--volume', '%s:%s' % (place.build, place.build), '--',
                           place.program(work.program), place.path(ready)] + [str(a) for a in work.args])
    place.until(lambda: os.path.exists(place.path(ready)), 'the workload being ready', 1)
    before = place.census(pid_of(tool, place))
    found = tool.checkpoint(place, NAME, work.end, work.options)
    end(tool, place)
    found.update(tool.restart(place, ['--name', NAME]))
    pid = pid_of(tool, place)
    after = place.census(pid)
    if after != before:
        raise Failed('after the restart there are %s, before the checkpoint %s' % (after, before))
    place.check_alive(pid, ready)
    end(tool, place)
    for one in outside:
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)
    return {(tool.name, figure): value for figure, value in found.items()}
