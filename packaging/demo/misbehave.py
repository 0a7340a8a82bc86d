"""The demo's misbehaving processes: `demo-storm` opens connections to itself, `demo-spike` sends bytes to itself.

Arguments: one of these two names, and the seconds to run. Prints "begins" when it begins.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator

CONNECTIONS_A_SECOND = 300
BYTES_A_SECOND = 400_000_000
CHUNK = bytes(4_000_000)


def paced(seconds: float, times_a_second: float) -> Iterator[int]:
    """Yield `times_a_second` times a second, for `seconds`."""
    began = time.monotonic()
    for number in range(int(seconds * times_a_second)):
        time.sleep(max(0.0, began + number / times_a_second - time.monotonic()))
        yield number


def storm(seconds: float) -> None:
    """Open and close connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=accept, daemon=True).start()
        for _ in paced(seconds, CONNECTIONS_A_SECOND):
            socket.create_connection(server.getsockname()).close()


def spike(seconds: float) -> None:
    """Send bytes through one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted = server.accept()[0]

    def drain() -> None:
        buffer = bytearray(1 << 20)
        while accepted.recv_into(buffer):
            pass

    threading.Thread(target=drain, daemon=True).start()
    for _ in paced(seconds, BYTES_A_SECOND / len(CHUNK)):
        client.sendall(CHUNK)
    client.close()


if __name__ == "__main__":
    print("begins", flush=True)
    {"demo-storm": storm, "demo-spike": spike}[sys.argv[1]](float(sys.argv[2]))
