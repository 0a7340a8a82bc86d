"""The control socket with real clients: patient, slow, hostile and unauthorized ones."""

from __future__ import annotations

import grp
import json
import logging
import os
import pwd
import select
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from leftovers import descriptors_left

from watchdog.config.permissions import ACCOUNT
from watchdog.control import client, socket_path
from watchdog.control import server as server_module
from watchdog.control.client import send_request
from watchdog.control.listener import Listener
from watchdog.control.server import MAX_CLIENTS, ControlServer, Handler
from watchdog.control.socket_path import ControlError
from watchdog.errors import DaemonUnreachable, UsageError, WatchdogError

NOBODY = 65534
STRANGER = next(group.gr_gid for group in grp.getgrall() if group.gr_name == "games")


def refuse(given):
    raise WatchdogError("it is Sunday")


def fail(given):
    raise ZeroDivisionError


GATE = threading.Event()


def wait_for_gate(given):
    assert GATE.wait(60)
    return given


HANDLERS = {
    "echo": lambda given: given,
    "much": lambda given: "x" * given["letters"],
    "refuse": refuse,
    "fail": fail,
    "change": Handler(lambda given: given, changes=True),
    "slow": Handler(wait_for_gate, in_background=True, is_single=True),
    "slow failure": Handler(fail, in_background=True),
    "stuck": Handler(wait_for_gate, in_background=True),
    "quick": Handler(lambda given: given, in_background=True),
}


@pytest.fixture
def path(open_folder):
    return open_folder / "control.sock"


