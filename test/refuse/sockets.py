# SPDX-License-Identifier: Apache-2.0
"""Sockets in states that cannot be saved: refused by name, by check and by checkpoint."""

import os
import socket

from case import NOBODY, Failed, Skipped, system


def start(case, state):
    return case.start(program=os.path.join(case.build, 'test/lib/sockets'), arguments=[state])


def look(case, pid, *args):
    yield case.reprise('check', str(pid), *args)[0::2]
    yield case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q', *args)[0::2]


def refused(case, state, code, *words):
    pid = start(case, state)
    for status, err in look(case, pid):
        # The first, where several are in the way.
        case.refused((status, '', err.split('\n')[0]), code, pid, *words)
    case.expect_files()
    case.finish(pid)


def needs_kernel_memory():
    if not os.path.exists('/sys/kernel/btf/vmlinux'):
        raise Skipped('the memory of this kernel cannot be read')


def test_tcp_established(case):
    refused(case, 'tcp-established', 'tcp-connection', '127.0.0.1', 'established', '--tcp=closed')


def test_mptcp_established(case):
    refused(case, 'mptcp-established', 'tcp-connection', '127.0.0.1', 'established', '--tcp=closed')


def test_tcp_backlog(case):
    refused(case, 'tcp-backlog', 'tcp-connection', '1 connections', '--tcp=closed')


def test_tcp_connecting(case):
    """By no request of an io_uring."""
    refused(case, 'tcp-connecting', 'tcp-connection', '127.0.0.1', 'connecting', '--tcp=closed')


def test_tcp_failed(case):
    refused(case, 'tcp-failed', 'tcp-connection', '--tcp=closed')


def test_tcp_check_of_closed(case):
    pid = start(case, 'tcp-established')
    code, out, err = case.reprise('check', str(pid), '--tcp=closed')
    if code:
        raise Failed('exit status %d: %s' % (code, err))
    case.finish(pid)


def test_udp_error(case):
    refused(case, 'udp-error', 'file-state', 'error')


def test_udp_notice(case):
    refused(case, 'udp-notice', 'file-state', 'error')


def test_raw_notice(case):
    refused(case, 'raw-notice', 'file-state', 'notice')


def test_udp_stamped(case):
    refused(case, 'udp-stamped', 'file-state', 'time stamp')


def test_udp_path(case):
    needs_kernel_memory()
    refused(case, 'udp-path', 'file-state', 'IPV6_RECVPATHMTU', 'notice')


def test_udp_path_of_an_ordinary_user(case):
    pid = case.start(program=os.path.join(case.build, 'test/lib/sockets'), arguments=['udp-path'], uid=NOBODY)
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q', uid=NOBODY),
                 'permission', pid, 'IPV6_RECVPATHMTU')
    case.finish(pid)


def test_udp_corked(case):
    refused(case, 'udp-corked', 'file-state', 'UDP_CORK')


def test_udp_tunnel(case):
    refused(case, 'udp-tunnel', 'file-state', 'UDP_ENCAP')


def test_udp_empty_once(case):
    """An empty datagram among others is shown once: the second checkpoint must not miss it."""
    pid = start(case, 'udp-empty')
    case.checkpoint(pid, '-q')
    os.unlink(case.path('image'))
    for status, err in list(look(case, pid))[1:]:
        case.refused((status, '', err), 'file-state', pid, 'once')
    case.finish(pid)


def test_raw_stamped(case):
    needs_kernel_memory()
    refused(case, 'raw-stamped', 'file-state', 'SO_TIMESTAMP')


def test_raw_tunnel(case):
    needs_kernel_memory()
    refused(case, 'raw-tunnel', 'file-state', 'protocol 47')


def test_reuseport_program(case):
    needs_kernel_memory()
    refused(case, 'reuseport-program', 'file-kind', 'a map of a BPF program')


def test_reuseport_order(case):
    needs_kernel_memory()
    refused(case, 'reuseport-order', 'file-state', 'SO_ATTACH_REUSEPORT_CBPF', 'order')


def test_tcp_keys(case):
    refused(case, 'tcp-keys', 'file-state', 'TCP_MD5SIG')


def test_tcp_keys_early(case):
    needs_kernel_memory()
    refused(case, 'tcp-keys-early', 'file-state', 'TCP_MD5SIG')


def test_policy_of_ipsec(case):
    needs_kernel_memory()
    refused(case, 'udp-policy', 'file-state', 'IP_XFRM_POLICY')


def test_flow_label(case):
    needs_kernel_memory()
    refused(case, 'udp-label', 'file-state', 'IPV6_FLOWLABEL_MGR')


def test_router_alert(case):
    refused(case, 'raw-alert', 'file-state', 'IPV6_ROUTER_ALERT')


def test_multicast_router(case):
    refused(case, 'raw-router4', 'file-state', 'MRT_INIT')


def test_multicast_router_v6(case):
    refused(case, 'raw-router6', 'file-state', 'MRT_INIT')


def test_other_namespace(case):
    refused(case, 'other-namespace', 'file-state', 'another network namespace')


def test_packet_queue(case):
    refused(case, 'packet-queue', 'file-state', 'packets')


def test_packet_ring(case):
    refused(case, 'packet-ring', 'file-state', 'PACKET_TX_RING')


def test_netlink_queue(case):
    refused(case, 'netlink-queue', 'file-state', 'messages')


def test_unknown_family(case):
    try:
        socket.socket(44, socket.SOCK_RAW, 0).close()
    except OSError as err:
        raise Skipped('no AF_XDP: %s' % err)
    refused(case, 'xdp', 'file-kind', 'family 44', 'AF_XDP', 'descriptor')


def test_netlink_netfilter(case):
    refused(case, 'netlink-netfilter', 'file-kind', 'protocol 12')


def test_flight(case):
    refused(case, 'flight-first', 'file-kind', 'in flight', 'perf_event')


def test_flight_behind(case):
    """Check cannot look behind the first message that carries a descriptor while the task runs."""
    pid = start(case, 'flight-second')
    code, out, err = case.reprise('check', str(pid))
    if code:
        raise Failed('exit status %d: %s' % (code, err))
    case.refused(case.reprise('checkpoint', str(pid), '-o', case.path('image'), '-q'), 'file-kind',
                 'in flight', 'perf_event')
    case.expect_files()
    case.finish(pid)


def test_unix_covered(case):
    pid = start(case, 'unix-covered')
    where = '/proc/%d/cwd/covered' % pid
    system('mount', b'none', where.encode(), b'tmpfs', 0, None)
    for status, err in look(case, pid):
        case.refused((status, '', err), 'file-state', pid, 'covered/socket', 'mounted')
    case.expect_files()
    case.finish(pid)


def test_unix_error(case):
    refused(case, 'unix-error', 'file-state', 'error')


for test in [value for name, value in list(globals().items()) if name.startswith('test_')]:
    test.network = True
