# SPDX-License-Identifier: Apache-2.0
"""Containers with interfaces: what iproute2 shows of them, before and after."""

import glob
import json
import os
import re
import signal
import socket
import time

from case import Failed, Skipped
from contained import begin_network as begin, good, inside, ip, links

SERVER = '''
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    packed = fcntl.ioctl(s, 0x8915, struct.pack('256s', b'eth0'))
listener = socket.create_server((socket.inet_ntoa(packed[20:24]), 8000))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')
datagrams.bind((socket.inet_ntoa(packed[20:24]), 8001))
served = 0
open(sys.argv[1], 'w').close()
while True:
    client, address = listener.accept()
    served += 1
    client.sendall(b'%d %s' % (served, datagrams.getsockname()[0].encode()))
    client.close()
    del client
'''


def address(case, name, version='-4'):
    found = json.loads(inside(case, name, 'ip', '-j', version, 'addr', 'show', 'eth0'))
    return [a['local'] for one in found for a in one.get('addr_info', [])]


def run_server(case, name, *options):
    with open(case.path('server'), 'w') as file:
        file.write(SERVER)
    pid = case.start_reprise('run', '--name', name, *options, '-V',
                             '%s:%s' % (case.control, case.control), '--', '/usr/bin/python3',
                             case.path('server'), case.path('ready'))
    case.until(lambda: os.path.exists(case.path('ready')) or case.ended(pid), 'the server')
    if case.ended(pid):
        raise Failed('the server has ended')
    return pid


def ask(where):
    """How many it has served, and the address that it knows."""
    with socket.create_connection((where, 8000), timeout=20) as client:
        answer = b''
        while True:
            some = client.recv(100)
            if not some:
                break
            answer += some
    count, known = answer.decode().split()
    return int(count), known


def stop(case, *names):
    good(case.reprise('stop', '-t', '0', *names))
    good(case.reprise('rm', *names))


def test_veth(case):
    """Another client finds the server again, under the address that it had."""
    begin(case)
    pid = run_server(case, 'web', '--net', 'veth')
    here, = address(case, 'web')
    if ask(here) != (1, here):
        raise Failed('the server does not work')
    before = ip(case, '-j', '-d', 'link'), ip(case, '-j', 'route')
    mac = inside(case, 'web', 'cat', '/sys/class/net/eth0/address')
    case.checkpoint('web', '-q', '--kill', '--tcp=closed')
    case.wait(pid)
    case.until(lambda: links(case) == ['lo'], 'the interface goes with the container')
    good(case.reprise('rm', 'web'))
    pid = case.restart('--name', 'web')
    case.until(lambda: os.path.exists(case.environment['REPRISE_DIR'] + '/web/state'), 'it runs')
    if ask(here) != (2, here):
        raise Failed('the server does not go on')
    after = ip(case, '-j', '-d', 'link'), ip(case, '-j', 'route')
    for old, new in zip(before, after):
        old, new = (re.sub(r'"(ifindex|link_index|operstate)":[^,]*,', '', s) for s in (old, new))
        if old != new:
            raise Failed('on the host: %s, and was %s' % (new, old))
    if inside(case, 'web', 'cat', '/sys/class/net/eth0/address') != mac:
        raise Failed('it has another MAC')
    stop(case, 'web')
    case.wait(pid)
    case.until(lambda: links(case) == ['lo'], 'nothing is left')


