"""The daemon stopped by SIGSTOP for a while, as it is when a machine is suspended or a hypervisor takes a pause."""

from __future__ import annotations

import signal
import socket
import time

import pytest

INTERVAL_SECONDS = 0.5
STOPPED_SECONDS = 20.0
MISSED_TICKS = STOPPED_SECONDS / INTERVAL_SECONDS


@pytest.fixture
def heartbeats(open_folder):
    """Return the socket of systemd, and a function that returns the messages since the last call."""
    path = open_folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        path.chmod(0o666)
        manager.setblocking(False)

        def take():
            notified = []
            try:
                while True:
                    notified.append(manager.recv(4096).decode())
            except BlockingIOError:
                return notified

        yield str(path), take


def test_missed_ticks_are_counted_not_repeated_and_no_notification_is_sent_twice(
    watchdog, server, storm, notified, heartbeats
):
    path, take = heartbeats
    missed = {
        "summary": "{value} ticks missed", "metric": "missed_ticks", "stat": "sum", "window": "60s", "fire_above": 20,
    }  # fmt: skip
    rules = {"missed": missed, "storm": storm.crowd_rule()}
    watchdog.configure({"hook": server.as_receiver()}, rules, interval="500ms")
    watchdog.start(NOTIFY_SOCKET=path, WATCHDOG_USEC="30000000")
    began = time.monotonic()
    storm.hold()
    notified("firing")
    stopped = time.monotonic()
    watchdog.process.send_signal(signal.SIGSTOP)
    missed_before = (stopped - began) / INTERVAL_SECONDS - take().count("WATCHDOG=1")  # on a slow machine
    time.sleep(STOPPED_SECONDS)
    take()
    resumed = time.monotonic()
    watchdog.process.send_signal(signal.SIGCONT)
    time.sleep(3 * INTERVAL_SECONDS)
    ticks, passed = take().count("WATCHDOG=1"), (time.monotonic() - resumed) / INTERVAL_SECONDS
    _, told_missed = notified("firing", "firing")
    storm.release()
    _, _, ended = notified("firing", "firing", "resolved")

    assert 1 <= ticks <= 1 + passed + 1  # one for all that were missed, and those of three intervals
    assert told_missed["groupLabels"]["alertname"] == "missed"
    value = float(told_missed["alerts"][0]["annotations"]["value"])
    assert MISSED_TICKS - 1 <= value <= MISSED_TICKS + max(0, missed_before) + 1
    assert ended["groupLabels"]["alertname"] == "storm"
