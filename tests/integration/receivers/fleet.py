"""Delivery engines of many hosts, each in its own process with a real store, grouping and delivery.

    python fleet.py FOLDER COUNT URL...

Each host feeds the Alertmanagers at the URLs. Every host executes each line of standard input; the answer is "done"
when all changes are on disk. "fire" and "end": one alert per host fires or ends. "stop": deliver all due notifications.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

from watchdog.alerts.alert import AlertState, Transition, TransitionKind
from watchdog.clock import Now, SystemClock, boot_id
from watchdog.config.secrets import Secret
from watchdog.config.settings import RoutingSettings
from watchdog.delivery.delivery import Delivery
from watchdog.receivers.alertmanager import API_PATH, Alertmanager
from watchdog.receivers.transport.http import Endpoint
from watchdog.routing.grouping import Grouping
from watchdog.state.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import factories

LABELS = (("process", "crawler"),)
STORM = factories.make_alert(rule="storm", labels=LABELS)


class Host:
    """The engine of one host."""

    def __init__(self, folder, name, urls):
        folder.mkdir()
        self._clock = SystemClock()
        self._store = Store(folder, self._clock, boot_id())
        saved = self._store.load()
        self._firing = {}
        self._grouping = Grouping(RoutingSettings(("am",), 0, 0, 3600 * 10**9), name)
        self._grouping.restore(saved.groups, {}, ("am",), Now.read(self._clock), saved.boottime_shift_ns)
        receiver = Alertmanager("am", [Endpoint(Secret(url + API_PATH)) for url in urls], self._clock)
        self._delivery = Delivery(self._store, [receiver], self._clock, logging.getLogger(name))
        self._delivery.start()

    def do(self, order):
        now = Now.read(self._clock)
        if order == "fire":
            alert = replace(STORM, started=now.wall, fired=now.wall)
            self._firing[alert.fingerprint] = alert
            self._pass_on(Transition(TransitionKind.FIRING, alert), now)
        elif order == "end":
            _, alert = self._firing.popitem()
            over = replace(alert, state=AlertState.RESOLVED, resolved=now.wall, value=3.0, reason="value below 300/s")
            self._pass_on(Transition(TransitionKind.RESOLVED, over), now)
        else:
            self._delivery.stop(5)
            self._store.close()

    def _pass_on(self, transition, now):
        notifications = self._grouping.advance([transition], self._firing, now)
        alert = transition.alert
        written = None if alert.resolved is not None else alert.to_json()
        self._store.commit(
            alerts=[(alert.fingerprint, written)], groups=self._grouping.take_changes(), notifications=notifications
        )
        self._delivery.wake_workers()


def serve(folder, name, urls, orders, answers):
    """Run one host: execute orders until they end."""
    host = Host(folder, name, urls)
    os.write(answers, b".")
    for order in os.fdopen(orders):
        host.do(order.strip())
        os.write(answers, b".")
        if order.strip() == "stop":
            break
    os._exit(0)


def main():
    """Start the hosts, pass orders on, and answer when all hosts have executed them."""
    folder, count, urls = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    answered, answers = os.pipe()
    hosts = []
    for number in range(1, count + 1):
        orders, ordering = os.pipe()
        if os.fork() == 0:
            os.close(ordering)
            for other in hosts:
                os.close(other)
            serve(folder / f"host-{number}", f"host-{number}", urls, orders, answers)
        os.close(orders)
        hosts.append(ordering)

    def wait_for_all():
        missing = count
        while missing:
            missing -= len(os.read(answered, missing))
        print("done", flush=True)

    wait_for_all()
    for order in sys.stdin:
        for ordering in hosts:
            os.write(ordering, order.encode())
        wait_for_all()
    for _ in hosts:
        os.wait()


if __name__ == "__main__":
    main()
