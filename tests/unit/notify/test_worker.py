import logging
import sqlite3

import pytest

from watchdog.alerts.alert import Alert, State
from watchdog.alerts.notice import Notice
from watchdog.errors import DeliveryError, StoreError
from watchdog.notify import worker as worker_module
from watchdog.notify.outbox import Outbox
from watchdog.notify.worker import ATTEMPT_SECONDS, Worker, backoff_seconds
from watchdog.rules.schema import Severity
from watchdog.store.store import Store

SECOND_NS = 1_000_000_000
TIMEOUT = DeliveryError("timeout", "no answer within 10 s", retryable=True)


class ScriptedReceiver:
    """Answers each attempt with the next exception of `script`, or takes the notice when it is used up."""

    def __init__(self, *script):
        self.name = "oncall"
        self.budget = None
        self.script = list(script)
        self.attempts = []
        self.deadlines = []

    def send(self, notice, deadline_seconds):
        self.attempts.append(notice.id)
        self.deadlines.append(deadline_seconds)
        if self.script and (error := self.script.pop(0)) is not None:
            raise error

    def close(self):
        self.closed = True


def make_notice(id_, group="storm", resolved=None):
    alert = Alert(
        rule=group, labels=(), fingerprint="f" * 16, state=State.FIRING, severity=Severity.WARNING, summary="a storm",
        value=150.0, threshold=100.0, peak=151.0, started=1.0, fired=2.0, resolved=resolved, reason="above 100",
        receivers=None, runbook=None,
    )  # fmt: skip
    return Notice(id_, "oncall", group, "first notification", (alert,), created=3.0, host="db1")


@pytest.fixture
def store(tmp_path, clock):
    store = Store(tmp_path, clock, "boot1")
    yield store
    store.close()


@pytest.fixture
def deliver(store, clock):
    def make(receiver):
        return Worker(receiver, Outbox(store.database, clock), clock, logging.getLogger("test"))

    return make


@pytest.fixture(autouse=True)
def longest_backoff(monkeypatch):
    """Let jitter draw its upper end, so that waits are known."""
    monkeypatch.setattr(worker_module.random, "uniform", lambda _low, high: high)


def put(store, *notices):
    store.commit(alerts=(), groups=(), notices=notices)


def waits(worker, clock, most=20):
    """Run the worker whenever something is due; return the waits in between."""
    seen = []
    while (due_ns := worker.run_due()) is not None and len(seen) < most:
        seen.append((due_ns - clock.boottime_ns()) / SECOND_NS)
        clock.advance(seen[-1])
    return seen


def test_delivers_all_that_is_due_in_one_run_each_with_the_full_deadline(deliver, store):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notice("n1", "a"), make_notice("n2", "b"))
    assert worker.run_due() is None
    assert (receiver.attempts, receiver.deadlines) == (["n1", "n2"], [ATTEMPT_SECONDS] * 2)
    assert (worker.sent, worker.failed, worker.lost) == (2, {}, {})


def test_failed_attempt_is_repeated_with_the_same_id_until_taken(deliver, store, clock):
    receiver = ScriptedReceiver(TIMEOUT, TIMEOUT, TIMEOUT, TIMEOUT)
    worker = deliver(receiver)
    put(store, make_notice("n1"))
    assert waits(worker, clock) == [1, 2, 4, 8]
    assert receiver.attempts == ["n1"] * 5
    assert (worker.sent, worker.failed) == (1, {"timeout": 4})


def test_backoff_doubles_up_to_five_minutes():
    assert [backoff_seconds(number) for number in (1, 2, 3, 8, 9, 10, 1000)] == [1, 2, 4, 128, 256, 300, 300]


def test_backoff_is_drawn_from_zero(monkeypatch):
    monkeypatch.setattr(worker_module.random, "uniform", lambda low, high: (low, high))
    assert backoff_seconds(3) == (0.0, 4.0)


def test_backoff_goes_on_where_it_was_before_a_restart(deliver, store, clock):
    put(store, make_notice("n1"))
    before = deliver(ScriptedReceiver(TIMEOUT, TIMEOUT))
    assert before.run_due() == clock.boottime_ns() + 1 * SECOND_NS
    clock.advance(1)
    before.run_due()
    after = deliver(ScriptedReceiver(TIMEOUT))
    assert waits(after, clock) == [2, 4]


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(0.0, 1.0), (-5.0, 1.0), (0.5, 1.0), (30.0, 30.0), (1e12, 3600.0), (float("inf"), 3600.0), (float("nan"), 1.0)],
)
def test_retry_after_is_obeyed_between_backoff_and_one_hour(deliver, store, clock, asked, wait):
    limited = DeliveryError("rate_limited", "429", retryable=True, retry_after_seconds=asked)
    put(store, make_notice("n1"))
    assert waits(deliver(ScriptedReceiver(limited)), clock) == [wait]


