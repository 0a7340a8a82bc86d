"""Outages of receivers: alerts, escalation and the local log. No threads, a fake clock, a real state file."""

from __future__ import annotations

import logging
import socket
import tomllib
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import factories
from factories import FakeClock
from watchdog.alerts.alert import AlertState, Transition, TransitionKind, fingerprint
from watchdog.clock import SECOND_NS, Now
from watchdog.config.document import Document
from watchdog.config.settings import (
    BUILT_IN_SETTINGS,
    EscalationSettings,
    RoutingSettings,
    SamplingSettings,
    Settings,
    read_settings,
)
from watchdog.delivery import health as standing_module
from watchdog.delivery import local_log as local_log_module
from watchdog.delivery import worker as worker_module
from watchdog.delivery.outage_handler import OutageHandler
from watchdog.delivery.receiver_down import RECEIVER_DOWN_RULE
from watchdog.delivery.worker import Worker
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.routing import routes as routes_module
from watchdog.routing.grouping import Grouping
from watchdog.routing.silencing import AcknowledgedFiring, Silence
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.language.rule import Severity
from watchdog.state import audit
from watchdog.state.outbox import Outbox
from watchdog.state.receiver_state import StoredReceiverState
from watchdog.state.store import Store

MINUTE = 60
HOST = "web-1"
DOWN = DeliveryError(DeliveryErrorReason.TIMEOUT, "no answer", retryable=True)
REFUSED = DeliveryError(DeliveryErrorReason.CLIENT_ERROR, "answered 404", retryable=False)


class FakeReceiver:
    """A receiver that works or fails, and records the notifications it accepted."""

    def __init__(self, name):
        self.name = name
        self.rate_limit = None
        self.timeout_seconds = 10.0
        self.joins_copies = False
        self.send_resolved = True
        self.source = None
        self.error = None
        self.notifications = []

    def send(self, notification, deadline_seconds):
        if self.error is not None:
            raise self.error
        if notification.id not in {one.id for one in self.notifications}:
            self.notifications.append(notification)

    def render(self, notification):
        return b""

    def entries(self):
        return [
            (alert.rule, dict(alert.labels).get("process"), alert.state.value)
            for notification in self.notifications
            for alert in notification.alerts
        ]

    def reasons(self):
        return [notification.reason_text for notification in self.notifications]

    def close(self):
        pass


def read_routes(names, text):
    """Return the routes of `text`."""
    text = "".join(f'[[receiver]]\nname = "{name}"\ntype = "x"\n' for name in names) + text
    return routes_module.read_routes(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))


