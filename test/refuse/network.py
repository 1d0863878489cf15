# SPDX-License-Identifier: Apache-2.0
"""What a network namespace may hold that cannot be saved: refused by name."""

import os
import subprocess

import bpf
import case as cases
from case import Failed, Skipped
from contained import good


def refused(case, commands, *words):
    if not os.path.exists('/usr/sbin/ip'):
        raise Skipped('no iproute2')
    cases.own_network()
    tool = case.spawn(['/usr/bin/unshare', '--pid', '--fork', '--mount-proc', '--net',
                       '/usr/bin/sleep', '1000'])
    path = '/proc/%d/task/%d/children' % (tool, tool)
    case.until(lambda: os.path.exists(path) and open(path).read(), 'the first process')
    first = open(path).read().strip()
    case.until(lambda: open('/proc/%s/comm' % first).read() == 'sleep\n', 'the program')
    for command in commands:
        if callable(command):
            command(first)
            continue
        code, _, err = case.run(['/usr/bin/nsenter', '-n', '-t', first] + command.split())
        if code and ('Unknown device type' in err or 'not supported' in err or 'No such file' in err or
                     'kind is unknown' in err or 'classifier' in err):
            raise Skipped(err.strip())
        if code:
            raise Failed('%s: %s' % (command, err))
    case.refused(case.reprise('checkpoint', first, '-o', case.path('image')), 'container-state',
                 *words)
    case.expect_files()
    code, _, err = case.reprise('check', first)
    if code != 1 or not all(word in err for word in words):
        raise Failed('check: %d, %s' % (code, err))
    case.kill_all()
    case.reap()


def test_kind(case):
    refused(case, ['ip link add d0 type ifb', 'ip link add v0 link d0 type macvtap'], 'v0', 'macvtap')


def in_network(first, do):
    """In the network namespace of a process, and back."""
    ours = os.open('/proc/self/ns/net', os.O_RDONLY)
    theirs = os.open('/proc/%s/ns/net' % first, os.O_RDONLY)
    try:
        if bpf.LIBC.setns(theirs, 0):
            raise Failed('setns: %s' % os.strerror(bpf.ctypes.get_errno()))
        do()
    except OSError as error:
        raise Skipped('it cannot be attached here: %s' % error) from error
    finally:
        bpf.LIBC.setns(ours, 0)
        os.close(ours)
        os.close(theirs)


def attach_dissector(first):
    program = bpf.load(22, 17)  # BPF_PROG_TYPE_FLOW_DISSECTOR, BPF_FLOW_DISSECTOR
    in_network(first, lambda: bpf.attach(0, program, 17))
    os.close(program)


def attach_to_loopback(first):
    program = bpf.load(3)  # BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_EGRESS of interface 1
    in_network(first, lambda: bpf.attach(1, program, 47))
    os.close(program)


def test_flow_dissector(case):
    refused(case, [attach_dissector], 'BPF_FLOW_DISSECTOR')


def test_program_of_interface(case):
    refused(case, [attach_to_loopback], 'tcx, egress', 'lo')


def test_tunnel_elsewhere(case):
    """Made here, so that it sends from here."""
    refused(case, [lambda first: good(case.run(['/usr/sbin/ip', 'link', 'add', 'v0', 'netns', first, 'type', 'vxlan', 'id',
                                                '3', 'dstport', '4789']))], 'v0', 'by way of another network namespace')


def test_tunnel_networks(case):
    refused(case, ['ip link add v0 type vxlan external vnifilter dstport 4789'], 'v0', 'vnifilter')


def test_queueing_sizes(case):
    refused(case, ['ip link add d0 type ifb',
                   'tc qdisc add dev d0 root stab overhead 8 linklayer ethernet tbf rate 1mbit burst 10k latency 9ms'],
            'd0', 'tbf', 'sizes')


def test_queueing_kind(case):
    refused(case, ['ip link add d0 type ifb', 'tc qdisc add dev d0 root cake'], 'd0', 'cake')


def test_queueing_netem(case):
    refused(case, ['ip link add d0 type ifb', 'tc qdisc add dev d0 root netem delay 10ms 2ms distribution normal'],
            'd0', 'netem', 'distributed')


def test_filter_tables(case):
    refused(case, ['tc qdisc add dev lo clsact',
                   'tc filter add dev lo ingress prio 5 handle 2: protocol ip u32 divisor 256'],
            'lo', 'u32', 'hashes')


