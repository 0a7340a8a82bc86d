"""Where the kernel refuses the iterator over sockets, the walk over files reports them."""

import json
import subprocess
import sys

import pytest

# The loader in this process, with a kernel that refuses; prints what two readings show of the server's port.
REFUSED = """
import json, socket, sys, tempfile
from pathlib import Path
from watchdog.clock import SystemClock
from watchdog.config.map_sizes import DEFAULT_MAP_SIZES
from watchdog.kernel import handover, loader
from watchdog.kernel.collector import Collector
def refuse(*_):
    raise OSError(95, "refused by the test")
loader._attach_socket_iterator = refuse
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with tempfile.TemporaryDirectory() as folder:
    loader.write_sources(Path(folder))
    loaded = loader.compile_and_load(Path(folder), DEFAULT_MAP_SIZES)
    handover.send(there, loaded.fds, loaded.optional)
collector = Collector(handover.receive(here), SystemClock())
collector.read()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
client = socket.create_connection(("127.0.0.1", port))
def report():
    live = collector.read().live
    rows = live[(live["local_port"] == port) | (live["remote_port"] == port)]
    print(json.dumps(sorted([int(row["state"]), int(row["bytes_sent"]), int(row["flags"])] for row in rows)))
report()
accepted = server.accept()[0]
client.sendall(b"f" * 1009)
accepted.recv(1009, socket.MSG_WAITALL)
report()
print(json.dumps(collector.socket_iterator_problem))
collector.close()
"""


@pytest.mark.everywhere
def test_without_an_iterator_over_sockets_those_with_a_file_are_reported():
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    waiting, accepted, problem = map(json.loads, done.stdout.splitlines())

    established, listener = 1, 10
    assert waiting == [[established, 0, 1], [listener, 0, 0]]
    assert accepted == [[established, 0, 2], [established, 1009, 1], [listener, 0, 0]]
    assert "refused by the test" in problem
