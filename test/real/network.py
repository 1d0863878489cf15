# SPDX-License-Identifier: Apache-2.0
"""Servers that are saved with their clients connected, and serve others afterwards."""

import os
import socket
import time

from case import Failed, Skipped

SERVER = r'''
import asyncio, sys

class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(b'heard ' + data, address)

async def serve(reader, writer):
    global served, lost
    try:
        while True:
            line = await reader.readline()
            if not line:
                break
            served += 1
            writer.write(b'%d %d %s' % (served, lost, line))
            await writer.drain()
    except ConnectionResetError:
        lost += 1
    writer.close()

async def main(port):
    await asyncio.get_running_loop().create_datagram_endpoint(
        Datagrams, local_addr=('127.0.0.1', port))
    server = await asyncio.start_server(serve, '127.0.0.1', port)
    async with server:
        await server.serve_forever()

served = lost = 0
asyncio.run(main(int(sys.argv[1])))
'''


def needs(program):
    if not os.path.exists(program):
        raise Skipped('no %s' % program)


def begin(case, argv):
    return case.spawn(argv, setsid=True)


def connect(case, port):
    def attempt():
        try:
            return socket.create_connection(('127.0.0.1', port), timeout=10)
        except ConnectionRefusedError:
            return None
    made = []
    case.until(lambda: made.append(attempt()) or made[-1], 'a server on port %d' % port)
    return made[-1]


def ask(client, text):
    client.sendall(text.encode())
    return client.recv(4096).decode()


def restarted(case, pid, clients, *args):
    """Saved and killed, which the clients notice, and brought back."""
    image = 'image.%d' % time.monotonic_ns()
    code, out, err = case.reprise('check', str(pid))
    case.refused((code, out, err.split('\n')[0]), 'tcp-connection', '--tcp=closed')
    case.checkpoint(pid, '--kill', '-q', '--tcp=closed', image=image)
    case.wait(pid)
    for client in clients:
        try:
            client.recv(1)
            raise Failed('a client did not notice')
        except ConnectionResetError:
            client.close()
    return case.restart(*args, image=image)


def test_redis_clients(case):
    needs('/usr/bin/redis-server')
    server = '/usr/bin/redis-server'
    pid = begin(case, [server, '--port', '6379', '--bind', '127.0.0.1', '--save', '', '--dir',
                       case.work, '--appendonly', 'no'])
    clients = [connect(case, 6379) for _ in range(20)]
    if ask(clients[0], 'SET key value\r\n') != '+OK\r\n':
        raise Failed('the server does not work')
    tool = restarted(case, pid, clients, '--pidns')
    clients = [connect(case, 6379) for _ in range(20)]
    if ask(clients[3], 'GET key\r\n') != '$5\r\nvalue\r\n':
        raise Failed('the key is not there')
    count = ask(clients[4], 'INFO clients\r\n')
    if 'connected_clients:20\r\n' not in count:
        raise Failed('not all clients are known to have gone: %s' % count)
    clients[0].sendall(b'SHUTDOWN NOSAVE\r\n')
    case.wait(tool)


def test_python_clients(case):
    """One that counts, over TCP and UDP."""
    pid = begin(case, ['/usr/bin/python3', '-c', SERVER, '4321'])
    clients = [connect(case, 4321) for _ in range(3)]
    for i, client in enumerate(clients):
        answer = ask(client, 'hello\n')
        if answer != '%d 0 hello\n' % (i + 1):
            raise Failed(answer)
    tool = restarted(case, pid, clients, '--pidns')
    client = connect(case, 4321)
    answer = ask(client, 'again\n')
    if answer != '4 3 again\n':
        raise Failed('served and lost: %s' % answer)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.settimeout(10)
    datagrams.sendto(b'me', ('127.0.0.1', 4321))
    if datagrams.recv(100) != b'heard me':
        raise Failed('no answer by UDP')
    os.kill(tool, 15)
    case.wait(tool)


for test in [value for name, value in list(globals().items()) if name.startswith('test_')]:
    test.network = True