def test_filter_gone(case):
    refused(case, ['tc qdisc add dev lo clsact',
                   'tc filter add dev lo ingress prio 5 protocol ip u32 match u32 0 0 classid 1:1',
                   'tc filter add dev lo ingress prio 6 protocol ip u32 match u32 0 0 classid 1:2',
                   'tc filter del dev lo ingress prio 5'], 'lo', 'u32', 'removed')


def test_filter_kind(case):
    refused(case, ['tc qdisc add dev lo clsact', 'tc filter add dev lo egress protocol ip flower dst_ip 10.0.0.1 classid 1:1'],
            'lo', 'flower')


# A program of the newer kind, for what comes in at lo.
FILTER = """
import ctypes, os, socket, struct
instructions = ctypes.create_string_buffer(struct.pack('=BBhiBBhi', 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b'GPL')
attr = struct.pack('=IIQQ', 3, 2, ctypes.addressof(instructions), ctypes.addressof(license)).ljust(120, b'\\0')
fd = ctypes.CDLL(None).syscall(321, 5, attr, len(attr))
if fd < 0:
    raise SystemExit('not supported')
def attribute(type, data):
    return (struct.pack('HH', 4 + len(data), type) + data).ljust((7 + len(data)) // 4 * 4, b'\\0')
body = struct.pack('=BxxxiIII', 0, 1, 0, 0xfffffff2, 5 << 16 | 0x0300) + attribute(1, b'bpf\\0') + attribute(
    2, attribute(6, struct.pack('I', fd)) + attribute(7, b'some\\0'))
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.send(struct.pack('IHHII', 16 + len(body), 44, 0x605, 0, 0) + body)
error, = struct.unpack('i', s.recv(1000)[16:20])
if error:
    raise SystemExit('not supported: %d' % error)
"""


def test_filter_program(case):
    refused(case, ['tc qdisc add dev lo clsact', program(case, FILTER)], 'lo', 'bpf', 'no classic one')


def test_next_hop(case):
    refused(case, ['ip link set lo up', 'ip nexthop add id 7 via 127.0.0.2 dev lo',
                   'ip nexthop add id 8 group 7 type resilient buckets 8'], 'next hop', 'attribute')


def test_ipsec(case):
    refused(case, ['ip xfrm policy add dir out src 1.2.3.4 dst 5.6.7.8 action block'],
            'policies of IPsec')


def test_encapsulation(case):
    refused(case, ['ip link set lo up', 'ip route add 10.0.0.0/8 encap ip id 3 dst 127.0.0.2 dev lo'],
            'route', 'attribute')


def test_vlan_filter(case):
    refused(case, ['ip link add b0 type bridge vlan_filtering 1'], 'b0', 'VLAN')


def test_group_member(case):
    refused(case, ['ip link add b0 type bridge', 'ip link set b0 up', 'ip link add v0 type veth peer name v1',
                   'ip link set v0 master b0 up',
                   'bridge mdb add dev b0 port v0 grp 239.1.1.1 permanent'], 'multicast group', 'b0')


def test_group_address(case):
    refused(case, ['ip link add d0 type veth peer name d1', 'ip maddress add 33:33:00:00:00:77 dev d0'],
            'address of a group', 'd0')


def test_endpoint(case):
    refused(case, ['ip mptcp endpoint add 10.1.1.1 signal'], 'MPTCP')


def test_segment_routing(case):
    refused(case, ['ip sr tunsrc set 2001:db8::7'], 'segment routing')


def test_fou(case):
    load('fou')
    refused(case, ['ip fou add port 5555 ipproto 4'], 'FOU')


def test_l2tp(case):
    load('l2tp_netlink')
    refused(case, ['ip link set lo up',
                   'ip l2tp add tunnel tunnel_id 3 peer_tunnel_id 4 encap udp local 127.0.0.1 remote '
                   '127.0.0.2 udp_sport 5000 udp_dport 6000'], 'L2TP')


def load(*modules):
    """Where the kernel has them as modules."""
    if os.path.exists('/proc/modules') and os.path.exists('/sbin/modprobe'):
        for module in modules:
            subprocess.run(['/sbin/modprobe', '-q', module], check=False)


def program(case, text):
    def run(first):
        code, _, err = case.run(['/usr/bin/nsenter', '-n', '-t', first, '/usr/bin/python3', '-c', text])
        if 'Protocol not available' in err or 'not supported' in err:
            raise Skipped('the kernel does not have it')
        if code:
            raise Failed(err)
    return run


# IP_VS_SO_SET_ADD: TCP to 10.1.1.1:80, in turn.
IPVS = '''
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_IP, 1024 + 64 + 64 + 2, struct.pack(
    '=H2x4s2s2xI16sIII', 6, socket.inet_aton('10.1.1.1'), struct.pack('>H', 80), 0, b'rr', 0, 0, 0))
'''


