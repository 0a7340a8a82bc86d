import json
from dataclasses import replace

import pytest

import factories
from watchdog.alerts.alert import AlertState, Transition, TransitionKind
from watchdog.clock import SECOND_NS, Now
from watchdog.config.settings import RoutingSettings
from watchdog.routing.grouping import Grouping
from watchdog.rules.language.rule import Severity

WALL = 1_700_000_000.0


def make_routing(default=("oncall",), group_wait_seconds=0):
    return RoutingSettings(
        default=default,
        group_wait_ns=group_wait_seconds * SECOND_NS,
        group_interval_ns=60 * SECOND_NS,
        repeat_interval_ns=4 * 3600 * SECOND_NS,
    )


def make_alert(process="nginx", rule="storm", severity=Severity.WARNING, receivers=None, fired=WALL):
    return factories.make_alert(
        rule=rule,
        labels=(("process", process),),
        severity=severity,
        summary=f"{process} opens 150/s connections",
        started=fired - 10,
        fired=fired,
        receivers=receivers,
    )


class Host:
    """In place of lifecycle, clock and store: changes alerts, runs ticks, restarts the grouping from its JSON."""

    def __init__(self, routing=None, receivers=("oncall", "log", "other")):
        self.routing = routing or make_routing()
        self.receivers = receivers
        self.grouping = Grouping(self.routing, "db1")
        self.seconds = 0.0
        self.firing = {}
        self.transitions = []
        self.saved = {}

    @property
    def at_ns(self):
        return round(self.seconds * SECOND_NS)

    @property
    def wall(self):
        return WALL + self.seconds

    @property
    def now(self):
        return Now(self.at_ns, self.wall)

    def fire(self, alert):
        self.firing[alert.fingerprint] = alert
        self.transitions.append(Transition(TransitionKind.FIRING, alert))

    def set_severity(self, alert, severity):
        kind = TransitionKind.SEVERITY_RAISED if severity > alert.severity else TransitionKind.SEVERITY_LOWERED
        changed = self.firing[alert.fingerprint] = replace(alert, severity=severity)
        self.transitions.append(Transition(kind, changed))

    def resolve(self, alert):
        del self.firing[alert.fingerprint]
        resolved = replace(alert, state=AlertState.RESOLVED, resolved=self.wall, reason="value below 60 for 10 s")
        self.transitions.append(Transition(TransitionKind.RESOLVED, resolved))

    def tick(self, after=0.0):
        self.seconds += after
        transitions, self.transitions = self.transitions, []
        notifications = self.grouping.advance(transitions, self.firing, self.now)
        self.save()
        return notifications

    def save(self):
        for key, document in self.grouping.take_changes():
            if document is None:
                self.saved.pop(key, None)
            else:
                self.saved[key] = json.loads(json.dumps(document))

    def restart(self, boottime_shift_ns=0, notified=()):
        self.grouping = Grouping(self.routing, "db1")
        self.grouping.restore(
            list(self.saved.values()),
            self.firing,
            self.receivers,
            self.now,
            boottime_shift_ns=boottime_shift_ns,
            notified=notified,
        )


@pytest.fixture
def host():
    return Host()


def contents(notifications):
    return [
        (
            notification.receiver,
            notification.reason,
            [(dict(a.labels)["process"], a.state.value) for a in notification.alerts],
        )
        for notification in notifications
    ]


def test_first_alert_is_notified_at_once_without_group_wait(host):
    host.fire(make_alert())
    (notification,) = host.tick()
    assert contents([notification]) == [("oncall", "first notification", [("nginx", "firing")])]
    assert (notification.group_key, notification.host, notification.created, notification.status) == (
        "storm",
        "db1",
        WALL,
        "firing",
    )
    assert len(notification.id) == 32


def test_without_transitions_there_are_no_notifications(host):
    assert host.tick() == []


def test_first_notification_waits_group_wait_and_includes_later_alerts():
    host = Host(make_routing(group_wait_seconds=30))
    host.fire(make_alert("a"))
    assert host.tick() == []
    host.fire(make_alert("b", fired=WALL + 29))
    assert host.tick(29) == []
    assert contents(host.tick(1)) == [("oncall", "first notification", [("a", "firing"), ("b", "firing")])]


