"""Connects that fail before their first packet count once, with cause, peer and process, where fexit is allowed."""

import contextlib
import ctypes as ct
import errno
import json
import os
import platform
import struct
import sys
from pathlib import Path

import pytest

from watchdog.kernel.fexit_support import connect_errors_warning

# Arguments: number of attempts, a JSON list of [address, port]. Prints the number of failures by errno.
CONNECT = """
import collections, json, socket, sys
count, peers = int(sys.argv[1]), json.loads(sys.argv[2])
failed = collections.Counter()
for _ in range(count):
    for address, port in peers:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            failed[client.connect_ex((address, port))] += 1
print(json.dumps(failed), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def fexit():
    """Skip the test where the kernel refuses the programs."""
    if warning := connect_errors_warning():
        pytest.skip(warning)


def failures(rows, pid):
    """Return the failed connects of a process by peer and cause; each is one attempt and one end."""
    found = {}
    for row in rows.where(pid=pid):
        counts = [row[name] for name in ("connects", "closes", "connect_failures")]
        assert counts == [row["connects"]] * 3 or row["established"], row
        if row["connect_failures"]:
            key = row["remote"], row["remote_port"], row["failure"]
            found[key] = found.get(key, 0) + row["connect_failures"]
    return found


def until_failed(reader, pid, count):
    return failures(reader.until(lambda rows: rows.where(pid=pid).total("connect_failures") >= count), pid)


@pytest.mark.everywhere
def test_connects_without_a_route_count_with_their_peer(reader, namespace):
    for kind, prefix in (
        ("prohibit", "198.51.100.0/24"),
        ("unreachable", "203.0.113.0/24"),
        ("blackhole", "192.0.2.0/24"),
    ):
        namespace.set("ip", "route", "add", kind, prefix)
    namespace.set("ip", "-6", "route", "add", "prohibit", "2001:db8:1::/48")
    wanted = {
        ("10.1.2.3", 80, "no_route"): errno.ENETUNREACH,
        ("203.0.113.1", 81, "no_route"): errno.EHOSTUNREACH,
        ("192.0.2.1", 82, "no_route"): errno.EINVAL,
        ("198.51.100.1", 83, "denied"): errno.EACCES,
        ("2001:db8::1", 84, "no_route"): errno.ENETUNREACH,
        ("2001:db8:1::1", 85, "denied"): errno.EACCES,
    }
    peers = [[address, port] for address, port, _ in wanted] + [["::ffff:10.9.8.7", 86]]
    client = namespace.run(sys.executable, "-c", CONNECT, 17, json.dumps(peers))
    failed = client.receive()

    assert failed == {"101": 17 * 3, "113": 17, "22": 17, "13": 17 * 2}
    found = until_failed(reader, client.pid, 17 * 7)
    assert found == dict.fromkeys(wanted, 17) | {("10.9.8.7", 86, "no_route"): 17}


REPEAT = """
import errno, json, socket
client = socket.socket()
failed = [client.connect_ex(("10.1.2.3", 80)) for _ in range(5)]
server = socket.create_server(("127.0.0.1", 0))
closed = socket.socket(); closed.bind(("127.0.0.1", 0))
refused = [client.connect_ex(closed.getsockname()) for _ in range(3)]
failed += [client.connect_ex(("10.1.2.3", 80)) for _ in range(4)]
client.connect(server.getsockname())
client.connect_ex(server.getsockname())  # EISCONN
client.close()
# A connect without waiting, whose failure is fetched by a second call; then no route.
client = socket.socket(); client.setblocking(False)
client.connect_ex(closed.getsockname())
while client.connect_ex(closed.getsockname()) != errno.ECONNREFUSED: pass
failed += [client.connect_ex(("10.1.2.3", 80)) for _ in range(2)]
client.connect_ex(server.getsockname())
while client.connect_ex(server.getsockname()) != errno.EISCONN: pass
client.close()
print(json.dumps({"failed": len(failed), "refused": len(refused) + 1, "port": closed.getsockname()[1]}), flush=True)
input()
"""


def test_each_attempt_of_one_socket_counts_once(reader, namespace):
    client = namespace.run(sys.executable, "-c", REPEAT)
    made = client.receive()
    rows = reader.until(lambda rows: rows.where(pid=client.pid).total("connect_failures") >= 15)
    found = failures(rows, client.pid)

    assert (made["failed"], made["refused"]) == (11, 4)
    assert found == {("10.1.2.3", 80, "no_route"): 11, ("127.0.0.1", made["port"], "refused"): 4}
    assert rows.where(pid=client.pid, direction="out").total("connects") == 11 + 4 + 2
    assert rows.where(pid=client.pid, direction="out").total("established") == 2


BIND = """
import errno, json, socket
server = socket.create_server(("127.0.0.1", 80), backlog=64)
kept, failed = [], 0
for _ in range(40):
    client = socket.socket(); kept.append(client)
    try:
        client.bind(("127.0.0.1", 0)); client.connect(("127.0.0.1", 80))
    except OSError as error:
        failed += error.errno == errno.EADDRINUSE