def test_copies(case):
    """Beside the original each copy has an address of its own, and its sockets know it."""
    begin(case)
    run_server(case, 'web', '--net', 'veth=10.1.2.2/24,10.1.2.9')
    if address(case, 'web') != ['10.1.2.2'] or ask('10.1.2.2') != (1, '10.1.2.2'):
        raise Failed('it has not the address that was asked for')
    case.checkpoint('web', '-q', '--tcp=closed')
    names = ['web']
    for options in ((), (), ('--net', 'veth'), ('--net', 'veth=10.7.0.2/30')):
        names.append('copy-%d' % len(names))
        code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '--name', names[-1],
                                    *options)
        if code or ('[network-address]' in err) != (not options):
            raise Failed('exit status %d, %s' % (code, err))
    if address(case, 'copy-4') != ['10.7.0.2']:
        raise Failed('not as told: %s' % address(case, 'copy-4'))
    found = [address(case, name)[0] for name in names]
    if len(set(found)) != 5:
        raise Failed('not each has its own: %s' % found)
    for one in found:
        if ask(one) != (2, one):
            raise Failed('%s does not answer' % one)
    for name, gateway in ('copy-4', '10.7.0.1'), ('web', '10.1.2.9'):
        route = json.loads(inside(case, name, 'ip', '-j', 'route', 'show', 'default'))
        if route[0]['gateway'] != gateway:
            raise Failed('the route of %s: %s' % (name, route))
    code, _, err = case.reprise('restart', '-i', case.path('image'), '-d', '--net', 'veth=1.2.3/4')
    if code != 1 or 'veth=1.2.3/4' not in err:
        raise Failed('an address that is none: %d, %s' % (code, err))
    stop(case, *names)
    case.until(lambda: links(case) == ['lo'], 'nothing is left')
    case.reap()


test_copies.timeout = 90

COPIES = int(os.environ.get('TEST_COPIES', '20'))


def left(case):
    """What containers leave where they were: interfaces, mounts, directories, control groups."""
    directory = case.environment['REPRISE_DIR']
    groups = [line.split(':')[2].strip('/\n') for line in open('/proc/self/cgroup')]
    below = [len(os.listdir(path)) for path in
             [os.path.join('/sys/fs/cgroup', group) for group in groups] if os.path.isdir(path)]
    return (links(case), len(open('/proc/self/mountinfo').readlines()), below,
            os.path.isdir(directory) and sorted(os.listdir(directory)))


def test_many(case):
    """Copies that are made at the same time, each with its files, pids and address."""
    begin(case)
    before = left(case)
    pid = run_server(case, 'web', '--net', 'veth')
    inside(case, 'web', 'sh', '-c', 'echo original > /var/tmp/who')
    here, = address(case, 'web')
    ask(here)
    case.checkpoint('web', '-q', '--kill', '--tcp=closed')
    case.wait(pid)
    good(case.reprise('rm', 'web'))
    names = ['copy-%d' % i for i in range(COPIES)]
    start = time.monotonic()
    tools = [case.start_reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', name)
             for name in names]
    for name, tool in zip(names, tools):
        if case.wait(tool) != 0:
            raise Failed('%s has failed' % name)
    if case.verbose:
        print('restarted after %.2f s' % (time.monotonic() - start))
    found = {name: address(case, name)[0] for name in names}
    if len(set(found.values())) != COPIES:
        raise Failed('not each has its own address: %s' % found)
    for i, name in enumerate(names):
        for n in range(i % 3 + 1):
            answer = ask(found[name])
            if answer != (n + 2, found[name]):
                raise Failed('%s at %s answers %s' % (name, found[name], answer))
        inside(case, name, 'sh', '-c', 'echo %s >> /var/tmp/who' % name)
    for i, name in enumerate(names):
        text = inside(case, name, 'sh', '-c', 'cat /var/tmp/who; cat /proc/2/comm')
        if text.split() != ['original', name, 'python3']:
            raise Failed('in %s: %s' % (name, text))
        if ask(found[name]) != (i % 3 + 3, found[name]):
            raise Failed('%s does not go on' % name)
    start = time.monotonic()
    stop(case, *names)
    if case.verbose:
        print('gone after %.2f s' % (time.monotonic() - start))
    case.until(lambda: left(case)[0] == before[0], 'interfaces are left')
    case.reap()
    after = left(case)
    if after[:3] != before[:3] or after[3]:
        raise Failed('there was %s, there is %s' % (before, after))
    if glob.glob('/proc/[0-9]*') != ['/proc/1']:
        raise Failed('processes are left: %s' % glob.glob('/proc/[0-9]*'))


