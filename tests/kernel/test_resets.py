"""Resets in answer to segments that belong to no connection count by peer; forged sources push out no other peer."""

import ctypes as ct
import itertools
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from watchdog.clock import SECOND_NS
from watchdog.kernel import libbpf
from watchdog.kernel.btf import Btf
from watchdog.kernel.layout import RESET_PEER, RESET_PEER_KEY
from watchdog.kernel.reset_peers import ResetPeersMap

SCAN = """
import socket, sys
victim, scanner, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for port in range(1, 1 + count):
    with socket.socket(socket.AF_INET6 if ":" in victim else socket.AF_INET) as client:
        client.bind((scanner, 0))
        client.connect_ex((victim, port))
print("{}", flush=True)
input()
"""
# Segments of forged sources, IPv4 or IPv6 (with a destination options header in front of TCP), to a closed port.
FORGE = """
import socket, struct, sys
to, flags, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ipv6 = ":" in to
family, level = (socket.AF_INET6, 41) if ipv6 else (socket.AF_INET, 0)
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

def segment(source, target):
    tcp = struct.pack("!HHIIBBHHH", 40000, 9, 1, 1 if flags & 16 else 0, 5 << 4, flags, 1024, 0, 0)
    pseudo = source + target + struct.pack("!IHBB" if ipv6 else "!xxxx", *((20, 0, 0, 6) if ipv6 else ()))
    if not ipv6:
        pseudo = source + target + struct.pack("!BBH", 0, 6, 20)
    return tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]

target = socket.inet_pton(family, to)
for number in range(count):
    if ipv6:
        source = socket.inet_pton(family, f"2001:db8::{number + 1:x}")
        options = struct.pack("!BBBBI", 6, 0, 1, 4, 0)
        packet = struct.pack("!IHBB", 6 << 28, 28, 60, 64) + source + target + options + segment(source, target)
    else:
        source = socket.inet_aton(f"198.18.{number >> 8}.{number & 255}")
        head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0)
        packet = head + source + target + segment(source, target)
    raw.sendto(packet, (to, 0))
print("{}", flush=True)
input()
"""
SYN, FIN, ACK = 2, 1, 16


@pytest.fixture
def reset_without_socket():
    """Skip the test where the kernel traces resets of sockets only: before Linux 6.10 (commit 19822a980e19)."""
    if not Btf().traces_resets_without_socket():
        pytest.skip("before Linux 6.10 the tracepoint of resets needs a socket")


@pytest.fixture
def victim(namespace, reset_without_socket):
    """Return a network namespace with the addresses of a victim, and those of a scanner."""
    for address in ("10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2"):
        namespace.set("ip", "addr", "add", address, "dev", "lo")
    return namespace


def by_peer(rows, victim):
    """Return the resets of the victim's namespace by peer and direction."""
    counts = Counter()
    for row in rows.where(netns=victim.inode, pid=0):
        counts[row["remote"], row["direction"]] += row["resets_sent"]
    return +counts


@pytest.mark.parametrize(
    ("address", "peer"),
    [pytest.param("10.9.0.1", "10.9.0.2", marks=pytest.mark.everywhere), ("fd00::1", "fd00::2")],
)
def test_a_scan_of_closed_ports_counts_for_the_scanner(reader, victim, address, peer):
    victim.run(sys.executable, "-c", SCAN, address, peer, 307).receive()
    rows = reader.until(lambda rows: sum(by_peer(rows, victim).values()) >= 307)

    assert by_peer(rows, victim) == {(peer, "in"): 307}
    (row,) = rows.where(remote=peer, netns=victim.inode, direction="in")
    assert (row["process"], row["local_port"], row["family"]) == (
        "(unattributed)", 0, "ipv6" if ":" in peer else "ipv4"
    )  # fmt: skip


@pytest.mark.parametrize(("flags", "direction"), [(SYN, "in"), (FIN, ""), (SYN | ACK, "")])
@pytest.mark.parametrize("address", ["10.9.0.1", "fd00::1"])
def test_each_source_of_a_segment_has_a_count(reader, victim, address, flags, direction):
    """The connection of a segment without SYN, or of an answer to a SYN, can have been opened by either end."""
    victim.run(sys.executable, "-c", FORGE, address, flags, 53).receive()
    rows = reader.until(lambda rows: sum(by_peer(rows, victim).values()) >= 53)
    names = [f"2001:db8::{n + 1:x}" if ":" in address else f"198.18.0.{n}" for n in range(53)]

    assert by_peer(rows, victim) == {(name, direction): 1 for name in names}