print(json.dumps(failed), flush=True)
input()
"""


@pytest.mark.everywhere
def test_a_client_that_finds_no_port_at_bind_is_a_failed_connect(reader, namespace):
    namespace.set("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40009")
    client = namespace.run(sys.executable, "-c", BIND)

    assert client.receive() == 30
    assert until_failed(reader, client.pid, 30) == {("0.0.0.0", 0, "no_port"): 30}


FAST_OPEN = """
import json, socket
failed = 0
for _ in range(11):
    with socket.socket() as client:
        try:
            client.sendto(b"hello", socket.MSG_FASTOPEN, ("10.1.2.3", 80))
        except OSError as error:
            failed += error.errno == 101
print(json.dumps(failed), flush=True)
input()
"""


def test_a_fast_open_without_a_route_is_a_failed_connect(reader, namespace):
    client = namespace.run(sys.executable, "-c", FAST_OPEN)

    assert client.receive() == 11
    assert until_failed(reader, client.pid, 11) == {("10.1.2.3", 80, "no_route"): 11}


BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
CGROUP_SOCK_ADDR, CGROUP_INET4_CONNECT = 18, 10
DENY = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # return 0


def bpf(command, attributes):
    libc, number = ct.CDLL(None, use_errno=True), {"x86_64": 321, "aarch64": 280}[platform.machine()]
    result = libc.syscall(number, command, ct.create_string_buffer(bytes(attributes), 128), 128)
    assert result >= 0, os.strerror(ct.get_errno())
    return result


@pytest.fixture
def denying_group():
    """Return the folder of a control group whose processes may not connect by IPv4."""
    root = next(
        path for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")) if (path / "cgroup.procs").exists()
    )
    group = root / "watchdog-test-deny"
    group.mkdir()
    code, gpl, load = ct.create_string_buffer(DENY, len(DENY)), ct.create_string_buffer(b"GPL"), bytearray(128)
    struct.pack_into("<IIQQ", load, 0, CGROUP_SOCK_ADDR, 2, ct.addressof(code), ct.addressof(gpl))
    struct.pack_into("<I", load, 68, CGROUP_INET4_CONNECT)
    program, folder = bpf(BPF_PROG_LOAD, load), os.open(group, os.O_RDONLY)
    bpf(BPF_PROG_ATTACH, struct.pack("IIII", folder, program, CGROUP_INET4_CONNECT, 0))
    os.close(program)
    os.close(folder)
    yield group
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
    group.rmdir()


def test_connects_denied_by_a_policy_count_as_denied(reader, namespace, denying_group):
    code = f"open({str(denying_group / 'cgroup.procs')!r}, 'w').write('0')\n" + CONNECT
    client = namespace.run(sys.executable, "-c", code, 23, json.dumps([["127.0.0.1", 9]]))

    assert client.receive() == {"1": 23}
    assert until_failed(reader, client.pid, 23) == {("127.0.0.1", 9, "denied"): 23}


# Landlock is an LSM that needs no set-up. Rules of TCP: Linux 6.7, ABI 4 (include/uapi/linux/landlock.h).
LANDLOCK = """
import ctypes, errno, json, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
create_ruleset, restrict_self, connect_tcp = 444, 446, 2
if libc.syscall(create_ruleset, None, 0, 1) < 4:
    sys.stderr.write("no rules of Landlock for TCP (Linux 6.7)")
    sys.exit(77)
ruleset = libc.syscall(create_ruleset, struct.pack("QQ", 0, connect_tcp), 16, 0)
assert ruleset >= 0 and libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(restrict_self, ruleset, 0) == 0
failed = 0
client = socket.socket()
for _ in range(13):
    failed += client.connect_ex(("127.0.0.1", 9)) == errno.EACCES
print(json.dumps(failed), flush=True)
input()
"""


@pytest.mark.everywhere
def test_connects_denied_by_an_lsm_count_as_denied(reader, namespace):
    client = namespace.run(sys.executable, "-c", LANDLOCK)

    assert client.receive() == 13
    assert until_failed(reader, client.pid, 13) == {("127.0.0.1", 9, "denied"): 13}


def test_attempts_that_do_not_fit_into_the_ledger_count_in_the_sums(start_reader, namespace):
    reader = start_reader(8)
    client = namespace.run(sys.executable, "-c", CONNECT, 211, json.dumps([["10.1.2.3", 80]]))
    client.receive()
    total = reader.totals_until(lambda total: total(client.pid)["connect_failures"] >= 211)(client.pid)

    assert [total[name] for name in ("connects", "closes", "connect_failures")] == [211] * 3
    assert reader.quality["ledger_full"] > 0
