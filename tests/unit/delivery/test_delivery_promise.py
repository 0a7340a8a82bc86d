"""Routes, rate limits, failures and restarts together: each firing notification has exactly one resolved one."""

import itertools
import json
import tempfile
import tomllib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from watchdog.alerts.alert import AlertState, Transition, TransitionKind, fingerprint
from watchdog.clock import Now
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.routing.grouping import Grouping
from watchdog.routing.routes import read_routes
from watchdog.rules.language.rule import Severity
from watchdog.state.outbox import AttemptOutcome, Outbox
from watchdog.state.rate_limit import RateLimit
from watchdog.state.rate_limiter import RateLimiter
from watchdog.state.store import Store

SECOND_NS = 1_000_000_000
HOUR = 3_600
RECEIVERS = "".join(f'[[receiver]]\nname = "{name}"\ntype = "x"\n' for name in ("oncall", "log"))
ROUTES = [
    "",
    """
    [[route]]
    where = { severity = "critical" }
    receivers = ["oncall"]
    group_by = ["process"]
    [[route]]
    receivers = ["log"]
    """,
    """
    [[route]]
    where = { rule = ["s*", "!spike"] }
    receivers = ["oncall"]
    continue = true
    group_wait = "5s"
    [[route]]
    where = { severity = "critical" }
    receivers = ["oncall", "log"]
    group_interval = "10s"
    [[route]]
    receivers = ["log"]
    group_by = ["rule", "severity"]
    repeat_interval = "20m"
    """,
    """
    [[route]]
    receivers = ["oncall", "log"]
    group_by = []
    group_wait = "10s"
    """,
]
BUDGETS = {"oncall": RateLimit(5, HOUR * SECOND_NS), "log": None}
ALERTS = [("storm", "a"), ("storm", "b"), ("spike", "a"), ("drip", "c")]

# Each tick: seconds since the one before, the alerts' new severities (None: resolved; "keep": unchanged), whether
# there is a restart, the routes of a reload, and the results of attempts: answers lost, or no connection.
ticks = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 10, 59, 60, 61, 600]),
        st.fixed_dictionaries(
            {alert: st.sampled_from(["keep", "keep", None, Severity.WARNING, Severity.CRITICAL]) for alert in ALERTS}
        ),
        st.booleans(),
        st.sampled_from([None, None, None, *ROUTES]),
        st.sampled_from(["taken", "taken", "answer lost", "nobody there"]),
    ),
    max_size=25,
)


def read(routes):
    text = RECEIVERS + '[routing]\njitter = "4s"\n' + routes
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    config = read_settings(document)
    found = read_routes(config)
    document.raise_problems()
    return config.values, found


def in_memory():
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


@pytest.fixture
def shm():
    with in_memory() as folder:
        yield Path(folder)


class Clock:
    def __init__(self):
        self.seconds = 0

    def boottime_ns(self):
        return self.seconds * SECOND_NS

    def wall(self):
        return 1e9 + self.seconds


class Host:
    """Simulated lifecycle; real grouping, store and outbox."""

    def __init__(self, folder, routes):
        self.folder, self.clock = folder, Clock()
        self.config, self.routes = read(routes)
        self.firing, self.starts = {}, set()
        self.made = defaultdict(list)  # by receiver: every notification, merged or not
        self.received = defaultdict(list)  # by receiver, in order, without copies
        self.sent = defaultdict(dict)  # by receiver: time of the first attempt of each id
        self.store = None
        self.start()

    def start(self):
        if self.store is not None:
            self.store.close()
        self.store = Store(self.folder, self.clock, "boot")
        self.outbox = Outbox(self.store.database, self.clock)
        self.outbox.release_deferred()
        self.gates = {name: budget and RateLimiter(budget, self.clock) for name, budget in BUDGETS.items()}
        self.grouping = Grouping(self.config.routing, "db1", self.routes, jitter_share=0.5)
        saved, now = self.store.load(), Now.read(self.clock)
        assert (
            self.grouping.restore(
                saved.groups, self.firing, tuple(BUDGETS), now, saved.boottime_shift_ns, saved.notified
            )
            == 0
        )

    def reload(self, routes):
        self.config, self.routes = read(routes)
        now = Now.read(self.clock)
        self.grouping.reload(self.config.routing, self.firing, now, tuple(BUDGETS), self.routes)

    def tick(self, severities, answer):
        now = Now.read(self.clock)
        transitions = [self.change(*alert, severity) for alert, severity in severities.items() if severity != "keep"]
        transitions = [transition for transition in transitions if transition is not None]
        notifications = self.grouping.advance(transitions, self.firing, now)
        for notification in notifications:
            self.made[notification.receiver].append(notification)
        self.store.commit(alerts=(), groups=self.grouping.take_changes(), notifications=notifications)
        for receiver in BUDGETS:
            self.deliver(receiver, answer)

    def change(self, rule, process, severity):
        labels, wall = (("process", process),), self.clock.wall()
        key = fingerprint(rule, labels)
        old = self.firing.get(key)
        if severity is None:
            return old and Transition(
                TransitionKind.RESOLVED,
                replace(self.firing.pop(key), state=AlertState.RESOLVED, resolved=wall, reason="over"),
            )
        if old is None:
            self.firing[key] = factories.make_alert(
                rule=rule, labels=labels, severity=severity, started=wall, fired=wall
            )
            self.starts.add((key, wall))
            return Transition(TransitionKind.FIRING, self.firing[key])
        if old.severity == severity:
            return None
        self.firing[key] = replace(old, severity=severity)
        return Transition(
            TransitionKind.SEVERITY_RAISED if severity > old.severity else TransitionKind.SEVERITY_LOWERED,
            self.firing[key],
        )

    def deliver(self, receiver, answer):
        while (attempt := self.outbox.begin_attempt(receiver, self.gates[receiver])) is not None:
            notification, now_ns = attempt.notification, self.clock.boottime_ns()
            known = [
                json.dumps(received.to_json()) for received in self.received[receiver] if received.id == notification.id
            ]
            assert all(before == json.dumps(notification.to_json()) for before in known)
            self.sent[receiver].setdefault(notification.id, self.clock.seconds)
            if answer != "nobody there" and not known:
                self.received[receiver].append(notification)
            if answer == "taken":
                self.outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
            else:
                self.outbox.finish_attempt(AttemptOutcome(attempt, "pending", "timeout", now_ns + 30 * SECOND_NS))