def test_receiver_that_asks_to_wait_is_left_alone_by_all_groups(deliver, store, clock):
    limited = DeliveryError("rate_limited", "429", retryable=True, retry_after_seconds=30)
    receiver = ScriptedReceiver(limited)
    worker = deliver(receiver)
    put(store, make_notice("n1", "a"), make_notice("n2", "b"))
    assert waits(worker, clock) == [30]
    assert receiver.attempts == ["n1", "n1", "n2"]


def test_group_that_fails_does_not_hold_up_another(deliver, store):
    receiver = ScriptedReceiver(TIMEOUT)
    put(store, make_notice("n1", "a"), make_notice("n2", "b"))
    deliver(receiver).run_due()
    assert receiver.attempts == ["n1", "n2"]


def test_notice_that_is_refused_for_good_is_kept_as_dead_and_told(deliver, store, caplog):
    worker = deliver(ScriptedReceiver(DeliveryError("client_error", "HTTP 404", retryable=False)))
    put(store, make_notice("n1"))
    assert worker.run_due() is None
    with store.database.transaction() as connection:
        assert connection.execute("SELECT state, last_error FROM notices").fetchall() == [
            ("dead", "client_error: HTTP 404")
        ]
    assert (worker.failed, worker.lost) == ({"client_error": 1}, {"refused": 1})
    assert caplog.messages == ["notice n1 given up for oncall: client_error: HTTP 404; attempt 1, the last"]


def test_retry_is_told_with_receiver_id_reason_attempt_and_next_try(deliver, store, caplog):
    put(store, make_notice("n1"))
    deliver(ScriptedReceiver(TIMEOUT)).run_due()
    assert caplog.messages == [
        "notice n1 not delivered to oncall: timeout: no answer within 10 s; attempt 1, next in 1.0 s"
    ]


def test_bug_in_a_receiver_is_retried_and_its_text_is_not_told(deliver, store, clock, caplog):
    worker = deliver(ScriptedReceiver(KeyError("https://hooks.example.net/T0/secret")))
    put(store, make_notice("n1"))
    assert waits(worker, clock) == [1]
    assert (worker.sent, worker.failed) == (1, {"internal": 1})
    with store.database.transaction() as connection:
        written = str(connection.execute("SELECT * FROM notices").fetchall())
        written += str(connection.execute("SELECT * FROM attempts").fetchall())
    assert "KeyError in test_worker.py:" in caplog.text
    assert "KeyError in test_worker.py:" in written
    assert "secret" not in caplog.text + written


def test_expired_notice_is_counted_told_and_not_sent(deliver, store, clock, caplog):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notice("n1"), make_notice("n2", "other", resolved=9.0))
    clock.advance(24 * 3600 + 1)
    worker.run_due()
    assert receiver.attempts == ["n2"]
    assert worker.lost == {"expired": 1}
    assert caplog.messages == ["notice n1 given up for oncall: not delivered for a day"]


def test_outcome_that_can_not_be_written_is_kept_and_nothing_is_sent_twice(deliver, store, clock, tmp_path):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notice("n1", "a"), make_notice("n2", "b"))
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'no room'); END")
    for _ in range(3):
        with pytest.raises(StoreError, match="no room"):
            worker.run_due()
    assert receiver.attempts == ["n1"]
    other.execute("DROP TRIGGER full")
    other.close()
    assert worker.run_due() is None
    assert receiver.attempts == ["n1", "n2"]
    assert worker.sent == 2


def test_nothing_is_sent_when_the_attempt_can_not_be_counted(deliver, store, tmp_path):
    receiver = ScriptedReceiver()
    worker = deliver(receiver)
    put(store, make_notice("n1"))
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE UPDATE ON notices BEGIN SELECT RAISE(ABORT, 'no room'); END")
    other.close()
    with pytest.raises(StoreError, match="no room"):
        worker.run_due()
    assert receiver.attempts == []


def test_attempts_near_the_end_get_the_time_that_is_left_and_none_begins_after_it(deliver, store, clock):
    class Slow(ScriptedReceiver):
        def send(self, notice, deadline_seconds):
            super().send(notice, deadline_seconds)
            clock.advance(3)

    receiver = Slow()
    worker = deliver(receiver)
    put(store, make_notice("n1", "a"), make_notice("n2", "b"), make_notice("n3", "c"))
    worker.finish_by(clock.boottime_ns() + 5 * SECOND_NS)
    assert worker.run_due() is None
    assert (receiver.attempts, receiver.deadlines) == (["n1", "n2"], [5.0, 2.0])
    assert worker.sent == 2
    assert deliver(ScriptedReceiver()).run_due() is None