def test_a_later_alert_is_notified_a_second_after_the_last_notification(host):
    host.fire(make_alert("a"))
    host.tick()
    host.fire(make_alert("b", fired=WALL + 1))
    assert host.tick(0.7) == []
    assert contents(host.tick(0.1)) == [("oncall", "new alert in group", [("a", "firing"), ("b", "firing")])]
    assert host.tick(600) == []


def test_a_later_alert_waits_group_wait_of_its_own():
    host = Host(make_routing(group_wait_seconds=10))
    host.fire(make_alert("a"))
    host.tick()
    assert len(host.tick(10)) == 1
    host.fire(make_alert("b", fired=WALL + 15))
    host.tick(5)
    assert host.tick(9) == []
    assert len(host.tick(1)) == 1


def test_a_later_alert_that_ends_at_once_is_notified_as_firing_first(host):
    host.fire(make_alert("a"))
    host.tick()
    brief = make_alert("b", fired=WALL + 1)
    host.fire(brief)
    assert host.tick(0.2) == []
    host.resolve(brief)
    assert host.tick(0.2) == []
    host.restart()
    assert contents(host.tick(1.6)) == [("oncall", "new alert in group", [("a", "firing"), ("b", "firing")])]
    assert host.tick(59) == []
    assert contents(host.tick(1)) == [("oncall", "resolved", [("a", "firing"), ("b", "resolved")])]
    assert host.tick(3_600) == []


def test_a_rise_in_severity_is_notified_at_once(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, Severity.CRITICAL)
    [notification] = host.tick(0.2)
    assert (notification.reason, notification.alerts[0].severity) == ("severity changed", Severity.CRITICAL)


def test_a_rise_is_notified_within_two_seconds_beside_another_critical_alert(host):
    loud, rising = make_alert("loud", severity=Severity.CRITICAL), make_alert("rising")
    host.fire(loud)
    host.fire(rising)
    host.tick()
    host.set_severity(rising, Severity.CRITICAL)
    assert len(host.tick(1) + host.tick(1)) == 1


def test_a_lowered_severity_waits_and_the_end_has_the_highest_severity_that_was_notified(host):
    alert = make_alert(severity=Severity.CRITICAL)
    host.fire(alert)
    host.tick()
    host.set_severity(alert, Severity.WARNING)
    assert host.tick(59) == []
    assert [a.severity for a in host.tick(1)[0].alerts] == [Severity.WARNING]
    host.restart()
    host.resolve(host.firing[alert.fingerprint])
    assert [(a.severity, a.resolved is None) for a in host.tick(60)[0].alerts] == [(Severity.CRITICAL, False)]


def test_an_end_does_not_have_a_severity_that_the_receiver_was_not_sent():
    host = Host(make_routing(group_wait_seconds=30))
    alert = make_alert(severity=Severity.CRITICAL)
    host.fire(alert)
    host.tick()
    host.set_severity(alert, Severity.WARNING)
    assert [a.severity for a in host.tick(30)[0].alerts] == [Severity.WARNING]
    host.resolve(host.firing[alert.fingerprint])
    assert [a.severity for a in host.tick(60)[0].alerts] == [Severity.WARNING]


@pytest.mark.parametrize("first_count", [1, 2, 3, 20, 100])
@pytest.mark.parametrize("tick_seconds", [0.2, 1.0])
def test_a_flood_of_a_thousand_alerts_makes_four_notifications_at_most(host, tick_seconds, first_count):
    alerts = [make_alert(f"p{number}", fired=WALL + number / 100) for number in range(1_000)]
    fired = raised = 0
    notifications = []
    for _ in range(round(20 / tick_seconds)):
        while fired < 1_000 and fired < first_count + 100 * host.seconds:
            host.fire(alerts[fired])
            fired += 1
        while raised < fired - 200:  # each becomes critical 2 s later
            host.set_severity(alerts[raised], Severity.CRITICAL)
            raised += 1
        notifications += host.tick(tick_seconds)
    assert len(notifications) <= 4
    assert len(notifications[-1].alerts) == 1_000
    assert {alert.severity for alert in notifications[-1].alerts} == {Severity.WARNING, Severity.CRITICAL}


def test_some_alerts_at_once_after_a_first_one_are_notified_within_seconds(host):
    host.fire(make_alert("first"))
    host.tick()
    for number in range(20):
        host.fire(make_alert(f"p{number}"))
    assert host.tick(1) == []
    assert [len(each.alerts) for each in host.tick(5.1)] == [21]


