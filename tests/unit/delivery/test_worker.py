import errno
import logging
import math
import os
import sqlite3

import pytest

import factories
from watchdog.delivery import health as standing_module
from watchdog.delivery import worker as worker_module
from watchdog.delivery.worker import (
    FAILURES_BEFORE_HOLD,
    HANG_TIMEOUT_SECONDS,
    MAX_DEFECT_ATTEMPTS,
    MAX_HOLD_SECONDS,
    MAX_PARTIAL_ATTEMPTS,
    Worker,
    backoff_seconds,
)
from watchdog.errors import (
    ConfigError,
    DeliveryError,
    DeliveryErrorReason,
    PartialDeliveryError,
    Problem,
    StoreError,
    UncertainDeliveryError,
)
from watchdog.receivers.base import Receiver, VolatileReceiverState
from watchdog.receivers.render.fallback import fallback_notification
from watchdog.state import audit
from watchdog.state.losses import LossCause
from watchdog.state.outbox import Outbox
from watchdog.state.rate_limit import RateLimit

SECOND_NS = 1_000_000_000
TIMEOUT = DeliveryError(DeliveryErrorReason.TIMEOUT, "no answer within 10 s", retryable=True)


class ScriptedReceiver:
    """Raises the next exception of `script` at each attempt, and accepts the notification when it is used up."""

    def __init__(self, *script):
        self.name = "oncall"
        self.rate_limit = None
        self.timeout_seconds = 10.0
        self.joins_copies = False
        self.send_resolved = True
        self.source = None
        self.script = list(script)
        self.attempts = []
        self.deadlines = []

    def send(self, notification, deadline_seconds):
        self.attempts.append(notification.id)
        self.deadlines.append(deadline_seconds)
        if self.script and (error := self.script.pop(0)) is not None:
            raise error

    def render(self, notification):
        return notification.id.encode()

    def close(self):
        self.closed = True


def make_notification(id_, group_key="storm", resolved=None):
    return factories.make_notification(factories.make_alert(rule=group_key, labels=(), resolved=resolved), id=id_)


@pytest.fixture
def deliver(store, clock):
    def make(receiver, memory=None):
        return Worker(receiver, Outbox(store.database, clock), clock, logging.getLogger("test"), memory)

    return make


@pytest.fixture(autouse=True)
def longest_backoff(monkeypatch):
    """Make the jitter return its maximum, so that waits are known."""
    monkeypatch.setattr(worker_module.random, "uniform", lambda _low, high: high)


def put(store, *notifications):
    store.commit(alerts=(), groups=(), notifications=notifications)


def losses(store, clock):
    return dict(Outbox(store.database, clock).losses())


def waits(worker, clock, most=20):
    """Run the worker whenever a notification is due; return the waits in between."""
    seen = []
    while (due_ns := worker.deliver_due()) is not None and len(seen) < most:
        seen.append((due_ns - clock.boottime_ns()) / SECOND_NS)
        clock.advance(seen[-1])
    return seen


def test_delivers_all_due_notifications_in_one_run_each_with_the_full_deadline(deliver, store, clock):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notification("n1", "a"), make_notification("n2", "b"))
    assert worker.deliver_due() is None
    assert (receiver.attempts, receiver.deadlines) == (["n1", "n2"], [receiver.timeout_seconds] * 2)
    assert (worker.delivered, worker.failed_attempts, losses(store, clock)) == (2, {}, {})


def test_failed_attempt_is_repeated_with_the_same_id_until_taken(deliver, store, clock):
    receiver = ScriptedReceiver(TIMEOUT, TIMEOUT, TIMEOUT, TIMEOUT)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    assert waits(worker, clock) == [1, 2, 4, 8]
    assert receiver.attempts == ["n1"] * 5
    assert (worker.delivered, worker.failed_attempts) == (1, {"timeout": 4})


def test_backoff_doubles_up_to_its_maximum():
    assert [backoff_seconds(number) for number in (1, 2, 3, 6, 7, 8, 1000)] == [1, 2, 4, 32, 60, 60, 60]


def test_backoff_is_drawn_from_zero(monkeypatch):
    monkeypatch.setattr(worker_module.random, "uniform", lambda low, high: (low, high))
    assert backoff_seconds(3) == (0.0, 4.0)