test_many.timeout = 60 + COPIES

SETUP = '''
set -e
ip link set dev eth0 mtu 1400 txqueuelen 77 alias lan
ip link property add dev eth0 altname another-name
ip link set eth0 group 7 promisc on
ip addr add 10.9.0.1/24 brd + dev eth0 label eth0:x
ip addr add 10.9.0.2/24 dev eth0
ip addr add 10.9.1.1/24 dev eth0 valid_lft 3000 preferred_lft 2000
ip addr add 10.8.0.1 peer 10.8.0.2 dev eth0
ip addr add 2001:db8::1/64 dev eth0
ip addr add 2001:db8::2/64 dev eth0 preferred_lft 0
ip addr add 2001:db8:1::1/64 dev eth0 noprefixroute nodad
ip link add br0 type bridge priority 4096 forward_delay 300 ageing_time 1000 mcast_snooping 0
ip link add a0 index 20 address 02:00:00:00:00:20 type veth peer name b0 index 30
ip link set a0 master br0
ip link set dev a0 type bridge_slave isolated on priority 5
ip link set a0 up
ip link set b0 up
ip link set br0 up
ip addr add 10.4.0.1/16 dev br0
ip link add m0 link b0 type macvlan mode bridge bcqueuelen 200
ip link set m0 up
ip addr add 10.5.0.1/16 dev m0
ip link add idle type ifb
ip link add v2 index 50 type vxlan id 8 group 239.1.1.1 dev eth0 dstport 4790 proxy rsc l2miss l3miss ttl inherit udp6zerocsumrx
ip link add v1 index 19 type vxlan id 7 local 10.9.0.1 remote 10.9.0.3 dstport 4789 ttl 5 tos 4 srcport 2000 3000 ageing 77 nolearning gbp maxaddress 100
ip link add v3 type vxlan external dstport 4999
ip link set v1 up
ip link set v2 up
ip link set v1 master br0
bridge fdb append 00:00:00:00:00:00 dev v1 dst 10.9.0.4
bridge fdb add 02:00:00:00:00:41 dev v1 dst 10.9.0.5 vni 9 port 555
bridge fdb del 00:00:00:00:00:00 dev v2 dst 239.1.1.1 via eth0
bridge fdb add 02:00:00:00:00:42 dev v1 master static
bridge fdb add 02:00:00:00:00:43 dev a0 master static sticky
bridge fdb add 02:00:00:00:00:44 dev br0 self local
bridge fdb add 02:00:00:00:00:45 dev b0 self
ip route add 10.10.0.0/16 via 10.9.0.7
ip route add 10.11.0.0/16 dev eth0 scope link src 10.9.0.2 metric 5 mtu 1300
ip route add 10.12.0.0/16 nexthop via 10.9.0.8 weight 3 nexthop via 10.4.0.8 dev br0
ip route add 10.13.0.0/16 via 10.10.0.1 dev eth0 onlink
ip route add blackhole 10.14.0.0/16
ip route add unreachable 10.15.0.0/16 table 77
ip route add default via 10.9.0.9 table 99
ip -6 route add 2001:db8:7::/48 via 2001:db8::7 metric 12
ip -6 route add 2001:db8:8::/48 dev br0 expires 3000
ip -6 route add prohibit 2001:db8:9::/48
ip nexthop add id 5 via 10.9.0.5 dev eth0
ip nexthop add id 9 via 10.4.0.5 dev br0
ip nexthop add id 7 dev eth0
ip nexthop add id 3 group 5,4/9,2
ip nexthop add id 11 via 2001:db8::11 dev eth0 proto 99
ip route add 10.16.0.0/16 nhid 5
ip route add 10.17.0.0/16 nhid 3 metric 7
ip route add 10.18.0.0/16 nhid 7
ip -6 route add 2001:db8:11::/48 nhid 11
ip rule add from 10.9.0.0/24 table 99 priority 100
ip rule add fwmark 5/0xff lookup 77
ip rule add iif br0 ipproto tcp dport 80-90 prohibit
ip -6 rule add to 2001:db8:7::/48 table 77
ip rule del from all lookup default
ip neigh add 10.9.0.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent
ip -6 neigh add 2001:db8::7 lladdr 02:00:00:00:00:08 dev eth0 nud permanent
ip neigh add proxy 10.9.0.77 dev eth0
ip addrlabel add prefix 2001:db8:7::/48 label 77
ip addrlabel add prefix 2001:db8:8::/48 dev br0 label 78
ip addrlabel del prefix 2002::/16 label 2
cd /proc/sys/net
echo 1 > ipv4/ip_forward
echo 2 > ipv4/conf/eth0/rp_filter
echo 0 > ipv4/conf/b0/forwarding
echo 1 > ipv4/conf/default/arp_ignore
echo 1 > ipv6/conf/all/forwarding
echo 1 > ipv6/conf/m0/disable_ipv6
echo 33 > ipv4/neigh/eth0/gc_stale_time
echo "2000 3001" > ipv4/ip_local_port_range
echo 17 > ipv4/tcp_retries2
echo 77 > core/somaxconn
'''

