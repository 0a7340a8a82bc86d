"""Silences and acknowledgements: notifications before, during and after them."""

import json
from dataclasses import replace

import pytest

import factories
from watchdog.alerts.alert import AlertState, Transition, TransitionKind
from watchdog.clock import SECOND_NS, Now
from watchdog.config.settings import RoutingSettings
from watchdog.errors import UsageError
from watchdog.routing.alert_matching import readable_dimensions
from watchdog.routing.grouping import Grouping
from watchdog.routing.silencing import AcknowledgedFiring, Silence, parse_matchers
from watchdog.routing.suppression_rules import SuppressionRules
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.language.rule import Condition, Severity

ROUTING = RoutingSettings(("oncall",), 0, 60 * SECOND_NS, 3600 * SECOND_NS)
DIMENSIONS = readable_dimensions(["team"], ())


def make_silence(*matchers, **fields):
    where = parse_matchers(matchers or ["process=nginx"], DIMENSIONS)
    return Silence(**{"id": "1f0a3c5e", "where": where, "author": "ada", "comment": "move", "created": 0.0, **fields})


def acknowledge(alert):
    return Silence("ac00ac00", (), "ada", "", 0.0, acknowledged=AcknowledgedFiring(alert.fingerprint, alert.fired))


def make_suppressor(exempt=()):
    suppressor = Suppressor()
    suppressor.configure(SuppressionRules(), exempt)
    return suppressor


class Host:
    """In place of lifecycle, clock and store: fires and resolves alerts, ticks, restarts the grouping from its JSON."""

    def __init__(self, exempt=()):
        self.suppressor = make_suppressor(exempt)
        self.grouping = Grouping(ROUTING, "db1", suppression=self.suppressor)
        self.seconds = 100.0
        self.firing, self.transitions, self.silences, self.saved, self.withheld = {}, [], [], {}, 0

    @property
    def now(self):
        return Now(round(self.seconds * SECOND_NS), self.seconds)

    def fire(self, process="nginx", severity=Severity.WARNING):
        alert = factories.make_alert(
            rule="storm", labels=(("process", process),), severity=severity, fired=self.seconds, started=self.seconds
        )
        kind = TransitionKind.SEVERITY_RAISED if alert.fingerprint in self.firing else TransitionKind.FIRING
        if kind is TransitionKind.SEVERITY_RAISED:
            alert = replace(alert, fired=self.firing[alert.fingerprint].fired)
        self.firing[alert.fingerprint] = alert
        self.transitions.append(Transition(kind, alert))
        return alert

    def resolve(self, alert):
        alert = self.firing.pop(alert.fingerprint)
        resolved = replace(alert, state=AlertState.RESOLVED, resolved=self.seconds)
        self.transitions.append(Transition(TransitionKind.RESOLVED, resolved))

    def tick(self, after=1.0):
        self.seconds += after
        self.silences = [one for one in self.silences if not one.has_ended(self.firing, self.now.boottime_ns)]
        self.suppressor.update(self.silences, self.firing, self.now)
        transitions, self.transitions = self.transitions, []
        notifications = self.grouping.advance(transitions, self.firing, self.now)
        self.withheld += sum(self.suppressor.take_withheld().values())
        for key, document in self.grouping.take_changes():
            self.saved[key] = json.loads(json.dumps(document))
        return [
            (
                str(one.reason),
                [(dict(alert.labels)["process"], alert.severity.label, alert.state.value) for alert in one.alerts],
            )
            for one in notifications
        ]

    def restart(self):
        self.grouping = Grouping(ROUTING, "db1", suppression=self.suppressor)
        saved = [document for document in self.saved.values() if document is not None]
        self.grouping.restore(saved, self.firing, ("oncall",), self.now, 0)


@pytest.fixture
def host():
    return Host()


def test_silenced_alert_is_not_notified_and_the_withheld_notification_is_counted(host):
    host.silences = [make_silence()]
    alert = host.fire()
    assert host.tick() == []
    host.fire(severity=Severity.CRITICAL)
    assert host.tick() == []
    assert host.withheld == 2
    host.resolve(alert)
    assert host.tick(60) == host.tick(3600) == []
    assert host.withheld == 2


def test_alert_that_a_receiver_knows_resolves_under_a_silence_with_one_notification(host):
    alert = host.fire()
    assert host.tick() == [("first notification", [("nginx", "warning", "firing")])]
    host.silences = [make_silence()]
    host.fire(severity=Severity.CRITICAL)
    assert host.tick(120) == []
    host.resolve(alert)
    assert [alerts for _, alerts in host.tick()] == [[("nginx", "critical", "resolved")]]
    assert host.tick(3600) == []


