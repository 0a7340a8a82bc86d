"""The walk over files: its rounds are paced by their cost, and a long one goes on between ticks."""

import threading
import time

import pytest

from watchdog.kernel import live_sockets
from watchdog.kernel.live_sockets import HolderWalk


class Files:
    """A walk of `steps` steps per round; each uses `seconds` of CPU."""

    def __init__(self, steps, seconds):
        self.steps, self.seconds = steps, seconds
        self.at = self.rounds = 0
        self.threads = set()
        self.in_tick = False
        self.overlaps = 0

    def step(self):
        self.threads.add(threading.get_ident())
        self.overlaps += self.in_tick and threading.get_ident() != threading.main_thread().ident
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        self.at += 1
        if self.at < self.steps:
            return True
        self.at, self.rounds = 0, self.rounds + 1
        return False

    def close(self):
        self.at = 0


def tick(walk):
    with walk.tick():
        return walk.is_unfinished


def test_a_round_begins_when_the_one_before_has_cost_a_thousandth_of_the_time(monkeypatch):
    now = [100.0]
    files = Files(steps=1, seconds=0.002)
    walk = HolderWalk(files)
    monkeypatch.setattr(live_sockets.time, "monotonic", lambda: now[0])
    rounds = []
    for _ in range(10):
        tick(walk)
        rounds.append(files.rounds)
        now[0] += 1.0

    # 2 ms of CPU (somewhat more on a busy machine): every two to four seconds.
    assert rounds[:2] == [1, 1]
    assert 3 <= rounds[-1] <= 5


def test_a_long_round_ends_between_ticks_and_never_during_one():
    files = Files(steps=60, seconds=0.001)
    walk = HolderWalk(files)
    tick(walk)  # the first round may take long: it finds the sockets that are older than the watchdog
    assert files.rounds == 1
    walk._next_round = 0.0

    assert tick(walk)
    assert files.at < 30  # 5 ms of CPU in the tick, of 60 ms
    end = time.monotonic() + 60
    while files.rounds < 2 and time.monotonic() < end:
        with walk.tick():
            files.in_tick = True
            time.sleep(0.005)
            files.in_tick = False
        time.sleep(0.005)
    assert files.rounds == 2
    assert len(files.threads) == 2
    assert files.overlaps == 0
    walk.close()


def test_a_failed_walk_is_an_error_of_the_next_tick_and_begins_anew():
    files = Files(steps=60, seconds=0.001)
    walk = HolderWalk(files)
    tick(walk)
    walk._next_round = 0.0
    step, failures = files.step, [OSError(12, "no memory")]

    def fail_once():
        if threading.current_thread() is not threading.main_thread() and failures:
            raise failures.pop()
        return step()

    files.step = fail_once
    assert tick(walk)
    end = time.monotonic() + 60
    while walk.is_unfinished and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(OSError, match="no memory"):
        tick(walk)
    walk._next_round = 0.0
    tick(walk)
    end = time.monotonic() + 60
    while walk.is_unfinished and time.monotonic() < end:
        time.sleep(0.01)
    assert files.rounds == 2
    walk.close()


def test_closing_ends_a_long_round():
    files = Files(steps=10**6, seconds=0.001)
    walk = HolderWalk(files)
    walk._round_began = 1.0  # not the first round
    assert tick(walk)
    began = time.monotonic()
    walk.close()
    assert time.monotonic() - began < 5
    steps = files.at
    time.sleep(0.05)
    assert files.at == steps


def test_after_a_round_that_reported_sockets_the_next_one_begins_soon(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    files = Files(steps=1, seconds=0.01)
    walk = HolderWalk(files)
    for reports, rounds in ((True, 1), (True, 2), (False, 3), (False, 3)):
        tick(walk)
        if reports:
            walk.note_reports()
        assert files.rounds == rounds
        now[0] += 2.0
