# SPDX-License-Identifier: Apache-2.0
"""Rules of nftables: what nft lists, and what becomes of packets, before and after."""

import os
import re
import socket

from case import Failed, Skipped
from contained import begin_network, good, inside, links

SERVER = '''
import socket, sys
listener = socket.create_server(('', 8000))
open(sys.argv[1], 'w').close()
while True:
    client, address = listener.accept()
    client.sendall(b'hello')
    client.close()
'''


def begin(case, *programs, first='true'):
    for program in programs:
        if not os.path.exists('/usr/sbin/' + program):
            raise Skipped('no %s' % program)
    begin_network(case)
    with open(case.path('server'), 'w') as file:
        file.write(SERVER)
    case.start_reprise('run', '--name', 'old', '--net', 'veth=10.1.2.2/24,10.1.2.1', '-V',
                       '%s:%s' % (case.control, case.control), '--', '/bin/sh', '-c',
                       '%s\nexec python3 %s %s' % (first, case.path('server'), case.path('ready')))
    case.until(lambda: os.path.exists(case.path('ready')), 'the server')


def prepare(case, script):
    code, _, err = case.reprise('exec', 'old', 'sh', '-ec', script)
    if code and ('No such file or directory' in err or 'not supported' in err):
        raise Skipped(err.strip())
    if code:
        raise Failed(err)


def answers(port=8000):
    try:
        with socket.create_connection(('10.1.2.2', port), timeout=20) as client:
            return client.recv(100) == b'hello'
    except (ConnectionRefusedError, TimeoutError):
        return False


def again(case):
    case.checkpoint('old', '-q', '--kill')
    case.until(lambda: links(case) == ['lo'], 'the interface goes with the container')
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'new'))


def compare(before, after):
    if before == after:
        return
    before, after = before.split('\n'), after.split('\n')
    raise Failed('there was %s, there is %s' % ([x for x in before if x not in after][:5],
                                                [x for x in after if x not in before][:5]))


def stop(case):
    good(case.reprise('stop', '-t', '0', 'new'))
    good(case.reprise('rm', 'new'))
    case.until(lambda: links(case) == ['lo'], 'nothing is left')
    case.reap()


def listed(case, name):
    """With handles; not how long it takes until an element goes."""
    text = inside(case, name, 'nft', '-a', 'list', 'ruleset')
    # Tables of the whole machine are counted.
    text = re.sub(r'(table .*) # handle \d+', r'\1', text)
    # Elements that go come in any order.
    text = re.sub(r'(set seen.*\n(?:.*\n)*?.*elements = )\{([^}]*)\}',
                  lambda m: m[1] + str(sorted(map(str.strip, m[2].split(',')))), text)
    return re.sub(r'expires [0-9hms]+', 'expires', text)


RULES = '''
table inet filter {
    counter hits { packets 7 bytes 700; }
    quota lots { over 25 mbytes used 3000 bytes; }
    limit slow { rate 10/second burst 5 packets; }
    ct timeout short { protocol tcp; policy = { established: 120, close: 20 }; }
    ct helper standard { type "ftp" protocol tcp; }
    set bad { type ipv4_addr; flags interval;
        elements = { 10.7.0.0/16, 10.2.0.0-10.3.0.5, 10.3.0.6-10.3.1.0, 192.0.2.1, 255.255.255.0/24 }; }
    set ports { type inet_service; counter;
        elements = { 22 counter packets 4 bytes 400, 81 counter packets 1 bytes 40 }; }
    set seen { type ipv4_addr; size 1000; flags dynamic,timeout; timeout 1h;
        elements = { 10.9.9.9 timeout 2h expires 1h30m, 10.9.9.8 expires 10m comment "x" }; }
    set pairs { type ipv4_addr . inet_service; flags interval;
        elements = { 10.0.0.0/8 . 90-99, 10.5.0.0/16 . 22 }; }
    map to { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.1, 443 : 10.0.0.2 }; }
    map verdicts { type ipv4_addr : verdict;
        elements = { 10.0.0.5 : jump other, 10.0.0.6 : drop, * : continue }; }
    map counters { type ipv4_addr : counter; elements = { 10.0.0.7 : "hits" }; }
    chain input {
        type filter hook input priority filter + 5; policy accept;
        tcp dport 8000 counter packets 0 bytes 0 reject with tcp reset
        tcp dport 8001 counter packets 3 bytes 180 drop
        ct state established,related accept
        iif lo accept comment "local"
        tcp dport { 22, 80-90, 443 } counter packets 3 bytes 180 accept
        tcp dport vmap { 1000 : jump other, 1001 : drop }
        ip saddr @bad drop
        ip saddr . tcp dport @pairs accept
        ip saddr vmap @verdicts
        udp dport 77 counter name "hits" quota name "lots" limit name "slow"
        udp dport 78 add @seen { ip saddr timeout 5m }
        tcp dport 99 limit rate 3/minute burst 7 packets log prefix "x: " level debug reject
        ip protocol icmp counter packets 9 bytes 99
        tcp dport 21 ct helper set "standard"
        meter m { ip saddr timeout 10s limit rate 5/second } accept
        udp dport 79 jump { ip saddr 1.2.3.4 accept; ip saddr 1.2.3.5 drop; }
    }
    chain other { ip daddr 10.3.3.3 counter packets 1 bytes 1; }
    chain unused { comment "nobody"; }
}
table ip nat {
    chain post { type nat hook postrouting priority srcnat; policy accept; oifname "eth0" masquerade
        tcp dport 1 snat to 10.0.0.1-10.0.0.5:1000-2000 random,persistent; }
    chain pre { type nat hook prerouting priority dstnat; dnat to ip saddr map { 10.0.0.1 : 10.0.0.9 }
        tcp dport 8080 redirect to :80; }
}
table ip6 asleep {
    flags dormant
    chain o { type route hook output priority mangle; meta mark set 5
        tcp flags syn tcp option maxseg size set 1200; }
}
table netdev dev0 {
    chain in { type filter hook ingress device "eth0" priority 0; policy accept
        ether type 0x8888 counter packets 2 bytes 2
        meta mark set jhash ip saddr mod 7 seed 0x5; }
}
table bridge frames {
    chain f { type filter hook forward priority 0; policy drop
        ether saddr 02:00:00:00:00:01 numgen inc mod 3 vmap { 0 : accept, 1 : drop }; }
}
table arp a {
    chain i { type filter hook input priority 0; arp operation 9 counter packets 4 bytes 4; }
}
'''

