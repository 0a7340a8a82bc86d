"""What is measured on demand: response latency of each exchange, and UDP of each process."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest


@pytest.fixture
def following(reader):
    """Return a reader that follows messages."""
    assert reader.ask("follow") == {"follows": True}
    return reader


def serve(server, pause):
    with contextlib.suppress(OSError):
        accepted = server.accept()[0]
        with accepted:
            while accepted.recv(1):
                time.sleep(pause)
                accepted.sendall(b"y")


@pytest.mark.everywhere
def test_each_exchange_has_its_latency_at_the_client(following):
    exchanges, pause = 101, 0.005
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server, pause), daemon=True).start()
        with socket.create_connection(server.getsockname()) as client:
            took = []
            for _ in range(exchanges):
                client.sendall(b"x")
                began = time.monotonic()
                assert client.recv(1) == b"y"
                took.append(time.monotonic() - began)
            row = following.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert row["count"] == exchanges
    assert pause <= row["min"]
    assert row["max"] <= max(took) + 0.05
    assert row["p50"] == pytest.approx(sorted(took)[exchanges // 2], abs=0.005)


def test_a_request_written_in_pieces_and_an_answer_read_in_pieces_is_one_exchange(following):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            for piece in (b"a", b"b", b"c"):
                client.sendall(piece)
                time.sleep(0.05)
            accepted.recv(10)
            accepted.sendall(b"answer")
            client.recv(3, socket.MSG_PEEK)
            client.recv(3)
            client.recv(3)
            row = following.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert row["count"] == 1
    assert 0.05 <= row["max"] < 5  # since the last piece


def test_what_was_sent_before_nobody_followed_is_no_exchange(reader):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            client.sendall(b"q")
            accepted.recv(1)
            reader.ask("follow")
            accepted.sendall(b"a")
            client.recv(1)
            row = reader.by_port(client.getsockname()[1], "ESTABLISHED")

    assert row["response_latency"] is None


def test_what_was_sent_while_it_was_followed_before_is_no_exchange(reader):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            reader.ask("follow")
            client.sendall(b"q")
            reader.ask("unfollow")
            accepted.recv(1)
            accepted.sendall(b"a")
            client.recv(1)
            client.sendall(b"q")
            reader.ask("follow")
            accepted.recv(1)
            accepted.sendall(b"a")
            client.recv(1)
            row = reader.by_port(client.getsockname()[1], "ESTABLISHED")

    assert row["response_latency"] is None


def test_answers_of_a_connection_that_ended_in_the_same_tick_are_there(following):
    count = 53
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for _ in range(count):
            thread = threading.Thread(target=serve, args=(server, 0))
            thread.start()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x")
                client.recv(1)
            thread.join()
        following.until_closed(2 * count, port)
    rows = following.ask("read")["by_process"]
    latencies = [
        row["response_latency"]["count"] for row in rows if row["pid"] == os.getpid() and row["direction"] == "out"
    ]

    assert latencies == [count]


@pytest.mark.everywhere
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_udp_of_each_process_is_exact(following, family, host):
    script = """
import socket, sys
family, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = socket.socket(family, socket.SOCK_DGRAM)
for size in range(1, 102):
    client.sendto(b"d" * size, (host, port))
    client.recv(10)
"""
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        command = [sys.executable, "-c", script, str(int(family)), host, str(server.getsockname()[1])]
        with subprocess.Popen(command) as client:
            for _ in range(101):
                _, peer = server.recvfrom(1000)
                server.sendto(b"ok", peer)
    rows = following.ask("read")["by_process"]
    names = [f"udp_{what}_{way}" for what in ("bytes", "datagrams") for way in ("sent", "received")]
    shown = {True: "ipv4", False: "ipv6"}[family == socket.AF_INET]
    counted = {
        row["pid"]: [row[name] for name in names] for row in rows if row["family"] == shown and row["udp_bytes_sent"]
    }

    assert counted[client.pid] == [101 * 102 // 2, 202, 101, 101]
    assert counted[os.getpid()] == [202, 101 * 102 // 2, 101, 101]
