"""Sockets without memory for an entry in socket storage are followed, or lost under the name of their process.

The kernel charges entries to the option memory of the socket (net.core.optmem_max, of a network namespace since Linux
6.8): without any, no entry can be made.
"""

import socket
import subprocess
from pathlib import Path

import pytest

CLIENT = """
import json, socket, sys
def say(**facts):
    print(json.dumps(facts), flush=True)
    sys.stdin.readline()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
streams = []
for _ in range(7):
    client = socket.create_connection(("127.0.0.1", port))
    streams.append((client, server.accept()[0]))
    client.sendall(b"b" * 1009)
    streams[-1][1].recv(1009, socket.MSG_WAITALL)
say(port=port)
for client, accepted in streams:
    client.sendall(b"b" * 1009)
    accepted.recv(1009, socket.MSG_WAITALL)
say()
for client, accepted in streams:
    client.close()
    accepted.recv(1)
    accepted.close()
for _ in range(5):
    with socket.socket() as refused:
        refused.connect_ex(("127.0.0.1", 1))
say()
"""
CROWD = """
import json, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (9000, 9000))
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
clients = [socket.create_connection(server.getsockname()) for _ in range(2200)]
print(json.dumps({}), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def starved(namespace):
    """Return a network namespace whose sockets have no option memory."""
    probe = namespace.command("sh", "-c", "echo 0 > /proc/sys/net/core/optmem_max")
    before = Path("/proc/sys/net/core/optmem_max").read_text(encoding="ascii")
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("net.core.optmem_max is not of a network namespace before Linux 6.8")
    assert Path("/proc/sys/net/core/optmem_max").read_text(encoding="ascii") == before
    with socket.socket() as here:  # this namespace is not affected
        here.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x00")
    return namespace


def test_connections_without_option_memory_are_followed_with_their_bytes_and_their_process(reader, starved):
    client = starved.run("python3", "-c", CLIENT)
    port = client.receive()["port"]
    open_rows = reader.until(lambda rows: len(rows.where(state="ESTABLISHED")) == 14, port).where(state="ESTABLISHED")
    first = open_rows.total("bytes_sent")
    client.proceed()
    client.receive()
    live = reader.rows(port).where(state="ESTABLISHED")
    client.proceed()
    client.receive()
    reader.until(lambda rows: rows.total("closes") >= 14, port)
    rows = reader.until(lambda rows: rows.total("connect_failures") == 5, netns=starved.inode)

    assert (first, live.total("bytes_sent"), live.total("bytes_received")) == (7 * 1009, 2 * 7 * 1009, 2 * 7 * 1009)
    assert [rows.total(name) for name in ("connects", "established", "accepts", "closes")] == [12, 14, 7, 19]
    assert rows.total("bytes_sent") == rows.total("bytes_received") == 2 * 7 * 1009
    assert {row["pid"] for row in rows if row["closes"]} == {client.pid}
    assert {reader.quality[name] for name in ("storage_failed", "ledger_full", "sums_full", "missed_events")} == {0}


def test_connects_beyond_all_memory_count_as_lost_for_their_process(start_reader, starved):
    reader = start_reader()
    crowd = starved.run("python3", "-c", CROWD)
    crowd.receive()
    totals = reader.totals_until(lambda of: of(crowd.pid)["connects"] >= 2200)(crowd.pid)

    assert totals["connects"] == 2200
    assert reader.quality["storage_failed"] > 0
    crowd.proceed()
    crowd.end()
    # Their entries are free again.
    client = starved.run("python3", "-c", CLIENT)
    port = client.receive()["port"]
    assert len(reader.until(lambda rows: len(rows.where(state="ESTABLISHED")) == 14, port)) >= 14