def test_a_receiver_that_was_notified_of_the_end_hears_of_the_next_firing_at_once(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.resolve(alert)
    assert [each.status for each in host.tick(60)] == ["resolved"]
    host.fire(alert)
    assert [each.status for each in host.tick(0.2)] == ["firing"]


def test_an_alert_after_group_interval_is_notified_at_once(host):
    host.fire(make_alert("a"))
    host.tick()
    host.fire(make_alert("b"))
    assert len(host.tick(61)) == 1


def test_each_rule_and_each_receiver_has_its_own_group():
    host = Host(make_routing(default=("oncall", "log")))
    host.fire(make_alert("a", rule="storm"))
    host.fire(make_alert("a", rule="spike"))
    host.fire(make_alert("a", rule="rtt", receivers=("other",)))
    notifications = host.tick()
    assert sorted((notification.receiver, notification.group_key) for notification in notifications) == [
        ("log", "spike"), ("log", "storm"), ("oncall", "spike"), ("oncall", "storm"), ("other", "rtt"),
    ]  # fmt: skip
    assert len({notification.id for notification in notifications}) == 5


def test_resolved_is_notified_once_after_group_interval(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.resolve(alert)
    assert host.tick(10) == []
    (notification,) = host.tick(50)
    assert contents([notification]) == [("oncall", "resolved", [("nginx", "resolved")])]
    assert notification.status == "resolved"
    assert notification.alerts[0].resolved == WALL
    assert [host.tick(3600) for _ in range(24)] == [[]] * 24


def test_the_alert_furthest_beyond_its_limit_comes_first(host):
    small, large, smaller = (
        make_alert("a"),
        replace(make_alert("b"), value=9000.0),
        replace(make_alert("c"), value=501.0),
    )
    for alert in (small, large, smaller):
        host.fire(alert)
    (notification,) = host.tick()
    assert [alert.labels for alert in notification.alerts] == [alert.labels for alert in (large, small, smaller)]


def test_of_shares_the_one_of_more_connections_comes_first(host):
    def share(process, value, amount):
        return replace(
            make_alert(process),
            format="percent",
            value=value,
            threshold=0.2,
            evidence=factories.make_evidence(amount=amount),
        )

    decoys = [share(f"decoy{number}", 1.0, 10.0) for number in range(3)]
    large = share("large", 0.6, 6000.0)
    for alert in (*decoys, large):
        host.fire(alert)
    (notification,) = host.tick()
    assert notification.alerts[0].labels == large.labels


def test_resolved_alerts_come_last_and_the_worst_first(host):
    quiet, loud, gone = make_alert("quiet"), make_alert("loud", severity=Severity.CRITICAL), make_alert("gone")
    for alert in (gone, quiet, loud):
        host.fire(alert)
    host.tick()
    host.resolve(gone)
    assert contents(host.tick(60)) == [
        ("oncall", "resolved", [("loud", "firing"), ("quiet", "firing"), ("gone", "resolved")])
    ]


def test_alert_that_fires_and_resolves_before_the_first_notification_is_sent_as_resolved():
    host = Host(make_routing(group_wait_seconds=30))
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.resolve(alert)
    host.tick(5)
    (notification,) = host.tick(25)
    assert contents([notification]) == [("oncall", "resolved", [("nginx", "resolved")])]
    assert (notification.alerts[0].fired, notification.alerts[0].resolved) == (WALL, WALL)
    assert host.tick(60) == []


def test_alert_that_fires_and_resolves_in_one_tick_is_notified(host):
    alert = make_alert()
    host.fire(alert)
    host.resolve(alert)
    assert contents(host.tick()) == [("oncall", "resolved", [("nginx", "resolved")])]


def test_flapping_alert_makes_one_notification_per_group_interval_and_the_last_has_the_final_state(host):
    alert = make_alert()
    notifications = []
    for second in range(601):
        host.resolve(alert) if second % 2 else host.fire(alert)
        notifications += host.tick(1)
    assert len(notifications) == 11  # seconds 1, 61, … 601
    assert notifications[-1].status == "firing"
    host.resolve(alert)
    assert host.tick(1) == []
    assert contents(host.tick(60)) == [("oncall", "resolved", [("nginx", "resolved")])]


def test_alert_that_resolved_and_fired_again_between_notifications_is_a_new_alert(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.resolve(alert)
    host.tick(1)
    host.fire(replace(alert, fired=WALL + 2))
    host.tick(1)
    (notification,) = host.tick(58)
    assert contents([notification]) == [("oncall", "new alert in group", [("nginx", "firing")])]
    assert notification.alerts[0].fired == WALL + 2


def test_changed_severity_is_notified(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, Severity.CRITICAL)
    (notification,) = host.tick(60)
    assert (notification.reason, notification.alerts[0].severity) == ("severity changed", Severity.CRITICAL)


def test_severity_that_is_restored_before_the_next_notification_makes_none(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, Severity.CRITICAL)
    host.set_severity(host.firing[alert.fingerprint], Severity.WARNING)
    host.tick(10)
    assert host.tick(100) == []


def test_reminder_comes_at_repeat_interval_while_an_alert_fires_with_the_newest_values(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.firing[alert.fingerprint] = replace(alert, value=180.0)
    assert host.tick(4 * 3600 - 1) == []
    (notification,) = host.tick(1)
    assert (notification.reason, notification.alerts[0].value) == ("repeat", 180.0)
    assert host.tick(4 * 3600 - 1) == []
    assert len(host.tick(1)) == 1


def test_restart_makes_no_notification_and_keeps_the_waits(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.restart()
    assert host.tick(30) == []
    host.resolve(alert)
    host.tick(10)
    host.restart()
    assert host.tick(19) == []
    assert contents(host.tick(1)) == [("oncall", "resolved", [("nginx", "resolved")])]
    host.tick(60)
    assert host.saved == {}


def test_restart_keeps_the_notified_severity_of_each_alert(host):
    host.fire(make_alert("a"))
    host.fire(make_alert("b", severity=Severity.CRITICAL))
    host.tick()
    host.restart()
    host.resolve(make_alert("a"))
    assert contents(host.tick(60)) == [("oncall", "resolved", [("b", "firing"), ("a", "resolved")])]


def test_reboot_shifts_the_waits_and_saves_every_group_again(host):
    host.seconds = 10_000
    host.fire(make_alert())
    host.tick()
    host.seconds = 5  # booted 100 s after the last notification
    host.restart(boottime_shift_ns=(5 - 100 - 10_000) * SECOND_NS)
    host.save()
    assert host.saved["oncall", "storm"]["last_notification_ns"] == -95 * SECOND_NS
    host.fire(make_alert("b", fired=WALL + 100))
    assert contents(host.tick()) == [("oncall", "new alert in group", [("nginx", "firing"), ("b", "firing")])]
    assert host.saved["oncall", "storm"]["last_notification_ns"] == 5 * SECOND_NS


def test_alert_that_disappeared_over_a_restart_is_resolved_once(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.firing.clear()
    host.restart()
    (notification,) = host.tick(60)
    assert contents([notification]) == [("oncall", "resolved", [("nginx", "resolved")])]
    assert (notification.alerts[0].reason, notification.alerts[0].resolved) == ("no longer active", WALL)
    assert host.tick(60) == []


def test_reason_of_the_lifecycle_replaces_the_reason_assumed_at_restart(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.firing.clear()
    host.restart()
    removed = replace(alert, state=AlertState.RESOLVED, resolved=host.wall, reason="rule removed")
    host.transitions.append(Transition(TransitionKind.RESOLVED, removed))
    (notification,) = host.tick(60)
    assert notification.alerts == (removed,)


def test_rerouted_alert_fires_for_the_new_receiver_and_is_resolved_for_the_old_one(host):
    alert = make_alert(receivers=("oncall",))
    host.fire(alert)
    host.tick()
    host.firing[alert.fingerprint] = moved = replace(alert, receivers=("log",))
    host.grouping.reload(host.routing, host.firing, host.now)
    assert contents(host.tick()) == [("log", "first notification", [("nginx", "firing")])]
    (ended,) = host.tick(60)
    assert contents([ended]) == [("oncall", "resolved", [("nginx", "resolved")])]
    assert ended.alerts[0].reason == "no longer routed to this receiver"
    host.resolve(moved)
    assert contents(host.tick(1)) == [("log", "resolved", [("nginx", "resolved")])]


def test_the_old_receiver_gets_its_resolved_although_the_severity_rises_meanwhile(host):
    alert = make_alert(receivers=("oncall",))
    host.fire(alert)
    host.tick()
    host.firing[alert.fingerprint] = moved = replace(alert, receivers=("log",))
    host.grouping.reload(host.routing, host.firing, host.now)
    host.set_severity(moved, Severity.CRITICAL)
    assert contents(host.tick(1)) == [("log", "first notification", [("nginx", "firing")])]
    assert contents(host.tick(59)) == [("oncall", "resolved", [("nginx", "resolved")])]


def test_the_old_receiver_gets_its_resolved_although_the_alert_resolves_and_fires_meanwhile(host):
    alert = make_alert(receivers=("oncall",))
    host.fire(alert)
    host.tick()
    moved = replace(alert, receivers=("log",))
    host.firing[alert.fingerprint] = moved
    host.grouping.reload(host.routing, host.firing, host.now)
    host.resolve(moved)
    host.tick(1)
    host.fire(moved)
    notifications = [notification for notification in host.tick(59) if notification.receiver == "oncall"]
    assert contents(notifications) == [("oncall", "resolved", [("nginx", "resolved")])]


def test_receivers_that_an_alert_gets_with_the_tick_after_a_reload_are_notified(host):
    alert = make_alert(receivers=("oncall",))
    host.fire(alert)
    host.tick()
    host.grouping.reload(host.routing, host.firing, host.now)
    host.firing[alert.fingerprint] = replace(alert, receivers=("log",))
    assert contents(host.tick(1)) == [("log", "first notification", [("nginx", "firing")])]
    assert contents(host.tick(59)) == [("oncall", "resolved", [("nginx", "resolved")])]


def test_reload_without_changes_makes_no_notification(host):
    host.fire(make_alert())
    host.tick()
    host.grouping.reload(host.routing, host.firing, host.now)
    assert host.tick(3600) == []


def test_groups_of_a_removed_receiver_are_dropped():
    host = Host(receivers=("log",))
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.routing = make_routing(default=("log",))
    host.restart()
    assert contents(host.tick()) == [("log", "first notification", [("nginx", "firing")])]
    assert list(host.saved) == [("log", "storm")]


def test_receiver_that_a_reload_removes_gets_no_more_notifications(host):
    host.fire(make_alert())
    host.tick()
    host.grouping.reload(make_routing(("log",)), host.firing, host.now, {"log"})
    assert contents(host.tick(60)) == [("log", "first notification", [("nginx", "firing")])]
    assert list(host.saved) == [("log", "storm")]


def test_removed_receiver_gets_no_notification_although_the_alert_still_names_it(host):
    alert = make_alert(receivers=("oncall",))
    host.fire(alert)
    host.tick()
    host.grouping.reload(host.routing, host.firing, host.now, {"log"})
    host.firing[alert.fingerprint] = replace(alert, receivers=("log",))
    assert contents(host.tick(60)) == [("log", "first notification", [("nginx", "firing")])]


def test_names_that_are_not_utf8_survive_the_store(host):
    alert = make_alert("ev\udcffil\n\x1b[31m")
    host.fire(alert)
    host.tick()
    host.restart()
    host.resolve(alert)
    (notification,) = host.tick(60)
    assert notification.alerts[0].labels == alert.labels


def test_only_groups_that_changed_are_saved(host):
    host.fire(make_alert("a", rule="storm"))
    host.fire(make_alert("a", rule="spike"))
    host.grouping.advance(host.transitions, host.firing, host.now)
    assert [key for key, _ in host.grouping.take_changes()] == [("oncall", "spike"), ("oncall", "storm")]
    host.transitions.clear()
    host.grouping.advance([], host.firing, Now(host.at_ns + SECOND_NS, host.wall))
    assert host.grouping.take_changes() == []


# ------------------------------------------------------------------------------------------------ ticks that failed


def lose_transitions(host):
    """Let a tick fail between lifecycle and grouping."""
    host.transitions = []
    host.grouping.request_reconcile()


def test_an_alert_with_a_lost_transition_is_notified_by_the_next_tick(host):
    host.fire(make_alert())
    lose_transitions(host)

    assert contents(host.tick(1)) == [("oncall", "first notification", [("nginx", "firing")])]
    assert host.tick(1) == []


def test_a_lost_end_and_a_lost_change_of_severity_are_notified(host):
    over, worse = make_alert("over"), make_alert("worse")
    host.fire(over)
    host.fire(worse)
    host.tick()
    host.resolve(over)
    host.set_severity(worse, Severity.CRITICAL)
    lose_transitions(host)
    (notification,) = host.tick(60)

    assert contents([notification]) == [("oncall", "severity changed", [("worse", "firing"), ("over", "resolved")])]
    assert [alert.severity for alert in notification.alerts] == [Severity.CRITICAL, Severity.WARNING]


def test_an_alert_with_a_lost_new_beginning_is_not_resolved(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.resolve(alert)
    host.tick(1)
    host.fire(replace(alert, fired=WALL + 2))
    lose_transitions(host)

    assert contents(host.tick(60)) == [("oncall", "new alert in group", [("nginx", "firing")])]


def test_a_notification_made_before_another_failed_comes_with_the_next_tick(host, monkeypatch):
    host.fire(make_alert("a", "one"))
    host.fire(make_alert("b", "two"))
    make_notification = Grouping._make_notification

    def fail_for_two(grouping, key, *rest):
        if key[1] == "two":
            raise RuntimeError
        return make_notification(grouping, key, *rest)

    monkeypatch.setattr(Grouping, "_make_notification", fail_for_two)
    with pytest.raises(RuntimeError):
        host.tick()
    monkeypatch.undo()

    assert [notification.group_key for notification in host.tick(1)] == ["one", "two"]


def test_an_unreadable_group_is_counted_and_its_receiver_notified_again(host):
    host.fire(make_alert())
    host.tick()
    [document] = host.saved.values()
    spoiled = [{}, document | {"members": [{}]}, document | {"unsent_since_ns": "soon"}, 7]
    host.grouping = Grouping(host.routing, "db1")

    assert host.grouping.restore(spoiled, host.firing, host.receivers, host.now, boottime_shift_ns=5) == 4
    assert contents(host.tick(1)) == [("oncall", "first notification", [("nginx", "firing")])]


def test_a_notified_alert_without_a_group_is_resolved_once_for_its_receiver(host):
    lost, gone = make_alert(), make_alert("redis")
    host.restart(notified=[("oncall", lost), ("oncall", gone), ("log", gone)])
    notifications = host.tick()
    assert sorted(contents(notifications)) == [
        ("log", "resolved", [("redis", "resolved")]),
        ("oncall", "resolved", [("redis", "resolved"), ("nginx", "resolved")]),
    ]
    assert {alert.reason for notification in notifications for alert in notification.alerts} == {"no longer active"}
    host.restart()  # its resolved notification is in the outbox now
    assert host.tick(after=120) == []


def test_a_notified_alert_without_a_group_that_fires_on_makes_only_reminders_and_a_resolved(host):
    alert = make_alert()
    host.firing[alert.fingerprint] = alert
    host.restart(notified=[("oncall", alert)])
    assert host.tick() == []
    assert contents(host.tick(after=4 * 3600)) == [("oncall", "repeat", [("nginx", "firing")])]
    host.resolve(alert)
    assert contents(host.tick(after=60)) == [("oncall", "resolved", [("nginx", "resolved")])]


def test_a_resolved_notification_that_a_group_still_owes_is_not_made_twice(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    host.resolve(alert)
    host.tick(after=1)  # within group_interval: its end waits
    host.restart(notified=[("oncall", alert)])
    assert contents(host.tick(after=60)) == [("oncall", "resolved", [("nginx", "resolved")])]
    assert host.tick(after=600) == []


def test_a_removed_receiver_gets_no_resolved_notification(host):
    host.restart(notified=[("gone", make_alert())])
    assert host.tick() == []


def test_a_group_of_an_earlier_version_is_read(host):
    alert = make_alert()
    host.fire(alert)
    host.tick()
    [document] = host.saved.values()
    for key in ("group_labels", "group_timing"):
        del document[key]
    for key in ("known_severity", "highest", "unsent_firing", "is_end_notified"):
        del document["members"][0][key]
    host.restart()
    host.grouping.reload(make_routing(("log",)), host.firing, host.now)

    assert contents(host.tick(60)) == [
        ("oncall", "resolved", [("nginx", "resolved")]),
        ("log", "first notification", [("nginx", "firing")]),
    ]
