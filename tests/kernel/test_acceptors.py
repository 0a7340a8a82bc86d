"""An accepted connection belongs to the process that accepted it, with the facts that this process has now."""

import contextlib
import pwd
import socket
import struct
import sys
from collections import Counter
from pathlib import Path

import pytest

UID = 33
USER = next((user.pw_name for user in pwd.getpwall() if user.pw_uid == UID), str(UID))
# Orders: "a" accept and answer, "k" the same and keep the connection, "c" the same and close it, "s" send on all kept
# ones, a uid: become this user, other: become this process name.
SERVE = """
import json, os, socket, sys
def report(**facts):
    print(json.dumps(facts), flush=True)
def accept(listener):
    connection, _ = listener.accept()
    connection.recv(1)
    connection.sendall(b"a")
    return connection
def rename(name):
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)
def serve(listener, orders):
    kept = []
    for order in orders:
        order = order.strip()
        if order in ("a", "k"):
            kept.append(accept(listener))
        elif order == "c":
            accept(listener).close()
        elif order == "s":
            for connection in kept:
                connection.sendall(bytes(1009))
        elif order.isdecimal():
            os.seteuid(int(order))
        elif order:
            rename(order)
        report(pid=os.getpid())
"""
ALONE = (
    SERVE
    + """
listener = socket.create_server(("127.0.0.1", 0))
report(port=listener.getsockname()[1], pid=os.getpid())
serve(listener, sys.stdin)
"""
)
PREFORK = (
    SERVE
    + """
rename("the-maker")
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
listener.bind(("127.0.0.1", 0))
listener.listen(128)
worker = os.fork()
if worker == 0:
    rename("the-worker")
    serve(listener, sys.stdin)
    os._exit(0)
report(port=listener.getsockname()[1], maker=os.getpid(), worker=worker)
os.waitpid(worker, 0)
"""
)
# The older process gets a copy of the listener, or of the connection, over a unix socket.
HANDED_OVER = (
    SERVE
    + """
ours, theirs = socket.socketpair()
what = sys.argv[1]
service = os.fork()
if service == 0:
    ours.close()
    listener = socket.create_server(("127.0.0.1", 0))
    socket.send_fds(theirs, [listener.getsockname()[1].to_bytes(2, "big")], [listener.fileno()])
    if what == "connection":
        sys.stdin.readline()
        kept = accept(listener)
        socket.send_fds(theirs, [b"x"], [kept.fileno()])
        report()
        sys.stdin.readline()
        kept.sendall(bytes(1009))
        report()
    else:
        listener.close()
        theirs.recv(1)
    os._exit(0)
theirs.close()
port, fds, _, _ = socket.recv_fds(ours, 2, 1)
report(port=int.from_bytes(port, "big"), older=os.getpid(), service=service)
if what == "connection":
    os.close(fds[0])
    copies = socket.recv_fds(ours, 1, 1)
else:
    serve(socket.socket(fileno=fds[0]), sys.stdin)
    ours.close()
os.waitpid(service, 0)
"""
)
# A thread becomes another user alone: libc's setresuid would change all threads.
THREAD = (
    SERVE
    + """
import ctypes, platform, threading
NUMBER = {"x86_64": 117, "aarch64": 147}[platform.machine()]
listener = socket.create_server(("127.0.0.1", 0))
report(port=listener.getsockname()[1], pid=os.getpid())
def work():
    assert ctypes.CDLL(None).syscall(NUMBER, 33, 33, -1) == 0
    serve(listener, sys.stdin)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
)
FORKING = (
    SERVE
    + """
listener = socket.create_server(("127.0.0.1", 0))
report(port=listener.getsockname()[1], pid=os.getpid())
for order in sys.stdin:
    connection, _ = listener.accept()
    child = os.fork()
    if child == 0:
        listener.close()
        connection.recv(1)
        connection.sendall(b"a")
        if order.strip() == "c":
            connection.close()
        else:
            connection.recv(1)
        os._exit(0)
    connection.close()
    report(child=child)
"""
)
# Each worker accepts, and ends; the next one can get its memory.
WORKERS = (
    SERVE
    + """
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
report(port=listener.getsockname()[1], maker=os.getpid())
for order in sys.stdin:
    pid = os.fork()
    if pid == 0:
        if "c" in order:
            accept(listener).close()
        connection = accept(listener)
        report(worker=os.getpid())
        with __import__("contextlib").suppress(OSError):
            connection.recv(1)
        os._exit(0)
    os.waitpid(pid, 0)
    report()
"""
)


def connect(port):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"q")
    return client


def reset(client):
    assert client.recv(1) == b"a"  # accepted
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def order(program, text):
    program.proceed(text)
    return program.receive()


def reset_one(program, port, text="a"):
    """Let the server accept and answer one connection, and reset it; return the answer of the program."""
    client = connect(port)
    answer = order(program, text)
    reset(client)
    return answer


def inbound(reader, port, count):
    rows = reader.until(lambda rows: rows.where(direction="in").total("closes") >= count, port)
    return rows.where(direction="in")


@pytest.mark.everywhere
def test_a_connection_reset_before_any_reading_belongs_to_the_worker_that_accepted_it(reader, run):
    program = run(sys.executable, "-c", PREFORK)
    facts = program.receive()
    order(program, "")
    reader.request("pass")
    for _ in range(7):
        reset_one(program, facts["port"])
    rows = inbound(reader, facts["port"], 7)

    assert (rows.values("pid"), rows.values("process")) == ({facts["worker"]}, {"the-worker"})
    assert (rows.total("accepts"), rows.total("resets_received")) == (7, 7)


@pytest.mark.skipif(not Path("/proc/sys/net/mptcp/enabled").exists(), reason="this kernel has no MPTCP")
def test_a_subflow_of_mptcp_belongs_to_the_worker_that_accepted_it_before_any_walk_over_files_found_it(reader, run):
    program = run(sys.executable, "-c", PREFORK, socket.IPPROTO_MPTCP)
    facts = program.receive()
    order(program, "")
    reader.request("pass")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as client:
        client.connect(("127.0.0.1", facts["port"]))
        client.sendall(b"q")
        order(program, "a")
        rows = reader.rows(facts["port"]).where(direction="in")
    assert {(row["pid"], row["process"]) for row in rows if row["accepts"]} == {(facts["worker"], "the-worker")}


def test_a_worker_that_no_reading_has_seen_is_known_from_the_first_connection_that_it_closed(reader, run):
    program = run(sys.executable, "-c", PREFORK)
    facts = program.receive()
    with connect(facts["port"]):
        order(program, "c")
    reset_one(program, facts["port"])
    rows = inbound(reader, facts["port"], 2)

    assert rows.values("pid") == {facts["worker"]}


def test_a_connection_whose_acceptor_is_not_known_belongs_to_the_owner_of_the_listener_as_the_accepting_user(
    reader, run
):
    program = run(sys.executable, "-c", ALONE)
    facts = program.receive()
    order(program, UID)
    reset_one(program, facts["port"])
    rows = inbound(reader, facts["port"], 1)

    assert {(row["pid"], row["user"]) for row in rows} == {(facts["pid"], USER)}


def test_a_dead_worker_never_owns_the_connection_of_one_that_has_its_memory(reader, run):
    program = run(sys.executable, "-c", WORKERS)
    facts = program.receive()
    expected, dead = {}, set()
    for number in range(300):
        known = number % 2
        with contextlib.ExitStack() as stack:
            if known:
                stack.enter_context(connect(facts["port"]))
            client = connect(facts["port"])
            local = client.getsockname()[1]
            worker = order(program, "c" if known else "")["worker"]
            reset(client)
            program.receive()
        expected[local] = worker if known else facts["maker"]
        dead.add(worker)
    rows = inbound(reader, facts["port"], 450)

    assert {row["remote_port"]: row["pid"] for row in rows if row["remote_port"] in expected} == expected


@pytest.mark.everywhere
def test_an_older_process_with_a_copy_does_not_own_the_connection(reader, run):
    program = run(sys.executable, "-c", HANDED_OVER, "connection")
    facts = program.receive()
    with connect(facts["port"]) as client:
        order(program, "")
        for _ in range(4):
            reader.request("pass")
        order(program, "")
        assert len(client.recv(1010, socket.MSG_WAITALL)) == 1010
        rows = reader.until(lambda rows: rows.where(direction="in").total("bytes_sent") >= 1010, facts["port"])
    rows = rows.where(direction="in")

    assert {row["pid"]: row["bytes_sent"] for row in rows} == {facts["service"]: 1010}


def test_a_process_that_got_the_listener_over_a_unix_socket_owns_the_connections_that_it_accepts(reader, run):
    program = run(sys.executable, "-c", HANDED_OVER, "listener")
    facts = program.receive()
    order(program, "")
    reader.request("pass")
    reset_one(program, facts["port"])
    rows = inbound(reader, facts["port"], 1)

    assert rows.values("pid") == {facts["older"]}


def test_a_child_that_serves_the_connection_of_its_parent_owns_it(reader, run):
    program = run(sys.executable, "-c", FORKING)
    facts = program.receive()
    with connect(facts["port"]):
        child = order(program, "c")["child"]
        assert inbound(reader, facts["port"], 1).values("pid") == {child}
    with connect(facts["port"]) as client:
        child = order(program, "k")["child"]
        assert client.recv(1) == b"a"
        for _ in range(4):
            rows = reader.rows(facts["port"])
    assert {row["pid"] for row in rows.where(direction="in") if not row["closes"]} == {child}


def test_a_thread_with_credentials_of_its_own_accepts_for_its_process(reader, run):
    program = run(sys.executable, "-c", THREAD)
    facts = program.receive()
    with connect(facts["port"]):
        order(program, "c")
    reset_one(program, facts["port"])
    with connect(facts["port"]):
        order(program, "k")
        rows = inbound(reader, facts["port"], 2)

    assert {(row["pid"], row["user"]) for row in rows} == {(facts["pid"], "root")}


@pytest.mark.parametrize(
    ("orders", "end", "process", "user"),
    [
        ([UID], "reset", "", USER),
        ([UID], "close", "", USER),
        ([UID], "alive", "", USER),
        ([UID, 0], "reset", "", "root"),
        (["other-name"], "close", "other-name", "root"),
        (["other-name"], "alive", "other-name", "root"),
    ],
)
def test_a_server_that_changes_its_user_or_name_is_one_service(reader, run, orders, end, process, user):
    program = run(sys.executable, "-c", ALONE)
    facts = program.receive()
    name = Path(f"/proc/{facts['pid']}/comm").read_text().strip()
    reader.request("pass")
    for text in orders:
        order(program, text)
    with contextlib.ExitStack() as clients:
        for _ in range(3):
            if end == "reset":
                reset_one(program, facts["port"])
            else:
                clients.enter_context(connect(facts["port"]))
                order(program, "c" if end == "close" else "k")
        rows = inbound(reader, facts["port"], 0 if end == "alive" else 3)

    assert {(row["process"], row["user"]) for row in rows if row["accepts"]} == {(process or name, user)}
    assert rows.total("accepts") == 3


def test_open_connections_after_a_change_of_user_have_the_new_facts_in_the_next_reading(reader, run):
    program = run(sys.executable, "-c", ALONE)
    facts = program.receive()
    reader.request("pass")
    order(program, "other-name")
    order(program, UID)
    with connect(facts["port"]), connect(facts["port"]):
        order(program, "c")
        order(program, "k")
        rows = inbound(reader, facts["port"], 1)
    assert (len(rows), rows.values("process"), rows.values("user")) == (2, {"other-name"}, {USER})


def test_connections_that_are_open_already_follow_a_change_of_user(reader, run):
    program = run(sys.executable, "-c", ALONE)
    facts = program.receive()
    with connect(facts["port"]) as client:
        order(program, "k")
        assert reader.rows(facts["port"]).where(direction="in").values("user") == {"root"}
        order(program, UID)
        assert reader.rows(facts["port"]).where(direction="in").values("user") == {USER}
        order(program, "s")
        client.recv(1010, socket.MSG_WAITALL)
        program.end()
        rows = inbound(reader, facts["port"], 1)
    assert rows.values("user") == {USER}


def test_udp_of_a_process_that_was_renamed_has_the_new_name(reader, run):
    script = SERVE + (
        "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "report()\n"
        "for line in sys.stdin:\n"
        "    for _ in range(int(line)):\n"
        "        sender.sendto(b'd', ('127.0.0.1', 9))\n"
        "    rename('renamed-sender')\n"
        "    report()\n"
    )
    assert reader.request("enable")["message_probes_enabled"]
    program = run(sys.executable, "-c", script)
    program.receive()
    name = Path(f"/proc/{program.pid}/comm").read_text().strip()
    for count in (3, 5):
        order(program, count)
        rows = [row for row in reader.request("read")["by_process"] if row["pid"] == program.pid]
    assert {row["process"]: row["udp_datagrams_sent"] for row in rows} == {name: 3, "renamed-sender": 5}


def test_connections_beyond_the_ledger_of_a_process_that_was_renamed_have_the_new_name(start_reader, run):
    reader = start_reader(8)
    program = run(sys.executable, "-c", ALONE)
    facts = program.receive()
    names = [Path(f"/proc/{facts['pid']}/comm").read_text().strip(), "other-name"]
    for closes, name in enumerate(names, 1):
        order(program, name)
        for _ in range(100):
            with connect(facts["port"]):
                order(program, "c")
        reader.totals_until(lambda totals, closes=closes: totals(facts["pid"])["closes"] >= 100 * closes)
    accepts = Counter()
    for row in reader.request("read")["by_process"]:
        if row["pid"] == facts["pid"]:
            accepts[row["process"]] += row["accepts"]

    assert reader.quality["ledger_full"] > 0
    assert accepts == dict.fromkeys(names, 100)