def test_backoff_continues_after_a_restart(deliver, store, clock):
    put(store, make_notification("n1"))
    before = deliver(ScriptedReceiver(TIMEOUT, TIMEOUT))
    assert before.deliver_due() == clock.boottime_ns() + 1 * SECOND_NS
    clock.advance(1)
    before.deliver_due()
    after = deliver(ScriptedReceiver(TIMEOUT))
    assert waits(after, clock) == [2, 4]


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(0.0, 1.0), (-5.0, 1.0), (0.5, 1.0), (30.0, 30.0), (1e12, 3600.0), (float("inf"), 3600.0), (float("nan"), 1.0)],
)
def test_retry_after_is_obeyed_between_backoff_and_one_hour(deliver, store, clock, asked, wait):
    limited = DeliveryError(DeliveryErrorReason.RATE_LIMITED, "429", retryable=True, retry_after_seconds=asked)
    put(store, make_notification("n1"))
    assert waits(deliver(ScriptedReceiver(limited)), clock) == [wait]


def test_retry_after_holds_for_all_groups_of_the_receiver(deliver, store, clock):
    limited = DeliveryError(DeliveryErrorReason.RATE_LIMITED, "429", retryable=True, retry_after_seconds=30)
    receiver = ScriptedReceiver(limited)
    worker = deliver(receiver)
    put(store, make_notification("n1", "a"), make_notification("n2", "b"))
    assert waits(worker, clock) == [30]
    assert receiver.attempts == ["n1", "n1", "n2"]


def test_a_group_that_fails_does_not_delay_another(deliver, store):
    receiver = ScriptedReceiver(TIMEOUT)
    put(store, make_notification("n1", "a"), make_notification("n2", "b"))
    deliver(receiver).deliver_due()
    assert receiver.attempts == ["n1", "n2"]


def test_notification_that_is_refused_for_good_is_kept_as_failed_counted_and_logged(deliver, store, clock, caplog):
    worker = deliver(ScriptedReceiver(DeliveryError(DeliveryErrorReason.CLIENT_ERROR, "HTTP 404", retryable=False)))
    put(store, make_notification("n1"))
    assert worker.deliver_due() is None
    with store.database.transaction() as connection:
        assert connection.execute("SELECT state, last_error FROM notifications").fetchall() == [
            ("failed", "client_error: HTTP 404")
        ]
    assert (worker.failed_attempts, losses(store, clock)) == ({"client_error": 1}, {("oncall", LossCause.REFUSED): 1})
    start = "notification failed for good: receiver=oncall notification=n1 cause=refused reason="
    assert caplog.messages == [f"{start}client_error: HTTP 404; attempt=1"]


def test_a_failed_attempt_is_logged_with_receiver_id_reason_attempt_and_next_try(deliver, store, caplog):
    put(store, make_notification("n1"))
    deliver(ScriptedReceiver(TIMEOUT)).deliver_due()
    assert caplog.messages == [
        "delivery failed: receiver=oncall notification=n1 reason=timeout: no answer within 10 s attempt=1 next=1.0s"
    ]


def test_a_defect_in_a_receiver_is_retried_and_its_text_is_not_logged(deliver, store, clock, caplog):
    worker = deliver(ScriptedReceiver(KeyError("https://hooks.example.net/T0/secret")))
    put(store, make_notification("n1"))
    assert waits(worker, clock) == [1]
    assert (worker.delivered, worker.failed_attempts) == (1, {"internal": 1})
    with store.database.transaction() as connection:
        written = str(connection.execute("SELECT * FROM notifications").fetchall())
        written += str(connection.execute("SELECT * FROM attempts").fetchall())
    assert "KeyError in test_worker.py:" in caplog.text
    assert "KeyError in test_worker.py:" in written
    assert "secret" not in caplog.text + written


def test_an_expired_notification_is_counted_logged_and_not_sent(deliver, store, clock, caplog):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notification("n1"), make_notification("n2", "other", resolved=9.0))
    clock.advance(24 * 3600 + 1)
    worker.deliver_due()
    assert receiver.attempts == ["n2"]
    assert losses(store, clock) == {("oncall", LossCause.EXPIRED): 1}
    assert caplog.messages == [
        "notification failed for good: receiver=oncall notification=n1 cause=expired reason=not delivered for 24 hours"
    ]


