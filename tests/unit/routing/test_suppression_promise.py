"""Silences, acknowledgements, mute times and inhibition against a small reference model, over random histories.

Whatever is withheld: a receiver that got an alert as firing gets its end exactly once, and nothing of a firing that was
suppressed all the time.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

import factories
from watchdog.alerts.alert import AlertState, Transition, TransitionKind
from watchdog.clock import SECOND_NS, Now
from watchdog.config.settings import RoutingSettings
from watchdog.routing.grouping import Grouping
from watchdog.routing.inhibition import Inhibition
from watchdog.routing.mute_times import MuteTime, parse_times
from watchdog.routing.silencing import AcknowledgedFiring, Silence
from watchdog.routing.suppression_rules import SuppressionRules
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.language.rule import Condition, Severity

HISTORIES = 10_000
BATCHES = 10
RECEIVERS = ("oncall", "cluster")  # the second one is exempt from suppression
ALERTS = (("scan", "a"), ("storm", "a"), ("storm", "b"))
ROUTING = RoutingSettings(RECEIVERS, 0, 60 * SECOND_NS, 600 * SECOND_NS)
INHIBITION = Inhibition((Condition("rule", ("scan",)),), (Condition("rule", ("storm",)),), ("process",))
MORNING = MuteTime("morning", (parse_times("00:00-12:00"),), ZoneInfo("UTC"), (Condition("process", ("b",)),))
HOUR, DAY = 3_600, 86_400
PAUSES = (1, 1, 2, 30, 61, 700)


class World:
    """Time, alerts and suppressions. `seconds`: true time; boots and steps of the clock move the two clocks away."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.seconds, self.booted, self.wall_offset = 1_000.0, 0.0, 0.0
        self.firing, self.transitions = {}, []
        self.silences = {}  # by id: (process or acknowledged firing, true end)
        self.suppressor = Suppressor()
        self.suppressor.configure(SuppressionRules((MORNING,), (INHIBITION,)), ("cluster",))
        self.grouping = self.new_grouping()
        self.saved = {}

    def new_grouping(self):
        return Grouping(ROUTING, "db1", suppression=self.suppressor)

    @property
    def now(self):
        return Now(round((self.seconds - self.booted) * SECOND_NS), self.seconds + self.wall_offset)

    def change_alert(self, rule, process, severity):
        """Bring an alert to `severity`, None: resolve it."""
        new = factories.make_alert(
            rule=rule, labels=(("process", process),), severity=severity or Severity.WARNING, fired=self.seconds
        )
        old = self.firing.get(new.fingerprint)
        if severity is None:
            if old is not None:
                del self.firing[new.fingerprint]
                ended = replace(old, state=AlertState.RESOLVED, resolved=self.seconds)
                self.transitions.append(Transition(TransitionKind.RESOLVED, ended))
        elif old is None:
            self.firing[new.fingerprint] = new
            self.transitions.append(Transition(TransitionKind.FIRING, new))
        elif old.severity is not severity:
            changed = self.firing[new.fingerprint] = replace(old, severity=severity)
            is_raised = severity > old.severity
            kind = TransitionKind.SEVERITY_RAISED if is_raised else TransitionKind.SEVERITY_LOWERED
            self.transitions.append(Transition(kind, changed))

    def real_silences(self):
        found = []
        for key, (subject, end) in self.silences.items():
            is_acknowledgement = isinstance(subject, AcknowledgedFiring)
            where = () if is_acknowledgement else (Condition("process", (subject,)),)
            ends_ns = None if end is None else round((end - self.booted) * SECOND_NS)
            found.append(
                Silence(key, where, "", "", 0.0, ends_ns, acknowledged=subject if is_acknowledgement else None)
            )
        return [one for one in found if not one.has_ended(self.firing, self.now.boottime_ns)]

    def is_suppressed(self, alert):
        """Return whether `alert` is suppressed now, by the reference model."""
        process = dict(alert.labels)["process"]
        for subject, end in self.silences.values():
            if isinstance(subject, AcknowledgedFiring):
                if (subject.fingerprint, subject.fired) == (alert.fingerprint, alert.fired):
                    return True
            elif subject == process and (end is None or self.seconds < end):
                return True
        if process == "b" and alert.severity is Severity.WARNING and self.now.wall % DAY < 12 * HOUR:
            return True
        return alert.rule == "storm" and any(
            one.rule == "scan" and one.labels == alert.labels for one in self.firing.values()
        )

    def tick(self, pause):
        self.seconds += pause
        self.suppressor.update(self.real_silences(), self.firing, self.now)
        transitions, self.transitions = self.transitions, []
        notifications = self.grouping.advance(transitions, self.firing, self.now)
        for key, document in self.grouping.take_changes():
            self.saved[key] = document
        return notifications

    def restart(self, is_reboot):
        former = self.booted
        if is_reboot:
            self.booted = self.seconds - 5.0
        shift_ns = round((former - self.booted) * SECOND_NS)
        self.grouping = self.new_grouping()
        documents = [json.loads(json.dumps(one)) for one in self.saved.values() if one is not None]
        assert self.grouping.restore(documents, self.firing, RECEIVERS, self.now, shift_ns) == 0

    def happen(self):
        """Let something random happen between two ticks."""
        choose = self.random
        for rule, process in ALERTS:
            if choose.random() < 0.4:
                self.change_alert(rule, process, choose.choice((None, Severity.WARNING, Severity.CRITICAL)))
        event = choose.random()
        if event < 0.2:
            end = choose.choice((None, self.seconds + choose.choice((1, 50, 500))))
            self.silences[f"s{len(self.silences)}"] = (choose.choice("ab"), end)
        elif event < 0.35 and self.firing:
            alert = choose.choice(list(self.firing.values()))
            self.silences[f"s{len(self.silences)}"] = (AcknowledgedFiring(alert.fingerprint, alert.fired), None)
        elif event < 0.5 and self.silences:
            self.silences[choose.choice(list(self.silences))] = ("nobody", 0.0)
        elif event < 0.6:
            self.restart(is_reboot=choose.random() < 0.5)
        elif event < 0.75:
            self.wall_offset += choose.choice((-DAY, -11 * HOUR, -60, 60, 7 * HOUR, 12 * HOUR))