LOOKS = [
    ['ip', '-d', 'addr'], ['ip', 'rule'], ['ip', '-6', 'rule'], ['ip', 'route', 'show', 'table', 'all'],
    ['ip', '-6', 'route', 'show', 'table', 'all'], ['ip', '-d', 'nexthop'], ['ip', 'neigh', 'show', 'nud', 'permanent'],
    ['ip', '-6', 'neigh', 'show', 'nud', 'permanent'], ['ip', 'neigh', 'show', 'proxy'],
    ['bridge', '-d', 'link'], ['ip', 'addrlabel'],
    ['sh', '-c', 'bridge fdb show | grep -E "^(02:00:00:00:00:4|00:00:00:00:00:00)"'],
    ['sh', '-c', 'find /proc/sys/net -type f -perm /222 ! -path "*/flush" -exec grep -H . {} + 2>&1; true']]

# Of the moment, or of the host.
MOMENTS = r'''link-netnsid \d+|valid_lft \d+sec preferred_lft \d+sec|expires \d+sec|@if\d+|[a-z_]*timer +[\d.]+|
|root_port \d+|topology_change(_detected)? \d|state (forwarding|listening|learning|disabled|blocking)'''


def look(case, name):
    texts = []
    for command in LOOKS:
        text = inside(case, name, *command)
        texts.append(re.sub(MOMENTS.replace('\n', ''), '', text))
    return texts


def compare(before, after):
    for command, old, new in zip(LOOKS, before, after):
        old, new = old.split('\n'), new.split('\n')
        gone = [line for line in old if line not in new]
        more = [line for line in new if line not in old]
        if gone or more or len(old) != len(new):
            raise Failed('%s: there was %s, there is %s' % (' '.join(command), gone, more))


def test_everything(case):
    begin(case)
    pid = run_server(case, 'web', '--net', 'veth=10.1.2.2/24,10.1.2.9')
    with open(case.path('setup'), 'w') as file:
        file.write(SETUP)
    inside(case, 'web', 'sh', case.path('setup'))
    # Duplicates of addresses are looked for, and news of carriers gets round.
    case.until(lambda: 'tentative' not in inside(case, 'web', 'ip', 'addr'), 'the addresses')
    before = look(case, 'web')
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    case.until(lambda: links(case) == ['lo'], 'the interface goes with the container')
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'new'))
    compare(before, look(case, 'new'))
    stop(case, 'new')
    case.reap()


test_everything.timeout = 90


