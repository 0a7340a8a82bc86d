"""The real journald, started with a private /run, and misbehaving sockets."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from watchdog import sanitize
from watchdog.errors import DeliveryError
from watchdog.receivers.journald import Journald

DAEMON = "/lib/systemd/systemd-journald"
DEADLINE = 5.0

HOSTILE_NAMES = (
    "line\nMESSAGE=forged\nPRIORITY=0",
    "\x1b[2J",
    "nul\x00nul",
    "\u202egnp.exe \u2028",
    b"bytes \xff\xfe".decode("utf-8", "surrogateescape"),
    "lone \ud800 surrogate",
    "=",
    "é" * 5_000,
    "日本 🔥",
)


class Journal:
    """A systemd-journald in its own namespace; its files are in memory and end with it."""

    def __init__(self, wait_for) -> None:
        self._wait_for = wait_for
        prepare = "mount -t tmpfs none /run && mount -t tmpfs none /var/log && mkdir -p /run/systemd"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{prepare} && exec {DAEMON} watchdog"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Its files are visible through the root of its process.
        self._root = Path(f"/proc/{self._process.pid}/root")
        self.socket = self._root / "run/systemd/journal.watchdog/socket"
        wait_for(lambda: os.path.lexists(self.socket), "journald to listen")

    def entries(self, count: int) -> list[dict]:
        """Wait for `count` entries of the receiver; return them as journalctl reads them."""
        self._wait_for(lambda: len(self._read()) >= count, f"{count} entries")
        return self._read()

    def _read(self) -> list[dict]:
        command = ["nsenter", f"--target={self._process.pid}", "--mount", "journalctl", "--namespace=watchdog"]
        match = ["--all", "--output=json", "SYSLOG_IDENTIFIER=bpf-watchdog"]
        done = subprocess.run([*command, *match], capture_output=True, timeout=170, check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture
def journal(wait_for):
    running = Journal(wait_for)
    yield running
    running.stop()


def test_the_journal_reads_every_field(journal, firing, resolved):
    receiver = Journald("journal", str(journal.socket))
    for notification in (firing, resolved):
        receiver.send(notification, DEADLINE)
    fires, ends = journal.entries(2)
    assert fires["MESSAGE"].split("\n")[0] == "[FIRING] critical: crawler opens 612/s connections (limit 500/s)"
    assert fires["MESSAGE"].split("\n")[-1] == "host web-1, rule outbound-connection-storm"
    assert {name: value for name, value in fires.items() if name.startswith("WATCHDOG_LABEL_")} == {
        "WATCHDOG_LABEL_PROCESS": "crawler",
        "WATCHDOG_LABEL_UNIT": "crawler.service",
    }
    assert [(entry["PRIORITY"], entry["WATCHDOG_STATE"], entry["WATCHDOG_VALUE"]) for entry in (fires, ends)] == [
        ("2", "firing", "612.0"),
        ("5", "resolved", "3.0"),
    ]
    assert [entry["WATCHDOG_NOTIFICATION_ID"] for entry in (fires, ends)] == ["a" * 32, "b" * 32]
    assert fires["MESSAGE_ID"] != ends["MESSAGE_ID"]
    assert (fires["_PID"], fires["_TRANSPORT"]) == (str(os.getpid()), "journal")


def test_hostile_names_and_long_entries_arrive_complete(journal, firing):
    [alert] = firing.alerts
    alerts = [
        dataclasses.replace(alert, labels=(("process", name),), summary=name, reason=name) for name in HOSTILE_NAMES
    ]
    long = dataclasses.replace(alert, labels=tuple((f"label{number}", "é" * 1_000) for number in range(300)))
    Journald("journal", str(journal.socket)).send(dataclasses.replace(firing, alerts=(*alerts, long)), DEADLINE)
    *others, last = journal.entries(len(HOSTILE_NAMES) + 1)
    assert [entry["WATCHDOG_LABEL_PROCESS"] for entry in others] == [
        sanitize.escape_unprintable(name, 1_024) for name in HOSTILE_NAMES
    ]
    assert {(entry["PRIORITY"], entry["WATCHDOG_RULE"]) for entry in others} == {("2", "outbound-connection-storm")}
    assert last["WATCHDOG_LABEL_LABEL299"] == "é" * 1_000


def test_an_entry_too_long_for_a_datagram_is_sent_as_a_sealed_file(tmp_path, firing):
    [alert] = firing.alerts
    long = dataclasses.replace(alert, labels=tuple((f"label{number}", "é" * 1_000) for number in range(300)))
    receiver = Journald("journal", f"{tmp_path}/socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(f"{tmp_path}/socket")
        receiver.send(dataclasses.replace(firing, alerts=(long,)), DEADLINE)
        payload, [descriptor], *_ = socket.recv_fds(reader, 65_536, 1)
    with os.fdopen(descriptor, "r+b") as file:
        assert payload == b""
        file.seek(0)
        assert file.read() == receiver.render(dataclasses.replace(firing, alerts=(long,)))
        with pytest.raises(PermissionError):
            os.truncate(descriptor, 0)


def test_an_unread_journal_socket_fails_at_the_deadline(tmp_path, firing):
    crowd = dataclasses.replace(firing, alerts=firing.alerts * 2_000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(f"{tmp_path}/socket")
        began = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            Journald("journal", f"{tmp_path}/socket").send(crowd, 1.0)
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)
    assert time.monotonic() - began < 3.0


def test_a_missing_journal_is_retryable(tmp_path, firing):
    with pytest.raises(DeliveryError, match=r"/socket: No such file or directory$") as caught:
        Journald("journal", f"{tmp_path}/socket").send(firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("socket", True)
