# SPDX-License-Identifier: Apache-2.0
"""Containers with services in them, and somebody who looks after the services."""

import os
import re
import shutil

from case import Failed, Skipped
from contained import listed

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

    def begun_again():
        # sv takes a service for restarted that began in the same second.
        after = services(case, 'sv', top)
        if after and after['count'] != before['count']:
            raise Failed('after a restart of one service: %s, before: %s' % (after, before))
        return after and after['idle'][0] != before['idle'][0]

    def logged():
        with open(top + '/idle/log/current') as file:
            return file.read() == 'begins\nasked to end\nbegins\n'

    case.until(begun_again, 'the service has been begun again')
    case.until(logged, 'the log says so')
    asked(case, 'sv', 'sv', 'stop', top + '/count', top + '/idle')
    case.reprise('stop', '-t', '0', 'sv')
    case.reprise('rm', 'sv')
    case.until(lambda: not case.others(), 'nobody is left')


test_runit.timeout = 60

SYSTEMD = '/lib/systemd/systemd'
UNITS = {
    'small.target': '''[Unit]
Requires=count.service notes.socket tick.timer
AllowIsolate=yes
''',
    'count.service': '''[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c 'n=0; while :; do n=$((n+1)); echo $n >>/opt/count; sleep 0.02; done'
Restart=always
RestartSec=10ms
''',
    'notes.socket': '''[Unit]
DefaultDependencies=no
[Socket]
ListenFIFO=/opt/notes
''',
    'notes.service': '''[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
StandardInput=socket
ExecStart=/bin/sh -c 'read line; echo $line >/opt/noted'
''',
    'tick.timer': '''[Unit]
DefaultDependencies=no
[Timer]
OnActiveSec=50ms
OnUnitActiveSec=50ms
AccuracySec=1ms
''',
    'tick.service': '''[Unit]
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo x >>/opt/ticks'
''',
}


def root_of(case, name):
    return '/proc/%d/root' % listed(case)[name]['init']


def lines(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return file.read().split()


def main_pid(case, name):
    return asked(case, name, 'systemctl', 'show', '-P', 'MainPID', 'count.service')


def systemd_container(case):
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')
    units = case.path('units')
    os.mkdir(units)
    for unit, text in UNITS.items():
        with open(os.path.join(units, unit), 'w') as file:
            file.write(text)
    code, _, err = case.reprise(
        'run', '-d', '--name', 'sd', '--init', '--cgroups', '-e', 'container=reprise',
        '-V', units + ':/etc/systemd/system', '--', SYSTEMD, '--system', '--unit=small.target',
        '--log-target=console', '--show-status=no')
    if code and 'container-cgroup' in err:
        raise Skipped('no control groups of version 2 can be shown in a container here')
    if code:
        raise Failed(err)


def test_systemd(case):
    """It is the first process, and what it watches (services, a socket, a timer) goes on."""
    if not os.path.exists(SYSTEMD):
        raise Skipped('systemd is not installed')
    systemd_container(case)
    opt = root_of(case, 'sd') + '/opt'
    case.until(lambda: len(lines(opt + '/count')) > 2 and lines(opt + '/ticks'), 'its services')
    before = main_pid(case, 'sd')
    case.checkpoint('sd', '-q', '--kill')
    case.until(lambda: not case.others(), 'the end of the container')
    if case.reprise('rm', 'sd')[0]:
        raise Failed('it cannot be removed')
    code, _, err = case.reprise('restart', '-d', '-q', '-i', case.path('image'), '--name', 'sd')
    if code:
        raise Failed(err)
    opt = root_of(case, 'sd') + '/opt'
    there, ticks = len(lines(opt + '/count')), len(lines(opt + '/ticks'))
    case.until(lambda: len(lines(opt + '/count')) > there + 2, 'the service counts on')
    if lines(opt + '/count') != [str(i + 1) for i in range(len(lines(opt + '/count')))]:
        raise Failed('it began anew: %s' % lines(opt + '/count'))
    case.until(lambda: len(lines(opt + '/ticks')) > ticks + 1, 'the timer goes on')
    if main_pid(case, 'sd') != before:
        raise Failed('the service is another process: %s, before %s' % (main_pid(case, 'sd'), before))
    with open(opt + '/notes', 'w') as file:
        file.write('hello\n')
    case.until(lambda: lines(opt + '/noted') == ['hello'], 'a service is started by its socket')
    # It hears of the end of a service, and starts it again.
    asked(case, 'sd', 'sh', '-c', 'kill -9 ' + before)
    # It may get the same number again.
    case.until(lambda: lines(opt + '/count').count('1') > 1, 'a new service')
    case.reprise('stop', '-t', '0', 'sd')
    case.reprise('rm', 'sd')
    case.until(lambda: not case.others(), 'nobody is left')


test_systemd.timeout = 90
