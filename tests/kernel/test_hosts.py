"""Hosts in trouble: no free ports, a stopped watchdog, millions of files, programs that interrupt each other."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bpf_links import links_of, program_of
from hidden_events import count_hidden_events

from watchdog.clock import SECOND_NS, SystemClock

BUSY_SECONDS = 10
EXHAUSTED = """
import errno, json, socket, sys
server = socket.create_server(("127.0.0.1", 50000), backlog=64)
held, refused = [], 0
for _ in range(int(sys.argv[1])):
    client = socket.socket()
    try:
        client.connect(("127.0.0.1", 50000))
        held.append(client)
    except OSError as error:
        assert error.errno == errno.EADDRNOTAVAIL, error
        refused += 1
        client.close()
print(json.dumps({"held": len(held), "refused": refused}), flush=True)
sys.stdin.read()
"""
FILE_HOLDER = """
import json, os, resource, socket, sys
wanted, each = int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 64
resource.setrlimit(resource.RLIMIT_NOFILE, (each + 64, each + 64))
null = os.open("/dev/null", os.O_RDONLY)
for _ in range(min(wanted, each)):
    os.dup(null)
until_the_end, end = os.pipe()
children = []
for _ in range(-(-wanted // each)):
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.read(until_the_end, 1)
        os._exit(0)
    children.append(pid)
server = socket.create_server(("127.0.0.1", 0))
last = os.fork()
if last == 0:
    os.close(end)
    accepted = server.accept()[0]
    accepted.recv(1009, socket.MSG_WAITALL)
    accepted.send(b"a")
    os.read(until_the_end, 1)
    os._exit(0)
client = socket.create_connection(server.getsockname())
client.sendall(b"n" * 1009)
client.recv(1)
print(json.dumps({"port": server.getsockname()[1], "last": last}), flush=True)
sys.stdin.read()
os.close(end)
for pid in [*children, last]:
    os.waitpid(pid, 0)
"""
LOOP = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0), backlog=128)
print('{"port": %d}' % server.getsockname()[1], flush=True)
for _ in range(int(sys.argv[1])):
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
        client.sendall(b"l" * 11)
        accepted.recv(11, socket.MSG_WAITALL)
"""
BUSY = """
import os, select, sys
while not select.select([0], [], [], 0)[0]:
    for _ in range(100_000):
        pass
"""
# Two threads, one connects and one accepts; arguments: seconds, "reset" to reset each accepted connection.
LOOP_OF_THREADS = """
import json, socket, struct, sys, threading, time
server = socket.create_server(("127.0.0.1", 0), backlog=1024)
resetting = sys.argv[2] == "reset"
def serve():
    while True:
        with server.accept()[0] as accepted:
            if resetting:
                accepted.send(b"y")
                try:
                    accepted.recv(1)
                except ConnectionResetError:
                    pass
threading.Thread(target=serve, daemon=True).start()
connections = 0
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    with socket.create_connection(server.getsockname()) as client:
        connections += 1
        if resetting:
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if connections % 100 == 0:
        time.sleep(0.01)
print(json.dumps({"connections": connections}), flush=True)
sys.stdin.read()
"""


def skipped_by_program(reader):
    """Return, by name, how often the kernel skipped each attached program of a collecting process."""
    programs = map(program_of, links_of(reader.process.pid).values())
    return {info.name.decode(): info.recursion_misses for info in programs}


def test_a_connect_without_a_free_port_is_counted_with_its_own_cause(reader, namespace):
    namespace.set("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40009")
    program = namespace.run(sys.executable, "-c", EXHAUSTED, 17)
    reported = program.receive()
    rows = reader.rows(netns=namespace.inode).where(direction="out")
    program.end()

    assert reported == {"held": 10, "refused": 7}
    assert [rows.total(name) for name in ("connects", "established", "connect_failures")] == [17, 10, 7]
    assert [row["failure"] for row in rows if row["connect_failures"]] == ["no_port"] * 7
    assert rows.values("pid") == {program.pid}


IN_USE = """
import json, socket
server = socket.create_server(("127.0.0.1", 80))
other = socket.create_server(("127.0.0.1", 81))
clients = [socket.socket() for _ in range(4)]
for client in clients:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("127.0.0.1", 40000))
failed = [client.connect_ex(("127.0.0.1", port)) for client, port in zip(clients, (80, 80, 81, 80))]
print(json.dumps(failed), flush=True)
input()
"""


def test_a_connect_from_a_port_in_use_towards_the_peer_has_no_port(reader, namespace):
    program = namespace.run(sys.executable, "-c", IN_USE)
    reported = program.receive()
    rows = reader.rows(netns=namespace.inode).where(direction="out")

    assert reported == [0, errno.EADDRNOTAVAIL, 0, errno.EADDRNOTAVAIL]
    assert [rows.total(name) for name in ("connects", "established", "connect_failures")] == [4, 2, 2]
    assert [row["failure"] for row in rows if row["connect_failures"]] == ["no_port"] * 2


DEFERRED = """
import json, socket
TCP_FASTOPEN, TCP_FASTOPEN_CONNECT = 23, 30
server = socket.socket()
server.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 5)
server.bind(("127.0.0.1", 80)); server.listen()
with socket.socket() as client:
    client.sendto(b"cookie", socket.MSG_FASTOPEN, ("127.0.0.1", 80))
for _ in range(3):
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        client.connect(("127.0.0.1", 80))
print("{}", flush=True)
input()
"""


def test_a_deferred_connect_that_is_closed_unsent_is_aborted(reader, namespace):
    """With TCP_FASTOPEN_CONNECT and a cookie the SYN waits for the first send (tcp_fastopen_defer_connect)."""
    namespace.set("sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    program = namespace.run(sys.executable, "-c", DEFERRED)
    program.receive()
    rows = reader.until(lambda rows: rows.where(pid=program.pid).total("connect_failures") >= 3, netns=namespace.inode)

    assert [row["failure"] for row in rows if row["connect_failures"]] == ["aborted"] * 3


def test_nothing_is_lost_while_the_collecting_process_is_stopped(reader):
    count, stopped_seconds = 211, 1.2
    began = time.monotonic()
    os.kill(reader.process.pid, signal.SIGSTOP)
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
            port = server.getsockname()[1]
            for _ in range(count):
                with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
                    client.sendall(b"s" * 7)
                    accepted.recv(7, socket.MSG_WAITALL)
        time.sleep(max(0, began + stopped_seconds - time.monotonic()))
    finally:
        os.kill(reader.process.pid, signal.SIGCONT)
    reader.rows(port)
    elapsed_seconds = reader.elapsed_seconds
    rows = reader.until_closed(2 * count, port)

    assert elapsed_seconds >= stopped_seconds  # rates divide by the elapsed time
    assert [rows.total(name) for name in ("connects", "accepts", "closes", "bytes_sent", "bytes_received")] == [
        count, count, 2 * count, 7 * count, 7 * count,
    ]  # fmt: skip


def test_a_walk_over_two_million_files_finds_the_holder_of_the_socket_behind_them(reader, run):
    # The sockets are there at once, with their creator; the walk over files needs several ticks to find the holder.
    file_holder = run(sys.executable, "-c", FILE_HOLDER, 2_200_000)
    reported = file_holder.receive()
    began = reader.rows(reported["port"])
    unfinished = reader.walk_unfinished
    rows = reader.until(lambda rows: rows.where(direction="in").values("pid") == {reported["last"]}, reported["port"])
    file_holder.end()

    assert (began.total("bytes_sent"), began.total("bytes_received"), len(began)) == (1010, 1010, 2)
    assert began.values("pid") == {file_holder.pid}

    assert (rows.total("bytes_sent"), rows.total("bytes_received"), len(rows)) == (1010, 1010, 2)
    assert rows.where(direction="out").values("pid") == {file_holder.pid}
    assert rows.where(direction="in").values("pid") == {reported["last"]}
    assert unfinished >= 1


@pytest.mark.everywhere
def test_events_during_another_event_are_counted(start_reader, run):
    # When CPU is short, packets are handled late, at the end of the next interrupt. That interrupt can come in the
    # middle of one of the programs: the kernel then skips the program for all events of the packets (bpf_trace_run).
    reader = start_reader(1 << 20)
    busy = [run(sys.executable, "-c", BUSY) for _ in range(os.cpu_count())]
    with count_hidden_events() as unseen:
        loops = [run(sys.executable, "-c", LOOP_OF_THREADS, BUSY_SECONDS, how) for how in ("close", "reset")]
        made, reset = (loop.receive()["connections"] for loop in loops)
        for program in busy:
            program.proceed()
        total = reader.totals_until(
            lambda total: sum(total(loop.pid)["closes"] for loop in loops) >= 2 * (made + reset) - unseen.count()
        )
        excused = unseen.count()
    skipped = skipped_by_program(reader)
    print(f"{made} + {reset} connections; skipped: {skipped}; excused: {excused}; {reader.quality}")

    missing = [
        ends * count - total(loop.pid)[name]
        for loop, count in zip(loops, (made, reset), strict=True)
        for name, ends in (("connects", 1), ("accepts", 1), ("established", 2), ("closes", 2))
    ]
    lost = reader.quality["missed_events"]
    assert 0 <= min(missing) <= max(missing) <= excused + lost
    assert {reader.quality[name] for name in ("storage_failed", "ledger_full")} == {0}
    # Where programs on tracepoints can be preempted, a moment at their start and end remains.
    assert lost == 0 or int(os.uname().release.split(".")[0]) >= 7
    # The kernel counts skipped resets, but not per process.
    for counter, program in (("resets_sent", "tcp_send_reset"), ("resets_received", "tcp_receive_res")):
        assert 0 <= reset - total(loops[1].pid)[counter] <= skipped[program] + excused
        assert skipped[program] <= total(0)[counter]


def test_two_watchdogs_under_load_count_the_same(start_reader, run):
    count = 1009
    truth = {"connects": 1, "accepts": 1, "closes": 2, "bytes_sent": 11, "bytes_received": 11}
    readers = [start_reader(), start_reader()]
    with count_hidden_events() as unseen:
        loops = [run(sys.executable, "-c", LOOP, count) for _ in range(os.cpu_count())]
        ports = [loop.receive()["port"] for loop in loops]
        for loop in loops:
            loop.end()
        excused = unseen.count()
    for reader in readers:
        for port in ports:
            rows = reader.until_closed(2 * count - excused, port)
            for name, each in truth.items():
                assert 0 <= each * count - rows.total(name) <= each * excused
        assert reader.quality["missed_events"] == 0


TIME_NAMESPACE = """
import os, sys
from watchdog.clock import SystemClock
from watchdog.kernel.process_stat import read_process_stat
print(SystemClock().boottime_ns(), read_process_stat(int(sys.argv[1])).has_start(int(sys.argv[2])))
"""


def test_times_of_a_time_namespace_compare_with_those_of_the_kernel():
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    start_ns = ticks * SECOND_NS // os.sysconf("SC_CLK_TCK") + 1
    command = ("unshare", "-T", "--boottime", "100000", sys.executable, "-c", TIME_NAMESPACE)
    before_ns = SystemClock().boottime_ns()
    done = subprocess.run([*command, str(os.getpid()), str(start_ns)], capture_output=True, text=True, check=True)
    boottime_ns, same_start = done.stdout.split()

    assert before_ns < int(boottime_ns) < before_ns + 60 * SECOND_NS
    assert same_start == "True"
