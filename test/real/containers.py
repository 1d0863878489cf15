# SPDX-License-Identifier: Apache-2.0
"""Applications in containers, saved with their files, killed and removed, restarted from the image alone."""

import glob
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request

from case import Failed, Skipped


def begin(case):
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')


def run(case, name, script, *options):
    """`reprise run` of a shell script, whose output is a file."""
    with open(case.path('script'), 'w') as file:
        file.write(script)
    with open(case.path('out'), 'w') as out:
        pid = case.start_reprise(
            'run', '--name', name, *options, '-V', '%s:%s' % (case.control, case.control), '--',
            'sh', case.path('script'), stdout=out.fileno())
    state = os.path.join(case.environment['REPRISE_DIR'], name, 'state')
    case.until(lambda: os.path.exists(state) or case.ended(pid), 'the container is noted')
    return pid


def output(case, name='out'):
    with open(case.path(name)) as file:
        return file.read()


def move(case, pid, name, *options):
    """Saves and kills it, removes its files, and restarts it: the pid of the restart."""
    case.checkpoint(name, '-q', '--kill', *options)
    if case.wait(pid, 'the container to be killed') != 128 + signal.SIGKILL:
        raise Failed('the container ended by itself: %s' % output(case))
    code, _, err = case.reprise('rm', name)
    if code:
        raise Failed(err)
    with open(case.path('out.2'), 'w') as out:
        return case.start_reprise('restart', '-i', case.path('image'), '-q', '--name', name,
                                  stdout=out.fileno())


def finish(case, pid, name):
    code = case.wait(pid, 'the restarted container')
    case.reprise('rm', name)
    text = output(case, 'out.2')
    if code:
        raise Failed('exit status %d: %s' % (code, text))
    return text


POSTGRES = '''
set -e
B=$(echo /usr/lib/postgresql/*/bin)
mkdir -p /srv/pg /run/postgresql
chown postgres /srv/pg /run/postgresql
as() { setpriv --reuid postgres --regid postgres --clear-groups --inh-caps=-all "$@"; }
cd /srv/pg
as $B/initdb -D /srv/pg/data -A trust -N >/dev/null
as $B/pg_ctl -D /srv/pg/data -o '-c listen_addresses= -c shared_buffers=16MB' -l /srv/pg/log -w start >/dev/null
as $B/createdb test
as $B/pgbench -q -i -s 1 test 2>/dev/null
as $B/psql -qc 'create extension amcheck' test
touch CONTROL/started
as $B/pgbench -n -c 3 -t 1200 test >/srv/pg/bench 2>&1
grep -E 'number of (transactions actually|failed)' /srv/pg/bench
as $B/psql -At -c 'select sum(abalance) from pgbench_accounts' -c 'select sum(bbalance) from pgbench_branches' \\
    -c 'select sum(tbalance) from pgbench_tellers' -c 'select sum(delta) from pgbench_history' \\
    -c 'select count(*) from pgbench_history' test
as $B/pg_amcheck --heapallindexed test
echo checked
as $B/pg_ctl -D /srv/pg/data -m fast -w stop >/dev/null
'''


def test_postgres(case):
    """In mid-transaction: none is lost, and the database finds its files as its memory believes."""
    if not glob.glob('/usr/lib/postgresql/*/bin/initdb'):
        raise Skipped('PostgreSQL is not installed')
    begin(case)
    pid = run(case, 'pg', POSTGRES.replace('CONTROL', case.control))
    case.until(lambda: os.path.exists(case.path('started')) or case.ended(pid), 'the database')
    time.sleep(0.5)
    lines = finish(case, move(case, pid, 'pg'), 'pg').splitlines()
    if lines[0] != 'number of transactions actually processed: 3600/3600':
        raise Failed('transactions: %s' % lines)
    if lines[1].split(':')[1].split()[0] != '0' or lines[-1] != 'checked':
        raise Failed('failures: %s' % lines)
    if len(set(lines[2:6])) != 1 or lines[6] != '3600':
        raise Failed('the sums differ: %s' % lines)


test_postgres.timeout = 150

NGINX = '''
mkdir -p /srv/web && cd /srv/web
echo hello >index.html
cat >nginx.conf <<END
worker_processes 2; daemon off; pid /srv/web/pid; error_log /srv/web/error.log;
events { worker_connections 64; }
http { access_log /srv/web/access.log; server { listen 127.0.0.1:PORT; root /srv/web; } }
END
exec nginx -c /srv/web/nginx.conf
'''


class Client(threading.Thread):
    """Asks again and again, and connects anew where a connection failed."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.good, self.bad, self.over = url, 0, 0, False

    def run(self):
        while not self.over:
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    if answer.read() != b'hello\n':
                        raise Failed('another page')
                self.good += 1
            except OSError:
                self.bad += 1
                time.sleep(0.02)


def test_nginx(case):
    """With workers, and a client outside that connects again."""
    if not shutil.which('nginx'):
        raise Skipped('nginx is not installed')
    begin(case)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    pid = run(case, 'web', NGINX.replace('PORT', str(port)), '--net', 'host')
    client = Client('http://127.0.0.1:%d/' % port)
    client.start()
    case.until(lambda: client.good > 20 or case.ended(pid), 'answers')
    copy = move(case, pid, 'web', '--tcp=closed')
    before = client.good
    case.until(lambda: client.good > before + 20 or case.ended(copy), 'answers of the copy')
    client.over = True
    client.join()
    code, _, err = case.reprise('stop', 'web')
    if code:
        raise Failed(err)
    case.wait(copy)
    case.reprise('rm', 'web')
    if client.good <= before + 20:
        raise Failed('no answer from the copy: %s' % output(case, 'out.2'))


test_nginx.timeout = 60

BUILD = '''
mkdir -p /tmp/build && cd /tmp/build
for i in $(seq 40); do
    printf '#include <stdio.h>\\nint f%d(int x) { printf("%%d", x); return x + %d; }\\n' $i $i >f$i.c
done
{
    echo 'int main(void) { int s = 0;'
    for i in $(seq 40); do echo "extern int f$i(int); s += f$i(0);"; done
    echo 'return s == 820 ? 42 : 1; }'
} >main.c
printf 'prog: main.o $(patsubst %%,f%%.o,%s)\\n\\tgcc -o $@ $^\\n%%.o: %%.c\\n\\tgcc -O2 -w -c $< -o $@\\n' \\
    "$(seq -s ' ' 40)" >Makefile
make -s -j2 || exit 1
./prog >/dev/null
echo status $?
'''


def test_build(case):
    """make -j2 goes on from the middle, with the files that it has made so far."""
    begin(case)
    pid = run(case, 'build', BUILD)
    time.sleep(0.5)
    text = finish(case, move(case, pid, 'build'), 'build')
    if text != 'status 42\n':
        raise Failed('it printed %r' % text)


test_build.timeout = 90
