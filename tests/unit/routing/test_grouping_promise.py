"""Each receiver ends with the true state of every alert, and gets each end once, after any history."""

import itertools
import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from watchdog.alerts.alert import AlertState, Transition, TransitionKind
from watchdog.clock import SECOND_NS, Now
from watchdog.config.settings import RoutingSettings
from watchdog.routing.grouping import Grouping
from watchdog.rules.language.rule import Severity

RECEIVERS = ("oncall", "log")
ROUTING = RoutingSettings(
    default=RECEIVERS, group_wait_ns=5 * SECOND_NS, group_interval_ns=60 * SECOND_NS, repeat_interval_ns=600 * SECOND_NS
)
ALERTS = [("storm", "a"), ("storm", "b"), ("spike", "a")]

# Each tick: seconds since the one before, new severities of the alerts (None: resolved; "keep": no change), a restart.
ticks = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 10, 59, 60, 61, 600]),
        st.fixed_dictionaries(
            {alert: st.sampled_from(["keep", None, Severity.WARNING, Severity.CRITICAL]) for alert in ALERTS}
        ),
        st.booleans(),
    ),
    max_size=30,
)


def make_alert(rule, process, severity, wall):
    return factories.make_alert(rule=rule, labels=(("process", process),), severity=severity, started=wall, fired=wall)


def change(firing, rule, process, severity, wall):
    """Apply the change of one alert to `severity`; return its transition, None without a change."""
    new = make_alert(rule, process, severity or Severity.WARNING, wall)
    old = firing.get(new.fingerprint)
    if severity is None:
        if old is None:
            return None
        return Transition(
            TransitionKind.RESOLVED, replace(firing.pop(new.fingerprint), state=AlertState.RESOLVED, resolved=wall)
        )
    if old is None:
        firing[new.fingerprint] = new
        return Transition(TransitionKind.FIRING, new)
    if old.severity == severity:
        return None
    firing[new.fingerprint] = replace(old, severity=severity)
    kind = TransitionKind.SEVERITY_RAISED if severity > old.severity else TransitionKind.SEVERITY_LOWERED
    return Transition(kind, firing[new.fingerprint])


def run(script):
    """Run `script`, then three quiet minutes; return the firing alerts, the start of each firing, notifications."""
    grouping, firing, saved, notifications, starts = Grouping(ROUTING, "db1"), {}, {}, [], set()
    seconds = 0
    for pause, severities, restart in [*script, *[(60, {}, False)] * 3]:
        seconds += pause
        if restart:
            grouping = Grouping(ROUTING, "db1")
            grouping.restore(list(saved.values()), firing, RECEIVERS, Now(seconds * SECOND_NS, float(seconds)), 0)
        wanted = [(alert, severity) for alert, severity in severities.items() if severity != "keep"]
        transitions = [change(firing, *alert, severity, float(seconds)) for alert, severity in wanted]
        transitions = [transition for transition in transitions if transition is not None]
        starts |= {(t.alert.fingerprint, t.alert.fired) for t in transitions if t.kind is TransitionKind.FIRING}
        notifications += grouping.advance(transitions, firing, Now(seconds * SECOND_NS, float(seconds)))
        for key, document in grouping.take_changes():
            saved[key] = json.loads(json.dumps(document))
        saved = {key: document for key, document in saved.items() if document is not None}
    return firing, starts, notifications


def has_worse_news(notification, all_of_receiver):
    """Return whether a firing alert in `notification` is worse than in the receiver's notifications before it."""
    known = {}
    for earlier in all_of_receiver[: all_of_receiver.index(notification)]:
        known |= {alert.fingerprint: alert.severity if alert.resolved is None else 0 for alert in earlier.alerts}
    return any(
        alert.resolved is None and alert.severity > known.get(alert.fingerprint, 0) for alert in notification.alerts
    )


@settings(max_examples=200, deadline=None)
@given(ticks)
def test_each_receiver_ends_with_the_true_state_and_gets_each_end_once(script):
    firing, starts, notifications = run(script)
    for receiver in RECEIVERS:
        mine = [notification for notification in notifications if notification.receiver == receiver]
        shown, begun, ended = {}, set(), []
        for notification in mine:
            for alert in notification.alerts:
                shown[alert.fingerprint] = alert.severity if alert.resolved is None else None
                begun.add((alert.fingerprint, alert.fired))
                if alert.resolved is not None:
                    ended.append((alert.fingerprint, alert.fired))
        assert {key: severity for key, severity in shown.items() if severity} == {
            key: alert.severity for key, alert in firing.items()
        }
        assert shown.keys() == {fingerprint for fingerprint, _ in starts}  # no firing without a notification
        assert len(ended) == len(set(ended))
        assert begun <= starts
        for rule in ("storm", "spike"):
            in_group = [notification for notification in mine if notification.group_key == rule]
            for earlier, later in itertools.pairwise(in_group):
                assert later.created - earlier.created >= 60 or has_worse_news(later, mine)
