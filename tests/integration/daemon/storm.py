"""A process with a given name that opens connections to itself on command, so that rules of the daemon fire.

Argument: its name. Commands, one a line on standard input, each answered with "done": `rage RATE` opens RATE
connections a second from then on (0: none), `open COUNT` opens COUNT at once, `hold COUNT` opens COUNT and keeps them
open until `release`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import sys
import threading
import time

PR_SET_NAME = 15


class StormProcess:
    """Opens connections to its own listener."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._rate, self._due = 0.0, 0.0
        self._held = []
        threading.Thread(target=self._accept, daemon=True).start()

    def patience(self):
        """Return the seconds until the next connection is due; None for ever."""
        return max(0.0, self._due - time.monotonic()) if self._rate else None

    def connect_in_time(self):
        self._connect()
        self._due += 1 / self._rate

    def rage(self, rate):
        self._rate, self._due = float(rate), time.monotonic()

    def open(self, count):
        for _ in range(int(count)):
            self._connect()

    def hold(self, count):
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(int(count)):
                self._held.append(socket.create_connection(server.getsockname()))
                self._held.append(server.accept()[0])

    def release(self):
        while self._held:
            self._held.pop().close()

    def _connect(self):
        socket.create_connection(self._listener.getsockname()).close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()


def main():
    ctypes.CDLL(None).prctl(PR_SET_NAME, os.fsencode(sys.argv[1]), 0, 0, 0)
    storm_process = StormProcess()
    orders = {name: getattr(storm_process, name) for name in ("rage", "open", "hold", "release")}
    print("done", flush=True)
    while True:
        ordered, _, _ = select.select([sys.stdin], [], [], storm_process.patience())
        if not ordered:
            storm_process.connect_in_time()
            continue
        order = sys.stdin.readline().split()
        if not order:
            return
        orders[order[0]](*order[1:])
        print("done", flush=True)


if __name__ == "__main__":
    main()
