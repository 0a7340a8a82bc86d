"""The start: errors that prevent it, notifications to systemd, and the format of the log."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from watchdog.kernel.handover import LoaderStep

PATIENCE = 60.0  # well below the loader's own limit of 240 s
ON_THE_HOST = "run it on the host, or in a container without a user namespace (a privileged one)"
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture
def refused(watchdog):
    """Return a function that starts a daemon that cannot start; it returns exit code and log."""

    def refused(*command):
        watchdog.launch(*command)
        return watchdog.process.wait(60), watchdog.log()

    return refused


def test_without_a_rule_it_does_not_start(watchdog, server, refused):
    watchdog.configure({"hook": server.as_receiver()}, {})

    assert refused() == (
        1,
        f"bpf-watchdog: {watchdog.rules}:1: rule: no rules found: no alert could ever fire\n",
    )


def test_all_problems_of_all_files_are_reported_at_once(watchdog, storm, refused):
    receivers = {
        "Hook": {"type": "webhook", "url": "http://127.0.0.1:1/"},
        "near": {"type": "syslog", "address": "tcp:514"},
        "far": {"type": "pager"},
    }
    watchdog.configure(receivers, {"storm": storm.rule(window="soon", receivers=["nobody"])}, interval="1ms")
    code, log = refused()
    head, *problems = log.splitlines()
    assert head == "bpf-watchdog: 6 problems:"
    reported = [line.split(": ")[:2] for line in problems]
    lines = {}
    for file in (watchdog.config, watchdog.rules / "test.toml"):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            lines[file.name, line] = f"{file}:{number}"

    assert code == 1
    assert sorted(map(tuple, reported)) == sorted(
        [
            (lines["watchdog.toml", 'interval = "1ms"'], "sampling.interval"),
            (lines["watchdog.toml", 'name = "Hook"'], "receiver.name"),
            (lines["watchdog.toml", 'address = "tcp:514"'], "receiver.address"),
            (lines["watchdog.toml", 'type = "pager"'], "receiver.type"),
            (lines["test.toml", 'window = "soon"'], "rule.window"),
            (lines["test.toml", 'receivers = ["nobody"]'], "rule.receivers"),
        ]
    )


def test_settings_that_are_no_toml_do_not_hide_the_problems_of_rules(watchdog, storm, refused):
    watchdog.configure({}, {"storm": storm.rule(window="soon")})
    watchdog.config.write_text("[sampling\n")
    code, log = refused()

    assert code == 1
    assert f"{watchdog.config}:1: file: not TOML" in log
    assert ": rule.window: " in log


def test_a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on(
    start_daemon, watchdog, refused, storm, notified
):
    start_daemon()
    first = watchdog.process
    code, log = refused()
    watchdog.process = first

    assert code == 1
    assert log == (
        f"bpf-watchdog: another bpf-watchdog uses {watchdog.state}: stop it first, "
        "or use another folder: --state-dir DIR\n"
    )
    storm.hold()
    notified("firing")


@pytest.mark.parametrize("obstacle", ["a file", "a folder of root"])
def test_an_unusable_state_folder_is_reported_with_the_remedy(watchdog, server, storm, refused, obstacle):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    above = watchdog.state
    if obstacle == "a file":
        above.write_text("")
    else:
        above.mkdir(0o700)
    watchdog.state = above / "state"
    code, log = refused()
    reason = "Not a directory" if obstacle == "a file" else "Permission denied"

    assert code == 1
    remedy = "use another folder: --state-dir DIR"
    assert log == f"bpf-watchdog: cannot use the state folder {watchdog.state}: {reason}: {remedy}\n"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("--nproc=4:4", "no further thread or process is allowed: see pids.max of the control group"),
        ("--nofile=8:8", "cannot run the loader of the BPF programs: Too many open files"),
        ("--as=250000000:250000000", "cannot load the library of bcc: "),
    ],
    ids=["processes", "descriptors", "memory"],
)
def test_a_start_without_resources_has_their_name_and_a_code_of_its_own(
    watchdog, server, storm, refused, limit, message
):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    code, log = refused("prlimit", limit)

    assert (code, "Traceback" in log) == (75, False), log
    assert f"bpf-watchdog: {message}" in log


def test_missing_privileges_are_reported_before_any_other_problem(watchdog, open_command, refused):
    watchdog.command = open_command
    code, log = refused(*AS_NOBODY)

    assert code == 4
    assert log == (
        "bpf-watchdog: CAP_BPF and CAP_PERFMON missing: run as root, or as a systemd service with "
        "AmbientCapabilities=CAP_BPF CAP_PERFMON (see packaging/systemd/)\n"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["unshare", "--user", "--map-root-user"],
            f"capabilities of a user namespace, which do not permit to load BPF programs: {ON_THE_HOST}",
        ),
        (
            ["unshare", "--mount", "/bin/sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"],
            "no /proc here: mount -t proc proc /proc",
        ),
        (
            ["unshare", "--mount", "/bin/sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"],
            "the kernel has no BTF (/sys/kernel/btf/vmlinux): boot one built with CONFIG_DEBUG_INFO_BTF=y",
        ),
    ],
    ids=["user namespace", "proc", "BTF"],
)
def test_a_container_that_lacks_something_is_told_in_a_line(watchdog, server, storm, refused, command, message):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    code, log = refused(*command)

    assert (code, log.splitlines()[0]) == (4, f"bpf-watchdog: {message}")
    assert "Traceback" not in log


# --------------------------------------------------------------------------------------------- systemd, the journal


class Manager:
    """A fake service manager: a datagram socket that the daemon's account may write to, read all the time."""

    def __init__(self, path):
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        path.chmod(0o666)
        self._messages = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._receive)
        self._reader.start()

    def _receive(self):
        while message := self._socket.recv(4096):
            self._messages.put(message.decode())

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self.path)
        self._reader.join()
        self._socket.close()

    def read(self):
        return self._messages.get(timeout=PATIENCE)

    def read_until(self, wanted):
        """Return the messages before `wanted`, without those of ticks."""
        before = []
        while (message := self.read()) != wanted:
            if message != "WATCHDOG=1":
                before.append(message)
        return before