@pytest.fixture
def running(path):
    running = ControlServer(Listener.at(path), HANDLERS, logging.getLogger("watchdog"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def connect(path):
    peers = []

    def connect():
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peers.append(peer)
        peer.connect(str(path))
        peer.settimeout(60.0)
        return peer

    yield connect
    for peer in peers:
        peer.close()


def exchange(peer, request=b""):
    if request:
        peer.sendall(request)
    answer = b""
    while chunk := peer.recv(65_536):
        answer += chunk
    peer.close()
    return json.loads(answer) if answer else None


def wait_for_hang_up(peer):
    """Wait until the server has closed the connection, without reading from it."""
    poll = select.poll()
    poll.register(peer, 0)
    assert [event for _, event in poll.poll(15_000)] == [select.POLLHUP]


# --------------------------------------------------------------------------------------------------------------- asking


def test_a_request_is_answered_and_then_the_connection_ends(running, path):
    given = {"text": "ü\udcff", "number": 3}
    assert send_request(path, "echo", **given) == given


def test_an_answer_larger_than_any_buffer_comes_whole(running, path):
    assert send_request(path, "much", letters=5_000_000) == "x" * 5_000_000


def test_a_refusal_comes_with_its_words_and_exit_code(running, path):
    with pytest.raises(WatchdogError, match=r"^it is Sunday$"):
        send_request(path, "refuse")
    with pytest.raises(WatchdogError, match='unknown request "ech": did you mean "echo"') as caught:
        send_request(path, "ech")
    assert caught.value.exit_code == UsageError.exit_code


def test_a_defect_ends_neither_the_thread_nor_shows_itself(running, path, caplog):
    with pytest.raises(WatchdogError, match="read the daemon's log"):
        send_request(path, "fail")
    assert send_request(path, "echo") == {}
    assert "ZeroDivisionError" in caplog.text


def test_a_change_is_logged_with_the_account_of_its_client(running, path, caplog):
    caplog.set_level(logging.INFO)
    assert send_request(path, "change", a=1) == {"a": 1}
    assert send_request(path, "echo") == {}
    assert [record.message for record in caplog.records] == ["control request: request=change uid=0"]


def test_a_request_that_hangs_delays_others_for_a_limited_time(running, path, connect, monkeypatch):
    monkeypatch.setattr(server_module, "TURN_TIMEOUT_SECONDS", 0.2)
    GATE.clear()
    hanging = [connect() for _ in range(3)]
    for number, peer in enumerate(hanging):
        peer.sendall(b'{"request": "stuck", "arguments": {"a": %d}}\n' % number)
    try:
        assert send_request(path, "quick", b=2) == {"b": 2}
        monkeypatch.setattr(server_module, "MAX_IN_BACKGROUND", 3)
        with pytest.raises(WatchdogError, match="too many requests wait"):
            send_request(path, "quick", b=2)
        assert send_request(path, "echo", b=3) == {"b": 3}
    finally:
        GATE.set()
    for number, peer in enumerate(hanging):
        assert exchange(peer)["result"] == {"a": number}
    assert send_request(path, "quick", b=2) == {"b": 2}


def test_a_handler_in_the_background_delays_no_other_client(running, path, connect):
    GATE.clear()
    waiting = connect()
    waiting.sendall(b'{"request": "slow", "arguments": {"a": 1}}\n')
    try:
        assert send_request(path, "echo", b=2) == {"b": 2}
        with pytest.raises(WatchdogError, match="another slow is under way"):
            send_request(path, "slow")
    finally:
        GATE.set()
    assert exchange(waiting) == {"version": 1, "result": {"a": 1}}
    assert send_request(path, "slow", is_slow=True, c=3) == {"c": 3}


def test_a_client_that_leaves_a_handler_in_the_background_harms_nobody(running, path, connect):
    GATE.clear()
    leaving = connect()
    leaving.sendall(b'{"request": "slow"}\n')
    leaving.close()
    with pytest.raises(WatchdogError, match="read the daemon's log"):
        send_request(path, "slow failure", is_slow=True)
    GATE.set()
    assert send_request(path, "echo", b=2) == {"b": 2}


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_a_request_of_another_version_is_refused(running, connect, version):
    line = json.dumps({"version": version, "request": "echo"}).encode() + b"\n"
    answer = exchange(connect(), line)
    assert answer["error"].startswith("this daemon answers requests of version 1 only: use a command of the daemon's")
    assert answer["exit_code"] == UsageError.exit_code


@pytest.mark.parametrize("request_", [b"\n", b"nonsense\n", b"[]\n", b"\xff\xfe\n", b"[" * 50_000 + b"\n"])
def test_bytes_that_are_no_request_are_refused(running, path, request_, connect):
    assert exchange(connect(), request_)["exit_code"] == UsageError.exit_code


def test_a_request_without_an_end_is_answered_once_it_is_too_long(running, path, connect):
    assert "at most 65536 bytes" in exchange(connect(), b"x" * 65_537)["error"]


def test_a_request_in_pieces_and_one_that_ends_with_its_stream_are_answered(running, path, connect):
    peer = connect()
    for piece in (b'{"requ', b'est": "echo"', b"}"):
        peer.sendall(piece)
        time.sleep(0.02)
    peer.shutdown(socket.SHUT_WR)
    assert exchange(peer) == {"version": 1, "result": {}}


# --------------------------------------------------------------------------------------------------------- slow clients


def test_slow_clients_delay_no_other_and_are_disconnected_at_their_deadline(running, path, monkeypatch, connect):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(server_module, "RESPONSE_WRITE_TIMEOUT_SECONDS", 3.0)
    silent = [connect() for _ in range(5)]
    not_reading = connect()
    not_reading.sendall(b'{"request": "much", "arguments": {"letters": 5000000}}\n')
    dripping = connect()
    began = time.monotonic()
    for letter in b'{"req':
        dripping.send(bytes([letter]))
        assert send_request(path, "echo", now=1) == {"now": 1}
    assert time.monotonic() - began < 3.0
    for peer in (*silent, dripping):
        assert exchange(peer) is None
    # Its write limit starts with the response, after the others' limits: an earlier read would drain the response.
    wait_for_hang_up(not_reading)
    with pytest.raises(ValueError, match="Unterminated"):
        exchange(not_reading)


def test_when_all_places_are_taken_others_wait_until_one_is_free(running, path, monkeypatch, connect):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_SECONDS", 3.0)
    silent = [connect() for _ in range(MAX_CLIENTS)]
    assert send_request(path, "echo") == {}
    for peer in silent:
        assert exchange(peer) is None


def test_without_a_free_descriptor_a_client_waits_and_the_server_leaves_the_cpu_to_others(running, path):
    cpu_clock = time.pthread_getcpuclockid(running._thread.ident)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        with descriptors_left(0):
            peer.connect(str(path))
            peer.sendall(b'{"request": "echo"}\n')
            began = time.clock_gettime(cpu_clock)
            time.sleep(0.5)
            assert time.clock_gettime(cpu_clock) - began < 0.2
        peer.settimeout(60.0)
        assert exchange(peer) == {"version": 1, "result": {}}


def test_clients_that_come_and_go_leave_nothing_behind(running, path, connect, wait_for):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(100):
        connect().close()
        with connect() as peer:
            peer.sendall(b'{"request": "much", "arguments": {"letters": 500000}}\n')
    assert send_request(path, "echo") == {}
    wait_for(lambda: descriptors() == before, "the last to be left")
    assert len([thread for thread in threading.enumerate() if thread.name == "control"]) == 1


@pytest.fixture
def renewing(path, monkeypatch):
    """Run a server that looks for its socket every 50 ms."""
    monkeypatch.setattr(server_module, "RENEWAL_SECONDS", 0.05)
    running = ControlServer(Listener.at(path), HANDLERS, logging.getLogger("watchdog"))
    running.start()
    yield running
    running.stop()


def test_a_socket_that_somebody_removes_is_created_again(renewing, path, wait_for, caplog):
    assert send_request(path, "echo") == {}
    for _ in range(2):
        path.unlink()
        wait_for(path.exists, "the socket to be created again")
        assert send_request(path, "echo") == {}

    assert [record.message for record in caplog.records if "removed" in record.message] == [
        f"control socket removed and created again: path={path}"
    ] * 2
    renewing.stop()
    assert not path.exists()


def test_without_its_folder_the_socket_is_created_again_when_that_is_back(renewing, path, wait_for, caplog):
    moved = path.parent.with_name(f"{path.parent.name}-moved")
    path.parent.rename(moved)
    wait_for(lambda: "no command reaches the daemon" in caplog.text, "the missing folder to be logged")
    path.parent.mkdir(mode=0o755)
    wait_for(path.exists, "the socket to be created again")
    assert send_request(path, "echo") == {}
    assert caplog.text.count("no command reaches the daemon") == 1
    shutil.rmtree(moved)


def test_a_socket_of_another_daemon_is_left_alone(renewing, path, caplog):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.bind(str(path))
        except FileExistsError:  # created again already
            path.unlink()
            other.bind(str(path))
        inode = path.stat().st_ino
        time.sleep(0.3)
        assert path.stat().st_ino == inode


# ---------------------------------------------------------------------------------------------------------- permissions

CLIENT = """
import sys
from pathlib import Path
from watchdog.control.client import send_request
from watchdog.errors import WatchdogError
try:
    print(send_request(Path(sys.argv[1]), "echo"))
except WatchdogError as error:
    print(error.exit_code, error)
"""


def asked_as(path, *, uid, gid, groups=""):
    groups = f"--groups={groups}" if groups else "--clear-groups"
    # The interpreter that anyone may run: the modules are read before the account changes.
    program = f"""
import os, sys
from watchdog.control import client
os.setgroups({[int(group) for group in groups.partition("=")[2].split(",") if group]})
os.setresgid({gid}, {gid}, {gid}); os.setresuid({uid}, {uid}, {uid})
{CLIENT}"""
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False, timeout=170
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_only_root_and_the_sockets_group_may_connect(path, open_folder):
    os.chown(open_folder, 0, STRANGER)
    before = os.getegid()
    os.setegid(STRANGER)
    try:
        listener = Listener.at(path)
        running = ControlServer(listener, HANDLERS, logging.getLogger("watchdog"))
    finally:
        os.setegid(before)
    running.start()
    try:
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, STRANGER)
        assert asked_as(path, uid=0, gid=0) == "{}"
        assert asked_as(path, uid=NOBODY, gid=STRANGER) == "{}"
        assert asked_as(path, uid=NOBODY, gid=NOBODY, groups=str(STRANGER)) == "{}"
        assert asked_as(path, uid=NOBODY, gid=NOBODY).startswith(
            f"4 this user may not connect to the daemon at {path}: run"
        )
        path.chmod(0o666)
        refusal = "4 only root and members of the socket's group may send requests"
        assert asked_as(path, uid=NOBODY, gid=NOBODY, groups="1,2") == refusal
        assert asked_as(path, uid=NOBODY, gid=NOBODY, groups=str(STRANGER)) == "{}"
    finally:
        running.stop()


# ---------------------------------------------------------------------------------------------------- the socket's file


def test_a_socket_that_a_killed_daemon_left_is_replaced(path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.listen()
    left.close()
    listener = Listener.at(path)
    listener.close()
    assert not path.exists()


def test_a_socket_that_somebody_answers_on_is_left_alone(running, path):
    with pytest.raises(ControlError, match=f"another daemon listens on {path}: choose another socket"):
        Listener.at(path)
    assert send_request(path, "echo") == {}


def test_one_with_a_full_queue_counts_as_answered(path, connect):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = connect()
        with pytest.raises(ControlError, match="another daemon listens on"):
            Listener.at(path)
        waiting.close()
    assert path.exists()


@pytest.mark.parametrize("thing", ["file", "link", "folder"])
def test_a_path_that_is_not_a_socket_is_not_touched(path, open_folder, thing):
    victim = open_folder / "victim"
    victim.write_text("letters")
    if thing == "link":
        path.symlink_to(victim)
    elif thing == "file":
        path.write_text("letters")
    else:
        path.mkdir()
    with pytest.raises(ControlError, match=f"{path} is not a socket: move it away"):
        Listener.at(path)
    assert path.exists()
    assert victim.read_text() == "letters"


def test_a_missing_folder_is_reported(open_folder):
    with pytest.raises(
        ControlError, match=r"cannot listen on the control socket .*: No such file or directory: choose another socket"
    ):
        Listener.at(open_folder / "none" / "control.sock")


def test_at_the_end_another_daemons_socket_stays(path):
    first = Listener.at(path)
    path.unlink()
    second = Listener.at(path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_a_path_of_any_length_will_do(open_folder):
    folder = open_folder / ("long" * 40)
    folder.mkdir()
    path = folder / "control.sock"
    running = ControlServer(Listener.at(path), HANDLERS, logging.getLogger("watchdog"))
    running.start()
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    assert send_request(path, "echo") == {}
    running.stop()
    with pytest.raises(DaemonUnreachable, match="No such file or directory"):
        send_request(path, "echo")


def test_a_daemon_that_hangs_or_ends_is_reported_as_unreachable(path, monkeypatch):
    monkeypatch.setattr("watchdog.control.client.RESPONSE_TIMEOUT_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(path))
        hanging.listen()
        with pytest.raises(DaemonUnreachable, match=f"the daemon at {path} does not answer"):
            send_request(path, "echo")
    with pytest.raises(DaemonUnreachable, match=r"no daemon answers at .*: Connection refused"):
        send_request(path, "echo")


def test_the_usual_folder_is_made_for_the_account_and_any_other_is_left_alone(open_folder, monkeypatch):
    account = pwd.getpwnam(ACCOUNT)
    usual, other = open_folder / "run", open_folder / "other"
    other.mkdir(0o700)
    monkeypatch.setattr(socket_path, "DEFAULT_RUNTIME_FOLDER", str(usual))
    for folder in (usual, usual, other):  # twice: it stays from one start to the next
        socket_path.prepare_socket_folder(folder / "control.sock", account)
    assert (usual.stat().st_uid, stat.S_IMODE(usual.stat().st_mode)) == (account.pw_uid, 0o755)
    assert (other.stat().st_uid, stat.S_IMODE(other.stat().st_mode)) == (0, 0o700)


def test_a_link_in_the_usual_folders_place_gives_nothing_away(open_folder, monkeypatch):
    victim, usual = open_folder / "victim", open_folder / "run"
    victim.mkdir()
    usual.symlink_to(victim)
    monkeypatch.setattr(socket_path, "DEFAULT_RUNTIME_FOLDER", str(usual))
    with pytest.raises(ControlError, match=f"cannot create {usual}"):
        socket_path.prepare_socket_folder(usual / "control.sock", pwd.getpwnam(ACCOUNT))
    assert victim.stat().st_uid == 0


def test_a_server_that_sends_a_byte_now_and_then_stretches_no_deadline():
    server, peer = socket.socketpair()
    with server, peer:
        server.sendall(b"x")
        server.shutdown(socket.SHUT_WR)
        with pytest.raises(TimeoutError):
            client._read(peer, time.monotonic() - 1)
