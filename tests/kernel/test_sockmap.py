"""Sockets in a sockmap: their messages pass from socket to socket, past the counters of TCP, and this is known."""

import ctypes
import os
import platform
import socket
import struct
import time

import pytest

CALL_NUMBERS = {"x86_64": 321, "aarch64": 280}  # of bpf(2)
MAP_CREATE, MAP_UPDATE, PROG_LOAD, PROG_ATTACH = 0, 2, 5, 8
SOCKMAP, SK_MSG, SK_MSG_VERDICT = 15, 16, 7


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(CALL_NUMBERS[platform.machine()], command, ctypes.create_string_buffer(attributes, 128), 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def instruction(code, to, source, value):
    return struct.pack("<BBhi", code, to | source << 4, 0, value)


class Sockmap:
    """A sockmap whose program passes each message of the socket at 0 or 1 to the other one, to be received there."""

    def __init__(self):
        self.fd = bpf(MAP_CREATE, struct.pack("IIIII", SOCKMAP, 4, 4, 2, 0))

    def redirect_to(self, index):
        program = b"".join(
            [  # return bpf_msg_redirect_map(message, sockmap, index, BPF_F_INGRESS)
                instruction(0x18, 2, 1, self.fd),
                instruction(0, 0, 0, 0),
                instruction(0xB7, 3, 0, index),
                instruction(0xB7, 4, 0, 1),
                instruction(0x85, 0, 0, 60),
                instruction(0x95, 0, 0, 0),
            ]
        )
        code, gpl = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
        attributes = struct.pack("<IIQQ", SK_MSG, len(program) // 8, ctypes.addressof(code), ctypes.addressof(gpl))
        verdict = bpf(PROG_LOAD, attributes)
        bpf(PROG_ATTACH, struct.pack("IIII", self.fd, verdict, SK_MSG_VERDICT, 0))
        os.close(verdict)

    def add(self, index, end):
        key, value = ctypes.c_uint32(index), ctypes.c_uint32(end.fileno())
        bpf(MAP_UPDATE, struct.pack("<I4xQQQ", self.fd, ctypes.addressof(key), ctypes.addressof(value), 0))


@pytest.fixture
def reader(start_reader):
    """Return a collecting process of the test alone: the count of connections in sockmaps is of the whole host."""
    return start_reader()


@pytest.fixture
def sockmap():
    try:
        sockmap = Sockmap()
    except OSError as error:
        pytest.skip(f"no sockmap: {error}")
    yield sockmap
    os.close(sockmap.fd)


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        with accepted:
            yield client, accepted


def found(reader):
    reader.rows()
    return reader.quality["sockmap_connections"]


def test_both_ends_of_a_redirected_connection_are_known_while_they_live(reader, sockmap, pair):
    assert found(reader) == 0
    for index, end in enumerate(pair):
        sockmap.add(index, end)

    assert found(reader) == 2


def test_one_end_in_a_sockmap_is_one_connection(reader, sockmap, pair):
    sockmap.add(0, pair[0])

    assert found(reader) == 1


def test_a_listener_in_a_sockmap_and_its_children_are_not_in_it(reader, sockmap):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sockmap.add(0, server)
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            assert found(reader) == 0


def test_a_connection_keeps_the_mark_to_its_end(reader, sockmap, pair):
    sockmap.add(0, pair[0])
    port = pair[0].getsockname()[1]
    assert found(reader) == 1
    for end in pair:
        end.close()
    reader.until_closed(2, port)

    assert reader.quality["sockmap_connections"] >= 2  # in the pass, and at its end


def test_a_connection_that_its_peer_closes_within_a_tick_is_known(reader, sockmap, pair):
    sockmap.add(0, pair[0])
    port = pair[0].getsockname()[1]
    pair[1].close()
    assert pair[0].recv(1) == b""
    pair[0].close()
    reader.until_closed(2, port)

    assert reader.quality["sockmap_connections"] >= 1


@pytest.mark.usefixtures("message_tracepoints")
def test_with_message_probes_a_short_connection_is_known_whoever_closes_it(reader, sockmap, pair):
    reader.request("enable")
    sockmap.add(0, pair[0])
    port = pair[0].getsockname()[1]
    pair[0].sendall(b"x")
    pair[1].recv(1)
    for end in pair:
        end.close()
    reader.until_closed(2, port)

    assert reader.quality["sockmap_connections"] >= 1


@pytest.mark.usefixtures("message_tracepoints")
def test_responses_that_are_redirected_are_timed(reader, sockmap, pair):
    reader.request("enable")
    client, accepted = pair
    sockmap.redirect_to(0)
    for index, end in enumerate(pair):
        sockmap.add(index, end)
    for _ in range(7):
        client.sendall(b"x")  # to itself: the program redirects every message to the client
        assert client.recv(1) == b"x"
        accepted.sendall(b"y")
        time.sleep(0.001)
        assert client.recv(1) == b"y"
    row = reader.by_port(client.getsockname()[1], "ESTABLISHED")

    assert row["response_latency"]["count"] == 7


def test_a_row_has_no_bytes_only_where_a_sockmap_can_have_passed_some(reader, sockmap, pair):
    sockmap.add(0, pair[0])
    pair[0].sendall(b"x" * 97)
    pair[1].recv(97, socket.MSG_WAITALL)
    port = pair[0].getsockname()[1]
    rows = reader.rows(port)

    assert [rows.where(local_port=port)[0][name] for name in ("bytes_sent", "bytes_received")] == [None, None]
    assert [rows.where(remote_port=port)[0][name] for name in ("bytes_sent", "bytes_received")] == [0, 97]