@pytest.fixture
def manager(open_folder):
    manager = Manager(open_folder / "notify")
    yield manager
    manager.close()


def test_systemd_is_notified_of_start_reload_ticks_and_stop(watchdog, server, storm, manager):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    watchdog.start(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="30000000")
    *steps, status, interval = manager.read_until("READY=1")
    assert [re.fullmatch(r"STATUS=starting: (.+)\nEXTEND_TIMEOUT_USEC=300000000", step)[1] for step in steps] == [
        "reading the files",
        *LoaderStep,
        "opening the state file",
        "reading the first sample",
    ]
    assert (status, interval) == ("STATUS=watching by 6 rules", "WATCHDOG_USEC=30000000")
    assert manager.read_until("WATCHDOG=1") == []
    watchdog.reload()
    reloading, status = manager.read_until("READY=1")
    assert re.fullmatch(r"STATUS=watching by 6 rules, reloaded at [\d-]{10} [\d:]{8} UTC", status)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
    assert watchdog.terminate()[0] == 0
    assert manager.read_until("STOPPING=1") == []


def test_the_status_line_has_a_problem_of_delivery_until_the_receiver_answers(watchdog, server, storm, manager):
    server.answer = (404, {}, b"")
    watchdog.configure({"hook": server.as_receiver()}, {"crowd": storm.crowd_rule()})
    watchdog.start(NOTIFY_SOCKET=manager.path)
    *_, status = manager.read_until("READY=1")
    storm.hold()
    problem = "notification failed for good: receiver=hook reason=client_error: 127.0.0.1 answered 404"
    assert manager.read() == f"{status}; {problem}"
    server.answer = (200, {}, b"")
    assert watchdog.ask("notifications", "retry", "--failed")[0] == 0
    assert manager.read() == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start_waits_for_no_compiler_and_leaves_nothing(watchdog, server, storm, manager, number):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    runtime = watchdog.config.parent / "runtime"
    runtime.mkdir()
    watchdog.launch(NOTIFY_SOCKET=manager.path, RUNTIME_DIRECTORY=str(runtime))
    while LoaderStep.COMPILE not in manager.read():
        pass
    [loader] = Path(f"/proc/{watchdog.process.pid}/task/{watchdog.process.pid}/children").read_text().split()
    os.kill(int(loader), signal.SIGSTOP)
    watchdog.process.send_signal(number)

    assert watchdog.process.wait(PATIENCE) == 0
    assert manager.read() == "STOPPING=1"
    assert watchdog.log().endswith("INFO stopped during the start\n")
    assert not list(runtime.iterdir())
    assert not Path(f"/proc/{loader}").exists()


