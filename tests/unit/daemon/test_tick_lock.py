"""The lock between ticks and readers: a tick that waits goes before every reader that comes later."""

from __future__ import annotations

import contextlib
import threading

import pytest

from watchdog.daemon import tick_lock
from watchdog.daemon.tick_lock import TickLock
from watchdog.errors import WatchdogError

PATIENCE = 60.0


def start(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_a_tick_that_waits_goes_before_a_reader_that_comes_again_and_again():
    lock, order, ticking = TickLock(), [], threading.Event()

    def tick():
        ticking.set()
        with lock.held_by_tick():
            order.append("tick")

    with lock.held_by_reader():
        thread = start(tick)
        assert ticking.wait(PATIENCE)
        while not lock._tick_waits:
            pass
    for _ in range(3):
        with lock.held_by_reader():
            order.append("reader")
    thread.join(PATIENCE)
    assert order == ["tick", "reader", "reader", "reader"]


def test_a_reader_waits_for_a_tick_that_runs():
    lock, running, end, order = TickLock(), threading.Event(), threading.Event(), []

    def tick():
        with lock.held_by_tick():
            running.set()
            assert end.wait(PATIENCE)
            order.append("tick")

    def read():
        with lock.held_by_reader():
            order.append("reader")

    ticking = start(tick)
    assert running.wait(PATIENCE)
    reading = start(read)
    end.set()
    ticking.join(PATIENCE)
    reading.join(PATIENCE)
    assert order == ["tick", "reader"]


def test_a_change_waits_for_a_limited_time_and_an_error_frees_the_lock():
    lock = TickLock()
    with lock.held() as first, lock.held(0.01) as second:
        assert (first, second) == (True, False)
    with contextlib.suppress(ZeroDivisionError), lock.held_by_tick():
        raise ZeroDivisionError
    with lock.held(0.01) as is_held:
        assert is_held


def test_a_reader_gives_up_where_a_tick_hangs_and_gets_the_lock_after_it(monkeypatch):
    monkeypatch.setattr(tick_lock, "_MAX_HELD_SECONDS", 0.1)
    lock = TickLock()
    for hold in (lock.held_by_tick, lock.held):
        with hold(), pytest.raises(WatchdogError, match="hangs"), lock.held_by_reader():
            pass
        with lock.held_by_reader():
            pass