def live(folder, script):
    host = Host(folder, ROUTES[0])
    for pause, severities, restart, routes, answer in script:
        host.clock.seconds += pause
        if restart:
            host.start()
        if routes is not None:
            host.reload(routes)
        host.tick(severities, answer)
    for _ in range(20):  # a quiet time, until the rate limit has room for everything
        host.clock.seconds += 300
        host.tick({}, "taken")
    host.store.close()
    return host


def believed(notifications):
    """Return the firing alerts and their severities according to `notifications`."""
    believes = {}
    for alert in itertools.chain.from_iterable(notification.alerts for notification in notifications):
        believes[alert.fingerprint] = alert.severity if alert.resolved is None else None
    return {key: severity for key, severity in believes.items() if severity is not None}


def check_ends(notifications):
    """Assert one resolved notification for each firing one; alerts that only appeared as resolved count as one pair."""
    firing, ended = set(), set()
    for alert in itertools.chain.from_iterable(notification.alerts for notification in notifications):
        if alert.resolved is None:
            firing.add(alert.fingerprint)
            continue
        assert alert.fingerprint in firing or (alert.fingerprint, alert.fired) not in ended
        firing.discard(alert.fingerprint)
        ended.add((alert.fingerprint, alert.fired))


@settings(max_examples=60, deadline=None)
@given(ticks)
def test_each_firing_notification_has_one_resolved_one_and_the_last_state_is_true(script):
    with in_memory() as folder:
        host = live(Path(folder), script)
    for receiver, notifications in host.received.items():
        to_know = {
            key: alert.severity
            for key, alert in host.firing.items()
            if receiver in [destination.receiver for destination in host.grouping.destinations(alert)]
        }
        check_ends(host.made[receiver])
        assert believed(notifications) == believed(host.made[receiver]) == to_know
        assert {(a.fingerprint, a.fired) for notification in notifications for a in notification.alerts} <= host.starts
    times = sorted(host.sent["oncall"].values())
    for first, beyond in zip(times, times[BUDGETS["oncall"].max_notifications :], strict=False):
        assert beyond - first >= HOUR
    assert host.grouping._keys_of.keys() == host.firing.keys()  # resolved alerts are forgotten
    told = {a.fingerprint for notification in itertools.chain(*host.received.values()) for a in notification.alerts}
    assert told == {key for key, _ in host.starts}  # every alert was notified


@pytest.mark.parametrize("routes", [ROUTES[0], ROUTES[1]], ids=["one group", "a group for each severity"])
@pytest.mark.parametrize(
    "states", [(Severity.WARNING, None), (Severity.WARNING, Severity.CRITICAL)], ids=["on and off", "bad and worse"]
)
def test_ten_minutes_of_flapping_each_second_make_one_notification_a_minute_and_a_true_last_one(shm, routes, states):
    host = Host(shm, routes)
    for second in range(600):
        host.clock.seconds += 1
        host.tick({("storm", "a"): states[second % 2]}, "taken")
    times_of = {receiver: [notification.created for notification in made] for receiver, made in host.made.items()}
    for last in (None, Severity.WARNING, None):
        host.tick({("storm", "a"): last}, "taken")
        host.clock.seconds += HOUR
        host.tick({}, "taken")
        for receiver, notifications in host.received.items():
            assert believed(notifications) == believed(host.made[receiver])
        if last is None:
            assert not any(believed(notifications) for notifications in host.received.values())
    for times in times_of.values():
        assert sum(later - earlier < 60 for earlier, later in itertools.pairwise(times)) <= 1  # the first rise
    host.store.close()