# Rules out of the order in which they were made, and handles that nothing has any more.
CHANGES = '''
nft insert rule inet filter input tcp dport 1 accept
handle=$(nft -a list chain inet filter input | sed -n '/icmp/s/.*handle //p')
nft add rule inet filter input position $handle tcp dport 2 accept
nft delete rule inet filter input handle $handle
nft insert rule inet filter input tcp dport 3 accept
nft add rule inet filter other tcp dport 4 accept
nft add element inet filter seen { 10.7.7.7 expires 20m }
'''


def test_nftables(case):
    begin(case, 'nft')
    if not answers():
        raise Failed('the server does not work')
    prepare(case, "nft -f - <<'END'\n%s\nEND\n%s" % (RULES, CHANGES))
    if answers():
        raise Failed('nothing is rejected')
    before = listed(case, 'old')
    if 'dport 8000 counter packets 1 ' not in before:
        raise Failed('nothing is counted')
    again(case)
    compare(before, listed(case, 'new'))
    if answers() or 'dport 8000 counter packets 2 ' not in listed(case, 'new'):
        raise Failed('nothing is rejected any more, or it is not counted')
    # A program that knows the rule by its handle.
    handle = re.search(r'dport 8000 .* # handle (\d+)', before)[1]
    inside(case, 'new', 'nft', 'delete', 'rule', 'inet', 'filter', 'input', 'handle', handle)
    if not answers():
        raise Failed('the rule is still there')
    stop(case)


test_nftables.timeout = 60


def test_many_elements(case):
    begin(case, 'nft')
    # Elements of the first fill several messages; from the second some are taken again.
    prepare(case, '''
        nft 'add table ip t; add set ip t big { type ipv4_addr; flags interval; }'
        nft 'add table ip u; add map ip u names { type inet_service : verdict; }; add chain ip u c'
        python3 -c 'for i in range(3000): print("add element ip t big { 10.%d.%d.3-10.%d.%d.%d }" % (
            i // 256, i % 256, i // 256, i % 256, 4 + i % 250))' > /tmp/elements
        nft -f /tmp/elements
        python3 -c 'for i in range(99): print("add element ip u names { %d : jump c }" % (i + 1))' | nft -f -
        for i in 1 2 3; do nft add rule ip u c tcp dport $i accept; nft insert rule ip u c udp dport $i drop; done
        nft flush chain ip u c
        nft add rule ip u c tcp dport 5 accept''')
    before = listed(case, 'old')
    if 'tcp dport 5 accept # handle 9' not in before:
        raise Failed('the handle is not as expected: %s' % before[-300:])
    again(case)
    compare(before, listed(case, 'new'))
    stop(case)


