"""The command `sample`: a limit leaves out rows and changes no total; tables fit the terminal."""

import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
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
    more = re.match(r"… and ([\d,]+) more rows", table.splitlines()[21])
    assert int(more[1].replace(",", "")) >= 2 * COUNT - 20
    assert int(re.search(r"(\d+) bytes sent", table)[1]) >= COUNT * SIZE


def read_terminal(leader):
    parts = []
    try:
        while part := os.read(leader, 65_536):
            parts.append(part)
    except OSError:  # the command has ended
        pass
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_tables_fit_the_terminal_and_have_their_time_rates_and_selected_rows():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        options = ("--every", "3s", "--for", "6s", "--where", f"remote_port={port}", "--sort", "packets_sent")
        with subprocess.Popen(
            [COMMAND, "sample", *options], stdout=follower, stderr=subprocess.PIPE, text=True, env=environment
        ) as sample:
            os.close(follower)
            assert sample.stderr.readline().startswith("watching every TCP connection")
            for _ in range(COUNT):
                connect(server)
            output = read_terminal(leader)
        os.close(leader)
    lines = output.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("process ")]

    assert sample.returncode == 0
    assert all(len(line) <= 80 for line in lines)
    assert len(heads) == 2
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, over [\d.]+ s", lines[head - 1]) for head in heads)
    assert lines[heads[0]].split()[:4] == ["process", "remote", "bytes_sent", "rate"]
    assert "packets_sent" in lines[heads[0]].split()
    rows = [line for line in lines if f"127.0.0.1:{port} " in line]
    assert rows
    assert all(re.search(r" 101 B +[\d.]+ B/s", row) for row in rows)
    assert sum(map(int, re.findall(r"(\d+) bytes sent", output))) == COUNT * SIZE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "proces=nginx"], '--where: .*did you mean "?process'),
        (["--where", "process"], "--where: .*is not a matcher"),
        (["--where", "local_port=99999"], "--where: local_port: .*maximum is 65535"),
        (["--sort", "retransmit"], '--sort: .*did you mean "?retransmits'),
        (["--by", "process", "--by", "unit"], "--by: given 2 times; write --by process,unit"),
    ],
)
def test_wrong_options_are_refused_with_the_remedy(options, message):
    refused = subprocess.run([COMMAND, "sample", *options], capture_output=True, text=True, check=False)

    assert refused.returncode == 2
    assert re.search(message, refused.stderr)