# Two namespaces with names behind a bridge, as for containers inside of this one, and a pair from one to the other.
INSIDE = '''
set -e
ip link set eth0 mtu 1400
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link set docker0 up
for i in 2 3; do
    ip netns add n$i
    ip link add veth$i type veth peer name eth0 netns n$i
    ip link set veth$i master docker0 up
    ip -n n$i link set lo up
    ip -n n$i addr add 172.17.0.$i/16 dev eth0
    ip -n n$i -6 addr add 2001:db8::$i/64 dev eth0 nodad
    ip -n n$i link set eth0 up
    ip -n n$i route add default via 172.17.0.1
done
ip -n n2 link add straight address 02:00:00:00:00:22 type veth peer name straight address 02:00:00:00:00:33 netns n3
ip -n n2 addr add 10.77.0.2/24 dev straight
ip -n n3 addr add 10.77.0.3/24 dev straight
ip -n n2 link set straight up
ip -n n3 link set straight up
ip -n n3 nexthop add id 5 via 10.77.0.2 dev straight
ip -n n3 route add 10.78.0.0/16 nhid 5
ip -n n3 link add idle type veth peer name idle2 netns n2
'''

ANSWER = '''
import socket, sys
listener = socket.create_server(('', 7000))
while True:
    client, address = listener.accept()
    client.sendall(address[0].encode())
    client.close()
    del client
'''


# A line with a question mark is of a kind that not every kernel has.
SHAPED = '''
ip link add i0 type ifb
ip link set i0 up
tc qdisc add dev eth0 root handle 1: htb default 30 r2q 20
tc class add dev eth0 parent 1: classid 1:1 htb rate 6mbit burst 15k
tc class add dev eth0 parent 1:1 classid 1:20 htb rate 3mbit ceil 6mbit burst 15k prio 1
tc class add dev eth0 parent 1:1 classid 1:10 htb rate 5mbit burst 15k quantum 3000
tc class add dev eth0 parent 1:20 classid 1:30 htb rate 1kbit ceil 6mbit cburst 20k
tc qdisc add dev eth0 parent 1:10 handle 77: tbf rate 1mbit burst 10k latency 9ms mpu 64
tc qdisc add dev eth0 parent 1:30 handle 20: pfifo limit 77
tc qdisc add dev eth0 parent 77:1 handle 78: bfifo limit 5555
tc filter add dev eth0 parent 1: protocol ip prio 7 u32 match ip dport 22 0xffff match ip tos 0x10 0xff flowid 1:10
tc filter add dev eth0 parent 1: protocol ip prio 3 u32 match ip src 10.0.0.0/8 flowid 1:30
tc filter add dev eth0 parent 1: protocol ip prio 7 u32 match ip sport 80 0xffff flowid 1:30
tc filter add dev eth0 parent 1:1 protocol ip prio 1 u32 match u32 0 0 classid 1:20
tc qdisc add dev eth0 clsact
tc filter add dev eth0 ingress protocol all prio 4 u32 match u32 0 0 action mirred egress redirect dev i0
tc filter add dev eth0 egress protocol ip prio 9 u32 match ip dst 10.2.2.2/32 action mirred egress mirror dev i0
tc filter add dev eth0 egress protocol ip prio 11 bpf bytecode 4,40~0~0~12,21~0~1~2048,6~0~0~4294967295,6~0~0~0 classid 1:10
tc filter add dev eth0 egress protocol all prio 12 bpf bytecode 1,6~0~0~65537 da action mirred egress mirror dev i0
tc qdisc add dev i0 root handle 5: tbf rate 12345678bit burst 33333 limit 44444 peakrate 20mbit mtu 1600
tc qdisc add dev lo ingress
? tc qdisc add dev lo root fq_codel limit 333 flows 64 target 7ms noecn
ip link add q0 type veth peer name q1
ip link set q0 up
ip link set q1 up
? tc qdisc add dev q0 root handle 3: prio bands 4 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 3
? tc qdisc add dev q0 parent 3:1 handle 31: sfq perturb 10 quantum 3000 divisor 512 limit 100
? tc qdisc add dev q0 parent 3:2 handle 32: fq limit 555 flow_limit 77 quantum 3000 maxrate 5mbit
? tc qdisc add dev q0 parent 3:3 handle 33: codel limit 99 target 4ms interval 90ms ecn
? tc filter add dev q0 parent 3: protocol ip prio 5 handle 7/0xff fw classid 3:2
? tc filter add dev eth0 egress protocol ip prio 20 matchall action gact drop random determ ok 5
? tc qdisc add dev q1 root handle 4: netem delay 30ms loss gemodel 1% 20% 70% 0.1% duplicate 2% rate 3mbit limit 321
'''