HALF_CLOSED = """
import socket, time
server = socket.create_server(("10.9.0.1", 80))
for _ in range(7):
    client = socket.create_connection(("10.9.0.1", 80), source_address=("10.9.0.2", 0))
    accepted, _ = server.accept()
    client.close()
    time.sleep(0.05)
    accepted.send(b"late")
    accepted.close()
print("{}", flush=True)
input()
"""


def test_resets_for_a_socket_in_time_wait_count_for_the_peer(reader, victim):
    """A closed connection that waits for the peer's FIN has no process any more, and no struct sock."""
    victim.run(sys.executable, "-c", HALF_CLOSED).receive()
    rows = reader.until(lambda rows: sum(by_peer(rows, victim).values()) >= 7)

    assert by_peer(rows, victim) == {("10.9.0.1", ""): 7}


def test_sources_beyond_the_capacity_have_no_peer_and_push_out_no_other(start_reader, victim):
    reader = start_reader()
    victim.run(sys.executable, "-c", SCAN, "10.9.0.1", "10.9.0.2", 11).receive()
    before = reader.rows().where(pid=0).total("resets_sent")
    victim.run(sys.executable, "-c", FORGE, "10.9.0.1", SYN, 5003).receive()
    victim.run(sys.executable, "-c", SCAN, "10.9.0.1", "10.9.0.2", 13).receive()
    rows = reader.until(lambda rows: rows.where(pid=0).total("resets_sent") >= before + 5016)
    counts = by_peer(rows, victim)
    peers = [peer for peer, _ in counts if peer.startswith("198.18.")]

    assert counts["10.9.0.2", "in"] == 24
    assert 4000 <= len(peers) <= 4096
    assert rows.where(pid=0).total("resets_sent") == before + 5016


@pytest.fixture
def peers():
    """Return a map of 8 peers of the kernel, and functions that add resets of a peer and list the peers in it."""
    lib = libbpf.library()
    fd = libbpf.check_result(lib.bpf_map_create(1, b"peers", RESET_PEER_KEY.itemsize, RESET_PEER.itemsize, 8, None), "")
    created = itertools.count(1)

    def add(number, count=1):
        key, value = np.zeros(1, RESET_PEER_KEY), np.zeros(1, RESET_PEER)
        key["netns"] = number
        if lib.bpf_map_lookup_elem(fd, key.ctypes.data, value.ctypes.data):
            value["created_ns"] = next(created)
        value["resets_sent"] += count
        libbpf.check_result(lib.bpf_map_update_elem(fd, key.ctypes.data, value.ctypes.data, 0), "")

    def present():
        key, next_key = np.zeros(1, RESET_PEER_KEY), np.zeros(1, RESET_PEER_KEY)
        found, at = [], None
        while lib.bpf_map_get_next_key(fd, at, next_key.ctypes.data) == 0:
            found.append(int(next_key["netns"][0]))
            key[:] = next_key
            at = ct.c_void_p(key.ctypes.data)
        return sorted(found)

    return SimpleNamespace(reader=ResetPeersMap(fd), add=add, present=present)


def read(peers, second):
    totals = peers.reader.read(second * SECOND_NS)
    return dict(zip(totals.keys["netns"].tolist(), totals.values["resets_sent"].tolist(), strict=True))


def test_idle_peers_are_deleted_after_a_minute(peers):
    peers.add(1, 5)
    peers.add(2)
    assert read(peers, 100) == {1: 5, 2: 1}
    peers.add(2)
    assert read(peers, 159) == {1: 5, 2: 2}
    assert read(peers, 160) == {1: 5, 2: 2}
    assert peers.present() == [2]
    assert read(peers, 161) == {2: 2}


def test_a_full_map_drops_idle_peers_at_once_and_keeps_the_active(peers):
    for number in range(1, 9):
        peers.add(number)
    assert read(peers, 100) == dict.fromkeys(range(1, 9), 1)
    assert peers.present() == list(range(1, 9))
    peers.add(3)
    assert read(peers, 101)[3] == 2
    assert peers.present() == [3]


def test_a_peer_that_comes_again_is_a_new_entry(peers):
    peers.add(1, 5)
    first = peers.reader.read(100 * SECOND_NS)
    peers.reader.read(160 * SECOND_NS)
    peers.add(1, 9)
    again = peers.reader.read(161 * SECOND_NS)

    assert (first.keys["netns"], again.keys["netns"]) == (1, 1)
    assert first.keys["created_ns"] != again.keys["created_ns"]
    assert again.values["resets_sent"] == 9
