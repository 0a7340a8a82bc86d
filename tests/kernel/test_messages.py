"""Measured on demand: response latency of each exchange, and UDP of each process."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time

import pytest

IPPROTO_MPTCP = 262


@pytest.fixture
def probing_reader(reader):
    """Return a reader with enabled message probes."""
    assert reader.request("enable")["message_probes_enabled"]
    return reader


def test_without_free_descriptors_all_of_them_are_off_until_the_next_attempt(reader):
    for left in (0, 1, 2):
        answer = reader.request(f"enable with {left}")
        assert answer["message_probes_enabled"] is False
        assert "Too many open files" in answer["problem"]
    assert reader.request("enable with 60") == {"message_probes_enabled": True, "problem": ""}


def serve(server, pause):
    with contextlib.suppress(OSError):
        accepted = server.accept()[0]
        with accepted:
            while accepted.recv(1):
                time.sleep(pause)
                accepted.sendall(b"y")


@pytest.mark.everywhere
def test_each_exchange_has_its_latency_at_the_client(probing_reader):
    exchanges, pause = 101, 0.005
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server, pause), daemon=True).start()
        with socket.create_connection(server.getsockname()) as client:
            durations = []
            for _ in range(exchanges):
                client.sendall(b"x")
                began = time.monotonic()
                assert client.recv(1) == b"y"
                durations.append(time.monotonic() - began)
            row = probing_reader.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert row["count"] == exchanges
    assert pause <= row["min"]
    assert row["max"] <= max(durations) + 0.05
    assert row["p50"] == pytest.approx(sorted(durations)[exchanges // 2], abs=0.005)


def test_a_request_written_in_pieces_and_a_response_read_in_pieces_are_one_exchange(probing_reader):
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
            row = probing_reader.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert row["count"] == 1
    assert 0.05 <= row["max"] < 5  # since the last piece


def receive_by_recv(client, size):
    return len(client.recv(size))


def receive_into_a_buffer(client, size):
    return client.recvmsg_into([bytearray(size)])[0]


def receive_without_copy(client, size):
    return len(client.recv(size, socket.MSG_TRUNC))


def receive_by_splice(client, size):
    reading, writing = os.pipe()
    moved = os.splice(client.fileno(), writing, size)
    os.close(reading)
    os.close(writing)
    return moved


def receive_urgent(client, size):
    select.select([], [], [client], 5)
    return len(client.recv(size, socket.MSG_OOB))


@pytest.mark.parametrize("send", ["sendall", "sendfile"])
@pytest.mark.parametrize("receive", [receive_by_recv, receive_into_a_buffer, receive_without_copy, receive_by_splice])
def test_a_response_is_timed_however_it_is_received(probing_reader, tmp_path, send, receive):
    exchanges, pause = 11, 0.005
    (tmp_path / "request").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server, pause), daemon=True).start()
        with socket.create_connection(server.getsockname()) as client, (tmp_path / "request").open("rb") as request:
            for _ in range(exchanges):
                client.sendall(b"x") if send == "sendall" else os.sendfile(client.fileno(), request.fileno(), 0, 1)
                assert receive(client, 1) == 1
            row = probing_reader.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert row["count"] == exchanges
    assert pause / 2 <= row["min"]  # the server can wake before the send returns, from when the latency counts


@pytest.mark.parametrize("receive", [receive_by_recv, receive_by_splice])
def test_a_peek_is_no_response(probing_reader, receive):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            client.sendall(b"x")
            accepted.recv(1)
            accepted.sendall(b"y")
            assert client.recv(1, socket.MSG_PEEK) == b"y"
            peeked = probing_reader.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]
            assert receive(client, 1) == 1
            row = probing_reader.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert peeked is None
    assert row["count"] == 1


@pytest.mark.usefixtures("message_tracepoints")
def test_urgent_data_is_a_response(probing_reader):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            client.sendall(b"x")
            accepted.recv(1)
            accepted.send(b"!", socket.MSG_OOB)
            assert receive_urgent(client, 1) == 1
            row = probing_reader.by_port(client.getsockname()[1], "ESTABLISHED")["response_latency"]

    assert row["count"] == 1


@pytest.mark.parametrize("receive", [receive_by_recv, receive_by_splice])
def test_each_response_over_mptcp_is_timed_or_counted_as_unassigned(probing_reader, receive):
    exchanges = 23
    try:
        server, client = (socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) for _ in range(2))
    except OSError as error:
        pytest.skip(f"no socket of IPPROTO_MPTCP: {error}")
    with server, client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        threading.Thread(target=serve, args=(server, 0), daemon=True).start()
        client.connect(server.getsockname())
        for _ in range(exchanges):
            client.sendall(b"x")
            assert receive(client, 1) == 1
    time.sleep(0.5)  # so that the next reading has the ends of both subflows
    probing_reader.until_closed(2, port)
    answer = probing_reader.request("read")
    timed = {
        row["direction"]: row["response_latency"]["count"]
        for row in answer["by_process"]
        if row["pid"] == os.getpid() and row["response_latency"]
    }

    assert sum(timed.values()) + answer["quality"]["responses_unassigned"] == 2 * exchanges - 1
    assert timed == {"out": exchanges, "in": exchanges - 1}  # the server waits for a request after each response


def test_a_send_before_the_probes_were_enabled_starts_no_exchange(reader):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            client.sendall(b"q")
            accepted.recv(1)
            reader.request("enable")
            accepted.sendall(b"a")
            client.recv(1)
            row = reader.by_port(client.getsockname()[1], "ESTABLISHED")

    assert row["response_latency"] is None


def test_a_send_before_the_probes_were_disabled_and_enabled_again_starts_no_exchange(reader):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            reader.request("enable")
            client.sendall(b"q")
            reader.request("disable")
            accepted.recv(1)
            accepted.sendall(b"a")
            client.recv(1)
            client.sendall(b"q")
            reader.request("enable")
            accepted.recv(1)
            accepted.sendall(b"a")
            client.recv(1)
            row = reader.by_port(client.getsockname()[1], "ESTABLISHED")

    assert row["response_latency"] is None


def test_responses_of_a_connection_that_ended_in_the_same_tick_are_counted(probing_reader):
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
        probing_reader.until_closed(2 * count, port)
    rows = probing_reader.request("read")["by_process"]
    latencies = [
        row["response_latency"]["count"] for row in rows if row["pid"] == os.getpid() and row["direction"] == "out"
    ]

    assert latencies == [count]


@pytest.mark.parametrize(
    ("family", "host"),
    [pytest.param(socket.AF_INET, "127.0.0.1", marks=pytest.mark.everywhere), (socket.AF_INET6, "::1")],
)
def test_udp_of_each_process_is_exact(probing_reader, family, host):
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
    rows = probing_reader.request("read")["by_process"]
    names = [f"udp_{quantity}_{way}" for quantity in ("bytes", "datagrams") for way in ("sent", "received")]
    shown = {True: "ipv4", False: "ipv6"}[family == socket.AF_INET]
    counted = {
        row["pid"]: [row[name] for name in names] for row in rows if row["family"] == shown and row["udp_bytes_sent"]
    }

    assert counted[client.pid] == [101 * 102 // 2, 202, 101, 101]
    assert counted[os.getpid()] == [202, 101 * 102 // 2, 101, 101]
