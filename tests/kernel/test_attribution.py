"""Each connection has one owner: the process that creates or holds it, and never the watchdog."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

REPORT = """
import json, os, socket, struct, sys, time
def report(**facts):
    print(json.dumps(facts), flush=True)
def wait():
    sys.stdin.readline()
"""
PASSED_ON = (
    REPORT
    + """
ours, tnew_holders = socket.socketpair()
new_holder = os.fork()
if new_holder == 0:
    ours.close()
    _, (fd,), _, _ = socket.recv_fds(tnew_holders, 1, 1)
    new_holderloom = socket.socket(fileno=fd)
    tnew_holders.send(b"k")
    while order := tnew_holders.recv(1):
        new_holderloom.sendall(b"h" * 1009)
        tnew_holders.send(b"k")
    os._exit(0)
tnew_holders.close()
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"p" * 503)
report(parent=os.getpid(), new_holder=new_holder)
wait()
socket.send_fds(ours, [b"x"], [client.fileno()])
ours.recv(1)
client.close()
report()
wait()
ours.send(b"s")
ours.recv(1)
report()
wait()
ours.close()
os.waitpid(new_holder, 0)
"""
)
DUPLICATED = (
    REPORT
    + """
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
copies = [os.dup(client.fileno()) for _ in range(97)]
os.dup2(client.fileno(), 500)
for copy in copies:
    os.write(copy, b"d" * 11)
os.write(500, b"D" * 13)
client.close()
report()
wait()
"""
)
PREFORK = (
    REPORT
    + """
server = socket.create_server(("127.0.0.1", 0), backlog=128)
count, workers = int(sys.argv[1]), []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        while True:
            connection, _ = server.accept()
            request = connection.recv(100)
            connection.sendall(struct.pack("I", os.getpid()) * (number + 1))
            connection.close()
    workers.append(pid)
report(port=server.getsockname()[1], workers=workers)
wait()
for pid in workers:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
)
ORPHANED_LISTENER = (
    REPORT
    + """
server = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if child:
    report(port=server.getsockname()[1], parent=os.getpid(), child=child)
    os._exit(0)
with open("/proc/self/comm", "w") as comm:
    comm.write("orphan")
connection, _ = server.accept()
connection.recv(100)
connection.close()
"""
)
RENAMED = (
    REPORT
    + """
import threading
def work():
    with open("/proc/thread-self/comm", "w") as comm:
        comm.write("only-a-thread")
    client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    client.sendall(b"t" * 29)
    client.close()
with open("/proc/self/comm", "w") as comm:
    comm.write("the-process")
thread = threading.Thread(target=work)
thread.start()
thread.join()
report()
"""
)
KILLED = (
    REPORT
    + """
with open("/proc/self/comm", "w") as comm:
    comm.write("killed-server")
server = socket.create_server(("127.0.0.1", 0))
report(port=server.getsockname()[1])
connection, _ = server.accept()
connection.recv(100)
report()
time.sleep(60)
"""
)
SAME_PID = """
import os, socket, sys
def connect(size):
    client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    client.sendall(b"r" * size)
    client.close()
pids = []
for name, size in (("first", 101), ("second", 103)):
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write("99")
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
        connect(size)
        os._exit(0)
    os.waitpid(pid, 0)
    pids.append(pid)
assert pids == [100, 100], pids
"""
NO_PIDS_OF_OUR_OWN = "echo 99 > /proc/sys/kernel/ns_last_pid"


@pytest.fixture
def server():
    """Return a listener of the test that reads all data."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threads = []

        def drain(connection):
            with connection:
                while connection.recv(65536):
                    pass

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=drain, args=(connection,)))
                threads[-1].start()

        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        serving.join()
        for thread in threads:
            thread.join()


def out(reader, port, size):
    """Return the clients' rows after they have sent `size` bytes."""
    return reader.until(lambda rows: rows.where(direction="out").total("bytes_sent") >= size, port).where(
        direction="out"
    )


def test_a_connection_passed_over_a_unix_socket_belongs_to_its_new_holder(reader, run, server):
    program = run(sys.executable, "-c", PASSED_ON, server)
    pids = program.receive()
    before = out(reader, server, 503)
    program.proceed()
    program.receive()
    for _ in range(3):
        reader.rows()
    program.proceed()
    program.receive()
    after = out(reader, server, 503 + 1009)
    program.end()

    assert (before.values("pid"), before.total("bytes_sent")) == ({pids["parent"]}, 503)
    assert (after.values("pid"), after.total("bytes_sent"), len(after)) == ({pids["new_holder"]}, 503 + 1009, 1)