def test_iptables_nft(case):
    """Extensions of iptables in rules of nftables."""
    begin(case, 'iptables-nft', 'ip6tables-nft')
    prepare(case, '''
        iptables-nft -A INPUT -p tcp --dport 8000 -m limit --limit 3000/min -j DROP
        iptables-nft -A INPUT -p udp -m multiport --dports 1,2,3 -m conntrack --ctstate NEW -j REJECT
        iptables-nft -A INPUT ! -p tcp -m comment --comment hello -m mac --mac-source 02:00:00:00:00:01 -j LOG
        iptables-nft -t nat -A POSTROUTING -p tcp -o eth0 -j SNAT --to-source 10.0.0.1:1000-2000
        iptables-nft -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
        iptables-nft -A FORWARD -m statistic --mode random --probability 0.5 -m addrtype --dst-type LOCAL -j ACCEPT
        iptables-nft -N chain
        iptables-nft -A FORWARD -g chain
        iptables-nft -P FORWARD DROP
        ip6tables-nft -A INPUT -p icmpv6 --icmpv6-type echo-request -j ACCEPT
        ip6tables-nft -A INPUT -p tcp --dport 80 -m hashlimit --hashlimit-above 10/sec --hashlimit-mode srcip --hashlimit-name foo -j DROP''')

    def saved(name):
        text = ''.join(inside(case, name, command, '-c')
                       for command in ('iptables-nft-save', 'ip6tables-nft-save'))
        return re.sub('^#.*\n', '', text, flags=re.M)
    before = saved('old')
    again(case)
    compare(before, saved('new'))
    stop(case)


# A table of arptables, for which Debian has no program: told is what is in it.
ARP = '''
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def get(what, buf):
    n = ctypes.c_uint32(len(buf))
    if libc.getsockopt(s.fileno(), 0, what, buf, ctypes.byref(n)):
        sys.exit('not supported')
info = ctypes.create_string_buffer(b'filter', 68)
get(96, info)
places, (n, size) = info.raw[32:60], struct.unpack('II', info.raw[60:])
entries = ctypes.create_string_buffer(b'filter', 40 + size)
entries[32:36] = struct.pack('I', size)
get(97, entries)
blob = bytearray(entries.raw[40:])
def rules():
    at = 0
    while at < size:
        yield at
        at += struct.unpack_from('H', blob, at + 166)[0]
if len(sys.argv) > 1:
    # The third is the policy for what is forwarded: dropped.
    at = list(rules())[2]
    struct.pack_into('i', blob, at + struct.unpack_from('H', blob, at + 164)[0] + 32, -1)
    old = ctypes.create_string_buffer(16 * n)
    s.setsockopt(0, 96, b'filter'.ljust(32, b'\\0') + places[:4] + struct.pack('II', n, size)
                 + places[4:] + struct.pack('=IQ', n, ctypes.addressof(old)) + bytes(blob))
    s.setsockopt(0, 97, b'filter'.ljust(32, b'\\0') + struct.pack('II', n, 0)
                 + b''.join(struct.pack('QQ', 7 + i, 700 + i) for i in range(n)))
else:
    for at in rules():
        blob[at + 168:at + 172] = bytes(4)
    print(places.hex(), blob.hex())
'''


def test_iptables(case):
    """The older kind, which knows nothing of nftables."""
    begin(case, 'iptables-legacy', 'ip6tables-legacy')
    prepare(case, '''
        iptables-legacy -A INPUT -p tcp --dport 8000 -m limit --limit 3000/min -j DROP -c 5 500
        iptables-legacy -A INPUT -p udp -m multiport --dports 1,2,3 -m conntrack --ctstate NEW -j REJECT
        iptables-legacy -N chain
        iptables-legacy -A chain -s 10.9.0.0/16 -i eth+ -m comment --comment "a word" -j RETURN
        iptables-legacy -I FORWARD -g chain
        iptables-legacy -P FORWARD DROP
        iptables-legacy -t nat -A POSTROUTING -p tcp -o eth0 -j SNAT --to-source 10.0.0.1:1000-2000
        iptables-legacy -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
        iptables-legacy -t raw -A PREROUTING -p udp --dport 5 -j CT --notrack
        ip6tables-legacy -A INPUT -p icmpv6 --icmpv6-type echo-request -j ACCEPT -c 1 100
        ip6tables-legacy -A INPUT -p tcp --dport 80 -m hashlimit --hashlimit-above 10/sec --hashlimit-mode srcip --hashlimit-name foo -j DROP''')
    if case.reprise('exec', 'old', 'python3', '-c', ARP)[0] == 0:
        inside(case, 'old', 'python3', '-c', ARP, 'set')

    def saved(name):
        text = ''.join(inside(case, name, command, '-c')
                       for command in ('iptables-legacy-save', 'ip6tables-legacy-save'))
        # The interface itself sends what IPv6 needs.
        text = re.sub(r'^(:OUTPUT ACCEPT|#).*\n', '', text, flags=re.M)
        return text + case.reprise('exec', name, 'python3', '-c', ARP)[1]
    before = saved('old')
    again(case)
    compare(before, saved('new'))

    def dropped():
        return int(re.search(r'\[(\d+):\d+\] .*dport 8000', saved('new'))[1]) - 5
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(('10.1.2.2', 8000))
    case.until(dropped, 'what comes is dropped and counted')
    client.close()
    inside(case, 'new', 'iptables-legacy', '-D', 'INPUT', '1')
    if not answers():
        raise Failed('the rule is still there')
    stop(case)