def test_alert_that_outlasts_its_silence_is_notified_with_the_reason(host):
    host.silences = [make_silence(ends_ns=200 * SECOND_NS)]
    host.fire()
    assert host.tick() == []
    assert host.tick(98) == []
    host.seconds += 1.0
    host.suppressor.update([], host.firing, host.now)
    (notification,) = host.grouping.advance([], host.firing, host.now)
    assert notification.reason_text == "no longer suppressed: silence 1f0a3c5e ended"
    assert notification.status == "firing"


def test_known_alert_is_notified_again_after_a_silence(host):
    host.fire()
    host.tick()
    host.silences = [make_silence(ends_ns=300 * SECOND_NS)]
    assert host.tick() == []
    assert host.tick(300) == [("no longer suppressed", [("nginx", "warning", "firing")])]
    assert host.tick(60) == []


def test_reminders_are_withheld_and_counted(host):
    host.fire()
    host.tick()
    host.silences = [make_silence()]
    assert [host.tick(1800) for _ in range(6)] == [[]] * 6
    assert host.withheld == 3


def test_other_alerts_of_the_group_are_notified_without_the_silenced_one(host):
    host.silences = [make_silence()]
    host.fire("nginx")
    host.fire("crawler")
    assert host.tick() == [("first notification", [("crawler", "warning", "firing")])]
    assert host.tick(3600) == [("repeat", [("crawler", "warning", "firing")])]


def test_silence_outlives_a_restart_and_ends_during_one(host):
    host.silences = [make_silence()]
    host.fire()
    assert host.tick() == []
    host.restart()
    assert host.tick() == []
    assert host.withheld == 1
    host.silences = []
    host.restart()
    assert host.tick() == [("no longer suppressed", [("nginx", "warning", "firing")])]


def test_receivers_that_are_exempt_get_every_alert():
    host = Host(exempt=("oncall",))
    host.silences = [make_silence()]
    host.fire()
    assert host.tick() == [("first notification", [("nginx", "warning", "firing")])]


def test_acknowledged_alert_is_silent_until_it_resolves_and_fires_again(host):
    alert = host.fire()
    host.tick()
    host.silences = [acknowledge(alert)]
    assert host.tick(7200) == []
    host.resolve(alert)
    assert host.tick() == [("resolved", [("nginx", "warning", "resolved")])]
    host.fire()
    assert host.tick() == [("new alert in group", [("nginx", "warning", "firing")])]


def test_silenced_alert_that_resolves_and_fires_in_one_tick_is_never_announced(host):
    host.silences = [make_silence()]
    alert = host.fire()
    host.tick()
    host.resolve(alert)
    host.fire()
    assert host.tick() == []
    host.resolve(alert)
    assert host.tick(3600) == []


def test_suppressed_alerts_are_no_burst_that_delays_others(host):
    host.fire("first")
    host.tick()
    host.silences = [make_silence("process=nginx*")]
    for number in range(20):
        host.fire(f"nginx{number}")
    assert host.tick() == []
    host.fire("crawler")
    assert [alerts for _, alerts in host.tick()] == [[("first", "warning", "firing"), ("crawler", "warning", "firing")]]


def test_notification_about_an_end_that_is_not_sent_has_no_firing_alert(host):
    host.suppressor.configure(SuppressionRules(), (), ("oncall",))
    first = host.fire("first")
    host.fire("second")
    host.tick()
    host.resolve(first)
    assert host.tick(60) == [("resolved", [("first", "warning", "resolved")])]
    assert host.tick(3600) == [("repeat", [("second", "warning", "firing")])]


def test_matchers_are_conditions():
    assert parse_matchers(["process=nginx*", "process!=nginx-test", "remote=10.0.0.0/8"], DIMENSIONS) == (
        Condition("process", ("nginx*",), ("nginx-test",)),
        Condition("remote", ("10.0.0.0/8",)),
    )
    assert parse_matchers(["team=db"], DIMENSIONS) == (Condition("team", ("db",)),)
    assert parse_matchers(["process=!a", "process=b=c"], DIMENSIONS) == (Condition("process", ("b=c",), ("a",)),)


@pytest.mark.parametrize(
    ("matchers", "message"),
    [
        (["nginx"], "not a matcher"),
        (["=nginx"], "not a matcher"),
        ([], "no matcher"),
        (["proces=nginx"], 'did you mean "process"'),
        (["severity=bad"], "known are critical, warning"),
        (["remote=10.0.0.1/8"], "did you mean"),
        (["remote_port=99999"], "maximum"),
    ],
)
def test_matchers_that_cannot_match_are_refused(matchers, message):
    with pytest.raises(UsageError, match=message):
        parse_matchers(matchers, DIMENSIONS)


def test_silence_keeps_its_fields_in_json():
    for silence in (make_silence(permanent_reason="x", ends_ns=5, withheld=3), acknowledge(factories.make_alert())):
        document = json.loads(json.dumps(silence.to_json()))
        assert Silence.from_json(document, silence.ends_ns, silence.withheld) == silence
