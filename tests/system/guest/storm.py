"""Runs in the guest: a process named "storm" that opens 20 connections a second to itself, until it is killed."""

import socket
import time
from pathlib import Path

Path("/proc/self/comm").write_text("storm", encoding="ascii")
with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
    while True:
        with socket.create_connection(server.getsockname()):
            server.accept()[0].close()
        time.sleep(0.05)