ECHO = '''
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9001))
while True:
    data, address = s.recvfrom(100)
    s.sendto(b"heard " + data, address)
'''


def test_tracked(case):
    """A flow goes on whose addresses are translated, and which no rule would let begin any more."""
    begin(case, 'nft', 'conntrack', first="python3 -c '%s' &" % ECHO)
    prepare(case, """
        nft 'add table ip t; add chain ip t pre { type nat hook prerouting priority dstnat; }'
        nft 'add rule ip t pre udp dport 9000 redirect to :9001'
        nft 'add chain ip t in { type filter hook input priority 0; }'
        nft 'add rule ip t in ct state established accept; add rule ip t in udp dport 9001 ct mark set 7'""")
    clients = []
    for i in range(2):
        clients.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        clients[i].connect(('10.1.2.2', 9000))
        clients[i].settimeout(20)

    def speak(text):
        clients[0].send(text)
        if clients[0].recv(100) != b'heard ' + text:
            raise Failed('another answer')
    # It may not have bound its socket yet.
    for _ in range(100):
        try:
            speak(b'first')
            break
        except ConnectionRefusedError:
            case.until(lambda: True, 'it')
    prepare(case, '''
        nft flush chain ip t pre
        nft 'add rule ip t in udp dport { 9000, 9001 } counter drop'
        conntrack -I -s 10.5.0.1 -d 10.6.0.1 -p tcp --sport 1000 --dport 80 --state ESTABLISHED -t 1000 -u ASSURED,SEEN_REPLY -m 5
        conntrack -I -s 10.5.0.1 -d 10.6.0.2 -p udp --sport 5 --dport 6 -t 2000 --src-nat 10.1.2.2:7777
        conntrack -I -s 10.5.0.1 -d 10.6.0.2 -p tcp --sport 5 --dport 6 -t 2000 --state SYN_RECV --dst-nat 10.9.9.9:99
        conntrack -I -s 10.5.0.1 -d 10.6.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 2000 --src-nat 10.1.2.2
        conntrack -I -s 2001:db8::1 -d 2001:db8::2 -p udp --sport 5 --dport 6 -t 2000 --src-nat 2001:db8::3''')

    def tracked(name):
        text = ''.join(inside(case, name, 'conntrack', '-L', '-f', family)
                       for family in ('ipv4', 'ipv6'))
        return '\n'.join(sorted(re.sub(r'^(\w+ +\d+) \d+', r'\1', line)
                                for line in text.split('\n') if 'dport=8000' not in line))
    speak(b'second')
    before = tracked('old')
    if before.count('src=') != 12 or 'mark=7' not in before:
        raise Failed('there are others: %s' % before)
    again(case)
    compare(before, tracked('new'))
    speak(b'third')
    clients[1].send(b'new')
    case.until(lambda: 'packets 1 ' in inside(case, 'new', 'nft', 'list', 'chain', 'ip', 't', 'in'),
               'another flow may not begin')
    # A copy beside it has not what belongs to the address of the original.
    good(case.reprise('restart', '-i', case.path('image'), '-q', '-d', '--name', 'copy', '--net',
                      'veth=10.7.0.2/30'))
    there = tracked('copy')
    if 'src=10.5.0.1 dst=10.6.0.1' not in there or '10.1.2.2' in there:
        raise Failed('the copy has %s' % there)
    good(case.reprise('stop', '-t', '0', 'copy'))
    good(case.reprise('rm', 'copy'))
    stop(case)


test_tracked.timeout = 60


def test_within(case):
    """Rules of a network namespace that only some tasks of the container have."""
    begin(case, 'nft', first='''unshare -n sh -c '
        nft add table ip inner; nft add chain ip inner c
        nft add rule ip inner c tcp dport 7 counter packets 5 bytes 7 drop
        printf inner > /proc/self/comm; while :; do sleep 1000; done' &''')

    def pid():
        found = [p for p in map(int, filter(str.isdigit, os.listdir('/proc')))
                 if case.comm(p) == 'inner']
        return str(found[0]) if found else None
    case.until(pid, 'the shell')

    def rules():
        return good(case.run(['/usr/bin/nsenter', '-n', '-t', pid(), 'nft', '-s', 'list', 'ruleset']))
    before = rules()
    if 'dport 7' not in before:
        raise Failed('no rule')
    again(case)
    compare(before, rules())
    stop(case)