def test_an_outcome_that_cannot_be_written_is_kept_and_nothing_is_sent_twice(deliver, store, clock, tmp_path):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notification("n1", "a"), make_notification("n2", "b"))
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'no room'); END")
    for _ in range(3):
        with pytest.raises(StoreError, match="no room"):
            worker.deliver_due()
    assert receiver.attempts == ["n1"]
    other.execute("DROP TRIGGER full")
    other.close()
    assert worker.deliver_due() is None
    assert receiver.attempts == ["n1", "n2"]
    assert worker.delivered == 2


def test_nothing_is_sent_when_the_attempt_cannot_be_counted(deliver, store, tmp_path):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE UPDATE ON notifications BEGIN SELECT RAISE(ABORT, 'no room'); END")
    other.close()
    with pytest.raises(StoreError, match="no room"):
        worker.deliver_due()
    assert receiver.attempts == []


def test_attempts_near_the_deadline_get_the_time_left_and_none_begins_after_it(deliver, store, clock):
    class Slow(ScriptedReceiver):
        def send(self, notification, deadline_seconds):
            super().send(notification, deadline_seconds)
            clock.advance(3)

    receiver = Slow()
    worker = deliver(receiver)
    put(store, make_notification("n1", "a"), make_notification("n2", "b"), make_notification("n3", "c"))
    end_ns = clock.boottime_ns() + 5 * SECOND_NS
    worker.set_deadline(end_ns, end_ns)
    assert worker.deliver_due() is None
    assert (receiver.attempts, receiver.deadlines) == (["n1", "n2"], [5.0, 2.0])
    assert worker.delivered == 2
    assert deliver(ScriptedReceiver()).deliver_due() is None


# --------------------------------------------------------------------------------------------- receivers that are down


def test_four_answers_500_then_200_are_five_attempts_of_one_notification(deliver, store, clock):
    receiver = ScriptedReceiver(*[DeliveryError(DeliveryErrorReason.SERVER_ERROR, "answered 500", retryable=True)] * 4)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    waits(worker, clock)
    with store.database.transaction() as connection:
        written = connection.execute("SELECT number, result FROM attempts ORDER BY sequence").fetchall()
    assert written == [(n, "server_error: answered 500") for n in (1, 2, 3, 4)] + [(5, "ok")]


def test_a_receiver_that_fails_is_tried_seldom_and_gets_all_notifications_once_it_works(deliver, store, clock):
    down = [TIMEOUT] * 500
    receiver = ScriptedReceiver(*down)
    worker = deliver(receiver)
    put(store, *(make_notification(f"n{number}", f"group{number}") for number in range(60)))
    worker.deliver_due()
    assert len(receiver.attempts) == FAILURES_BEFORE_HOLD + 1
    before = len(receiver.attempts)
    for _ in range(1_200):
        clock.advance(3)
        worker.deliver_due()
    assert len(receiver.attempts) - before <= 3_600 / MAX_HOLD_SECONDS + 5
    receiver.script.clear()
    clock.advance(MAX_HOLD_SECONDS)
    assert worker.deliver_due() is None
    assert worker.delivered == 60


