"""A process with a given name that makes traffic with itself, and counts it.

Argument: its name. Commands, one a line on standard input, each answered with one JSON object of all counts so far:
`once`: one exchange; `for SECONDS RATE`: mixed traffic, about RATE connections a second; `names COUNT`: COUNT
exchanges, each as a process called NAME-NUMBER.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter

PR_SET_NAME = 15
REQUEST, RESPONSE = 1_009, 4_001


class CountedLoad:
    """Has both ends of every connection, so that each byte sent is received."""

    def __init__(self, name):
        self.name = name
        self.counts = Counter()
        self._random = random.Random(name)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self._refused = closed.getsockname()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._held = []

    def set_name(self, name):
        ctypes.CDLL(None).prctl(PR_SET_NAME, os.fsencode(name), 0, 0, 0)

    def once(self):
        self._exchange(self._random.randrange(1, 3_000), self._random.randrange(1, 9_000))

    def run_for(self, seconds, rate):
        began, number = time.monotonic(), 0
        self._hold()
        while time.monotonic() - began < float(seconds):
            self._mix(number)
            number += 1
            time.sleep(max(0.0, began + number / float(rate) - time.monotonic()))

    def names(self, count):
        for number in range(int(count)):
            self.set_name(f"{self.name}-{number}")
            self._exchange(REQUEST, RESPONSE)
        self.set_name(self.name)

    def _mix(self, number):
        if number % 10 < 7:
            self.once()
        elif number % 10 == 7:
            self._reset()
        elif number % 10 == 8:
            self._refuse()
        else:
            self._udp.sendto(b"x" * 100, self._udp.getsockname())
            self._udp.recv(200)

    def _pair(self):
        client = socket.create_connection(self._listener.getsockname())
        self.counts.update(connects=1, accepts=1)
        return client, self._listener.accept()[0]

    def _hold(self):
        # Unread bytes stay in a receive queue.
        client, server = self._pair()
        self._move(client, None, 700)
        self._held += [client, server]

    def _exchange(self, request, response):
        client, server = self._pair()
        self._move(client, server, request)
        self._move(server, client, response)
        client.close()
        server.close()

    def _reset(self):
        client, server = self._pair()
        self._move(client, server, 500)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        server.close()
        self.counts.update(resets_sent=1)

    def _refuse(self):
        self.counts.update(connects=1, connect_failures=1)
        try:
            socket.create_connection(self._refused).close()
        except ConnectionRefusedError:
            return
        raise SystemExit("a closed port accepted a connection")

    def _move(self, sender, reader, size):
        sender.sendall(b"x" * size)
        left = size if reader else 0
        while left:
            left -= len(reader.recv(left))
        self.counts.update(bytes_sent=size, bytes_received=size)


def main():
    load = CountedLoad(sys.argv[1])
    load.set_name(sys.argv[1])
    orders = {"once": load.once, "for": load.run_for, "names": load.names}
    for line in sys.stdin:
        order, *arguments = line.split()
        orders[order](*arguments)
        print(json.dumps(load.counts), flush=True)


if __name__ == "__main__":
    main()
