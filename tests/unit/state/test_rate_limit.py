"""The key rate_limit, the buckets, and the handling of excess notifications."""

from __future__ import annotations

import logging
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from watchdog.config.document import Document
from watchdog.delivery.worker import Worker
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.routing.notification import DIGEST_GROUP_KEY, NotificationReason
from watchdog.rules.language.rule import Severity
from watchdog.state.outbox import AttemptOutcome, Outbox
from watchdog.state.rate_limit import LeakyBucket, RateLimit, parse_rate_limit
from watchdog.state.rate_limiter import MAX_DIGEST_ALERTS, RateLimiter
from watchdog.state.store import Store
from watchdog.storage.checksum import checksum

SECOND_NS = 1_000_000_000
HOUR = 3_600
STEP = 1_200  # seconds until one more of five notifications per hour may be sent
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def read(text):
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return parse_rate_limit(document.root, "30/h"), [problem.message for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "rate_limit"),
    [
        ("", RateLimit(30, HOUR * SECOND_NS)),
        ('rate_limit = "5/m"', RateLimit(5, 60 * SECOND_NS)),
        ('rate_limit = "10/15m"', RateLimit(10, 900 * SECOND_NS)),
        ('rate_limit = "100/d"', RateLimit(100, 24 * HOUR * SECOND_NS)),
        ('rate_limit = "none"', None),
        ('rate_limit = "0"', None),
        ("rate_limit = 0", None),
    ],
)
def test_a_rate_limit_is_a_number_of_notifications_per_time(text, rate_limit):
    assert read(text) == (rate_limit, [])


@pytest.mark.parametrize("given_", ['"30"', '"30/x"', "30", '"0/h"', '"5/0s"', '"1000000/h"', "true", "[]", '"-1/h"'])
def test_an_invalid_rate_limit_is_reported_with_an_example(given_):
    assert read(f"rate_limit = {given_}")[1] == [
        f'must be a number of notifications per time, such as "30/h", or "none"; found {given_}'
    ]