def test_after_an_hour_of_429_all_notifications_are_delivered(deliver, store, clock):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    end_ns = clock.boottime_ns() + 3_600 * SECOND_NS

    def send(notification, deadline_seconds):
        receiver.attempts.append(notification.id)
        if clock.boottime_ns() < end_ns:
            raise DeliveryError(DeliveryErrorReason.RATE_LIMITED, "429", retryable=True, retry_after_seconds=30)

    receiver.send = send
    put(store, *(make_notification(f"n{number}", f"group{number}") for number in range(100)))
    for _ in range(3_600 // 5 + 70):
        worker.deliver_due()
        clock.advance(5)
    assert worker.delivered == 100
    assert worker.failed_attempts[DeliveryErrorReason.RATE_LIMITED] <= 3_600 / 30


def test_an_outage_lasts_from_the_first_failed_attempt_to_the_next_success(deliver, store, clock):
    worker = deliver(
        ScriptedReceiver(TIMEOUT, DeliveryError(DeliveryErrorReason.DNS, "name resolution failed", retryable=True))
    )
    put(store, make_notification("n1"))
    assert worker.outage is None
    began_ns, began = clock.boottime_ns(), clock.wall()
    worker.deliver_due()
    clock.advance(1)
    worker.deliver_due()
    assert (worker.outage.since_ns, worker.outage.since) == (began_ns, began)
    assert worker.outage.reason == "dns: name resolution failed"
    clock.advance(2)
    worker.deliver_due()
    assert worker.outage is None


@pytest.mark.parametrize("boot", ["boot1", "boot2"], ids=["restart", "reboot"])
def test_an_outage_survives_a_restart(deliver, store, clock, monkeypatch, boot):
    monkeypatch.setattr(standing_module, "boot_id", lambda: "boot1")
    memory = VolatileReceiverState()
    worker = deliver(ScriptedReceiver(*[TIMEOUT] * 9), memory)
    put(store, make_notification("n1"))
    worker.deliver_due()
    clock.advance(100)
    worker.deliver_due()
    now_ns = clock.boottime_ns()
    if boot == "boot2":
        now_ns = 30 * SECOND_NS
        monkeypatch.setattr(clock, "boottime_ns", lambda: now_ns)
    monkeypatch.setattr(standing_module, "boot_id", lambda: boot)
    failure = deliver(ScriptedReceiver(), memory).outage
    assert (now_ns - failure.since_ns) / SECOND_NS == 100
    assert failure.reason == "timeout: no answer within 10 s"


def test_the_end_of_an_outage_survives_a_restart(deliver, store, clock):
    memory = VolatileReceiverState()
    worker = deliver(ScriptedReceiver(TIMEOUT), memory)
    put(store, make_notification("n1"))
    waits(worker, clock)
    assert deliver(ScriptedReceiver(), memory).outage is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"since_ns": "x"}', '{"since_ns": 1, "since": null}'])
def test_an_unreadable_outage_of_a_former_daemon_is_forgotten(deliver, text):
    memory = VolatileReceiverState()
    memory.put("outage", text)
    assert deliver(ScriptedReceiver(), memory).outage is None


def test_an_attempt_that_does_not_end_counts_as_failed_from_its_begin(deliver, store, clock):
    seen = []

    class Hanging(ScriptedReceiver):
        def send(self, notification, deadline_seconds):
            clock.advance(HANG_TIMEOUT_SECONDS - 1)
            seen.append(worker.outage)
            clock.advance(1)
            seen.append(worker.outage)

    worker = deliver(Hanging())
    put(store, make_notification("n1"))
    began_ns = clock.boottime_ns()
    worker.deliver_due()
    assert seen[0] is None
    assert (seen[1].since_ns, seen[1].reason) == (began_ns, "timeout: an attempt does not end")
    assert worker.outage is None


def test_receiver_state_that_cannot_be_written_is_no_defect_of_the_receiver(deliver, store):
    worker = deliver(ScriptedReceiver(StoreError("cannot write state.sqlite3: full")))
    put(store, make_notification("n1"))
    worker.deliver_due()
    assert worker.failed_attempts == {"store": 1}


# ---------------------------------------------------------------------------------------------------- fallback texts


class Unrenderable(Receiver):
    """Renders only fallback notifications, and not even these if `worse`."""

    type = "unrenderable"

    def __init__(self, error, worse=None):
        super().__init__("oncall")
        self.error, self.worse = error, worse
        self.taken = []

    @classmethod
    def from_table(cls, name, table):
        raise NotImplementedError

    def render(self, notification):
        if "cannot be rendered" not in notification.alerts[0].summary:
            raise self.error
        return notification.alerts[0].summary.encode()

    def send(self, notification, deadline_seconds):
        self.taken.append(self.render(notification))
        if self.worse is not None:
            raise self.worse

    def destination(self):
        return "nowhere"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("https://hooks.example.net/secret"), "ValueError in test_worker.py:"),
        (
            DeliveryError(DeliveryErrorReason.RENDER, "line 3 of the template", retryable=False),
            "line 3 of the template",
        ),
    ],
    ids=["a bug", "a template"],
)
def test_if_rendering_fails_the_fallback_text_is_sent_with_the_error(deliver, store, clock, caplog, error, told):
    receiver = Unrenderable(error)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    assert worker.deliver_due() is None
    (text,) = receiver.taken
    assert text.decode().startswith(f"storm; text cannot be rendered: {told}")
    assert (worker.delivered, worker.failed_attempts, losses(store, clock)) == (1, {"render": 1}, {})
    assert worker.outage is None
    with store.database.transaction() as connection:
        ((result,),) = connection.execute("SELECT result FROM attempts").fetchall()
    assert result.startswith(f"ok, with the fallback text: {told}")
    assert "secret" not in caplog.text + text.decode() + result