class Scene:
    """A simulated host; `escalations`: by first receiver, the target and the seconds after which to escalate."""

    def __init__(
        self, folder, clock, escalations, names=("oncall", "log"), default=("oncall",), boot="boot1", routes=""
    ):
        self.folder, self.clock = folder, clock
        self.places = {name: FakeReceiver(name) for name in names}
        self.default, self.escalations = default, escalations
        self.unacknowledged, self.silences = {}, []  # ns by first receiver
        self.routing = RoutingSettings(default, 0, 60 * SECOND_NS, 4 * 3600 * SECOND_NS, 10 * MINUTE * SECOND_NS)
        self.routes = read_routes(names, routes)
        self.made = defaultdict(list)  # by receiver: every notification, merged or not
        self.firing_alerts, self.transitions = {}, []
        self.begin(boot)

    def config(self):
        escalations = {
            first: EscalationSettings(to, after * SECOND_NS, self.unacknowledged.get(first))
            for first, (to, after) in self.escalations.items()
        }
        return Settings(BUILT_IN_SETTINGS, SamplingSettings(), self.routing, (), escalations=escalations)

    def begin(self, boot="boot1"):
        log = logging.getLogger("test")
        self.store = Store(self.folder, self.clock, boot)
        self.store.database._connection.execute("PRAGMA synchronous = OFF")  # no machine crashes here
        saved = self.store.load()
        now = Now.read(self.clock)
        self.suppressor = Suppressor()
        self.outages = OutageHandler(self.store.database, self.config(), self.places, HOST, log, self.suppressor)
        assert self.outages.restore(saved, self.firing_alerts, now) == 0
        self.grouping = Grouping(
            self.routing,
            HOST,
            self.routes,
            is_escalated_to=self.outages.was_notified,
            suppression=self.suppressor,
        )
        firing = {**self.firing_alerts, **self.outages.firing_alerts()}
        entries = [
            (receiver, alert) for receiver, alert in saved.notified if not self.outages.owes_resolved(receiver, alert)
        ]
        assert self.grouping.restore(saved.groups, firing, self.places, now, saved.boottime_shift_ns, entries) == 0
        database = self.store.database
        self.workers = {
            name: Worker(
                place, Outbox(database, self.clock), self.clock, log, StoredReceiverState(database, name, self.clock)
            )
            for name, place in self.places.items()
        }

    def worsen(self, process, rule="storm"):
        """Swap the severity of the alert between warning and critical."""
        key = fingerprint(rule, (("process", process),))
        worse = self.firing_alerts[key].severity is Severity.WARNING
        severity = Severity.CRITICAL if worse else Severity.WARNING
        self.firing_alerts[key] = replace(self.firing_alerts[key], severity=severity)
        self.transitions.append(
            Transition(
                TransitionKind.SEVERITY_RAISED if worse else TransitionKind.SEVERITY_LOWERED, self.firing_alerts[key]
            )
        )

    def restart(self, boot="boot1"):
        self.store.close()
        self.begin(boot)

    def reload(self):
        now = Now.read(self.clock)
        self.outages.reload(self.config(), self.places, self.firing_alerts, now)
        firing = {**self.firing_alerts, **self.outages.firing_alerts()}
        self.grouping.reload(self.routing, firing, now, set(self.places), self.routes)

    def fire(self, process, rule="storm", severity=Severity.WARNING, receivers=None):
        alert = factories.make_alert(
            rule=rule,
            labels=(("process", process),),
            severity=severity,
            summary=f"{process} storms",
            started=self.clock.wall(),
            fired=self.clock.wall(),
            receivers=receivers,
        )
        self.firing_alerts[alert.fingerprint] = alert
        self.transitions.append(Transition(TransitionKind.FIRING, alert))

    def end(self, process, rule="storm"):
        alert = self.firing_alerts.pop(fingerprint(rule, (("process", process),)))
        over = replace(alert, state=AlertState.RESOLVED, resolved=self.clock.wall(), reason="over")
        self.transitions.append(Transition(TransitionKind.RESOLVED, over))

    def tick(self, seconds=1):
        """Let time pass, then do a tick as the pipeline does."""
        self.clock.advance(seconds)
        now = Now.read(self.clock)
        failing = {name: worker.outage for name, worker in self.workers.items() if worker.outage is not None}
        transitions = [*self.transitions, *self.outages.update_alerts(failing, {}, now)]
        self.transitions = []
        firing = {**self.firing_alerts, **self.outages.firing_alerts()}
        self.suppressor.update(self.silences, firing, now)
        notifications = self.grouping.advance(transitions, firing, now)
        escalated = self.outages.escalate(
            failing,
            transitions,
            firing,
            self.grouping.is_routed_to,
            now,
            lambda receiver: self.grouping.notified_alerts((receiver,))[receiver],
        )
        if escalated:
            self.grouping.request_reconcile()
        notifications += escalated
        for notification in notifications:
            self.made[notification.receiver].append(notification)
        self.store.commit(
            alerts=(),
            groups=self.grouping.take_changes(),
            notifications=notifications,
            outages=self.outages.take_changes(),
        )
        for worker in self.workers.values():
            worker.deliver_due()

    def live(self, seconds, step=10):
        for _ in range(seconds // step):
            self.tick(step)

    def fail(self, *names, error=DOWN):
        for name in names:
            self.places[name].error = error

    def recover(self, *names):
        for name in names:
            self.places[name].error = None

    def entries(self, name):
        return self.places[name].entries()


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch):
    """Make the jitter return its maximum."""
    monkeypatch.setattr(worker_module.random, "uniform", lambda _low, high: high)


