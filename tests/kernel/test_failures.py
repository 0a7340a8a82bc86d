"""Failed connects and broken connections count with their cause, for the process that made them."""

import contextlib
import os
import socket
import struct
import subprocess
import time

import pytest

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with a timeout of 0


@pytest.fixture
def full_queue():
    """Return the address of a listener whose accept queue is full: it drops every further SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as fillers:
        for _ in range(2):
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                filler.connect(server.getsockname())
        yield server.getsockname()


@pytest.mark.everywhere
def test_refused_connects_are_counted_as_refused(reader):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for _ in range(23):
            with socket.socket() as client, contextlib.suppress(ConnectionRefusedError):
                client.connect(("127.0.0.1", port))
    rows = reader.until_closed(23, port)

    assert [rows.total(name) for name in ("connects", "established", "closes", "connect_failures")] == [23, 0, 23, 23]
    assert (rows.values("failure"), rows.values("pid")) == ({"refused"}, {os.getpid()})


def test_a_connect_without_a_response_is_counted_as_timeout(reader, full_queue):
    before = reader.rows(full_queue[1]).total("connects")
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        with pytest.raises(TimeoutError):
            client.connect(full_queue)
    rows = reader.until(lambda rows: rows.where(failure="timeout"), full_queue[1]).where(failure="timeout")

    assert before <= 2
    assert [(row["connect_failures"], row["established"], row["pid"]) for row in rows] == [(1, 0, os.getpid())]


def test_an_abandoned_connect_is_counted_as_aborted(reader, full_queue):
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(full_queue) != 0
    rows = reader.until(lambda rows: rows.where(failure="aborted"), full_queue[1]).where(failure="aborted")

    assert [(row["connect_failures"], row["established"], row["pid"]) for row in rows] == [(1, 0, os.getpid())]


def test_an_unreachable_host_is_counted_as_unreachable(reader):
    # A separate link, and an address that no host on it has: the neighbour search fails.
    script = """
import socket
client = socket.socket()
client.settimeout(20)
try:
    client.connect(("192.0.2.77", 9))
except OSError as error:
    print(error.errno)
"""
    commands = (
        "ip link set lo up && ip link add left type veth peer name right && ip addr add 192.0.2.1/24 dev left && "
        'ip link set left up && ip link set right up && exec /usr/bin/python3 -c "$SCRIPT"'
    )
    outcome = subprocess.run(
        ["unshare", "--net", "sh", "-c", commands], env=os.environ | {"SCRIPT": script}, capture_output=True, check=True
    )
    assert outcome.stdout.split() == [b"113"]  # EHOSTUNREACH
    rows = reader.rows().where(remote="192.0.2.77")

    assert [(row["failure"], row["connect_failures"], row["process"]) for row in rows] == [
        ("unreachable", 1, "python3")
    ]


@pytest.mark.everywhere
def test_a_connection_reset_before_the_peer_sent_a_byte_is_a_failed_connect(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for _ in range(19):
            with socket.create_connection(("127.0.0.1", port)) as client:
                accepted = server.accept()[0]
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                accepted.close()
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
    rows = reader.until_closed(38, port)
    out, incoming = rows.where(direction="out"), rows.where(direction="in")

    assert [out.total(name) for name in ("connects", "established", "connect_failures", "resets_received")] == [19] * 4
    assert out.values("failure") == {"reset"}
    assert [incoming.total(name) for name in ("accepts", "resets_sent", "connect_failures")] == [19, 19, 0]
    assert rows.values("pid") == {os.getpid()}


def test_a_reset_in_the_middle_is_no_failed_connect(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted = server.accept()[0]
            accepted.sendall(b"hello")
            assert client.recv(100) == b"hello"
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    rows = reader.until_closed(2, port)
    out = rows.where(direction="out")

    assert (out.values("failure"), out.total("connect_failures"), out.total("bytes_received")) == ({"reset"}, 0, 5)


@pytest.mark.parametrize(
    ("payload", "seconds"), [(b"m" * 700, 0.0), (b"m" * 700, 1.3), (b"", 1.3)], ids=["stream", "old stream", "idle"]
)
def test_a_reset_of_a_connection_in_use_is_no_failed_connect(reader, payload, seconds):
    """One-way streams and idle connections: the peer acknowledged bytes, or the connection lived for a second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted = server.accept()[0]
            client.sendall(payload)
            time.sleep(max(seconds, 0.2))
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    out = reader.until_closed(2, port).where(direction="out")

    assert (out.values("failure"), out.total("connect_failures"), out.total("resets_received")) == ({"reset"}, 0, 1)


def test_a_reset_after_our_own_close_is_no_failed_connect(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        accepted = server.accept()[0]
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        accepted.close()
        client.close()
    out = reader.until_closed(2, port).where(direction="out")

    assert (out.values("failure"), out.total("connect_failures")) == ({"reset"}, 0)


@pytest.mark.everywhere
def test_close_with_unread_data_sends_a_reset_that_is_counted(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"never read")
            accepted = server.accept()[0]
            accepted.recv(1, socket.MSG_PEEK)
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    rows = reader.until_closed(2, port)

    assert rows.where(direction="in").total("resets_sent") == 1
    assert rows.where(direction="out").total("resets_received") == 1
    assert (rows.total("bytes_sent"), rows.total("bytes_received")) == (10, 10)


def test_connections_that_wait_in_the_accept_queue_are_not_accepted(reader):
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        port = server.getsockname()[1]
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        waiting = reader.rows(port)
        server.accept()[0].close()
        for client in clients:
            client.close()
    rows = reader.until_closed(10, port)

    # Both ends, at once: the server is too busy to accept.
    assert (waiting.total("established"), waiting.total("accepts")) == (10, 0)
    assert waiting.values("pid") == {os.getpid()}
    assert (rows.total("established"), rows.total("accepts"), rows.total("closes")) == (10, 1, 10)
