"""Check: steps of the wall clock stop no tick, and make no alert fire, resolve or be sent again.

A fake clock replaces the host's. The real scheduler must keep ticking under it. The user's rules are evaluated over the
same simulated storm twice, with and without steps, and must make the same notifications.
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
from watchdog.daemon.host_name import HostName
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
MAX_GAP_INTERVALS = 3  # two, and one more for delays of a busy host

_INTERVAL_NS = SECOND_NS // 4
_TICKS = 3  # before and after each step
_PATIENCE_SECONDS = 8.0

_CALM, _STORM = 0, 400  # connections a tick
_PHASES = (
    (_CALM, 5),
    (_STORM, 90),
    (_CALM, 205),
)  # (connections, ticks): long enough that a rule with a `for` of a minute fires and resolves
_TICKS_BETWEEN_STEPS = 7


@dataclass(frozen=True, slots=True)
class CommittedNotification:
    """One committed notification with its tick, without any wall-clock time."""

    tick: int
    receiver: str
    rule: str
    status: str
    reason: str
    alerts: tuple[str, ...]


def run_check(context: CheckContext) -> str:
    """Step the clock under the scheduler and under the user's rules; return the figures.

    Raises:
        CheckFailed: a tick was late, or the notifications differ from those without steps.
    """
    privileges.keep_only_capabilities(())
    ticks = check_scheduler()
    return f"{ticks}; {check_rules(context.folder, context.configuration)}"


def check_scheduler() -> str:
    """Step the clock forward and back between ticks of the real scheduler; return the figures."""
    clock, seen, came = SteppedClock(), list[ScheduledTick](), threading.Condition()
    _replace_apscheduler_clock(clock)

    def record(tick: ScheduledTick) -> None:
        with came:
            seen.append(tick)
            came.notify_all()

    def wait_for_ticks() -> bool:
        with came:
            target = len(seen) + _TICKS
            return came.wait_for(lambda: len(seen) >= target, _PATIENCE_SECONDS)

    scheduler = Scheduler(clock, logging.getLogger(__name__))
    scheduler.add_job("sample", _INTERVAL_NS, record)
    scheduler.start()
    try:
        require(wait_for_ticks(), "the scheduler does not tick")
        for name, seconds in CLOCK_STEPS.items():
            for offset, step in ((seconds, name), (0.0, f"back from {name}")):
                time.sleep(0.4 * _INTERVAL_NS / SECOND_NS)  # in the middle, not at a tick
                clock.wall_offset_seconds = offset
                require(wait_for_ticks(), f"a step {step} ended the ticks")
    finally:
        scheduler.stop()
    longest_ns = max(later.began_ns - earlier.began_ns for earlier, later in pairwise(seen))
    detail = f"{len(seen)} ticks through {2 * len(CLOCK_STEPS)} steps"
    detail += f", at most {longest_ns / _INTERVAL_NS:.1f} intervals apart"
    require(longest_ns <= MAX_GAP_INTERVALS * _INTERVAL_NS, detail)
    return detail


def check_rules(folder: Path, configuration: Configuration) -> str:
    """Evaluate the user's rules over a simulated storm, with and without steps; return the figures."""
    undisturbed = simulate_ticks(folder / "undisturbed", configuration, [])
    offsets = [*CLOCK_STEPS.values(), 0.0]
    stepped = simulate_ticks(folder / "stepped", configuration, offsets)
    differing = sorted({notification.rule for notification in set(undisturbed) ^ set(stepped)})
    require(not differing, f"steps change the notifications of {', '.join(differing)}")
    require(undisturbed == stepped, "steps change the order of the notifications")
    fired = {notification.rule for notification in stepped if notification.status == "firing"} & {
        rule.id for rule in configuration.rules
    }
    if not fired:
        return f"none of {len(configuration.rules)} rules fired in a simulated storm, and none by a step"
    rules = f"{len(fired)} of {len(configuration.rules)} rules fired in a simulated storm"
    return f"{rules}; the {len(stepped)} notifications with and without steps are the same"


def simulate_ticks(folder: Path, configuration: Configuration, offsets: Sequence[float]) -> list[CommittedNotification]:
    """Return all notifications that were committed while the clock was shifted by `offsets` in turn."""
    clock = ManualClock()
    kernel = FakeCollector(clock)
    store = Store(folder, clock, "selftest")
    receivers = {name: NullReceiver(name) for name in configuration.receivers}  # replace the user's
    pipeline = Pipeline(
        _as_collector(kernel), store, replace(configuration, receivers=receivers), HostName(lambda: "selftest"), clock
    )
    pipeline.start()
    loads = [connects for connects, ticks in _PHASES for _ in range(ticks)]
    steps = islice(cycle(offsets), len(loads))
    began_ns = clock.since_boot_ns
    try:
        for number, connects in enumerate(loads):
            if offsets and number % _TICKS_BETWEEN_STEPS == _TICKS_BETWEEN_STEPS - 1:
                clock.wall_offset_seconds = next(steps)
            clock.since_boot_ns += configuration.interval_ns
            kernel.connects = connects
            pipeline.run_tick(ScheduledTick(clock.since_boot_ns, clock.since_boot_ns, 0.0, 0))
            # Before the next notification is made: otherwise threads would decide whether the two are merged.
            require(
                wait_until(lambda: not _due(store, clock), _PATIENCE_SECONDS), "a due notification was not delivered"
            )
        return _committed(store, lambda at_ns: (at_ns - began_ns) // configuration.interval_ns)
    finally:
        pipeline.stop()


def _due(store: Store, clock: ManualClock) -> bool:
    with store.database.transaction() as connection:
        return audit.count_due(connection, clock.boottime_ns()) > 0


def _committed(store: Store, tick_of: Callable[[int], int]) -> list[CommittedNotification]:
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


def _replace_apscheduler_clock(clock: SteppedClock) -> None:
    # APScheduler reads the host's clock itself. This process does nothing else, so the module may be changed.
    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Datetime:
            return cls.fromtimestamp(clock.wall(), tz)

    apscheduler_module: Any = sys.modules["apscheduler.schedulers.base"]
    apscheduler_module.datetime = Datetime