def test_a_fallback_text_without_connection_is_tried_again(deliver, store, clock):
    receiver = Unrenderable(ValueError("x"), worse=TIMEOUT)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    assert len(waits(worker, clock, most=30)) == 30
    assert losses(store, clock) == {}
    receiver.worse = None
    waits(worker, clock)
    assert worker.delivered == 1


@pytest.mark.parametrize("resolved", [None, 9.0], ids=["firing", "resolved"])
@pytest.mark.parametrize("kind", ["render", "internal"])
def test_a_defect_that_prevents_every_attempt_is_not_tried_for_ever(deliver, store, clock, kind, resolved):
    if kind == "render":
        receiver = Unrenderable(ValueError("x"), worse=KeyError("y"))
    else:
        receiver = ScriptedReceiver(*[KeyError("y")] * 2 * MAX_DEFECT_ATTEMPTS)
    worker = deliver(receiver)
    put(store, make_notification("n1", resolved=resolved), make_notification("n2", "other", resolved=resolved))
    waits(worker, clock, most=1_000)
    assert losses(store, clock) == {("oncall", LossCause.DEFECT): 2}
    with store.database.transaction() as connection:
        written = connection.execute("SELECT state, attempts FROM notifications").fetchall()
    assert written == [("failed", MAX_DEFECT_ATTEMPTS)] * 2


def test_the_fallback_text_is_printable_and_bounded(make_hostile):
    told = fallback_notification(make_hostile("\x1b[2J\u202e\ud800" * 400, math.nan), "KeyError in x.py:3")
    (alert,) = told.alerts
    for text in (told.host, alert.summary, alert.reason, *dict(alert.labels).values()):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 1_000
    assert (alert.value, alert.threshold, alert.peak) == (0.0, 100.0, 0.0)
    assert alert.runbook is None


@pytest.fixture
def make_hostile():
    def make(name, value):
        alert = factories.make_alert(
            labels=(("process", name),),
            fingerprint="f" * 16,
            summary=name,
            reason=name,
            value=value,
            threshold=100.0,
            peak=math.inf,
            runbook="javascript:",
        )
        return factories.make_notification(alert, id="n1", host=name)

    return make


# --------------------------------------------------------------------------------------------------------- refreshing


def test_a_failed_refresh_is_counted_logged_once_and_repeats_no_notification(deliver, store, clock, caplog):
    receiver = ScriptedReceiver(TIMEOUT)
    answers = [TIMEOUT, TIMEOUT, None, ValueError("secret")]

    def refresh(alerts, host, deadline_seconds):
        if (error := answers.pop(0)) is not None:
            raise error

    receiver.refresh = refresh
    worker = deliver(receiver)
    for _ in range(3):
        worker.refresh([], "web-1")
    assert worker.failed_attempts == {"timeout": 2}
    assert worker.outage is None  # the outage began with a refresh, and a refresh ends it
    put(store, make_notification("n1"))
    worker.deliver_due()
    worker.refresh([], "web-1")
    assert worker.failed_attempts == {"timeout": 3, "internal": 1}
    assert worker.outage is not None
    assert [message for message in caplog.messages if "refresh" in message] == [
        "refresh failed: receiver=oncall error=timeout: no answer within 10 s",
        "refresh works again: receiver=oncall",
        caplog.messages[-1],
    ]
    assert caplog.messages[-1].startswith("refresh failed: receiver=oncall error=internal: ValueError in test_worker")
    assert "secret" not in caplog.text


def test_a_defect_in_the_reading_of_a_changed_file_is_a_failed_refresh(deliver):
    receiver = ScriptedReceiver()
    receiver.source = source = FileSource(error=ZeroDivisionError())
    source.changed = True
    worker = deliver(receiver)
    assert not worker.refresh([], "web-1")
    assert worker.outage.reason.startswith("internal: ZeroDivisionError in test_worker.py:")


