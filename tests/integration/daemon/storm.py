"""A process that calls itself as told and opens connections to itself as told, so that the daemon has a culprit.

Argument: its name. Orders, a line each on standard input, each answered by "done": `rage RATE` opens so many
connections a second from then on (0: none), `open COUNT` opens so many at once.
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


def main():
    ctypes.CDLL(None).prctl(PR_SET_NAME, os.fsencode(sys.argv[1]), 0, 0, 0)
    server = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    def connect():
        socket.create_connection(server.getsockname()).close()

    threading.Thread(target=accept, daemon=True).start()
    print("done", flush=True)
    rate, due = 0.0, 0.0
    while True:
        ordered, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()) if rate else None)
        if not ordered:
            connect()
            due += 1 / rate
            continue
        order = sys.stdin.readline().split()
        if not order:
            return
        if order[0] == "rage":
            rate, due = float(order[1]), time.monotonic()
        else:
            for _ in range(int(order[1])):
                connect()
        print("done", flush=True)


if __name__ == "__main__":
    main()
