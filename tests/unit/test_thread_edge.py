"""Threads that meet an unexpected exception: they go on, it is logged now and then, and the status names it."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace

import pytest

from watchdog import thread_edge
from watchdog.clock import SECOND_NS, SystemClock
from watchdog.daemon import status_source
from watchdog.daemon.late_evidence import LateEvidence
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.status_source import StatusSource
from watchdog.kernel.live_sockets import HolderWalk
from watchdog.measure.users import UserNames
from watchdog.scheduling.scheduler import Scheduler
from watchdog.thread_edge import ThreadEdge, thread_problems

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(thread_edge, "_PAUSE_SECONDS", 0.001)


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Failing:
    """A function that fails in its first calls and counts all of them."""

    def __init__(self, failures=3, result=None):
        self.calls, self.failures, self.result = 0, failures, result

    def __call__(self, *_, **__):
        self.calls += 1
        if self.calls <= self.failures:
            raise KeyError("secret")
        return self.result

    def is_over(self):
        return self.calls > self.failures and not thread_problems()


def test_failures_in_a_row_are_logged_by_powers_of_two_without_their_text(caplog):
    edge, function = ThreadEdge("some"), Failing(5)
    for _ in range(5):
        with edge.step():
            function()
    [problem] = thread_problems()
    assert problem.startswith("thread fails: thread=some error=KeyError in test_thread_edge.py:")
    with edge.step():
        function()
    assert thread_problems() == []
    texts = [record.message for record in caplog.records]
    assert [text.partition(" error=")[0] for text in texts] == [
        *(f"thread failed, it goes on: thread=some in_a_row={number}" for number in (1, 2, 4)),
        "thread works again: thread=some failures=5",
    ]
    assert "secret" not in caplog.text


def test_the_log_writer_goes_on(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        writer = LogWriter(file.fileno())
        write, failing = writer._write_event, Failing()
        writer._write_event = lambda event: (failing(), write(event))
        logger = logging.getLogger("test.edge")
        logger.addHandler(writer)
        for number in range(5):
            logger.error("line %d", number)
        assert writer.drain(PATIENCE)
        logger.removeHandler(writer)
    until(failing.is_over)
    assert (tmp_path / "log").read_text().count("line") == 2


def test_the_evidence_goes_on():
    request = SimpleNamespace(pid=1, start_ns=1, fingerprint="f", rule="r")
    reader = SimpleNamespace(is_running=False, kill_count=0, read=Failing(), close=lambda: None)
    late = LateEvidence(reader, None, lambda: None, SystemClock(), logging.getLogger("watchdog"), 60 * SECOND_NS)
    for _ in range(4):
        late.request([request], {})
    until(reader.read.is_over)
    until(late.take_answers)
    late.stop()
    assert not late._thread.is_alive()


def test_the_look_up_of_users_goes_on(tmp_path):
    (tmp_path / "passwd").write_text("")
    lookup = SimpleNamespace(name=Failing(result="alice"), close=lambda: None)
    names = UserNames(tmp_path / "passwd", lookup)
    uids = [1001, 1002, 1003, 1004]
    names.update(uids, SECOND_NS)
    until(lambda: names.update(uids, SECOND_NS) is None and names._looked_up.keys() == set(uids))
    assert sorted(names.name(uid) for uid in uids) == ["1001", "1002", "1003", "alice"]


def test_the_history_of_the_page_goes_on(monkeypatch):
    monkeypatch.setattr(status_source, "SAMPLE_SECONDS", 0.001)
    source = StatusSource.__new__(StatusSource)
    source.sample, source._stopping = Failing(), threading.Event()
    thread = threading.Thread(target=source._run)
    thread.start()
    until(source.sample.is_over)
    source._stopping.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_clock_watch_goes_on():
    scheduler = Scheduler(SystemClock(), logging.getLogger("watchdog"))
    scheduler.add_job("tick", SECOND_NS // 100, lambda _: None)
    scheduler._check = Failing()
    scheduler.start()
    until(scheduler._check.is_over)
    assert scheduler.stop(PATIENCE) == ()


def test_an_unexpected_exception_of_the_walk_over_files_is_raised_by_the_next_tick():
    walk = HolderWalk(SimpleNamespace(step=Failing(1, result=False), close=lambda: None))
    walk._unfinished, walk._next_round = True, time.monotonic() + PATIENCE
    with walk.tick():
        pass
    until(lambda: walk._failure is not None)
    with pytest.raises(KeyError), walk.tick():
        pass
    with walk.tick():
        assert not walk.is_unfinished
    walk.close()
