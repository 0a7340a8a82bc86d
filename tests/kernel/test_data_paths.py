"""Bytes count once, on every way into and out of a socket: expected values are the generators' own counts."""

import subprocess
import sys

import pytest


def flow(rows):
    """Return bytes sent and received of the client's end, then of the server's end."""
    out, incoming = rows.where(direction="out"), rows.where(direction="in")
    return [end.total(name) for end in (out, incoming) for name in ("bytes_sent", "bytes_received")]


def assert_totals_are_the_kernels(rows, totals):
    """Compare the sums of all rows of a network namespace with the kernel's own counters of it."""
    assert rows.total("connects") == totals["ActiveOpens"]
    assert rows.where(direction="in").total("established") == totals["PassiveOpens"]
    assert rows.total("retransmits") == totals["RetransSegs"]


@pytest.mark.parametrize(
    ("path", "cut_short"),
    [
        ("send", False),
        ("send-timeout", True),
        ("nonblocking", True),
        ("sendfile", False),
        ("splice-in", False),
        ("splice-out", False),
        ("zerocopy", False),
        ("urgent", False),
        ("discard", False),
    ],
)
def test_each_way_into_and_out_of_a_socket_counts_every_byte_once(reader, namespace, generator, path, cut_short):
    traffic = namespace.run(generator("data_paths"), path)
    reported = traffic.receive()
    expected = [reported["sent"], 0, 0, reported["sent"]]
    alive = reader.until(lambda rows: flow(rows) == expected, netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert reported["received"] == reported["sent"]
    assert (reported["cut_short"] > 0) == cut_short
    assert flow(alive) == expected
    assert alive.where(direction="in").values("state") == {
        "CLOSE_WAIT"
    }  # the client's FIN has arrived, and is not a byte
    assert flow(rows) == expected
    assert rows.values("pid") == {traffic.pid}
    assert_totals_are_the_kernels(rows, namespace.totals())
    assert not any(reader.quality.values())


@pytest.mark.everywhere
def test_bytes_by_io_uring_count_once(reader, namespace, generator):
    traffic = namespace.run(generator("uring"), "files")
    reported = traffic.receive()
    expected = [reported["sent"], 0, 0, reported["sent"]]
    alive = reader.until(lambda rows: flow(rows) == expected, netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert reported["received"] == reported["sent"]
    assert flow(alive) == flow(rows) == expected
    assert rows.values("pid") == {traffic.pid}
    assert_totals_are_the_kernels(rows, namespace.totals())


@pytest.mark.parametrize("ended_by", ["fixed", "exit"])
def test_sockets_held_only_by_a_ring_count_for_the_process_that_made_them(reader, namespace, generator, ended_by):
    traffic = namespace.run(generator("uring"), ended_by)
    reported = traffic.receive()
    expected = [reported["sent"], 0, 0, reported["sent"]]
    alive = reader.until(lambda rows: flow(rows) == expected, netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert flow(alive) == flow(rows) == expected
    assert alive.values("pid") == {traffic.pid}
    assert (rows.values("pid"), rows.values("process"), rows.values("exe")) == ({traffic.pid}, {"uring"}, {"uring"})
    assert rows.total("accepts") == 1
    assert_totals_are_the_kernels(rows, namespace.totals())


PAIR = """
import json, os, socket, sys
def unless(error):
    print(error, file=sys.stderr)
    sys.exit(77)
def report(**facts):
    print(json.dumps(facts), flush=True)
def wait():
    sys.stdin.readline()
"""
MPTCP = (
    PAIR
    + """
try:
    server, client = (socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) for _ in range(2))
except OSError as error:
    unless(f"no socket of IPPROTO_MPTCP: {error}")
server.bind(("127.0.0.1", 0))
server.listen()
if sys.argv[1] == "plain":
    client = socket.socket()
client.connect(server.getsockname())
accepted = server.accept()[0]
client.sendall(b"m" * 100_003)
left = 100_003
while left:
    left -= len(accepted.recv(left))
accepted.sendall(b"n" * 1009)
assert len(client.recv(1009, socket.MSG_WAITALL)) == 1009
report()
wait()
client.close()
assert accepted.recv(1) == b""
accepted.close()
server.close()
"""
)


@pytest.mark.parametrize("client", ["mptcp", "plain"])
def test_a_multipath_connection_counts_as_its_tcp_connections(reader, namespace, client):
    traffic = namespace.run(sys.executable, "-c", MPTCP, client)
    traffic.receive()
    expected = [100_003, 1009, 1009, 100_003]
    alive = reader.until(lambda rows: flow(rows) == expected, netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert flow(alive) == flow(rows) == expected
    assert alive.values("pid") == {traffic.pid}
    assert [alive.total(name) for name in ("connects", "accepts", "established", "closes")] == [1, 1, 2, 0]
    assert [rows.total(name) for name in ("connects", "accepts", "established", "closes")] == [1, 1, 2, 2]
    assert rows.values("pid") == {traffic.pid}
    assert_totals_are_the_kernels(rows, namespace.totals())


FAST_OPEN = (
    PAIR
    + """
TCP_FASTOPEN, MSG_FASTOPEN = 23, 0x20000000
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
server.listen()
received = 0
def connection(size):
    global received
    client = socket.socket()
    assert client.sendto(b"f" * size, MSG_FASTOPEN, server.getsockname()) == size
    accepted = server.accept()[0]
    while received < size:
        received += len(accepted.recv(size))
    received = 0
    accepted.sendall(b"o" * 17)
    assert len(client.recv(17, socket.MSG_WAITALL)) == 17
    for end in ((client, accepted) if size % 2 else (accepted, client)):
        end.close()
for size in (11, 501, 502, 1200):
    connection(size)
counters = [line.split() for line in open("/proc/net/netstat") if line.startswith("TcpExt:")]
report(**{name: int(value) for name, value in zip(*counters) if name.startswith("TCPFastOpen")})
wait()
"""
)


def test_data_in_the_syn_counts_like_other_data(reader, namespace):
    namespace.set("sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    traffic = namespace.run(sys.executable, "-c", FAST_OPEN)
    fast_open = traffic.receive()
    traffic.end()
    rows = reader.until_closed(8, netns=namespace.inode)

    # The first connection gets the cookie for the others.
    assert (fast_open["TCPFastOpenActive"], fast_open["TCPFastOpenPassive"]) == (3, 3)
    assert flow(rows) == [2214, 4 * 17, 4 * 17, 2214]
    assert sorted(row["bytes_sent"] for row in rows.where(direction="out")) == [11, 501, 502, 1200]
    assert [rows.total(name) for name in ("connects", "accepts", "established", "closes")] == [4, 4, 8, 8]
    assert rows.values("pid") == {traffic.pid}
    assert_totals_are_the_kernels(rows, namespace.totals())


SYN_RECV_SERVER = (
    PAIR
    + """
TCP_FASTOPEN, MSG_FASTOPEN = 23, 0x20000000
server = socket.socket()
server.bind(("127.0.0.1", 7001))
server.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
server.listen()
client = socket.socket()
assert client.sendto(b"f" * 1009, MSG_FASTOPEN, server.getsockname()) == 1009
accepted = server.accept()[0]
assert len(accepted.recv(1009, socket.MSG_WAITALL)) == 1009
report(state=accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
wait()
if sys.argv[1] == "answers":
    accepted.sendall(b"o" * 17)
accepted.close()
report()
wait()
"""
)


@pytest.mark.parametrize(("action", "answer"), [("answers", 17), ("closes", 0)])
@pytest.mark.parametrize("read_before", [True, False])
def test_a_fast_open_closed_by_the_server_before_the_handshake_ends_loses_no_byte(
    reader, namespace, action, answer, read_before
):
    namespace.set("sysctl", "-qw", "net.ipv4.tcp_fastopen=0x207")  # both ends, without a cookie
    drop = "tcp dport 7001 tcp flags & (syn | ack | fin | rst) == ack drop"
    try:
        namespace.set(
            "nft", f"add table t; add chain t c {{ type filter hook input priority 0; }}; add rule t c {drop}"
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nft can't drop segments here: {error.stderr.decode().strip()}")
    traffic = namespace.run(sys.executable, "-c", SYN_RECV_SERVER, action)
    assert traffic.receive() == {"state": 3}  # SYN_RECV: the last part of the handshake is lost
    if read_before:
        reader.rows()
    traffic.proceed()
    traffic.receive()
    namespace.set("nft", "delete table t")
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert flow(rows) == [1009, answer, answer, 1009]
    assert [rows.total(name) for name in ("connects", "accepts", "closes")] == [1, 1, 2]
    assert rows.values("pid") == {traffic.pid}


KERNEL_TLS = (
    PAIR
    + """
import struct
TCP_ULP, SOL_TLS, TLS_TX, TLS_RX, TLS_1_3, AES_GCM_128 = 31, 282, 1, 2, 0x0304, 51
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted = server.accept()[0]
try:
    for end in (client, accepted):
        end.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
except OSError as error:
    unless(f"no kernel TLS (CONFIG_TLS): {error}")
# struct tls12_crypto_info_aes_gcm_128 (include/uapi/linux/tls.h): version, cipher, iv, key, salt, record number
keys = struct.pack("HH8s16s4s8s", TLS_1_3, AES_GCM_128, b"i" * 8, b"k" * 16, b"s" * 4, bytes(8))
client.setsockopt(SOL_TLS, TLS_TX, keys)
accepted.setsockopt(SOL_TLS, TLS_RX, keys)
size = int(sys.argv[1])
assert client.send(b"t" * size) == size
left = size
while left:
    left -= len(accepted.recv(left))
report()
wait()
client.close()
accepted.close()
"""
)


def test_kernel_tls_counts_payload_and_records(reader, namespace):
    size, record, overhead = 100_003, 16_384, 5 + 1 + 16  # RFC 8446 section 5.2: header, content type, tag
    traffic = namespace.run(sys.executable, "-c", KERNEL_TLS, size)
    traffic.receive()
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    sent = size + -(-size // record) * overhead
    assert flow(rows) == [sent, 0, 0, sent]