def test_duplicated_descriptors_are_one_connection(reader, run, server):
    size = 97 * 11 + 13
    program = run(sys.executable, "-c", DUPLICATED, server)
    program.receive()
    rows = out(reader, server, size)
    program.end()
    later = reader.until_closed(2, server).where(direction="out")

    assert (len(rows), rows.total("bytes_sent"), rows.total("connects")) == (1, size, 1)
    assert (later.total("bytes_sent"), later.total("closes"), later.values("pid")) == (size, 1, {program.pid})


def test_each_worker_of_a_prefork_server_owns_the_connections_it_accepted(reader, run):
    count = 401
    program = run(sys.executable, "-c", PREFORK, count)
    facts = program.receive()
    reported = dict.fromkeys(facts["workers"], 0)
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", facts["port"])) as client:
            client.sendall(b"q" * 7)
            answer = client.recv(100, socket.MSG_WAITALL)
        reported[int.from_bytes(answer[:4], sys.byteorder)] += len(answer)
    rows = reader.until_closed(2 * count, facts["port"]).where(direction="in")
    program.end()

    owned = {pid: rows.where(pid=pid).total("bytes_sent") for pid in facts["workers"]}
    assert owned == reported
    assert (rows.total("accepts"), rows.total("bytes_received")) == (count, 7 * count)


def test_after_the_creator_of_a_listener_exits_its_connections_belong_to_the_child_that_holds_it(reader, run):
    program = run(sys.executable, "-c", ORPHANED_LISTENER)
    facts = program.receive()
    program.process.wait(60)
    with socket.create_connection(("127.0.0.1", facts["port"])) as client:
        client.sendall(b"o" * 19)
        client.recv(1)
    rows = reader.until_closed(2, facts["port"]).where(direction="in")

    assert (rows.values("pid"), rows.values("process")) == ({facts["child"]}, {"orphan"})
    assert rows.total("bytes_received") == 19


def test_a_thread_with_its_own_name_counts_for_its_process(reader, run, server):
    program = run(sys.executable, "-c", RENAMED, server)
    program.receive()
    rows = out(reader, server, 29)
    program.end()

    assert (rows.values("process"), rows.values("pid"), rows.total("bytes_sent")) == (
        {"the-process"},
        {program.pid},
        29,
    )


def test_a_killed_server_keeps_its_name_and_executable(reader, run):
    program = run(sys.executable, "-c", KILLED)
    port = program.receive()["port"]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"k" * 23)
        program.receive()
        program.process.kill()
        assert client.recv(1) == b""
    rows = reader.until_closed(2, port).where(direction="in")

    assert (rows.values("pid"), rows.values("process")) == ({program.pid}, {"killed-server"})
    assert rows.values("exe") == {Path(sys.executable).resolve().name}
    assert rows.total("bytes_received") == 23


def test_a_reused_pid_is_another_process(reader, server):
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    tried = subprocess.run([*inside, "sh", "-c", NO_PIDS_OF_OUR_OWN], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"pids can't be chosen here: {tried.stderr.strip()}")
    subprocess.run([*inside, sys.executable, "-c", SAME_PID, str(server)], check=True)
    rows = reader.until(lambda rows: rows.where(direction="out").total("closes") >= 2, server).where(direction="out")

    assert {row["process"]: row["bytes_sent"] for row in rows} == {"first": 101, "second": 103}


def test_a_socket_closed_during_a_pass_never_belongs_to_the_watchdog(reader, run, server):
    # The pass holds a reference to each file that it reads: it can be the last reference.
    count = 1009
    script = (
        "import socket, sys\n"
        f"for _ in range({count}):\n"
        "    client = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "    client.send(b'c')\n"
        "    client.close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(server)]) as program:
        passes = 0
        while program.poll() is None:
            reader.request("pass")
            passes += 1
    totals = reader.totals_until(
        lambda totals: totals(program.pid)["closes"] + totals(os.getpid())["closes"] >= 2 * count
    )

    assert passes > 1
    assert (reader.quality["missed_events"], reader.quality["storage_failed"]) == (0, 0)
    # By process, not by connection: these totals are exact even when other traffic of the host fills the ledger.
    names = ("connects", "accepts", "closes", "bytes_sent", "bytes_received")
    assert [totals(program.pid)[name] for name in names] == [count, 0, count, count, 0]
    assert [totals(os.getpid())[name] for name in names] == [0, count, count, 0, count]
    assert totals(reader.process.pid)["closes"] == 0
