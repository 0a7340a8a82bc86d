"""Connections belong to the processes that hold them, also to processes that end before the next reading."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
    client.sendall(b"x" * 31)
    client.recv(1)
"""
FORKING_SERVER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0), backlog=128)
print(server.getsockname()[1], flush=True)
children = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        connection, _ = server.accept()
        connection.recv(100)
        connection.close()
        os._exit(0)
    children.append(pid)
print(*children, flush=True)
for pid in children:
    os.waitpid(pid, 0)
"""


def test_a_process_that_ended_before_the_reading_keeps_its_name(reader, tmp_path):
    program = tmp_path / "short-lived-program-name"
    program.symlink_to(Path(sys.executable).resolve())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen([str(program), "-c", CLIENT, str(port)]) as client:
            with server.accept()[0] as accepted:
                assert len(accepted.recv(31, socket.MSG_WAITALL)) == 31
            client.wait(60)
    rows = reader.until_closed(2, port)
    out = rows.where(direction="out")

    assert out.values("pid") == {client.pid}
    assert out.values("process") == {program.name[:15]}
    assert out.values("exe") == {Path(sys.executable).resolve().name}
    assert out.values("user") == {"root"}


def test_connections_accepted_and_closed_between_two_readings_belong_to_the_child_that_accepted_them(reader):
    count = 7
    with subprocess.Popen(
        [sys.executable, "-c", FORKING_SERVER, str(count)], stdout=subprocess.PIPE, text=True
    ) as server:
        port = int(server.stdout.readline())
        children = set(map(int, server.stdout.readline().split()))
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x")
                client.recv(1)
        server.wait(60)
    rows = reader.until_closed(2 * count, port)

    assert rows.where(direction="in").values("pid") == children
    assert rows.where(direction="out").values("pid") == {os.getpid()}


@pytest.mark.everywhere
def test_a_connection_handed_to_another_process_belongs_to_it_from_the_second_reading_on(reader):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted = server.accept()[0]
        reader.rows()
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[client.fileno()]
        ) as heir:
            client.close()
            for _ in range(3):
                rows = reader.rows(port)
            heir.stdin.close()
            heir.wait(60)
        accepted.close()

    assert rows.where(direction="out").values("pid") == {heir.pid}
    assert rows.where(direction="in").values("pid") == {os.getpid()}


@pytest.mark.everywhere
def test_after_exec_in_place_the_connection_has_the_new_name(reader, tmp_path):
    new_name = tmp_path / "afterexec"
    new_name.symlink_to("/usr/bin/sleep")
    script = (
        "import os, socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "s.set_inheritable(True);"
        "sys.stdin.readline(); os.execv(sys.argv[2], [sys.argv[2], '30'])"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, "-c", script, str(port), str(new_name)], stdin=subprocess.PIPE
        ) as process:
            with server.accept()[0]:
                before = reader.rows(port).where(direction="out")
                process.stdin.write(b"go\n")
                process.stdin.flush()
                end = time.monotonic() + 60
                while Path(f"/proc/{process.pid}/comm").read_text() != "afterexec\n" and time.monotonic() < end:
                    time.sleep(0.01)
                after = reader.rows(port).where(direction="out")
            process.kill()

    assert before.values("process") != {"afterexec"}
    assert (after.values("process"), after.values("exe")) == ({"afterexec"}, {"sleep"})
    assert before.values("cookie") == after.values("cookie")


@pytest.mark.everywhere
def test_two_network_namespaces_with_the_same_addresses_are_distinguished(reader, run):
    script = """
import socket, sys
with socket.create_server(("127.0.0.1", 8765)) as server, socket.socket() as client:
    client.bind(("127.0.0.1", 8766))
    client.connect(("127.0.0.1", 8765))
    with server.accept()[0] as accepted:
        client.sendall(b"n" * int(sys.argv[1]))
        accepted.recv(int(sys.argv[1]), socket.MSG_WAITALL)
        client.close()
print("{}", flush=True)
sys.stdin.read()
"""
    setup = 'ip link set lo up && exec /usr/bin/python3 -c "$0" "$1"'
    # Both at once: the kernel reuses the number of a deleted namespace.
    for size in (101, 103):
        run("unshare", "--net", "sh", "-c", setup, script, size).receive()
    rows = reader.until_closed(4, 8765)
    by_namespace = {row["netns"]: row["bytes_sent"] for row in rows.where(direction="out")}

    assert sorted(by_namespace.values()) == [101, 103]
    assert (rows.total("connects"), rows.total("accepts"), rows.total("closes")) == (2, 2, 4)


def test_bytes_of_a_hostile_name_survive(reader):
    script = (
        "import ctypes, socket, sys; ctypes.CDLL(None).prctl(15, bytes.fromhex('1b5b324a203c21ff0a223e'), 0, 0, 0);"
        "socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        subprocess.run([sys.executable, "-c", script, str(port)], check=True)
        server.accept()[0].close()
    rows = reader.until_closed(2, port)

    assert rows.where(direction="out").values("process") == {'\x1b[2J <!\udcff\n">'}
