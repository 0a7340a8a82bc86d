"""The command `sample`: a limit leaves out rows and changes no total."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("bpf-watchdog")
COUNT, SIZE = 307, 101


def start_sample(*arguments):
    command = [COMMAND, "sample", "--for", "8s", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def connect(server):
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
        client.sendall(b"x" * SIZE)
        assert accepted.recv(SIZE, socket.MSG_WAITALL) == b"x" * SIZE


@pytest.mark.timeout(120)  # two loaders at once
def test_a_limit_changes_the_rows_and_no_total():
    with start_sample("--json") as everything, start_sample("--limit", "20") as shown:
        for sample in (everything, shown):
            assert sample.stderr.readline().startswith("watching every TCP connection")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            for _ in range(COUNT):
                connect(server)
        rows, table = json.loads(everything.communicate(timeout=60)[0]), shown.communicate(timeout=60)[0]

    assert [row["bytes_sent"] for row in rows if row["remote_port"] == port] == [SIZE] * COUNT
    assert [row["bytes_received"] for row in rows if row["local_port"] == port] == [SIZE] * COUNT
    more = re.match(r"… and (\d+) more rows", table.splitlines()[21])
    assert int(more[1]) >= 2 * COUNT - 20
    assert int(re.search(r"(\d+) bytes sent", table)[1]) >= COUNT * SIZE
