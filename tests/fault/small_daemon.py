"""A small daemon that tests kill: the real grouping, store and delivery with a lifecycle of a few lines.

    python small_daemon.py STATE_DIR PORT RECEIVERS CONDITION [POINT]

RECEIVERS: names separated by commas. CONDITION: "on" or "off", the condition of every alert from the first tick on; the
process ends when all notifications are delivered. With "flapping" alerts change at random until the process is killed.
At POINT the process kills itself: "before commit", "after commit", … "after end".
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind, fingerprint
from watchdog.clock import Now, SystemClock, boot_id
from watchdog.config.settings import RoutingSettings
from watchdog.delivery.delivery import Delivery
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.routing.grouping import Grouping
from watchdog.state.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import factories

INTERVAL_NS = 50_000_000  # group_interval
TICK_SECONDS = 0.005


class PostingReceiver:
    """Posts the fields of a notification that tests check to the server of the test."""

    def __init__(self, name, port):
        self.name = name
        self.rate_limit = None
        self.timeout_seconds = 10.0
        self.joins_copies = False
        self.send_resolved = True
        self.source = None
        self.port = port

    def send(self, notification, deadline_seconds):
        document = {
            "receiver": self.name,
            "id": notification.id,
            "group": notification.group_key,
            "reason": notification.reason,
            "created": notification.created,
            "alerts": [[alert.fingerprint, alert.state.value, alert.fired] for alert in notification.alerts],
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=deadline_seconds)
        try:
            connection.request("POST", "/", json.dumps(document))
            answer = connection.getresponse()
            answer.read()
        except OSError as error:
            raise DeliveryError(DeliveryErrorReason.CONNECT, type(error).__name__, retryable=True) from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise DeliveryError(DeliveryErrorReason.SERVER_ERROR, str(answer.status), retryable=True)

    def close(self):
        pass


class SmallLifecycle:
    """Alerts that fire as soon as their condition is true and resolve as soon as it is false."""

    def __init__(self, saved):
        self.firing = {alert.fingerprint: alert for alert in map(Alert.from_json, saved)}
        self.changes = {}

    def advance(self, conditions, wall):
        transitions = []
        for (rule, process), holds in conditions.items():
            labels = (("process", process),)
            key = fingerprint(rule, labels)
            if holds and key not in self.firing:
                self.firing[key] = self._alert(rule, labels, key, wall)
                self.changes[key] = self.firing[key].to_json()
                transitions.append(Transition(TransitionKind.FIRING, self.firing[key]))
            elif not holds and key in self.firing:
                resolved = replace(self.firing.pop(key), state=AlertState.RESOLVED, resolved=wall, reason="over")
                self.changes[key] = None
                transitions.append(Transition(TransitionKind.RESOLVED, resolved))
        return transitions

    def take_changes(self):
        changes, self.changes = list(self.changes.items()), {}
        return changes

    @staticmethod
    def _alert(rule, labels, key, wall):
        return factories.make_alert(rule=rule, labels=labels, fingerprint=key, started=wall, fired=wall)


def kill_at(point, target, method, name, counts=lambda: True):
    """Make the process kill itself right before or after a call of `target.method` for which `counts()` is true."""
    original = getattr(target, method)

    def wrapped(*arguments, **options):
        is_counted = counts()
        if is_counted and point == f"before {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if is_counted and point == f"after {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, method, wrapped)


def conditions_of(condition, randomness):
    return {
        (rule, process): condition == "on" or (condition == "flapping" and randomness.random() < 0.5)
        for rule in ("storm", "spike")
        for process in ("a", "b")
    }


def main(arguments, journal=None):
    """Run the daemon; write the ids of notifications to `journal` after their commit."""
    folder, port, names, condition, point = [*arguments, ""][:5]
    names = tuple(names.split(","))
    clock = SystemClock()
    store = Store(Path(folder), clock, boot_id())
    receivers = [PostingReceiver(name, int(port)) for name in names]
    saved = store.load()
    lifecycle = SmallLifecycle(saved.alerts)
    grouping = Grouping(RoutingSettings(names, 0, INTERVAL_NS, 3600 * 10**9), "db1")
    grouping.restore(saved.groups, lifecycle.firing, names, Now.read(clock), saved.boottime_shift_ns)
    delivery = Delivery(store, receivers, clock, logging.getLogger("small_daemon"))

    def is_pending():
        return any(waiting.pending for waiting in delivery.counters().queues.values())

    kill_at(point, delivery._outbox, "begin_attempt", "begin", is_pending)  # only if there is one to send
    kill_at(point, delivery._outbox, "finish_attempt", "end")
    for receiver in receivers:
        kill_at(point, receiver, "send", "send")
    kill_at(point, store, "commit", "commit")
    print("ready", flush=True)

    randomness = random.Random(random.random())
    quiet_since_ns = clock.boottime_ns()
    for tick in itertools.count():
        now = Now.read(clock)
        transitions = lifecycle.advance(conditions_of(condition, randomness), now.wall)
        notifications = grouping.advance(transitions, lifecycle.firing, now)
        store.commit(alerts=lifecycle.take_changes(), groups=grouping.take_changes(), notifications=notifications)
        if journal is not None:
            journal.write("".join(f"{notification.id}\n" for notification in notifications).encode())
        if tick == 0:
            delivery.start()  # only now: at each point of the first tick it sends committed notifications
        delivery.wake_workers()
        if transitions or notifications or is_pending():
            quiet_since_ns = now.boottime_ns
        # A tick can come late on a busy machine, so one without a change is no end of the flapping.
        if condition != "flapping" and now.boottime_ns > quiet_since_ns + 2 * INTERVAL_NS:
            break
        time.sleep(TICK_SECONDS)
    delivery.stop(5)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1:])