class ReceiverModel:
    """The knowledge of one receiver: the severity of each alert that it got as firing and not yet as resolved."""

    def __init__(self, name):
        self.name, self.known, self.got = name, {}, set()

    def take(self, notifications, world):
        for alert in (alert for one in notifications if one.receiver == self.name for alert in one.alerts):
            if alert.resolved is not None:
                assert self.known.pop(alert.fingerprint, None) is not None, "an end without a firing, or a second end"
                continue
            self.known[alert.fingerprint] = alert.severity
            self.got.add((alert.fingerprint, alert.fired))
            if self.name == "oncall" and alert.fingerprint in world.firing:
                assert not world.is_suppressed(alert), "a suppressed alert was notified"


class History:
    """One random history, and the knowledge of the receivers."""

    def __init__(self, seed):
        self.world = World(seed)
        self.receivers = [ReceiverModel(name) for name in RECEIVERS]
        self.starts, self.unsuppressed = set(), set()  # firings: all, and those that were free of suppression once

    def tick(self, pause):
        notifications = self.world.tick(pause)
        assert all(notification.alerts for notification in notifications)
        for receiver in self.receivers:
            receiver.take(notifications, self.world)
        firings = [(alert, (alert.fingerprint, alert.fired)) for alert in self.world.firing.values()]
        self.starts.update(key for _, key in firings)
        self.unsuppressed.update(key for alert, key in firings if not self.world.is_suppressed(alert))

    def live(self):
        for _ in range(self.world.random.randrange(2, 10)):
            self.world.happen()
            self.tick(self.world.random.choice(PAUSES))
        for _ in range(2):
            self.tick(61)

    def check_knowledge(self):
        """Check that receivers know the true state of each alert that is not suppressed, and nothing else."""
        for receiver in self.receivers:
            for key, alert in self.world.firing.items():
                if receiver.name == "cluster" or not self.world.is_suppressed(alert):
                    assert receiver.known.get(key) == alert.severity
        oncall, cluster = self.receivers
        assert oncall.got <= self.unsuppressed
        assert {key for key, _ in cluster.got} == {key for key, _ in self.starts}

    def end(self):
        for alert in list(self.world.firing.values()):
            self.world.change_alert(alert.rule, dict(alert.labels)["process"], None)
        for _ in range(2):
            self.tick(61)
        assert [receiver.known for receiver in self.receivers] == [{}, {}]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_each_receiver_that_got_an_alert_as_firing_gets_its_end_once_in_every_history(batch):
    for seed in range(batch * HISTORIES // BATCHES, (batch + 1) * HISTORIES // BATCHES):
        try:
            history = History(seed)
            history.live()
            history.check_knowledge()
            history.end()
        except AssertionError as error:
            error.add_note(f"history {seed}")
            raise
