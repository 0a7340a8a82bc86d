"""Real programs, well-behaved and not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from leftovers import child_processes, open_descriptors

from watchdog.errors import DeliveryError
from watchdog.receivers.command import Command
from watchdog.receivers.transport.child_process import MAX_OUTPUT_BYTES, run_process
from watchdog.receivers.transport.deadline import Deadline

DEADLINE = 10.0


@pytest.fixture
def script(tmp_path):
    """Return a function that builds a command from a shell script; $1 is its folder."""

    def make(text):
        file = tmp_path / "script"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return Command("script", (str(file), str(tmp_path)))

    return make


def failure_of(receiver, notification, deadline=DEADLINE):
    with pytest.raises(DeliveryError) as caught:
        receiver.send(notification, deadline)
    return caught.value


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_program_gets_the_notification_on_its_input(script, firing, tmp_path):
    receiver = script('cat >"$1/given"; echo all is well')
    receiver.send(firing, DEADLINE)
    assert (tmp_path / "given").read_bytes() == receiver.render(firing)


def test_arguments_are_unchanged_and_the_environment_is_clean(firing, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_URL", "secret")
    words = ("/usr/bin/python3", "-c", WRITE_ALL, str(tmp_path / "out"), "$(id) `id` ; * \\", "--x")
    Command("script", words).send(firing, DEADLINE)
    arguments, environment = json.loads((tmp_path / "out").read_text())
    assert arguments == ["$(id) `id` ; * \\", "--x"]
    assert environment.pop("LC_CTYPE", None) in (None, "C.UTF-8")  # set by Python itself
    assert {name for name in environment if not name.startswith("WATCHDOG_")} == {"PATH", "LANG"}
    assert environment["WATCHDOG_TITLE"].startswith("[FIRING] critical: crawler opens 612/s connections")


WRITE_ALL = "import json, os, sys; json.dump((sys.argv[2:], dict(os.environ)), open(sys.argv[1], 'w'))"


@pytest.mark.parametrize(("code", "retryable"), [(1, True), (64, True), (65, False), (75, True), (127, True)])
def test_the_exit_code_is_the_result(script, firing, code, retryable):
    failure = failure_of(script(f"echo no; echo route to host >&2; exit {code}"), firing)
    assert (failure.reason, failure.retryable) == ("command", retryable)
    assert str(failure).endswith(f"/script ended with code {code}: route to host")


def test_a_killed_program_is_retryable(script, firing):
    failure = failure_of(script("kill -SEGV $$"), firing)
    assert failure.retryable
    assert str(failure).endswith("/script was killed by SIGSEGV")


def test_a_missing_program_is_retryable(script, firing, tmp_path):
    receiver = script("exit 0")
    (tmp_path / "script").unlink()
    failure = failure_of(receiver, firing)
    assert (failure.reason, failure.retryable) == ("command", True)
    assert str(failure) == f"cannot start {tmp_path}/script: No such file or directory"


def test_a_hanging_program_is_killed_with_its_children(script, firing, tmp_path, wait_for):
    receiver = script("trap '' TERM HUP; sleep 60 & echo $! >\"$1/child\"; wait")
    began = time.monotonic()
    failure = failure_of(receiver, firing, 1.0)
    assert time.monotonic() - began < 5
    assert (failure.reason, failure.retryable) == ("timeout", True)
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not is_alive(child), "what it started to be gone")


def test_a_child_left_behind_causes_no_delay_and_is_killed(script, firing, tmp_path, wait_for):
    receiver = script('sleep 60 & echo $! >"$1/child"')  # keeps the output open
    began = time.monotonic()
    receiver.send(firing, DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not is_alive(child), "what it left to be gone")


def test_endless_output_costs_no_memory_and_is_killed(firing):
    ended = run_process(("/usr/bin/head", "-c", "50000000", "/dev/zero"), b"", {}, Deadline(DEADLINE))
    assert (ended.exit_code, ended.output) == (0, bytes(MAX_OUTPUT_BYTES))
    assert failure_of(Command("script", ("/usr/bin/yes",)), firing, 0.5).reason == "timeout"


def test_a_program_may_ignore_a_long_notification(script, firing):
    [alert] = firing.alerts
    many = dataclasses.replace(firing, alerts=(alert,) * 2_000)
    receiver = script("exec <&-; exit 0")
    assert len(receiver.render(many)) > 1_000_000
    receiver.send(many, DEADLINE)


def test_a_slow_reader_gets_all_of_a_long_notification(script, firing, tmp_path):
    [alert] = firing.alerts
    many = dataclasses.replace(firing, alerts=(alert,) * 2_000)
    receiver = script('sleep 0.2; cat >"$1/given"')
    receiver.send(many, DEADLINE)
    assert (tmp_path / "given").read_bytes() == receiver.render(many)


def test_the_program_starts_without_blocked_or_ignored_signals(script, firing, tmp_path):
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))  # as in the daemon's threads
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        script('exec cat /proc/self/status >"$1/status"').send(firing, DEADLINE)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGHUP))
    status = dict(line.split(":\t", 1) for line in (tmp_path / "status").read_text().splitlines() if ":\t" in line)
    standard = (1 << 31) - 1  # the two signals above them are reserved by glibc
    assert (int(status["SigBlk"], 16), int(status["SigIgn"], 16) & standard) == (0, 0)


def test_the_program_inherits_no_descriptor(script, firing, tmp_path):
    with Path("/dev/null").open() as ours:
        os.set_inheritable(ours.fileno(), True)  # like an inherited descriptor
        script('exec ls /proc/self/fd >"$1/open"').send(firing, DEADLINE)
    assert (tmp_path / "open").read_text().split() == ["0", "1", "2", "3"]  # the last is the listed folder itself


def test_many_runs_leave_no_process_and_no_descriptor(script, firing):
    receiver = script("exit 0")
    before = open_descriptors(), child_processes()
    threads = [threading.Thread(target=receiver.send, args=(firing, DEADLINE)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_descriptors() == before[0]
    assert child_processes() <= before[1]


def test_the_unit_allows_programs_and_their_exit_codes():
    def calls(group):
        listed = subprocess.run(
            ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, timeout=170, check=True
        )
        words = [line.strip() for line in listed.stdout.splitlines() if line.startswith("    ")]
        return {call for word in words for call in (calls(word) if word.startswith("@") else {word})}

    allowed = calls("@system-service") - calls("@privileged") - calls("@resources")
    assert {"clone", "vfork", "execve", "dup2", "setsid", "rt_sigprocmask", "pidfd_open", "kill", "wait4"} <= allowed