@pytest.fixture
def host_log(tmp_path, monkeypatch):
    """Listen in place of the host's syslog socket."""
    path = str(tmp_path / "dev-log")
    monkeypatch.setattr(local_log_module, "SYSLOG_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)

        def take():
            records = []
            while True:
                try:
                    records.append(listener.recv(65_536).decode())
                except BlockingIOError:
                    return records

        yield take


@pytest.fixture
def make_scene(tmp_path, clock, host_log):
    scenes = []

    def make(escalations, **options):
        scenes.append(Scene(tmp_path / "state", clock, escalations, **options))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.store.close()


@pytest.fixture
def scene(make_scene):
    return make_scene({"oncall": ("log", 5 * MINUTE)})


# ---------------------------------------------------------------------------------------------------------- escalation


def test_pending_notifications_are_escalated_once_the_outage_has_lasted_escalate_after(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(5 * MINUTE - 10)
    assert scene.entries("log") == []
    scene.live(MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")]
    # The first attempt failed ten seconds after the start of the clock.
    assert scene.places["log"].reasons() == ["escalated: oncall does not answer since 2025-06-15 15:06:50 UTC"]


def test_a_receiver_that_works_again_in_time_is_not_escalated(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(2 * MINUTE)
    scene.recover("oncall")
    scene.live(10 * MINUTE)
    assert scene.entries("log") == []
    assert scene.entries("oncall") == [("storm", "nginx", "firing")]


def test_an_alert_that_fired_and_resolved_during_the_outage_is_escalated_once_as_resolved(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(MINUTE)
    scene.end("nginx")
    scene.live(8 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "resolved")]


def test_the_escalation_target_gets_exactly_one_resolved_notification(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(7 * MINUTE)
    scene.end("nginx")
    scene.live(2 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]
    scene.live(5 * MINUTE)
    scene.recover("oncall")
    scene.live(10 * MINUTE)
    assert scene.entries("oncall") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]
    assert len(scene.entries("log")) == 2 + 2  # the alert about oncall itself: firing and resolved


def test_both_get_the_resolved_notification_if_the_first_works_again(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(8 * MINUTE)
    scene.recover("oncall")
    scene.live(10 * MINUTE)
    assert scene.entries("oncall") == [("storm", "nginx", "firing")]
    scene.end("nginx")
    scene.live(2 * MINUTE)
    assert scene.entries("oncall")[-1] == ("storm", "nginx", "resolved")
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]
    assert scene.places["log"].reasons()[-1] == "resolved: escalated while oncall did not answer"


def test_a_failed_notification_is_escalated_too(scene):
    scene.fail("oncall", error=DeliveryError(DeliveryErrorReason.AUTH, "hooks answered 401", retryable=False))
    scene.fire("nginx")
    scene.live(6 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")]


def test_alerts_routed_to_the_target_anyway_are_not_escalated(make_scene):
    scene = make_scene({"oncall": ("log", MINUTE)}, default=("oncall", "log"))
    scene.fail("oncall")
    scene.fire("nginx")
    scene.fire("cron", rule="spike", receivers=("oncall",))
    scene.live(9 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("spike", "cron", "firing")]


def test_an_alert_of_two_failing_receivers_is_escalated_once(make_scene):
    scene = make_scene(
        {"oncall": ("log", MINUTE), "hook": ("log", 2 * MINUTE)},
        names=("oncall", "hook", "log"),
        default=("oncall", "hook"),
    )
    scene.fail("oncall", "hook")
    scene.fire("nginx")
    scene.live(5 * MINUTE)
    scene.end("nginx")
    scene.live(4 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]


def test_a_target_that_fails_is_escalated_to_its_own_target(make_scene):
    scene = make_scene(
        {"oncall": ("hook", MINUTE), "hook": ("log", MINUTE)}, names=("oncall", "hook", "log"), default=("oncall",)
    )
    scene.fail("oncall", "hook")
    scene.fire("nginx")
    scene.live(8 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")]
    scene.end("nginx")
    scene.live(MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]


def test_the_alert_about_a_receiver_is_never_escalated_to_that_receiver(make_scene):
    scene = make_scene({"hook": ("oncall", MINUTE)}, names=("oncall", "hook", "log"), default=("oncall", "hook"))
    scene.fail("oncall", "hook")
    scene.fire("nginx")
    scene.live(12 * MINUTE)  # hook cannot get the alert about oncall, and oncall is its target
    scene.recover("oncall")
    scene.live(10 * MINUTE)
    assert {alert.labels for notification in scene.places["oncall"].notifications for alert in notification.alerts} == {
        (("process", "nginx"),),
        (("receiver", "hook"),),
    }


def test_a_resolved_notification_that_the_target_refused_is_sent_once_after_a_restart(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(8 * MINUTE)
    scene.fail("log", error=REFUSED)
    scene.end("nginx")
    scene.live(MINUTE)
    scene.recover("log")
    for _ in range(2):
        scene.restart()
        scene.live(2 * MINUTE)
    about_nginx = [entry for entry in scene.entries("log") if entry[0] == "storm"]
    assert about_nginx == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]


def test_an_alert_that_fires_again_during_the_outage_is_escalated_again(scene):
    scene.fail("oncall")
    for _ in range(3):
        scene.fire("nginx")
        scene.live(6 * MINUTE)
        scene.end("nginx")
        scene.live(3 * MINUTE)
    about_nginx = [entry for entry in scene.entries("log") if entry[0] == "storm"]
    assert about_nginx == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")] * 3


@pytest.mark.parametrize("boot", ["boot1", "boot2"], ids=["restart", "reboot"])
def test_a_restart_keeps_the_outage_and_the_notified_alerts(scene, boot, monkeypatch):
    monkeypatch.setattr(standing_module, "boot_id", lambda: "boot1")
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(3 * MINUTE)
    monkeypatch.setattr(standing_module, "boot_id", lambda: boot)
    if boot == "boot2":
        scene.clock.boottime_ns = lambda now=scene.clock.boottime_ns: now() - 900 * SECOND_NS
    scene.restart(boot)
    scene.live(3 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")]
    scene.restart(boot)
    scene.live(2 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")]
    scene.end("nginx")
    scene.live(30)
    scene.restart(boot)
    scene.live(30)
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]


def test_a_removed_escalation_still_sends_its_resolved_notifications(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(8 * MINUTE)
    scene.escalations = {}
    scene.reload()
    scene.fire("cron")
    scene.live(MINUTE)
    scene.end("nginx")
    scene.end("cron")
    scene.restart()
    scene.live(30)
    assert scene.entries("log") == [("storm", "nginx", "firing"), ("storm", "nginx", "resolved")]


def test_a_removed_target_leaves_nothing_in_the_state(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(8 * MINUTE)
    scene.escalations = {}
    del scene.places["log"], scene.workers["log"]
    scene.reload()
    scene.tick()
    with scene.store.database.transaction() as connection:
        assert connection.execute("SELECT receiver, group_key FROM groups").fetchall() == [("oncall", "storm")]


def test_large_notifications_are_read_one_by_one_and_all_are_escalated(scene, monkeypatch):
    monkeypatch.setattr(audit, "_MAX_CHARACTERS", 1_000)
    scene.fail("oncall")
    for number in range(20):
        scene.fire(f"p{number}", rule=f"rule{number}")
    scene.tick()
    scene.live(9 * MINUTE)
    assert Counter(scene.entries("log")) == Counter((f"rule{n}", f"p{n}", "firing") for n in range(20))


def test_a_notification_damaged_on_disk_delays_no_other(scene):
    scene.fail("oncall")
    scene.fire("nginx")
    scene.tick()
    with scene.store.database.transaction() as connection:
        connection.execute("UPDATE notifications SET body = substr(body, 9)")
    scene.workers["oncall"].deliver_due = lambda: None  # the delivery to the first receiver does not matter here
    scene.fire("cron", rule="spike")
    scene.live(8 * MINUTE)
    assert scene.entries("log") == [("spike", "cron", "firing")]


def test_thousands_of_pending_notifications_all_reach_the_target(scene):
    scene.fail("oncall")
    for number in range(2_400):
        scene.fire(f"p{number}", rule=f"rule{number % 1_200}")  # more notifications than are read in one tick
    scene.tick()
    scene.live(8 * MINUTE)
    assert Counter(scene.entries("log")) == Counter((f"rule{n % 1_200}", f"p{n}", "firing") for n in range(2_400))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["fire", "end"]), st.sampled_from(["a", "b", "c"]), st.sampled_from(["r1", "r2"])),
        st.tuples(st.sampled_from(["fail", "recover"]), st.sampled_from(["oncall", "log"])),
        st.tuples(st.just("live"), st.sampled_from([10, 60, 200, 900])),
        st.tuples(st.sampled_from(["restart", "reload"])),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, both=st.booleans())
def test_in_any_history_each_firing_notification_has_one_resolved_one(tmp_path_factory, host_log, steps, both):
    default = ("oncall", "log") if both else ("oncall",)
    scene = Scene(tmp_path_factory.mktemp("state"), FakeClock(), {"oncall": ("log", 150)}, default=default)
    for step, *arguments in steps:
        known = {(alert.labels[0][1], alert.rule) for alert in scene.firing_alerts.values()}
        if step in ("fire", "end") and (tuple(arguments) in known) == (step == "fire"):
            continue
        getattr(scene, step)(*arguments)
        if step in ("fire", "end"):
            scene.tick(5)
    scene.recover("oncall", "log")
    scene.live(700, step=50)
    for alert in list(scene.firing_alerts.values()):
        scene.end(alert.labels[0][1], alert.rule)
    scene.live(700, step=50)
    for place in scene.places.values():
        firing, ends = set(), Counter()
        for notification in place.notifications:
            for alert in notification.alerts:
                key = (alert.fingerprint, alert.fired)
                if alert.resolved is None:
                    assert ends[key] == 0
                    firing.add(key)
                else:
                    ends[key] += 1
        assert max(ends.values(), default=1) == 1
        assert {key[0] for key in firing} <= {key[0] for key in ends}
        last = {alert.fingerprint: alert for notification in place.notifications for alert in notification.alerts}
        assert all(alert.resolved is not None for alert in last.values())
    scene.store.close()


# -------------------------------------------------------------------------------------------- escalation and routes


TO_BOTH_IF_CRITICAL = """
[[route]]
where = { severity = "critical" }
receivers = ["oncall", "log"]
"""
CRITICAL_TO_LOG = """
[[route]]
where = { severity = "critical" }
receivers = ["log"]
"""
BY_SEVERITY = """
[[route]]
where = { severity = "critical" }
receivers = ["oncall", "log"]
group_by = ["severity"]
[[route]]
receivers = ["oncall"]
group_by = []
group_wait = "30s"
"""


@pytest.mark.parametrize("routes", [TO_BOTH_IF_CRITICAL, BY_SEVERITY], ids=["by rule", "by severity"])
def test_an_escalated_alert_that_is_then_routed_to_the_target_is_not_sent_twice(make_scene, routes):
    scene = make_scene({"oncall": ("log", MINUTE)}, routes=routes)
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(3 * MINUTE)
    scene.worsen("nginx")
    scene.live(3 * MINUTE)
    scene.end("nginx")
    scene.live(2 * MINUTE)
    alerts = [alert for notification in scene.made["log"] for alert in notification.alerts]
    assert [(alert.severity.label, alert.state.value) for alert in alerts] == [
        ("warning", "firing"),
        ("critical", "firing"),
        ("critical", "resolved"),
    ]


def test_no_resolved_notification_is_escalated_for_an_alert_routed_to_the_target(make_scene):
    scene = make_scene({"oncall": ("log", MINUTE)}, routes=TO_BOTH_IF_CRITICAL)
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(80)
    assert scene.entries("log") == [("storm", "nginx", "firing")]
    scene.end("nginx")
    scene.tick()
    scene.fire("nginx", severity=Severity.CRITICAL)
    scene.live(3 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")] * 2
    scene.end("nginx")
    scene.live(2 * MINUTE)
    assert scene.entries("log")[2:] == [("storm", "nginx", "resolved")]


def test_a_resolved_alert_that_fires_again_at_the_target_is_not_escalated(make_scene):
    scene = make_scene({"oncall": ("log", MINUTE)}, routes=CRITICAL_TO_LOG)
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(20)
    scene.end("nginx")
    scene.live(10)
    scene.fire("nginx", severity=Severity.CRITICAL)
    scene.live(5 * MINUTE)
    assert scene.entries("log") == [("storm", "nginx", "firing")]


def test_an_alert_that_leaves_by_routing_and_returns_by_escalation_is_not_resolved_there(make_scene):
    scene = make_scene({"oncall": ("log", MINUTE)}, routes=CRITICAL_TO_LOG)
    scene.fail("oncall")
    scene.fire("cron", rule="spike")
    scene.live(3 * MINUTE)
    scene.fire("nginx", severity=Severity.CRITICAL)
    scene.live(20)
    scene.worsen("nginx")
    scene.live(3 * MINUTE)
    assert [entry for entry in scene.entries("log") if entry[0] == "storm"] == [("storm", "nginx", "firing")] * 2
    scene.end("nginx")
    scene.live(2 * MINUTE)
    assert [entry for entry in scene.entries("log") if entry[0] == "storm"][2:] == [("storm", "nginx", "resolved")]


def test_an_alert_about_a_receiver_ignores_the_routes(make_scene):
    scene = make_scene({}, names=("oncall", "log", "hook"), routes='[[route]]\nreceivers = ["oncall"]\n')
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(12 * MINUTE)
    assert (
        about_receiver_down(scene.places["log"])
        == about_receiver_down(scene.places["hook"])
        == [(RECEIVER_DOWN_RULE, None, "firing")]
    )
    assert about_receiver_down(scene.places["oncall"]) == []


ROUTED_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["fire", "end", "worsen"]), st.sampled_from("ab"), st.sampled_from(["r1", "r2"])),
        st.tuples(st.sampled_from(["fail", "recover"]), st.sampled_from(["oncall", "log"])),
        st.tuples(st.just("live"), st.sampled_from([10, 60, 200, 900])),
        st.tuples(st.sampled_from(["restart", "reload"])),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=ROUTED_STEPS, routes=st.sampled_from([TO_BOTH_IF_CRITICAL, CRITICAL_TO_LOG, BY_SEVERITY]))
def test_in_any_history_with_routes_the_last_state_of_each_receiver_is_true(tmp_path_factory, host_log, steps, routes):
    scene = Scene(tmp_path_factory.mktemp("state"), FakeClock(), {"oncall": ("log", 150)}, routes=routes)
    for step, *arguments in steps:
        known = {(alert.labels[0][1], alert.rule) for alert in scene.firing_alerts.values()}
        if step in ("fire", "end", "worsen") and (tuple(arguments) in known) == (step == "fire"):
            continue
        getattr(scene, step)(*arguments)
        if step in ("fire", "end", "worsen"):
            scene.tick(5)
    scene.recover("oncall", "log")
    scene.live(700, step=50)
    for name, place in scene.places.items():
        believes = believed(place)
        for key, alert in scene.firing_alerts.items():
            assert believes.get(key, alert.severity) is alert.severity
            assert key in believes or not scene.grouping.is_routed_to(name, alert)
        assert believes.keys() <= scene.firing_alerts.keys()
    for alert in list(scene.firing_alerts.values()):
        scene.end(alert.labels[0][1], alert.rule)
    scene.live(700, step=50)
    for name, place in scene.places.items():
        assert believed(place) == {}
        firing, ended = set(), set()
        for alert in (alert for notification in scene.made[name] for alert in notification.alerts):
            if alert.resolved is None:
                firing.add(alert.fingerprint)
            else:
                assert alert.fingerprint in firing or (alert.fingerprint, alert.fired) not in ended
                firing.discard(alert.fingerprint)
                ended.add((alert.fingerprint, alert.fired))
    scene.store.close()


def believed(place):
    """Return the severities of the firing alerts according to the receiver's notifications."""
    last = {alert.fingerprint: alert for notification in place.notifications for alert in notification.alerts}
    return {key: alert.severity for key, alert in last.items() if alert.resolved is None}


# ---------------------------------------------------------------------------------------------- receivers that are down


def about_receiver_down(place):
    return [entry for entry in place.entries() if entry[0] == RECEIVER_DOWN_RULE]


def test_all_other_receivers_get_an_alert_about_a_receiver_that_is_down(make_scene):
    scene = make_scene({}, names=("oncall", "log", "hook"), default=("oncall",))
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(10 * MINUTE)
    assert about_receiver_down(scene.places["log"]) == []
    scene.live(MINUTE)
    for name in ("log", "hook"):
        (notification,) = scene.places[name].notifications
        (alert,) = notification.alerts
        assert (alert.rule, alert.labels, alert.severity) == (
            RECEIVER_DOWN_RULE, (("receiver", "oncall"),), Severity.CRITICAL,
        )  # fmt: skip
        assert alert.summary == "receiver oncall is down: timeout: no answer"
        assert alert.started == 1_750_000_010.0
    scene.recover("oncall")
    scene.live(10 * MINUTE)
    assert [state for _, _, state in about_receiver_down(scene.places["log"])] == ["firing", "resolved"]
    assert about_receiver_down(scene.places["oncall"]) == []  # never to itself


def test_two_receivers_that_are_down_make_exactly_two_alerts(make_scene):
    scene = make_scene({}, names=("oncall", "log", "hook"), default=("oncall",))
    scene.fail("oncall", "hook")
    scene.fire("nginx")
    scene.live(24 * 3600, step=300)
    labels = {alert.labels for notification in scene.places["log"].notifications for alert in notification.alerts}
    assert labels == {(("receiver", "oncall"),), (("receiver", "hook"),)}
    assert len(scene.outages.firing_alerts()) == 2


def test_the_only_receiver_gets_no_notification_about_itself(make_scene, host_log):
    scene = make_scene({}, names=("oncall",), default=("oncall",))
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(20 * MINUTE)
    with scene.store.database.transaction() as connection:
        rules = connection.execute("SELECT DISTINCT group_key FROM notifications").fetchall()
    assert rules == [("storm",)]
    assert len(host_log()) == 1


def test_the_local_log_gets_a_record_once_then_hourly_and_at_the_recovery(scene, host_log):
    scene.fail("oncall")
    scene.fire("nginx", severity=Severity.CRITICAL)
    scene.fire("cron", rule="spike")
    scene.live(11 * MINUTE)
    (record,) = host_log()
    priority, text = record.split(">", 1)
    assert int(priority[1:]) == 25  # daemon.alert
    assert text.split(": ", 1)[1] == (
        "receiver down: receiver=oncall since=2025-06-15T15:06:50.000Z reason=timeout: no answer; "
        "2 notifications pending, the most severe: [FIRING] critical: nginx storms; [FIRING] warning: cron storms"
    )
    scene.restart()
    scene.live(58 * MINUTE)
    assert host_log() == []
    scene.live(4 * MINUTE)
    assert len(host_log()) == 1
    scene.recover("oncall")
    scene.live(6 * MINUTE)
    (record,) = host_log()
    assert record.startswith("<29>bpf-watchdog[")
    assert record.endswith("]: receiver works again: receiver=oncall")


def test_a_local_log_that_refuses_records_is_logged_once_and_tried_again(make_scene, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(local_log_module, "SYSLOG_SOCKET", str(tmp_path / "nobody"))
    scene = make_scene({})
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(15 * MINUTE)
    entries = [message for message in caplog.messages if "nobody" in message]
    assert len(entries) == 1
    assert "record=receiver down: receiver=oncall since=" in entries[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "nobody"))
        listener.settimeout(5)
        scene.tick()
        assert listener.recv(65_536).startswith(b"<25>")


def test_the_alert_about_a_removed_receiver_resolves_with_that_reason(make_scene):
    scene = make_scene({}, names=("oncall", "log"), default=("oncall", "log"))
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(12 * MINUTE)
    del scene.places["oncall"], scene.workers["oncall"]
    scene.reload()
    scene.live(2 * MINUTE)
    last = scene.places["log"].notifications[-1].alerts[0]
    assert (last.rule, last.state, last.reason) == (RECEIVER_DOWN_RULE, AlertState.RESOLVED, "receiver removed")


def test_the_value_of_the_alert_about_a_receiver_is_the_length_of_the_outage(make_scene):
    scene = make_scene({}, names=("oncall", "log"), default=("oncall",))
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(40 * MINUTE)
    scene.recover("oncall")
    scene.live(6 * MINUTE)
    last = scene.places["log"].notifications[-1].alerts[0]
    assert (last.rule, last.state) == (RECEIVER_DOWN_RULE, AlertState.RESOLVED)
    assert 38 * 60 < last.value == last.peak < 48 * 60


def test_the_alert_about_a_receiver_survives_a_restart(make_scene):
    scene = make_scene({}, names=("oncall", "log"), default=("oncall",))
    scene.fail("oncall")
    scene.fire("nginx")
    scene.live(12 * MINUTE)
    scene.restart()
    scene.live(3 * MINUTE)
    assert about_receiver_down(scene.places["log"]) == [(RECEIVER_DOWN_RULE, None, "firing")]
    scene.recover("oncall")
    scene.live(6 * MINUTE)
    assert [state for _, _, state in about_receiver_down(scene.places["log"])] == ["firing", "resolved"]


@pytest.fixture
def unacknowledged(tmp_path, clock):
    """Return a scene in which alerts go to `second` 15 minutes after `oncall` knows them."""
    scene = Scene(tmp_path, clock, {"oncall": ("second", 300)}, ("oncall", "second"))
    scene.unacknowledged = {"oncall": 15 * MINUTE * SECOND_NS}
    scene.reload()
    yield scene
    scene.store.close()


def acknowledge(scene, process, rule="storm"):
    alert = scene.firing_alerts[fingerprint(rule, (("process", process),))]
    acknowledged = AcknowledgedFiring(alert.fingerprint, alert.fired)
    scene.silences = [Silence("ac", (), "ada", "", 0.0, acknowledged=acknowledged)]


def test_an_alert_that_nobody_acknowledges_goes_to_the_second_receiver_and_ends_there_once(unacknowledged):
    scene = unacknowledged
    scene.fire("a")
    scene.live(14 * MINUTE)
    assert scene.entries("second") == []
    scene.live(2 * MINUTE)
    assert scene.entries("second") == [("storm", "a", "firing")]
    assert scene.places["second"].reasons() == ["escalated: not acknowledged within 15m after a notification to oncall"]
    scene.restart()
    scene.live(20 * MINUTE)
    scene.end("a")
    scene.live(3 * MINUTE)
    for name in ("oncall", "second"):
        assert scene.entries(name) == [("storm", "a", "firing"), ("storm", "a", "resolved")]


def test_an_acknowledged_alert_is_not_escalated_and_one_that_resolved_neither(unacknowledged):
    scene = unacknowledged
    scene.fire("a")
    scene.fire("b")
    scene.live(10 * MINUTE)
    acknowledge(scene, "a")
    scene.end("b")
    scene.live(60 * MINUTE)
    assert scene.entries("second") == []
    scene.silences = []  # the acknowledgement is taken back: the time begins anew
    scene.live(14 * MINUTE)
    assert scene.entries("second") == []
    scene.live(2 * MINUTE)
    assert scene.entries("second") == [("storm", "a", "firing")]


def test_the_time_without_an_acknowledgement_goes_on_over_restarts_and_reboots(unacknowledged):
    scene = unacknowledged
    scene.fire("a")
    scene.live(10 * MINUTE)
    scene.restart()
    scene.live(3 * MINUTE)
    scene.restart("boot2")
    scene.live(3 * MINUTE)
    assert scene.entries("second") == [("storm", "a", "firing")]


def test_an_alert_that_fires_again_has_its_own_time(unacknowledged):
    scene = unacknowledged
    scene.fire("a")
    scene.live(14 * MINUTE)
    scene.end("a")
    scene.tick()
    scene.fire("a")
    scene.live(14 * MINUTE)
    assert scene.entries("second") == []


def test_a_receiver_that_the_routes_notify_gets_no_second_copy(tmp_path, clock):
    scene = Scene(tmp_path, clock, {"oncall": ("second", 300)}, ("oncall", "second"), default=("oncall", "second"))
    scene.unacknowledged = {"oncall": MINUTE * SECOND_NS}
    scene.reload()
    scene.fire("a")
    scene.live(10 * MINUTE)
    assert scene.entries("second") == [("storm", "a", "firing")]
    scene.store.close()
