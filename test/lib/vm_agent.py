#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine of test/vm: runs a command for each connection. The request is one line
of JSON; what follows is the command's input. The answer is its output, then a zero byte and its
exit status. When the other side goes, so does the command."""

import json
import os
import select
import signal
import socketserver
import subprocess
import threading


class Handler(socketserver.StreamRequestHandler):
    rbufsize = 0  # what follows the request is the command's

    def handle(self):
        request = json.loads(self.rfile.readline())
        process = subprocess.Popen(['/bin/bash', '-c', request['command']], cwd=request.get('cwd', '/root'),
                                   stdin=self.connection if request.get('input') else subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        watched = [process.stdout] if request.get('input') else [process.stdout, self.connection]
        try:
            while True:
                readable, _, _ = select.select(watched, [], [], 0.5)
                if process.stdout in readable:
                    data = os.read(process.stdout.fileno(), 1 << 16)
                    if not data:
                        break
                    self.connection.sendall(data)
                elif self.connection in readable:
                    raise ConnectionError
                elif process.poll() is not None:
                    break  # something in the background still has its output
            status = process.wait()
            self.connection.sendall(b'\0%d\n' % (status if status >= 0 else 128 - status))
        except ConnectionError:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == '__main__':
    server = Server(('0.0.0.0', 7000), Handler)
    with open('/dev/ttyS0', 'w') as console:
        print('the virtual machine listens', file=console, flush=True)
    threading.Thread(target=server.serve_forever).start()