def look_shaped(case, name):
    texts = [inside(case, name, 'tc', '-d', 'qdisc')]
    for device in 'eth0', 'i0', 'q0', 'q1', 'lo':
        texts.append(inside(case, name, 'tc', '-d', 'class', 'show', 'dev', device))
        for words in 'parent 1:', 'parent 1:1', 'parent 3:', 'ingress', 'egress':
            texts.append(inside(case, name, 'sh', '-c', 'tc -d filter show dev %s %s 2>&1 || true' % (device, words)))
    # Counted.
    return [re.sub(r'refcnt \d+|direct_packets_stat \d+', '', text) for text in texts]


def test_queueing(case):
    begin(case)
    pid = run_server(case, 'web', '--net', 'veth')
    if not os.path.exists('/usr/sbin/tc'):
        raise Skipped('no tc')
    for line in SHAPED.strip().split('\n'):
        code, _, err = case.reprise('exec', 'web', *(word.replace('~', ' ') for word in line.strip('? ').split()))
        if code and line[0] != '?':
            raise Failed('%s: %s' % (line, err))
    before = look_shaped(case, 'web')
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    case.until(lambda: links(case) == ['lo'], 'the interface goes with the container')
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'new'))
    for old, new in zip(before, look_shaped(case, 'new')):
        if sorted(old.split('\n')) != sorted(new.split('\n')):
            raise Failed('there was %s, there is %s' % (old, new))
    stop(case, 'new')
    case.reap()


test_queueing.timeout = 90


def look_inside(case, name):
    texts = [inside(case, name, 'ip', 'netns', 'list')]
    for space in '', '-n n2 ', '-n n3 ':
        for words in '-d addr', 'route', '-6 route', 'neigh show nud permanent', 'nexthop':
            text = inside(case, name, 'ip', *(space + words).split())
            texts.append(re.sub(MOMENTS.replace('\n', '') + r'|link-netns \S+| \(id: \d+\)', '', text))
    texts.append(inside(case, name, 'bridge', 'link'))
    return [re.sub(r'@\S+', '', text) for text in texts]


def reach(case, name):
    """From the namespace of the container over the bridge, and straight from one to the other."""
    program = ('import socket, sys; s = socket.create_connection((sys.argv[1], 7000), 20); '
               'print(s.recv(100).decode())')
    for command, to, wanted in ((), '172.17.0.3', '172.17.0.1'), (('ip', 'netns', 'exec', 'n2'), '10.77.0.3', '10.77.0.2'):
        said = inside(case, name, *command, 'python3', '-c', program, to).strip()
        if said != wanted:
            raise Failed('%s says %s' % (to, said))


