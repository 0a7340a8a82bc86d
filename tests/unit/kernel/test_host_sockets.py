"""Counts of sockets that no process has: the kernel's texts, unreadable ones included."""

import numpy as np
import pytest

from watchdog.kernel import time_wait
from watchdog.kernel.host_sockets import HostSocketsReader, ephemeral_ports

SOCKSTAT = "sockets: used 60\nTCP: inuse 8 orphan 3 tw 32116 alloc 8 mem 465\nUDP: inuse 0 mem 0\n"


@pytest.fixture
def reader(tmp_path):
    """Yield a reader of files in a folder that the test changes."""
    for folder in ("net", "ns", "ipv4"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ns" / "net").touch()
    (tmp_path / "net" / "sockstat").write_text(SOCKSTAT, encoding="ascii")
    (tmp_path / "ipv4" / "ip_local_port_range").write_text("32768\t60999\n", encoding="ascii")
    (tmp_path / "ipv4" / "ip_local_reserved_ports").write_text("\n", encoding="ascii")
    reader = HostSocketsReader(tmp_path, tmp_path / "ipv4")
    yield reader
    reader.close()


def test_the_counts_are_those_of_the_kernel(reader, tmp_path):
    counts = reader.read()
    assert (counts.time_wait, counts.orphans, counts.is_ephemeral.sum()) == (32116, 3, 28232)
    assert counts.netns == (tmp_path / "ns" / "net").stat().st_ino


@pytest.mark.parametrize(
    ("reserved", "ports"),
    [
        ("\n", [40000, 40001, 40002, 40003, 40004]),
        ("40001,40003-40009\n", [40000, 40002]),
        ("1,8080-9148\n", [40000, 40001, 40002, 40003, 40004]),
        ("1-65535\n", []),
    ],
)
def test_reserved_ports_are_not_given_to_connects(reserved, ports):
    assert np.flatnonzero(ephemeral_ports("40000 40004\n", reserved)).tolist() == ports


@pytest.mark.parametrize("name", ["net/sockstat", "ipv4/ip_local_port_range"])
@pytest.mark.parametrize("text", ["", "nonsense\n", None])
def test_without_the_kernels_texts_the_counts_are_unknown(reader, tmp_path, name, text):
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text, encoding="ascii")
    assert reader.read() is None


@pytest.mark.parametrize(("name", "unknown"), [("_SOCK_DIAG_BY_FAMILY", 99), ("_NETLINK_SOCK_DIAG", 31)])
def test_a_kernel_without_inet_diag_leaves_the_ports_unknown_and_is_reported(reader, monkeypatch, name, unknown):
    monkeypatch.setattr(time_wait, name, unknown)
    counts = reader.read()
    assert (counts.time_wait, counts.time_wait_ports) == (32116, None)
    assert reader.problem