def test_a_successful_refresh_does_not_end_the_outage_that_a_notification_began(deliver, store):
    receiver = ScriptedReceiver(TIMEOUT)
    receiver.refresh = lambda *_: None
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    worker.deliver_due()
    worker.refresh([], "web-1")
    assert worker.outage.reason == "timeout: no answer within 10 s"


def test_during_retry_after_the_receiver_is_not_refreshed(deliver, store, clock):
    refreshed = []
    receiver = ScriptedReceiver(
        DeliveryError(DeliveryErrorReason.RATE_LIMITED, "429", retryable=True, retry_after_seconds=30)
    )
    receiver.refresh = lambda *arguments: refreshed.append(arguments)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    worker.deliver_due()
    assert not worker.refresh([], "web-1")
    assert refreshed == []
    clock.advance(30)
    assert worker.refresh([], "web-1")
    assert len(refreshed) == 1


# ------------------------------------------------------------------------------------- attempts that may have arrived

NO_ANSWER = UncertainDeliveryError(DeliveryErrorReason.TIMEOUT, "no complete answer in time", retryable=True)
BROKEN = UncertainDeliveryError(DeliveryErrorReason.CONNECT, "connection broken before the answer", retryable=True)


class KeepingReceiver(ScriptedReceiver):
    """Keeps the notifications of its attempts."""

    def __init__(self, *script):
        super().__init__(*script)
        self.notifications = []

    def send(self, notification, deadline_seconds):
        self.notifications.append(notification)
        super().send(notification, deadline_seconds)


def alert_of(rule, **changes):
    return factories.make_alert(rule=rule, labels=(), fingerprint=rule, **changes)


def group_of(id_, *alerts):
    return factories.make_notification(*alerts, id=id_, group_key="group")


def test_a_notification_that_may_have_arrived_is_repeated_rarely(deliver, store, clock):
    receiver = ScriptedReceiver(*[NO_ANSWER] * 5)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    assert waits(worker, clock) == [60, 240, 960, 3600, 3600]
    assert worker.delivered == 1


def test_a_connection_that_breaks_for_the_first_time_is_tried_again_soon(deliver, store, clock):
    worker = deliver(ScriptedReceiver(BROKEN, BROKEN, BROKEN))
    put(store, make_notification("n1"))
    assert waits(worker, clock) == [1, 240, 960]


def test_a_service_that_recognises_copies_gets_them_soon_and_unmarked(deliver, store, clock):
    receiver = KeepingReceiver(NO_ANSWER, NO_ANSWER)
    receiver.joins_copies = True
    put(store, make_notification("n1"))
    assert waits(deliver(receiver), clock) == [1, 2]
    assert {notification.reason_detail for notification in receiver.notifications} == {""}


def test_a_copy_is_marked_also_after_a_crash_but_not_after_a_failure(deliver, store, clock):
    put(store, make_notification("n1"))
    receiver = KeepingReceiver(TIMEOUT, NO_ANSWER, TIMEOUT)
    waits(deliver(receiver), clock)
    copy = worker_module.POSSIBLE_COPY
    assert [notification.reason_detail for notification in receiver.notifications] == ["", "", copy, copy]
    put(store, make_notification("n2", "other"))
    Outbox(store.database, clock).begin_attempt("oncall")  # and the daemon is killed
    receiver = KeepingReceiver()
    deliver(receiver).deliver_due()
    assert [(notification.id, notification.reason_detail) for notification in receiver.notifications] == [("n2", copy)]


def test_the_end_overtakes_a_notification_that_may_have_arrived_which_is_not_repeated(deliver, store, clock):
    receiver = ScriptedReceiver(NO_ANSWER)
    worker = deliver(receiver)
    put(store, group_of("n1", alert_of("a")))
    worker.deliver_due()
    clock.advance(5)
    put(store, group_of("n2", alert_of("a", resolved=9.0)))
    assert waits(worker, clock) == []
    assert receiver.attempts == ["n1", "n2"]
    with store.database.transaction() as connection:
        states = connection.execute("SELECT id, state, merged_into FROM notifications ORDER BY id").fetchall()
    assert states == [("n1", "merged", "n2"), ("n2", "delivered", None)]
    assert losses(store, clock) == {}