def test_namespaces_inside(case):
    begin(case)
    with open(case.path('setup'), 'w') as file:
        file.write(INSIDE + 'cat > /var/tmp/answer <<E\n%sE\n' % ANSWER +
                   '(ip netns exec n3 python3 /var/tmp/answer & )\ntouch %s\n' % case.path('ready') +
                   'exec sleep 1000\n')
    pid = case.start_reprise('run', '--name', 'web', '--net', 'veth', '-V',
                             '%s:%s' % (case.control, case.control), '--', 'sh', case.path('setup'))
    case.until(lambda: os.path.exists(case.path('ready')) or case.ended(pid), 'the namespaces')
    if case.ended(pid):
        raise Failed('it has ended')
    case.until(lambda: 'LISTEN' in inside(case, 'web', 'ip', 'netns', 'exec', 'n3', 'ss', '-ltn'), 'the server')
    reach(case, 'web')
    case.until(lambda: 'tentative' not in ''.join(look_inside(case, 'web')), 'the addresses')
    before = look_inside(case, 'web')
    case.checkpoint('web', '-q', '--kill', '--tcp=closed')
    case.wait(pid)
    case.until(lambda: links(case) == ['lo'], 'the interface goes with the container')
    good(case.reprise('rm', 'web'))
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'new'))
    reach(case, 'new')
    # News of carriers gets round.
    case.until(lambda: look_inside(case, 'new') == before, 'all as it was: %s' % before)
    os.unlink(case.path('image'))
    case.checkpoint('new', '-q', '--tcp=closed')
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'newer'))
    reach(case, 'newer')
    stop(case, 'new', 'newer')
    case.until(lambda: links(case) == ['lo'], 'interfaces are left')
    case.reap()


test_namespaces_inside.timeout = 90


def sleeper_by_unshare(case):
    """In a pid and a network namespace of its own: who has made them, and the first process."""
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', '--net',
                       '/usr/bin/sleep', '1000'])
    path = '/proc/%d/task/%d/children' % (tool, tool)
    case.until(lambda: os.path.exists(path) and open(path).read(), 'the first process')
    first = int(open(path).read())
    case.until(lambda: open('/proc/%d/comm' % first).read() == 'sleep\n', 'the program')
    return tool, first


def test_of_unshare(case):
    """Its interface was put into it, and belongs to a bridge of the host."""
    begin(case)
    ip(case, 'link', 'add', 'bridge0', 'type', 'bridge')
    ip(case, 'link', 'set', 'bridge0', 'up')
    ip(case, 'addr', 'add', '10.3.0.1/24', 'dev', 'bridge0')
    tool, first = sleeper_by_unshare(case)
    ip(case, 'link', 'add', 'outer', 'master', 'bridge0', 'type', 'veth', 'peer', 'name', 'inner')
    ip(case, 'link', 'set', 'outer', 'up')
    ip(case, 'link', 'set', 'inner', 'netns', str(first))
    into = ['/usr/bin/nsenter', '-n', '-t']
    for words in ('link set inner up', 'addr add 10.3.0.2/24 dev inner'):
        good(case.run(into + [str(first), 'ip'] + words.split()))
    case.checkpoint(first, '-q', '--kill')
    case.wait(tool)
    case.until(lambda: links(case) == ['bridge0', 'lo'], 'the interface goes')
    # Its name is taken now.
    ip(case, 'link', 'add', 'outer', 'type', 'bridge')
    tool = case.restart('--pidns')
    case.until_handed_over(tool, 1, 'sleep', True)
    if links(case) != ['bridge0', 'lo', 'outer', 'reprise0']:
        raise Failed('there are %s' % links(case))
    if 'master bridge0' not in ip(case, 'link', 'show', 'reprise0'):
        raise Failed('it has left the bridge')
    if '1 received' not in good(case.run(['/usr/bin/ping', '-c', '1', '-W', '20', '10.3.0.2'])) \
            if os.path.exists('/usr/bin/ping') else False:
        raise Failed('it does not answer')
    case.kill_all()
    case.reap()
    case.until(lambda: 'reprise0' not in links(case), 'nothing is left')


