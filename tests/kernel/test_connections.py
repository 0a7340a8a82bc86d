"""Counts, bytes and owners of connections equal those of the program that made them."""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

MANY = 1009  # a prime: no wrong multiple can be equal by chance
REQUEST, ANSWER = b"q" * 7, b"a" * 13

SERVER = """
import socket, sys
family, host, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
server = socket.create_server((host, 0), family=family, backlog=512, dualstack_ipv6=family == socket.AF_INET6)
print(server.getsockname()[1], flush=True)
for _ in range(count):
    connection, _ = server.accept()
    connection.recv(100)
    connection.sendall(b"a" * 13)
    connection.close()
"""


@contextlib.contextmanager
def server_process(family, host, count):
    command = [sys.executable, "-c", SERVER, str(int(family)), host, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, int(process.stdout.readline())
            process.wait(60)
        finally:
            process.kill()


def exchange(address, family):
    with socket.socket(family) as client:
        client.connect(address)
        client.sendall(REQUEST)
        received = 0
        while chunk := client.recv(100):
            received += len(chunk)
    assert received == len(ANSWER)


@pytest.mark.parametrize(
    ("family", "listen_on", "connect_to", "shown_family", "shown_address"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "ipv4", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1", "ipv6", "::1"),
        (socket.AF_INET6, "::", "::ffff:127.0.0.1", "ipv4", "127.0.0.1"),
    ],
    ids=["ipv4", "ipv6", "v4-mapped"],
)
def test_counts_bytes_and_owners_of_both_ends_are_exact(
    reader, family, listen_on, connect_to, shown_family, shown_address
):
    with server_process(family, listen_on, MANY) as (server, port):
        for _ in range(MANY):
            exchange((connect_to, port), family)
    rows = reader.until_closed(2 * MANY, port)
    out = rows.where(direction="out")
    incoming = rows.where(direction="in")

    assert (len(out), len(incoming)) == (MANY, MANY)
    assert {name: out.total(name) for name in ("connects", "established", "accepts", "closes", "connect_failures")} == {
        "connects": MANY,
        "established": MANY,
        "accepts": 0,
        "closes": MANY,
        "connect_failures": 0,
    }
    assert {name: incoming.total(name) for name in ("connects", "established", "accepts", "closes")} == {
        "connects": 0, "established": MANY, "accepts": MANY, "closes": MANY,
    }  # fmt: skip
    assert {(row["bytes_sent"], row["bytes_received"]) for row in out} == {(len(REQUEST), len(ANSWER))}
    assert {(row["bytes_sent"], row["bytes_received"]) for row in incoming} == {(len(ANSWER), len(REQUEST))}
    assert out.values("pid") == {os.getpid()}
    assert incoming.values("pid") == {server.pid}
    assert rows.values("exe") == {Path(sys.executable).resolve().name}
    assert rows.values("user") == {"root"}
    assert rows.values("family") == {shown_family}
    assert rows.values("remote") == {shown_address}
    assert rows.values("local") == {shown_address}
    assert all(row["connect_latency_us"] < 1_000_000 for row in out)
    assert not any(reader.quality.values())


@pytest.mark.everywhere
def test_connections_older_than_the_programs_are_baselines(start_reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            client.sendall(b"x" * 10_007)
            assert len(accepted.recv(10_007, socket.MSG_WAITALL)) == 10_007
            reader = start_reader()
            first = reader.rows(port)
            client.sendall(b"y" * 11)
            assert accepted.recv(100) == b"y" * 11
            later = reader.until(lambda rows: rows.total("bytes_received") >= 11, port)

    assert {first.total(name) for name in ("connects", "established", "accepts", "bytes_sent", "bytes_received")} == {0}
    assert (later.total("bytes_sent"), later.total("bytes_received")) == (11, 11)
    assert {row["direction"]: row["bytes_sent"] for row in later} == {"out": 11, "in": 0}


@pytest.mark.everywhere
def test_a_long_connection_counts_each_byte_once(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            sent = 0
            for size in (1, 4099, 65_537, 1_000_003):
                thread = threading.Thread(target=client.sendall, args=(b"z" * size,))
                thread.start()
                left = size
                while left:
                    left -= len(accepted.recv(min(left, 1 << 16)))
                thread.join()
                sent += size
                rows = reader.rows(port)
                assert (rows.total("bytes_sent"), rows.total("bytes_received")) == (sent, sent)
    rows = reader.until_closed(2, port)

    assert (rows.total("bytes_sent"), rows.total("bytes_received")) == (sent, sent)
    assert (rows.total("connects"), rows.total("accepts"), rows.total("closes")) == (1, 1, 2)


def test_bytes_sent_after_close_count_for_the_process_that_closed(reader):
    size = 3_000_017
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        client.setblocking(False)
        sent = 0
        with server.accept()[0] as accepted:
            with contextlib.suppress(BlockingIOError):
                while sent < size:
                    sent += client.send(b"w" * min(65_536, size - sent))
            client.close()
            reader.rows()  # the connection no longer has a file
            received = 0
            while chunk := accepted.recv(1 << 16):
                received += len(chunk)
    rows = reader.until_closed(2, port)

    assert received == sent
    by_direction = {row["direction"]: row for row in rows}
    assert by_direction["out"]["bytes_sent"] == by_direction["in"]["bytes_received"] == sent
    assert by_direction["out"]["pid"] == os.getpid()


@pytest.mark.everywhere
def test_a_socket_that_connects_again_is_a_new_connection(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.socket()
        for size in (5, 17):
            client.connect(("127.0.0.1", port))
            with server.accept()[0] as accepted:
                client.sendall(b"v" * size)
                assert len(accepted.recv(100)) == size
                # connect(AF_UNSPEC): tcp_disconnect() ends the connection with a reset and clears every counter
                unspecified = struct.pack("H14x", socket.AF_UNSPEC)
                assert ctypes.CDLL(None, use_errno=True).connect(client.fileno(), unspecified, 16) == 0
        client.close()
    rows = reader.until_closed(4, port)
    out = rows.where(direction="out")

    assert sorted(row["bytes_sent"] for row in out) == [5, 17]
    assert len(out.values("cookie")) == 1
    assert (out.total("connects"), out.total("closes")) == (2, 2)


@pytest.mark.everywhere
def test_a_socket_shared_by_many_processes_counts_once(reader):
    children = 10
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            go, wait = os.pipe()
            pids = []
            for _ in range(children):
                pid = os.fork()
                if pid == 0:
                    os.read(go, 1)
                    client.send(b"u" * 10)
                    os._exit(0)
                pids.append(pid)
            before = reader.rows(port)
            os.write(wait, b"g" * children)
            for pid in pids:
                os.waitpid(pid, 0)
            os.close(go)
            os.close(wait)
            left = 10 * children
            while left:
                left -= len(accepted.recv(left))
            rows = reader.rows(port)

    assert before.total("connects") == 1
    assert (len(rows), rows.total("bytes_sent"), rows.total("bytes_received")) == (2, 10 * children, 10 * children)
    assert rows.values("pid") == {os.getpid()}


def test_ten_thousand_connections_between_two_readings_are_all_counted(reader):
    count = 10_007
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        port = server.getsockname()[1]
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
                client.send(b"t")
                accepted.recv(1, socket.MSG_PEEK)  # wait for it: bytes that arrive after the close are not received
    rows = reader.until_closed(2 * count, port)

    # The server closes with an unread byte, which sends a reset: client and server still close once each.
    assert (rows.total("connects"), rows.total("accepts"), rows.total("closes")) == (count, count, 2 * count)
    assert (rows.total("bytes_sent"), rows.total("bytes_received")) == (count, count)
    assert rows.values("pid") == {os.getpid()}
    assert not any(reader.quality.values())


# Requested capacity, and number of records of 216 bytes that fit into its pages, where one byte stays free.
@pytest.mark.parametrize(("requested", "capacity"), [(8, 4095 // 216), (64, 16383 // 216)])
def test_totals_stay_exact_when_the_ledger_is_full(start_reader, requested, capacity):
    reader = start_reader(requested)
    with server_process(socket.AF_INET, "127.0.0.1", MANY) as (server, port):
        for _ in range(MANY):
            exchange(("127.0.0.1", port), socket.AF_INET)
    time.sleep(0.1)
    reader.rows()
    rows = reader.rows()
    mine, theirs = rows.where(pid=os.getpid()), rows.where(pid=server.pid)

    # Connections of other programs on the host can also be in the ledger.
    assert reader.quality.pop("ledger_full") >= 2 * MANY - capacity
    assert not any(reader.quality.values())
    assert 2 <= len(mine) + len(theirs) <= capacity + 2
    assert (mine.total("connects"), mine.total("closes"), theirs.total("accepts")) == (MANY, MANY, MANY)
    assert (mine.total("bytes_sent"), mine.total("bytes_received")) == (MANY * len(REQUEST), MANY * len(ANSWER))
    assert (theirs.total("bytes_sent"), theirs.total("bytes_received")) == (MANY * len(ANSWER), MANY * len(REQUEST))