def test_ipvs(case):
    load('ip_vs', 'ip_vs_rr')
    refused(case, [program(case, IPVS)], 'IPVS')


# EBT_SO_SET_ENTRIES: nothing is forwarded any more. Three chains: in, forward, out.
EBTABLES = '''
import ctypes, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
chains = b''.join(struct.pack('=I32sIiI', 0, name, 0, policy, 0) for name, policy in (
    (b'INPUT', -1), (b'FORWARD', %d), (b'OUTPUT', -1)))
entries = ctypes.create_string_buffer(chains, len(chains))
at = ctypes.addressof(entries)
s.setsockopt(socket.SOL_IP, 128, struct.pack('@32sIII6PIPP', b'filter', 0xe, 0, len(chains), 0, at, at + 48,
                                             at + 96, 0, 0, 0, 0, at) + chains)
'''


def test_ebtables(case):
    load('ebtable_filter')
    refused(case, [program(case, EBTABLES % -2)], 'ebtables', 'filter')


def test_ebtables_untouched(case):
    """A table without rules is nothing to be refused."""
    load('ebtable_filter')
    refused(case, [program(case, EBTABLES % -1), 'ip mptcp endpoint add 10.1.1.1 signal'], 'MPTCP')


def test_elsewhere(case):
    """The other end of a pair is in the namespace of a third."""
    os.makedirs('/tmp', exist_ok=True)
    other = case.spawn(['/usr/bin/unshare', '--net', '/usr/bin/sleep', '1000'])
    case.until(lambda: case.comm(other) == 'sleep', 'another namespace')
    refused(case, ['ip link add v0 type veth peer name v1', 'ip link set v1 netns %d' % other],
            'v0', 'namespace')


def test_nftables_extension(case):
    refused(case, ['iptables-nft -A INPUT -m recent --name x --set -j DROP'], 'filter', 'recent')


OWNER = '''
import socket, struct, time
def message(type, flags, body):
    return struct.pack('IHHII', 16 + len(body), type, 1 | flags, 0, 0) + body
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
table = struct.pack('BBH', 1, 0, 0) + struct.pack('HH4s', 8, 1, b'own\\0') \
    + struct.pack('HH', 8, 2) + struct.pack('>I', 2)
s.send(message(16, 0, struct.pack('>BBH', 0, 0, 10)) + message(10 << 8, 0x400, table)
       + message(17, 0, struct.pack('>BBH', 0, 0, 10)))
open('/proc/self/comm', 'w').write('owner')
time.sleep(1000)
'''


def test_nftables_owner(case):
    """A table that goes with a socket, here of a process outside."""
    def own(first):
        pid = case.spawn(['/usr/bin/nsenter', '-n', '-t', first, '/usr/bin/python3', '-c', OWNER])
        case.until(lambda: case.comm(pid) == 'owner' or case.ended(pid), 'the owner')
    refused(case, [own], 'own', 'owner')


def test_iptables(case):
    refused(case, ['iptables-legacy -A INPUT -m quota --quota 1000 -j DROP'], 'iptables', 'filter', 'quota')


# A message of nfnetlink: of which subsystem, which one, and attributes.
MESSAGE = '''
import socket, struct, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
def attribute(type, data):
    return (struct.pack('HH', 4 + len(data), type) + data).ljust((7 + len(data)) // 4 * 4, b'\\0')
def send(subsystem, type, body):
    body = struct.pack('BBH', 2, 0, 0) + body
    s.send(struct.pack('IHHII', 16 + len(body), subsystem << 8 | type, 0x605, 0, 0) + body)
    error, = struct.unpack('i', s.recv(1000)[16:20])
    sys.exit('not supported' if error == -22 else error)
'''


def message(case, text):
    def send(first):
        code, _, err = case.run(['/usr/bin/nsenter', '-n', '-t', first, '/usr/bin/python3', '-c',
                                 MESSAGE + text])
        if code and 'not supported' in err:
            raise Skipped(err)
        if code:
            raise Failed('%d: %s' % (code, err))
    return send


def test_ipset(case):
    refused(case, [message(case, "send(6, 2, attribute(1, b'\\6') + attribute(2, b'some\\0') + attribute("
                           "3, b'hash:ip\\0') + attribute(4, b'\\0') + attribute(5, b'\\2') + attribute(0x8007, b''))")],
            'ipset', 'some')


def test_nfacct(case):
    refused(case, ['iptables-legacy -A INPUT -j DROP', message(case, "send(7, 0, attribute(1, b'some\\0'))")],
            'nfacct')
