"""Alerts that change while the daemon is down, random kills, and a stop with a thousand notifications pending."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

RULES = 990  # besides those about the watchdog: 1,000 are the most
STOP_SECONDS = 20.0  # TimeoutStopSec of the unit
KILLS = 5


def test_alerts_that_resolve_or_fire_while_it_is_down_are_notified_once(watchdog, server, storm, start_storm, wait_for):
    other = start_storm(f"other-{os.getpid()}")
    rule = storm.crowd_rule(where={"process": [storm.name, other.name], "direction": "out"})
    watchdog.configure({"hook": server.as_receiver()}, {"storm": rule})
    watchdog.start()
    storm.hold()
    wait_for(
        lambda: len(watchdog.saved("SELECT id FROM notifications WHERE state = 'delivered'")) == 1, "the first notice"
    )
    watchdog.kill()
    storm.release()
    other.hold()
    watchdog.start()

    def notified():
        return Counter(
            (alert["labels"]["process"], alert["status"], alert["startsAt"])
            for _, document in server.documents()
            for alert in document["alerts"]
        )

    wait_for(lambda: len(notified()) == 3, "the end of one and the beginning of the other")
    other.release()
    wait_for(lambda: len(notified()) == 4, "the end of the other")
    assert watchdog.terminate()[0] == 0

    [began] = {starts for name, _, starts in notified() if name == storm.name}
    assert {name: notified()[storm.name, name, began] for name in ("firing", "resolved")} == {
        "firing": 1,
        "resolved": 1,
    }
    assert (
        sum(count for (name, status, _), count in notified().items() if (name, status) == (other.name, "resolved")) == 1
    )
    assert watchdog.saved("SELECT id FROM notifications WHERE state != 'delivered'") == []


def test_kills_at_random_times_lose_nothing_and_end_every_alert_once(start_daemon, watchdog, server, storm, wait_for):
    start_daemon()
    held, starts = False, []
    for _ in range(KILLS):
        (storm.release if held else storm.hold)()
        held = not held
        time.sleep(random.uniform(0, 1))
        watchdog.kill()
        began = time.monotonic()
        watchdog.start()
        starts.append(time.monotonic() - began)
    if not held:
        storm.hold()
    wait_for(lambda: watchdog.saved("SELECT document FROM alerts"), "the last alert")
    storm.release()
    wait_for(lambda: not watchdog.saved("SELECT document FROM alerts"), "the last end")
    wait_for(
        lambda: server.statuses()[-1] == "resolved", "its resolved notification"
    )  # group_interval after the one before
    wait_for(lambda: not watchdog.saved("SELECT id FROM notifications WHERE state = 'pending'"), "all to be delivered")
    assert watchdog.terminate()[0] == 0

    done = set(watchdog.saved("SELECT id FROM notifications WHERE state = 'delivered'"))
    assert set(server.notifications()) == done
    assert set(watchdog.saved("SELECT state FROM notifications")) <= {"delivered", "merged"}
    assert len(server.posts) <= len(done) + KILLS
    assert server.statuses()[-1] == "resolved"
    ends = Counter(
        alert["startsAt"] for document in server.notifications().values() for alert in document["alerts"]
        if alert["status"] == "resolved"
    )  # fmt: skip
    assert set(ends.values()) == {1}
    print(f"started again in {sorted(starts)[len(starts) // 2]:.1f} s (median)")


def alert_name(document):
    return document["groupLabels"]["alertname"]


@pytest.mark.timeout(300)
def test_with_nearly_a_thousand_notifications_pending_it_stops_in_time_and_keeps_them_all(
    watchdog, server, storm, wait_for
):
    watchdog.configure(
        {"hook": server.as_receiver(rate_limit="none")},
        {f"storm-{number}": storm.crowd_rule() for number in range(RULES)},
    )
    server.answering.clear()
    watchdog.start()
    storm.hold()
    # A busy machine also has alerts about the watchdog.
    of_storms = "group_key LIKE 'storm-%'"
    pending = f"SELECT group_key FROM notifications WHERE state = 'pending' AND {of_storms} ORDER BY sequence"
    wait_for(lambda: len(watchdog.saved(pending)) == RULES, "the notices")
    storm.release()
    wait_for(lambda: len(watchdog.saved(pending)) == 2 * RULES, "their ends")
    code, seconds = watchdog.terminate()
    server.answering.set()
    print(f"stopped in {seconds:.1f} s")
    assert (code, seconds < STOP_SECONDS) == (0, True)
    assert len(watchdog.saved(pending)) == 2 * RULES
    under_way = {name for name in map(alert_name, server.notifications().values()) if name.startswith("storm-")}
    watchdog.start()
    until = time.monotonic() + 200
    while watchdog.saved(pending):
        assert time.monotonic() < until, "not delivered in time"
        time.sleep(0.1)
    assert watchdog.terminate()[0] == 0

    notifications = server.notifications()
    of_rule = {}
    for document in notifications.values():
        of_rule.setdefault(alert_name(document), []).append(document["status"])
    of_rule = {name: statuses for name, statuses in of_rule.items() if name.startswith("storm-")}
    assert len(of_rule) == RULES
    # Notifications without an attempt are merged into the present state; the others are sent unchanged, then resolved.
    assert Counter(map(tuple, of_rule.values())) == {
        ("resolved",): RULES - len(under_way),
        ("firing", "resolved"): len(under_way),
    }
    # The attempt that the stop cut may have arrived, and its end overtakes it: nothing is posted twice.
    assert len(server.posts) == len(notifications)