def test_another_interval_is_kept_from_the_reload_on_and_systemd_waits_accordingly(watchdog, server, storm, manager):
    files = {"hook": server.as_receiver()}, {"storm": storm.rule(window="5s")}
    watchdog.configure(*files, interval="100ms")
    watchdog.start(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="2000000")
    assert manager.read_until("READY=1")[-2:] == ["STATUS=watching by 6 rules", "WATCHDOG_USEC=2000000"]
    watchdog.configure(*files, interval="1500ms")
    watchdog.reload()
    *_, interval, status = manager.read_until("READY=1")  # a slow machine has raised the interval before
    assert (interval, status.partition(", ")[0]) == ("WATCHDOG_USEC=4500000", "STATUS=watching by 6 rules")
    ticks = []
    while len(ticks) < 4:
        assert manager.read() == "WATCHDOG=1"
        ticks.append(time.monotonic())

    # The first one may have been sent before the reload.
    assert min(later - earlier for earlier, later in pairwise(ticks[1:])) > 0.75


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "elsewhere"])
def test_lines_for_the_journal_have_priorities_others_time_and_level(watchdog, server, storm, journal):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    watchdog.start(JOURNAL_STREAM=watchdog.log_stream() if journal else "1:2")
    introduction = watchdog.log()
    watchdog.config.write_text("[sampling\n")
    refusal = watchdog.reload()

    if journal:
        assert {line[:3] for line in introduction.splitlines()} == {"<6>"}
        assert [line[:3] for line in refusal.splitlines()] == ["<3>", "<3>"]
    else:
        assert all(re.match(r"[\d-]{10}T[\d:]{8}\.\d{3}Z INFO ", line) for line in introduction.splitlines())


@pytest.mark.parametrize("interval", ["1ms", "2h", "soon"])
def test_an_interval_out_of_bounds_is_a_mistake_of_the_command_line(watchdog, server, storm, refused, interval):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    watchdog.launch(more=["--interval", interval])

    assert watchdog.process.wait(60) == 2
    assert "--interval: " in watchdog.log()


def test_a_damaged_state_file_is_moved_aside_and_the_daemon_continues(
    start_daemon, watchdog, server, storm, notified, wait_for
):
    start_daemon()
    storm.hold()
    notified("firing")
    watchdog.kill()
    for name in ("state.sqlite3", "state.sqlite3-wal"):
        with (watchdog.state / name).open("r+b") as file:
            file.write(b"garbage" * 20)
    watchdog.start()
    wait_for(lambda: len(server.posts) > 1, "the alert to be sent again")
    assert watchdog.log().count(' reason="file is not a database" ') == 1
    assert watchdog.terminate()[0] == 0
    watchdog.start()
    assert "damaged" not in watchdog.log()
    assert watchdog.terminate()[0] == 0
    assert len(list(watchdog.state.glob("state.sqlite3.damaged-*Z"))) == 1