def test_never_looked_at(case):
    """Nobody inside has looked at the interface, as of systemd-nspawn --network-veth: the host has no number there yet."""
    begin(case)
    tool, first = sleeper_by_unshare(case)
    ip(case, 'link', 'add', 'outer', 'type', 'veth', 'peer', 'name', 'host0', 'netns', str(first))
    case.checkpoint(first, '-q', '--kill')
    case.wait(tool)
    case.until(lambda: links(case) == ['lo'], 'the interface goes')
    tool = case.restart('--pidns')
    case.until_handed_over(tool, 1, 'sleep', True)
    if links(case) != ['lo', 'outer']:
        raise Failed('there are %s' % links(case))
    case.kill_all()
    case.reap()
    case.until(lambda: links(case) == ['lo'], 'nothing is left')


TUN = '''
import fcntl, os, struct, time
fd = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', b'tun7', 0x1001))
os.system('ip link set lo up; ip link set tun7 up; ip addr add 10.6.0.1/24 dev tun7; '
          'ip route add 10.66.0.0/16 via 10.6.0.2')
open('/proc/self/comm', 'w').write('ready')
time.sleep(1000)
'''


def test_tun(case):
    """An interface that comes with its descriptor, and with its settings."""
    begin(case)
    if not os.access('/dev/net/tun', os.R_OK | os.W_OK):
        raise Skipped('no tun')
    with open(case.path('script'), 'w') as file:
        file.write(TUN)
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', '--net',
                       '/usr/bin/python3', case.path('script')])
    path = '/proc/%d/task/%d/children' % (tool, tool)
    case.until(lambda: os.path.exists(path) and open(path).read(), 'the first process')
    first = int(open(path).read())
    case.until(lambda: open('/proc/%d/comm' % first).read() == 'ready\n', 'the program')
    look = ['/usr/bin/nsenter', '-n', '-t', None, 'sh', '-c', 'ip addr; ip route']

    def seen(pid):
        text = good(case.run(look[:3] + [str(pid)] + look[4:]))
        # A link-local address is the kernel's choice.
        return re.sub(r'\s*(valid_lft.*|inet6 fe80.*)', '', text)
    before = seen(first)
    case.checkpoint(first, '-q', '--kill')
    case.wait(tool)
    tool = case.restart('--pidns')
    case.until_handed_over(tool, 1, 'ready', True)
    now = [pid for pid, name in case.others() if name == 'ready']
    if seen(now[0]) != before:
        raise Failed('there was\n%s\nthere is\n%s' % (before, seen(now[0])))
    case.kill_all()
    case.reap()


def test_failed_restart(case):
    """An interface that stood on one of the host that is not there: nothing is left behind."""
    begin(case)
    ip(case, 'link', 'add', 'lower', 'type', 'ifb')
    pid = run_server(case, 'web', '--net', 'veth')
    state = json.loads(good(case.reprise('ps', '--json')))['containers'][0]
    ip(case, 'link', 'set', 'lower', 'up')
    ip(case, 'link', 'add', 'mac', 'link', 'lower', 'netns', str(state['init']), 'type', 'macvlan')
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'new'))
    if 'mac@' not in inside(case, 'new', 'ip', 'link'):
        raise Failed('the interface is not there')
    stop(case, 'new')
    case.until(lambda: links(case) == ['lo', 'lower'], 'the interface goes')
    ip(case, 'link', 'del', 'lower')
    case.refused(case.reprise('restart', '-i', case.path('image'), '-q', '--name', 'new'),
                 'restore', 'mac')
    case.until(lambda: links(case) == ['lo'], 'nothing is left')
    case.reap()


def test_killed(case):
    """Whoever makes a container is killed at some moment: no interface stays."""
    begin(case)
    pid = run_server(case, 'web', '--net', 'veth')
    case.checkpoint('web', '-q', '--kill')
    case.wait(pid)
    for i in range(8):
        tool = case.start_reprise('restart', '-i', case.path('image'), '-q', '--name', 'k%d' % i)
        time.sleep(0.004 * i)
        case.kill(tool, signal.SIGKILL)
        case.wait(tool)
        case.kill_all()
        case.reap()
        case.until(lambda: links(case) == ['lo'], 'nothing is left after kill %d' % i)