def test_a_repeat_leaves_out_what_a_later_notification_has_told(deliver, store, clock):
    receiver = KeepingReceiver(NO_ANSWER)
    worker = deliver(receiver)
    put(store, group_of("n1", alert_of("a"), alert_of("b"), alert_of("c")))
    worker.deliver_due()
    put(store, group_of("n2", alert_of("b", resolved=9.0)))
    waits(worker, clock)
    sent = [(each.id, [alert.rule for alert in each.alerts]) for each in receiver.notifications]
    assert sent == [("n1", ["a", "b", "c"]), ("n2", ["b"]), ("n1", ["a", "c"])]
    assert {row[0] for row in notified_rules(store)} == {"a", "c"}


def notified_rules(store):
    with store.database.transaction() as connection:
        return connection.execute("SELECT rule FROM notified").fetchall()


def test_after_an_outage_a_receiver_gets_at_once_the_notifications_that_may_have_arrived(deliver, store, clock):
    receiver = ScriptedReceiver(NO_ANSWER, *[TIMEOUT] * FAILURES_BEFORE_HOLD)
    worker = deliver(receiver)
    put(store, make_notification("n1", "a"), make_notification("n2", "b"))
    assert max(waits(worker, clock)) < 60
    assert receiver.attempts[-2:] == ["n2", "n1"]


# ------------------------------------------------------------------------------------------- deliveries in part

REFUSED = PartialDeliveryError(DeliveryErrorReason.CLIENT_ERROR, "1 of 3 recipients refused", retryable=False)
DEFERRED = PartialDeliveryError(DeliveryErrorReason.SERVER_ERROR, "1 of 3 recipients not reached", retryable=True)


def test_a_recipient_that_is_refused_makes_neither_an_outage_nor_a_loss(deliver, store, clock, caplog):
    worker = deliver(ScriptedReceiver(REFUSED, None))
    put(store, make_notification("n1", "a"))
    assert waits(worker, clock) == []
    assert (worker.delivered, worker.outage, losses(store, clock)) == (1, None, {})
    assert worker.refusal == "client_error: 1 of 3 recipients refused"
    assert "delivered in part: receiver=oncall notification=n1" in caplog.text
    put(store, make_notification("n2", "b"))
    worker.deliver_due()
    assert worker.refusal == ""


def test_a_recipient_that_is_deferred_is_tried_again_without_an_outage(deliver, store, clock):
    receiver = ScriptedReceiver(DEFERRED, DEFERRED)
    worker = deliver(receiver)
    put(store, make_notification("n1"))
    worker.deliver_due()
    assert worker.outage is None
    assert waits(worker, clock) == [1, 2]
    assert worker.delivered == 1


def test_the_end_does_not_wait_for_a_recipient_that_is_deferred(deliver, store, clock):
    receiver = ScriptedReceiver(DEFERRED)
    worker = deliver(receiver)
    put(store, group_of("n1", alert_of("a")))
    worker.deliver_due()
    put(store, group_of("n2", alert_of("a", resolved=9.0)))
    waits(worker, clock)
    assert receiver.attempts == ["n1", "n2"]


def test_a_recipient_that_is_deferred_for_ever_counts_as_refused(deliver, store, clock):
    worker = deliver(ScriptedReceiver(*[DEFERRED] * 100))
    put(store, make_notification("n1"))
    assert len(waits(worker, clock, most=200)) == MAX_PARTIAL_ATTEMPTS - 1
    assert (worker.delivered, losses(store, clock)) == (1, {})


# ------------------------------------------------------------------------------------------------------ changed files

UNAUTHORIZED = DeliveryError(DeliveryErrorReason.AUTH, "answered 401", retryable=False)


class FileSource:
    """The source of a receiver with a file that changes; `build` returns the next of `receivers`, or fails."""

    def __init__(self, *receivers, error=None):
        self.receivers = list(receivers)
        self.error = error or ConfigError([Problem("watchdog.toml", 1, "receiver.bearer_token_file", "is empty")])
        self.changed = False
        for receiver in receivers:
            receiver.source = self

    def has_changed(self):
        return self.changed

    def build(self):
        if not self.receivers:
            raise self.error
        self.changed = False
        return self.receivers.pop(0)


