# SPDX-License-Identifier: Apache-2.0
"""Containers with services in them, and somebody who looks after the services."""

import os
import re
import shutil

from case import Failed, Skipped

COUNT = '''#!/bin/sh
exec 2>&1
n=0
while :; do n=$((n+1)); echo tick $n; sleep 0.02; done
'''
IDLE = '''#!/bin/sh
trap 'echo asked to end; exit 0' TERM
echo begins
while :; do sleep 1000 & wait $!; done
'''
LOG = '''#!/bin/sh
exec svlogd .
'''


def script(path, text):
    with open(path, 'w') as file:
        file.write(text)
    os.chmod(path, 0o755)


def make_services(case):
    """A directory of the host: its inode numbers, by which runsvdir knows a service, stay."""
    top = case.path('service')
    for name, text in (('count', COUNT), ('idle', IDLE)):
        os.makedirs(os.path.join(top, name, 'log'))
        script(os.path.join(top, name, 'run'), text)
        script(os.path.join(top, name, 'log', 'run'), LOG)
    return top


def asked(case, name, *command):
    code, out, err = case.reprise('exec', name, *command)
    if code:
        raise Failed('%s: %d, %s %s' % (command, code, out, err))
    return out


def services(case, name, top):
    """{service: pids of it and of its log}, if all run."""
    out = case.reprise('exec', name, 'sv', 'status', top + '/count', top + '/idle')[1]
    found = re.findall(r'^run: \S+/(\w+): \(pid (\d+)\) \d+s; run: log: \(pid (\d+)\) \d+s$', out,
                       re.M)
    return {service: pids for service, *pids in found} if len(found) == 2 else None


def last_tick(top):
    with open(top + '/count/log/current') as file:
        ticks = [int(n) for n in re.findall(r'^tick (\d+)$', file.read(), re.M)]
    if ticks != list(range(ticks[0], ticks[0] + len(ticks))) if ticks else False:
        raise Failed('ticks are missing or came twice: %s' % ticks)
    return ticks[-1] if ticks else 0


def test_runit(case):
    """Saved, killed, removed and restarted: the services go on, and their log with them."""
    if not shutil.which('runsvdir'):
        raise Skipped('runit is not installed')
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')
    top = make_services(case)
    code, _, err = case.reprise('run', '-d', '--name', 'sv', '-V', top + ':' + top, '--',
                                'runsvdir', '-P', top)
    if code:
        raise Failed(err)
    case.until(lambda: services(case, 'sv', top), 'both services run')
    case.until(lambda: os.path.exists(top + '/count/log/current') and last_tick(top) > 2, 'ticks')
    before = services(case, 'sv', top)
    case.checkpoint('sv', '-q', '--kill')
    case.until(lambda: not case.others(), 'the end of the container')
    if case.reprise('rm', 'sv')[0]:
        raise Failed('it cannot be removed')
    ticks = last_tick(top)
    if case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'sv')[0]:
        raise Failed('it cannot be restarted')
    case.until(lambda: last_tick(top) > ticks + 2, 'it ticks on')
    if services(case, 'sv', top) != before:
        raise Failed('services after the restart: %s, before: %s' % (
            services(case, 'sv', top), before))
    # Who looks after them does so still: one that is ended is begun again, and the end is logged.
    asked(case, 'sv', 'sv', 'restart', top + '/idle')
    after = services(case, 'sv', top)
    if not after or after['idle'][0] == before['idle'][0] or after['count'] != before['count']:
        raise Failed('after a restart of one service: %s, before: %s' % (after, before))
    with open(top + '/idle/log/current') as file:
        text = file.read()
    if text != 'begins\nasked to end\nbegins\n':
        raise Failed('the log says %s' % text)
    asked(case, 'sv', 'sv', 'stop', top + '/count', top + '/idle')
    case.reprise('stop', '-t', '0', 'sv')
    case.reprise('rm', 'sv')
    case.until(lambda: not case.others(), 'nobody is left')


test_runit.timeout = 60
