"""The way through the house, once per tick: collect, measure, judge, alert, commit, deliver."""

from __future__ import annotations

import logging
import threading

from watchdog.alerts.grouping import Grouping
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Clock
from watchdog.errors import StoreError
from watchdog.kernel.collector import Collector
from watchdog.measure.catalogue import ON_DEMAND
from watchdog.measure.meter import Meter
from watchdog.notify.delivery import Delivery
from watchdog.rules.evaluate import Engine
from watchdog.scheduler import Tick
from watchdog.setup import Setup
from watchdog.store.store import Store

# Of the five seconds that SIGTERM has, were it to come in the middle of a reload; one more is the scheduler's.
_STOP_SECONDS = 2.5
_RELOAD_SECONDS = 1.0
_TICK_SECONDS = 0.25


class Guard:
    """Owns the stages and moves one snapshot through them; a reload swaps rules and receivers between two ticks."""

    def __init__(self, collector: Collector, store: Store, setup: Setup, host: str, clock: Clock) -> None:
        """Take back what the store holds of a former daemon: what was firing fires on, and is not news."""
        self._collector = collector
        self._store = store
        self._host = host
        self._clock = clock
        self._log = logging.getLogger("watchdog")
        self._between_ticks = threading.Lock()
        self._meter = Meter()
        self._engine = Engine(setup.rules)
        self._follow()
        self._lifecycle = Lifecycle(host)
        self._grouping = Grouping(setup.config.routing, host)
        saved = store.load()
        at_ns, wall = clock.boottime_ns(), clock.wall()
        self._lifecycle.restore(saved.alerts, setup.rules, at_ns, saved.shift_ns)
        firing = self._lifecycle.firing()
        self._grouping.restore(saved.groups, firing, set(setup.receivers), at_ns, wall, saved.shift_ns)
        self.restored = len(firing)
        self._delivery = Delivery(store, setup.receivers.values(), clock, self._log)
        self._delivering = False

    def start(self) -> int:
        """Read the baseline and begin to deliver what a former daemon left; return the number of open connections."""
        snapshot = self._meter.advance(self._collector.read(), self._clock.wall())
        self._engine.observe(snapshot, self._lifecycle.watched())
        self._deliver()
        return int(snapshot.metrics["open"].sum())

    def tick(self, tick: Tick) -> None:
        """Move one snapshot from the kernel to the outbox.

        Raises:
            StoreError: it could not be written; the sample was good, and the next tick writes what this one could not.
        """
        with self._between_ticks:
            wall = self._clock.wall()
            snapshot = self._meter.advance(self._collector.read(), wall, tick.late_seconds, tick.missed)
            verdicts = self._engine.observe(snapshot, self._lifecycle.watched())
            transitions = self._lifecycle.advance(verdicts, snapshot.at_ns, wall)
            for transition in transitions:
                alert = transition.alert
                self._log.info("%s: %s %s: %s", transition.kind, alert.rule, dict(alert.labels), alert.reason)
            notices = self._grouping.advance(transitions, self._lifecycle.firing(), snapshot.at_ns, wall)
            self._store.commit(
                alerts=self._lifecycle.take_changes(), groups=self._grouping.take_changes(), notices=notices
            )
            self._deliver()

    def reload(self, setup: Setup) -> None:
        """Judge by the rules of `setup` and tell its receivers from now on; alerts and timers go on."""
        with self._between_ticks:
            at_ns, wall = self._clock.boottime_ns(), self._clock.wall()
            self._engine.replace(setup.rules)
            self._follow()
            self._lifecycle.replace_rules(setup.rules)
            self._grouping.reload(setup.config.routing, self._lifecycle.firing(), at_ns, wall, set(setup.receivers))
        # While ticks go on: a receiver that hangs is none of their business.
        self._delivery.stop(_RELOAD_SECONDS)
        with self._between_ticks:
            self._delivery = Delivery(self._store, setup.receivers.values(), self._clock, self._log)
            self._delivering = False
            self._deliver()

    def _follow(self) -> None:
        # Programs that run at every message are attached only while a rule reads what they measure.
        wanted = ON_DEMAND & self._engine.needs
        if wanted and not self._collector.follow_messages(True):
            self._log.error("rules read %s, which stay empty: %s", sorted(wanted), self._collector.no_messages)
        elif not wanted:
            self._collector.follow_messages(False)

    def stop(self) -> None:
        """Deliver what is due, for some seconds at most, and let go of everything; the outbox keeps the rest."""
        self._delivery.stop(_STOP_SECONDS)
        if self._between_ticks.acquire(timeout=_TICK_SECONDS):  # one that hangs ends with the process
            self._store.close()
            self._collector.close()
            self._between_ticks.release()

    def _deliver(self) -> None:
        # At every tick: a commit that failed may have left notices to this one, as a reload on a full disk the start.
        if self._delivering:
            self._delivery.wake()
            return
        try:
            self._delivery.start()
        except StoreError as error:
            self._log.error("the outbox: %s; deliveries wait", error)
        else:
            self._delivering = True