@given(st.integers(1, 60), st.integers(0, 1_000), st.lists(st.integers(0, 2_000), max_size=80))
def test_no_period_exceeds_the_rate_limit_and_a_long_one_reaches_nearly_half(most, passed, pauses):
    bucket, period, now, debt, sent = LeakyBucket.per_period(most, HOUR), HOUR, passed, 0, []
    for pause in [*pauses, *[10] * 2_000]:
        now, debt = now + pause, bucket.remaining_debt_ns(debt, pause)
        while bucket.available_count(debt) > 0:
            debt += bucket.step_ns
            sent.append(now)
        assert debt == 0 or bucket.wait_ns(debt) > 0
    assert all(beyond - first >= period for first, beyond in zip(sent, sent[most:], strict=False))
    assert len([at for at in sent if at > now - 5 * HOUR]) >= 5 * (most // 2)


def test_a_tenth_is_reserved_for_critical_alerts():
    budget = RateLimit(30, HOUR * SECOND_NS)
    assert (budget.shared_bucket.burst_size, budget.critical_bucket.burst_size) == (14, 2)
    assert RateLimit(1, HOUR).critical_bucket.available_count(0) == 0


# ------------------------------------------------------------------------------------------------ excess


def make_alert(rule, process="a", severity=WARNING, resolved=None):
    return factories.make_alert(
        rule=rule, labels=(("process", process),), severity=severity, summary=process, resolved=resolved
    )


class Queue:
    """An outbox and one receiver with a rate limit of five per hour: two at once, one reserved for critical alerts."""

    def __init__(self, folder, clock):
        self.folder, self.clock, self.count = folder, clock, 0
        self.open()

    def open(self):
        self.store = Store(self.folder, self.clock, "boot")
        self.outbox = Outbox(self.store.database, self.clock)
        self.limiter = RateLimiter(RateLimit(5, HOUR * SECOND_NS), self.clock)

    def restart(self):
        self.store.close()
        self.open()
        self.outbox.release_deferred()

    def put(self, *alerts, reason="first notification", group_key=None):
        self.count += 1
        notification = factories.make_notification(
            *alerts, id=f"n{self.count}", group_key=group_key or alerts[0].rule, reason=reason
        )
        self.store.commit(alerts=(), groups=(), notifications=[notification])

    def take(self):
        return self.outbox.begin_attempt("oncall", self.limiter)

    def end(self, attempt, state="delivered", seconds=0):
        due_ns = self.clock.boottime_ns() + seconds * SECOND_NS
        self.outbox.finish_attempt(AttemptOutcome(attempt, state, "ok", due_ns))

    def deliver(self):
        """Deliver all notifications that may be sent now; return each as (id, group, reason, alerts)."""
        sent = []
        while (attempt := self.take()) is not None:
            self.end(attempt)
            notification = attempt.notification
            told = [(alert.rule, alert.severity.label, alert.state.value) for alert in notification.alerts]
            sent.append((notification.id, notification.group_key, notification.reason, told))
        return sent

    def exhaust(self):
        """Use up the rate limit except the reserve for critical alerts."""
        for rule in ("one", "two"):
            self.put(make_alert(rule))
        assert len(self.deliver()) == 2


@pytest.fixture
def queue(tmp_path, clock):
    queue = Queue(tmp_path, clock)
    yield queue
    queue.store.close()


def test_excess_notifications_become_one_digest_with_the_newest_states_worst_first(queue, clock):
    queue.exhaust()
    queue.put(make_alert("storm"))
    queue.put(make_alert("spike"))
    queue.put(make_alert("storm", resolved=9.0), reason="resolved")
    queue.put(make_alert("rtt", severity=CRITICAL), reason="repeat")
    queue.put(make_alert("spike"), make_alert("spike", "b", CRITICAL), reason="resolved")
    assert queue.deliver() == []
    clock.advance(STEP - 1)
    assert queue.deliver() == []
    assert queue.outbox.next_due_ns("oncall") == clock.boottime_ns() + SECOND_NS
    clock.advance(1)
    assert queue.deliver() == [
        (
            "n3",
            DIGEST_GROUP_KEY,
            "digest",
            [
                ("rtt", "critical", "firing"),
                ("spike", "critical", "firing"),
                ("spike", "warning", "firing"),
                ("storm", "warning", "resolved"),
            ],
        )
    ]
    assert queue.outbox.queues() == {}


def test_the_last_allowed_notification_is_a_digest_of_all(queue):
    for rule in ("one", "two", "three", "four"):
        queue.put(make_alert(rule))
    assert [(group, len(told)) for _, group, _, told in queue.deliver()] == [("one", 1), (DIGEST_GROUP_KEY, 3)]


def test_critical_alerts_are_not_delayed_by_a_flood_of_warnings(queue, clock):
    queue.exhaust()
    for number in range(50):
        queue.put(make_alert(f"flood-{number}"))
    queue.put(make_alert("storm"))
    assert queue.deliver() == []
    clock.advance(1)
    queue.put(make_alert("storm"), make_alert("storm", "b", CRITICAL), reason="new alert in group")
    assert queue.deliver() == [
        ("n53", "storm", "first notification", [("storm", "warning", "firing"), ("storm", "critical", "firing")])
    ]
    queue.put(make_alert("rtt", severity=CRITICAL))  # the reserve is used up
    assert queue.deliver() == []
    clock.advance(STEP)
    assert [(group, len(told), told[0][0]) for _, group, _, told in queue.deliver()] == [
        (DIGEST_GROUP_KEY, MAX_DIGEST_ALERTS, "rtt")
    ]


def test_several_critical_alerts_share_the_last_reserved_notification(queue):
    queue.exhaust()
    queue.put(make_alert("flood"))
    queue.put(make_alert("storm", severity=CRITICAL))
    queue.put(make_alert("rtt", severity=CRITICAL))
    assert [(group, [rule for rule, _, _ in told]) for _, group, _, told in queue.deliver()] == [
        (DIGEST_GROUP_KEY, ["rtt", "storm"])
    ]


def test_a_repeated_attempt_costs_nothing_and_is_in_no_digest(queue, clock):
    queue.put(make_alert("one"))
    failed = queue.take()
    queue.end(failed, "pending", 60)
    queue.put(make_alert("two"))
    queue.deliver()
    queue.put(make_alert("one", resolved=9.0), reason="resolved")
    queue.put(make_alert("three"))
    queue.put(make_alert("four"))
    clock.advance(60)
    assert queue.deliver() == [("n1", "one", "first notification", [("one", "warning", "firing")])]
    clock.advance(STEP)
    assert [told for *_, told in queue.deliver()] == [
        [("four", "warning", "firing"), ("three", "warning", "firing"), ("one", "warning", "resolved")]
    ]


def test_later_notifications_about_alerts_of_a_digest_wait_for_it_and_others_do_not(queue, clock):
    queue.exhaust()
    queue.put(make_alert("storm"))
    queue.put(make_alert("spike"))
    clock.advance(STEP)
    digest = queue.take()
    assert digest.notification.group_key == DIGEST_GROUP_KEY
    queue.end(digest, "pending", 300)
    clock.advance(HOUR)
    queue.end(queue.take(), "pending", 300)
    queue.put(make_alert("storm", resolved=9.0), reason="resolved")
    queue.put(make_alert("rtt"))
    assert [group for _, group, _, _ in queue.deliver()] == ["rtt"]
    clock.advance(300)
    assert [group for _, group, _, _ in queue.deliver()] == [DIGEST_GROUP_KEY, "storm"]


def test_the_rest_of_a_rate_limit_survives_restarts_and_reboots(queue, clock):
    queue.exhaust()
    queue.put(make_alert("storm"))
    queue.put(make_alert("spike"))
    queue.restart()
    assert queue.deliver() == []
    clock.advance(STEP - 600)
    clock._boottime_ns -= 1_500 * SECOND_NS  # like the clock of another boot
    queue.restart()
    assert queue.deliver() == []
    clock.advance(600)
    assert len(queue.deliver()) == 1


def test_a_removed_rate_limit_releases_deferred_notifications(queue):
    queue.exhaust()
    queue.put(make_alert("storm"))
    queue.put(make_alert("spike"))
    assert queue.deliver() == []
    queue.limiter = None
    queue.outbox.release_deferred()
    assert [group for _, group, _, _ in queue.deliver()] == ["storm", "spike"]


def test_a_digest_of_very_many_alerts_leaves_the_rest_to_the_next(queue, clock):
    queue.exhaust()
    for number in range(MAX_DIGEST_ALERTS + 5):
        queue.put(make_alert(f"flood-{number}"))
    clock.advance(STEP)
    assert [len(told) for *_, told in queue.deliver()] == [MAX_DIGEST_ALERTS]
    clock.advance(STEP)
    assert [len(told) for *_, told in queue.deliver()] == [5]


def test_names_that_are_not_utf8_are_unchanged_in_a_digest(queue, clock):
    queue.exhaust()
    queue.put(make_alert("storm", "ev\udcff\x1b"))
    queue.put(make_alert("spike"))
    clock.advance(STEP)
    assert queue.take().notification.alerts[1].labels == (("process", "ev\udcff\x1b"),)


def test_an_unreadable_state_counts_as_an_unused_rate_limit(queue):
    queue.exhaust()
    with queue.store.database.transaction() as connection:
        connection.execute("UPDATE receiver_state SET value = '[1]'")
    queue.put(make_alert("storm"))
    assert len(queue.deliver()) == 1


def test_a_damaged_notification_damages_no_other(queue, clock):
    queue.exhaust()
    for rule in ("storm", "spike", "rtt"):
        queue.put(make_alert(rule))
    with queue.store.database.transaction() as connection:
        connection.execute("UPDATE notifications SET body = 'x' || body WHERE group_key = 'spike'")
        connection.execute("UPDATE notifications SET group_key = '{}' WHERE group_key = 'spike'")
    assert queue.take() is None
    clock.advance(STEP)
    digest = queue.take().notification
    assert [alert.rule for alert in digest.alerts] == ["rtt", "storm"]


def test_a_notification_with_a_wrong_checksum_is_in_no_digest(queue, clock):
    queue.exhaust()
    for rule in ("storm", "spike", "rtt"):
        queue.put(make_alert(rule))
    with queue.store.database.transaction() as connection:
        connection.execute(
            "UPDATE notifications SET body = replace(body, '150.0', '950.0'), checksum = checksum + 1 "
            "WHERE group_key = 'spike'"
        )
    clock.advance(STEP)
    attempt = queue.take()
    assert [alert.rule for alert in attempt.notification.alerts] == ["rtt", "storm"]
    with queue.store.database.transaction() as connection:
        (text, expected), *_ = connection.execute(
            "SELECT body, checksum FROM notifications WHERE group_key = ?", (DIGEST_GROUP_KEY,)
        )
    assert expected == checksum(text)
    queue.end(attempt)
    clock.advance(STEP)
    assert queue.deliver() == []
    assert queue.outbox.losses() == {("oncall", "damaged"): 1}


def test_the_delivery_of_a_digest_is_recorded_for_all_its_alerts(queue, clock):
    queue.exhaust()
    queue.put(make_alert("storm"))
    queue.put(make_alert("spike"), make_alert("spike", "b"))
    queue.put(make_alert("one", resolved=9.0), reason="resolved")
    clock.advance(STEP)
    assert [group for _, group, *_ in queue.deliver()] == [DIGEST_GROUP_KEY]
    queue.put(make_alert("two", resolved=9.0), reason="resolved")
    known = sorted((alert.rule, dict(alert.labels)["process"]) for _, alert in queue.store.load().notified)
    assert known == [("spike", "a"), ("spike", "b"), ("storm", "a")]  # the end of "two" is pending


@pytest.mark.parametrize("reason", [NotificationReason.ESCALATED, NotificationReason.SEVERITY_CHANGED])
def test_an_escalated_critical_alert_is_not_deferred(queue, reason):
    queue.exhaust()
    queue.put(make_alert("storm"), reason=reason)
    queue.put(make_alert("rtt", severity=CRITICAL), reason=reason)
    assert [group for _, group, *_ in queue.deliver()] == ["rtt"]


class Phone:
    """A receiver with a rate limit of five per hour that fails at first."""

    def __init__(self, clock):
        self.name, self.rate_limit, self.clock = "oncall", RateLimit(5, HOUR * SECOND_NS), clock
        self.timeout_seconds, self.joins_copies, self.source = 10.0, False, None
        self.send_resolved = True
        self.down, self.tried, self.notified = True, {}, set()

    def send(self, notification, deadline_seconds):
        self.tried.setdefault(notification.id, self.clock.boottime_ns() / SECOND_NS)
        if self.down:
            raise DeliveryError(DeliveryErrorReason.TIMEOUT, "no answer", retryable=True)
        self.notified.update((alert.rule, alert.state.value) for alert in notification.alerts)


def test_after_an_outage_a_receiver_gets_everything_within_its_rate_limit(queue, clock):
    phone = Phone(clock)
    worker = Worker(phone, queue.outbox, clock, logging.getLogger("test"))

    def live(seconds):
        for _ in range(seconds // 10):
            worker.deliver_due()
            clock.advance(10)

    for number in range(20):
        queue.put(make_alert(f"storm-{number}"))
    live(2 * HOUR)
    for number in range(10):
        queue.put(make_alert(f"storm-{number}", resolved=9.0), reason="resolved")
    assert worker.outage is not None
    phone.down = False
    live(HOUR)
    assert worker.outage is None
    states = {rule: {state for name, state in phone.notified if name == rule} for rule, _ in phone.notified}
    assert states.keys() == {f"storm-{number}" for number in range(20)}
    assert all("resolved" in states[f"storm-{number}"] for number in range(10))
    times = sorted(phone.tried.values())
    assert all(beyond - first >= HOUR for first, beyond in zip(times, times[5:], strict=False))
    assert queue.outbox.queues() == {}
