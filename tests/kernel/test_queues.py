"""Queue lengths equal those of the kernel and of the program itself."""

import contextlib
import fcntl
import socket
import struct
import termios
import time

import pytest


def unread(connection):
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]


def unacknowledged(connection):
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]


def read_unchanged(connection, peer, read):
    """Return the kernel's lengths and the result of `read`, from a moment in which the kernel moved no bytes.

    Probes of a closed window move some now and then, at growing intervals.
    """
    for _ in range(100):
        before = unacknowledged(connection), unread(peer)
        time.sleep(0.05)
        result = read()
        if (unacknowledged(connection), unread(peer)) == before:
            break
    return before, result


def test_unread_bytes_are_in_both_queues(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(b"s" * 65_536)
            own_port = client.getsockname()[1]
            expected, (sender, receiver) = read_unchanged(
                client, accepted, lambda: [reader.by_port(one, "ESTABLISHED") for one in (own_port, port)]
            )

    assert (sender["send_queue"], receiver["receive_queue"]) == expected
    assert expected[1] > 0
    assert (sender["receive_queue"], receiver["send_queue"]) == (0, 0)


@pytest.mark.everywhere
def test_the_listener_has_its_accept_queue_and_its_drops(reader):
    with socket.create_server(("127.0.0.1", 0), backlog=4) as server, contextlib.ExitStack() as clients:
        port = server.getsockname()[1]
        before = reader.by_port(port, "LISTEN")
        for _ in range(2):
            clients.enter_context(socket.create_connection(("127.0.0.1", port)))
        half = reader.by_port(port, "LISTEN")
        for _ in range(12):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        full = reader.by_port(port, "LISTEN")

    assert before["accept_queue"]["max"] == 0
    assert half["accept_queue"]["max"] == 2 / 5  # the kernel accepts one more than the limit
    assert full["accept_queue"]["max"] == 1
    assert (before["listen_drops"], half["listen_drops"]) == (0, 0)
    assert full["listen_drops"] >= 9


@pytest.mark.everywhere
def test_a_leak_of_connections_closed_by_the_peer_is_visible_by_state(reader):
    count = 7
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:
        port = server.getsockname()[1]
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            held.enter_context(server.accept()[0])
            client.close()
        row = reader.by_port(port, "CLOSE_WAIT")

    assert row["open"] == count
