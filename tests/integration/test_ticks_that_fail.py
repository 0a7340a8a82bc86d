"""Ticks that hang or raise: systemd gets no watchdog message and restarts the daemon; other jobs continue."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from itertools import pairwise

import pytest

from watchdog.clock import SECOND_NS, SystemClock
from watchdog.daemon.configuration import ConfigurationSources
from watchdog.daemon.daemon import Daemon, DaemonOptions
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.pipeline import RuleErrors
from watchdog.errors import StoreError

INTERVAL_NS = SECOND_NS // 10
TICKS = 10
PATIENCE_SECONDS = 60.0


class FakePipeline:
    """A fake pipeline that calls `does` in each tick."""

    def __init__(self):
        self.does = lambda: None
        self.ticks = 0
        self.released = threading.Event()

    def run_tick(self, tick):
        self.ticks += 1
        self.does()

    def delivery_problems(self):
        return []

    def hang(self):
        self.released.wait(PATIENCE_SECONDS)

    def fail(self):
        raise RuntimeError("made to fail")

    def succeed(self):
        pass

    def find_the_disk_full(self):
        raise StoreError("cannot write: disk full")

    def judge_half(self):
        raise RuleErrors("some rules could not be judged", [RuntimeError("made to fail")])


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield manager


def messages(manager):
    """Return the messages since the last call."""
    received = []
    try:
        while True:
            received.append(manager.recv(4096).decode())
    except BlockingIOError:
        return received


def heartbeats(manager):
    """Return the number of watchdog messages since the last call."""
    return messages(manager).count("WATCHDOG=1")


@pytest.fixture
def pipeline():
    return FakePipeline()


@pytest.fixture
def daemon(systemd, pipeline, tmp_path):
    options = DaemonOptions(ConfigurationSources(), tmp_path, tmp_path / "control.sock")
    daemon = Daemon(options, SystemClock(), LogWriter(2))
    daemon._tick_loop.start(lambda tick: daemon._tick(pipeline, tick), INTERVAL_NS)
    yield daemon
    pipeline.released.set()
    daemon._scheduler.stop()


def wait_for(condition):
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("does", ["hang", "fail"])
def test_no_watchdog_message_while_every_tick_hangs_or_raises_and_other_jobs_keep_their_interval(
    systemd, daemon, pipeline, does, caplog
):
    pipeline.does, others = getattr(pipeline, does), []
    daemon._scheduler.add_job("other", INTERVAL_NS, lambda tick: others.append(tick.began_ns))
    daemon._scheduler.start()
    wait_for(lambda: len(others) > 2 * TICKS)
    assert heartbeats(systemd) == 0
    if does == "fail":
        assert pipeline.ticks >= TICKS
        assert "job failed: job=tick in_a_row=8" in caplog.messages
    else:
        assert pipeline.ticks == 1
    gap_ns = statistics.median(later - earlier for earlier, later in pairwise(others))
    assert abs(gap_ns - INTERVAL_NS) <= INTERVAL_NS / 10
    pipeline.does = pipeline.succeed
    pipeline.released.set()
    wait_for(lambda: heartbeats(systemd))


@pytest.mark.parametrize("does", ["find_the_disk_full", "judge_half"])
def test_watchdog_messages_continue_for_failures_that_a_restart_cannot_cure(systemd, daemon, pipeline, does):
    pipeline.does = getattr(pipeline, does)
    daemon._scheduler.start()
    wait_for(lambda: heartbeats(systemd) and pipeline.ticks >= 3)


@pytest.mark.parametrize("does", ["find_the_disk_full", "judge_half", "succeed"])
def test_the_start_ends_with_the_first_evaluated_sample(systemd, daemon, pipeline, does):
    pipeline.does = pipeline.fail
    daemon._scheduler.start()
    wait_for(lambda: pipeline.ticks >= 3)
    before = messages(systemd)
    pipeline.does = getattr(pipeline, does)
    after = []
    wait_for(lambda: after.extend(messages(systemd)) or after.count("WATCHDOG=1") >= 3)

    assert {message.partition("=")[0] for message in before} == {"WATCHDOG_USEC"}
    assert after[0] == "READY=1"
    assert after.count("READY=1") == 1


def test_a_socket_of_systemd_that_is_full_neither_slows_ticks_nor_loses_the_end_of_the_start(
    systemd, daemon, pipeline, tmp_path
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"FILL", str(tmp_path / "notify"))
    durations = []
    pipeline.does = lambda: durations.append(daemon._tick_loop.newest_tick_seconds)
    daemon._scheduler.start()
    wait_for(lambda: pipeline.ticks > TICKS)
    assert statistics.median(durations[1:]) < 0.5
    messages(systemd)
    after = []
    wait_for(lambda: after.extend(messages(systemd)) or "READY=1" in after)

    assert after[0] == "READY=1"
