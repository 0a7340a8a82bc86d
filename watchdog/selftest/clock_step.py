"""A wall clock that steps: ticks go on, and no alert fires, resolves or is told again for it.

The clock is one of our own that is put in the place of the host's. Ticks are those of the real scheduler; the user's
rules live through the same made-up hours twice, with steps and without, and have to say the same.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from watchdog.clock import SECOND_NS
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.pipeline import Pipeline
from watchdog.kernel import privileges
from watchdog.routing.notification import Notification
from watchdog.scheduling.scheduler import ScheduledTick, Scheduler
from watchdog.selftest.context import CheckContext, wait_until
from watchdog.selftest.fakes import FakeCollector, ManualClock, SteppedClock
from watchdog.selftest.null_receiver import NullReceiver
from watchdog.selftest.result import require
from watchdog.state import audit
from watchdog.state.store import Store

CLOCK_STEPS = {"an hour back": -3_600.0, "a week forward": 7 * 86_400.0, "to 1970": -time.time()}
MAX_GAP_INTERVALS = 3  # two, and one more for the pauses of a busy host

_INTERVAL_NS = SECOND_NS // 4
_TICKS = 3  # before and after each step
_PATIENCE_SECONDS = 8.0

_CALM, _STORM = 0, 400  # connections a tick
_PHASES = ((_CALM, 5), (_STORM, 90), (_CALM, 205))  # ticks: what lasts a minute fires, and is over
_EVERY = 7  # ticks from one step to the next


@dataclass(frozen=True, slots=True)
class CommittedNotification:
    """One notice as it was committed, at what tick, without any time of the wall clock."""

    tick: int
    receiver: str
    rule: str
    status: str
    reason: str
    alerts: tuple[str, ...]


def run_check(stage: CheckContext) -> str:
    """Step the clock under the scheduler and under the user's rules; return what was seen.

    Raises:
        Failed: a tick did not come in time, or an alert was told otherwise than without steps.
    """
    privileges.keep_only_capabilities(())
    ticks = check_scheduler()
    return f"{ticks}; {check_rules(stage.folder, stage.configuration)}"


def check_scheduler() -> str:
    """Step the clock to and fro between ticks of the real scheduler."""
    clock, seen, came = SteppedClock(), list[ScheduledTick](), threading.Condition()
    _put_in_place(clock)

    def note(tick: ScheduledTick) -> None:
        with came:
            seen.append(tick)
            came.notify_all()

    def more() -> bool:
        with came:
            target = len(seen) + _TICKS
            return came.wait_for(lambda: len(seen) >= target, _PATIENCE_SECONDS)

    scheduler = Scheduler(clock, logging.getLogger(__name__))
    scheduler.add_job("sample", _INTERVAL_NS, note)
    scheduler.start()
    try:
        require(more(), "the scheduler does not tick")
        for name, seconds in CLOCK_STEPS.items():
            for offset, way in ((seconds, name), (0.0, f"back from {name}")):
                time.sleep(0.4 * _INTERVAL_NS / SECOND_NS)  # in the middle, not at a tick
                clock.wall_offset_seconds = offset
                require(more(), f"a step {way} ended the ticks")
    finally:
        scheduler.stop()
    longest_ns = max(later.began_ns - earlier.began_ns for earlier, later in pairwise(seen))
    said = f"{len(seen)} ticks through {2 * len(CLOCK_STEPS)} steps"
    said += f", at most {longest_ns / _INTERVAL_NS:.1f} intervals apart"
    require(longest_ns <= MAX_GAP_INTERVALS * _INTERVAL_NS, said)
    return said


def check_rules(folder: Path, setup: Configuration) -> str:
    """Let a guard by the user's rules live through a storm, with steps and without."""
    undisturbed = simulate_ticks(folder / "undisturbed", setup, [])
    offsets = [*CLOCK_STEPS.values(), 0.0]
    stepped = simulate_ticks(folder / "stepped", setup, offsets)
    differing = sorted({told.rule for told in set(undisturbed) ^ set(stepped)})
    require(not differing, f"steps change what is told of {', '.join(differing)}")
    require(undisturbed == stepped, "steps change the order in which alerts are told")
    fired = {told.rule for told in stepped if told.status == "firing"} & {rule.id for rule in setup.rules}
    if not fired:
        return f"none of {len(setup.rules)} rules fired in a made-up storm, and none by a step"
    rules = f"{len(fired)} of {len(setup.rules)} rules fired in a made-up storm"
    return f"{rules}, and with steps and without, the {len(stepped)} notices are the same"


def simulate_ticks(folder: Path, setup: Configuration, offsets: Sequence[float]) -> list[CommittedNotification]:
    """Return every notice that was committed, the clock being set off by `offsets` in turn."""
    clock = ManualClock()
    kernel = FakeCollector(clock)
    store = Store(folder, clock, "made up")
    ears = {name: NullReceiver(name) for name in setup.receivers}  # in the place of the user's
    guard = Pipeline(_as_collector(kernel), store, replace(setup, receivers=ears), "selftest", clock)
    guard.start()
    loads = [connects for connects, ticks in _PHASES for _ in range(ticks)]
    steps = islice(cycle(offsets), len(loads))
    began_ns = clock.since_boot_ns
    try:
        for number, connects in enumerate(loads):
            if offsets and number % _EVERY == _EVERY - 1:
                clock.wall_offset_seconds = next(steps)
            clock.since_boot_ns += setup.interval_ns
            kernel.connects = connects
            guard.run_tick(ScheduledTick(clock.since_boot_ns, clock.since_boot_ns, 0.0, 0))
            # Before the next one is made, lest the two are told as one, or not, as the threads will have it.
            require(wait_until(lambda: not _due(store, clock), _PATIENCE_SECONDS), "what was due was not delivered")
        return _told(store, lambda at_ns: (at_ns - began_ns) // setup.interval_ns)
    finally:
        guard.stop()


def _due(store: Store, clock: ManualClock) -> bool:
    with store.database.transaction() as connection:
        return audit.count_due(connection, clock.boottime_ns()) > 0


def _told(store: Store, tick_of: Callable[[int], int]) -> list[CommittedNotification]:
    with store.database.transaction() as connection:
        rows = audit.read_all_bodies(connection)
    committed = []
    for created_ns, body in rows:
        notification = Notification.from_json_text(body)
        alerts = tuple(f"{alert.fingerprint} {alert.severity} {alert.reason}" for alert in notification.alerts)
        key = (notification.receiver, notification.group_key, notification.status, notification.reason.value)
        committed.append(CommittedNotification(tick_of(created_ns), *key, alerts))
    return committed


def _as_collector(kernel: FakeCollector) -> Any:
    return kernel


def _put_in_place(clock: SteppedClock) -> None:
    # APScheduler asks the host itself. This process has no other business.
    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Datetime:
            return cls.fromtimestamp(clock.wall(), tz)

    theirs: Any = sys.modules["apscheduler.schedulers.base"]
    theirs.datetime = Datetime