def test_a_changed_file_is_read_before_the_next_attempt(deliver, store):
    old, new = ScriptedReceiver(), ScriptedReceiver()
    old.source = source = FileSource(new)
    worker = deliver(old)
    put(store, make_notification("n1", "a"))
    worker.deliver_due()
    source.changed = True
    put(store, make_notification("n2", "b"))
    worker.deliver_due()
    assert (old.attempts, new.attempts, old.closed) == (["n1"], ["n2"], True)


def test_a_file_that_changes_during_a_refused_attempt_is_used_at_once(deliver, store, clock):
    new = ScriptedReceiver()
    source = FileSource(new)

    class Rotated(ScriptedReceiver):
        def send(self, notification, deadline_seconds):
            source.changed = True
            super().send(notification, deadline_seconds)

    old = Rotated(UNAUTHORIZED)
    old.source = source
    put(store, make_notification("n1"))
    assert waits(deliver(old), clock) == []
    assert (old.attempts, new.attempts, losses(store, clock)) == (["n1"], ["n1"], {})


def test_a_refused_login_from_a_file_is_read_again_for_one_more_attempt(deliver, store, clock):
    old, new = ScriptedReceiver(UNAUTHORIZED), ScriptedReceiver()
    old.source = FileSource(new)
    put(store, make_notification("n1"))
    assert waits(deliver(old), clock) == [30]
    assert new.attempts == ["n1"]


def test_a_login_that_stays_refused_fails_the_notification(deliver, store, clock):
    old, new = ScriptedReceiver(UNAUTHORIZED), ScriptedReceiver(UNAUTHORIZED)
    old.source = FileSource(new)
    put(store, make_notification("n1"))
    assert waits(deliver(old), clock) == [30]
    assert losses(store, clock) == {("oncall", LossCause.REFUSED): 1}


def test_a_refused_login_without_a_file_is_final(deliver, store, clock):
    put(store, make_notification("n1"))
    assert waits(deliver(ScriptedReceiver(UNAUTHORIZED)), clock) == []
    assert losses(store, clock) == {("oncall", LossCause.REFUSED): 1}


@pytest.mark.parametrize("error", [None, OSError(errno.EMFILE, os.strerror(errno.EMFILE))])
def test_while_a_changed_file_cannot_be_used_the_former_content_is(deliver, store, caplog, error):
    receiver = ScriptedReceiver()
    receiver.source = source = FileSource(error=error)
    source.changed = True
    put(store, make_notification("n1", "a"), make_notification("n2", "b"))
    deliver(receiver).deliver_due()
    assert receiver.attempts == ["n1", "n2"]
    assert caplog.text.count("changed files cannot be used") == 1


def test_a_receiver_without_send_resolved_gets_no_end_and_the_end_is_recorded(deliver, store, clock):
    receiver, sent = ScriptedReceiver(), []
    receiver.send_resolved = False
    receiver.send = lambda notification, _: sent.append([alert.resolved for alert in notification.alerts])
    firing, ended = factories.make_alert(rule="storm"), factories.make_alert(rule="spike", resolved=clock.wall())
    contents = [(firing,), (firing, ended), (ended,)]
    put(
        store,
        *(
            factories.make_notification(*alerts, id=f"n{number}", group_key=f"g{number}")
            for number, alerts in enumerate(contents)
        ),
    )
    worker = deliver(receiver)
    worker.deliver_due()
    assert sent == [[None], [None]]
    records = audit.list_notifications(store.database, receiver=None, state=None, limit=9)
    assert [record.state for record in records] == ["delivered"] * 3
    assert worker.delivered == 2


def test_an_end_that_is_not_sent_takes_no_part_of_the_rate_limit(deliver, store, clock):
    receiver = ScriptedReceiver()
    receiver.send_resolved, receiver.rate_limit = False, RateLimit(10, 3600 * SECOND_NS)
    worker = deliver(receiver)
    for number in range(30):
        put(store, make_notification(f"n{number}", f"g{number}", resolved=clock.wall()))
        worker.deliver_due()
    put(store, make_notification("firing", "storm"))
    worker.deliver_due()
    assert receiver.attempts == ["firing"]


def test_an_alert_whose_rule_has_no_resolved_notification_ends_in_silence(deliver, store, clock):
    receiver = ScriptedReceiver()
    alert = factories.make_alert(resolved=clock.wall(), send_resolved=False)
    put(store, factories.make_notification(alert))
    deliver(receiver).deliver_due()
    assert receiver.attempts == []
