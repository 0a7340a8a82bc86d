"""The audit trail of notifications, and the retry of a failed one."""

import json
from dataclasses import asdict

import pytest

from watchdog.state import audit, notified
from watchdog.state.audit import AlertRecord, AttemptRecord, NotificationRecord
from watchdog.state.losses import LossCause
from watchdog.state.outbox import FIRING_EXPIRY_NS, AttemptOutcome

SECOND_NS = 1_000_000_000


@pytest.fixture
def put(store, make_notification):
    def put(id_, receiver="oncall", group_key="storm", alerts=(), **changes):
        notification = make_notification(*alerts, id=id_, receiver=receiver, group_key=group_key, **changes)
        store.commit(alerts=(), groups=(), notifications=[notification])

    return put


def ended(outbox, receiver, state, result, due_ns=0):
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt(receiver), state, result, due_ns))


def ids(records):
    return [record.notification_id for record in records]


def test_a_notification_is_listed_with_its_delivery_state(store, outbox, put, clock):
    put("n1")
    ended(outbox, "oncall", "delivered", "ok")
    assert audit.list_notifications(store.database) == [
        NotificationRecord(
            notification_id="n1", receiver="oncall", group_key="storm", reason="first notification", status="firing",
            state="delivered", alerts=1, attempts=1, created_at=1_750_000_012.0, ended_at=clock.wall(), error=None,
        )
    ]  # fmt: skip


def test_the_list_has_the_newest_first_by_receiver_by_state_and_up_to_the_limit(store, outbox, put):
    put("n1")
    put("n2", receiver="log")
    put("n3", group_key="spike")
    ended(outbox, "log", "failed", "auth: HTTP 403")
    assert ids(audit.list_notifications(store.database)) == ["n3", "n2", "n1"]
    assert ids(audit.list_notifications(store.database, receiver="oncall")) == ["n3", "n1"]
    assert ids(audit.list_notifications(store.database, state="failed")) == ["n2"]
    assert ids(audit.list_notifications(store.database, receiver="log", state="delivered")) == []
    assert ids(audit.list_notifications(store.database, limit=2)) == ["n3", "n2"]
    assert ids(audit.list_notifications(store.database, limit=-1)) == []


def test_a_notification_is_shown_with_its_alerts_and_the_result_of_each_attempt(store, outbox, put, clock):
    put("n1")
    ended(outbox, "oncall", "pending", "timeout: no answer", clock.boottime_ns())
    first = clock.wall()
    clock.advance(5)
    ended(outbox, "oncall", "failed", "client_error: HTTP 404")
    detail = audit.read_notification(store.database, "n1")
    assert detail.attempts == (
        AttemptRecord(1, first, "timeout: no answer"),
        AttemptRecord(2, clock.wall(), "client_error: HTTP 404"),
    )
    assert detail.alerts == (
        AlertRecord("0123456789abcdef", "firing", "crawler opens 612/s connections (limit 500/s)"),
    )
    assert (detail.notification.state, detail.notification.error) == ("failed", "client_error: HTTP 404")


def test_an_unknown_notification_is_neither_shown_nor_retried(store):
    assert audit.read_notification(store.database, "n1") is None
    assert not audit.retry_failed(store.database, "n1")


def test_hostile_names_are_shown_as_json(store, outbox, put, make_alert, hostile_name):
    put("n1", alerts=(make_alert(summary=hostile_name),))
    detail = audit.read_notification(store.database, "n1")
    assert json.loads(json.dumps(asdict(detail)))["alerts"][0]["summary"] == hostile_name


def test_a_failed_notification_is_retried_with_its_id_and_the_audit_trail_shows_it(store, outbox, put, clock, caplog):
    caplog.set_level("INFO")
    put("n1")
    ended(outbox, "oncall", "failed", "client_error: HTTP 404")
    clock.advance(60)
    assert audit.retry_failed(store.database, "n1", clock)
    assert caplog.messages == ["notification queued again: receiver=oncall notification=n1"]
    attempt = outbox.begin_attempt("oncall")
    assert (attempt.notification.id, attempt.number) == ("n1", 2)
    outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
    detail = audit.read_notification(store.database, "n1")
    assert [(attempt.number, attempt.result) for attempt in detail.attempts] == [
        (1, "client_error: HTTP 404"),
        (1, audit.RETRIED_RESULT),
        (2, "ok"),
    ]
    assert (detail.notification.state, detail.notification.error) == ("delivered", None)


def test_a_retried_notification_has_another_24_hours(store, outbox, put, clock):
    put("n1")
    clock.advance(FIRING_EXPIRY_NS / SECOND_NS + 1)
    assert outbox.expire_old("oncall") == ["n1"]
    assert audit.retry_failed(store.database, "n1", clock)
    assert outbox.expire_old("oncall") == []
    assert outbox.begin_attempt("oncall").notification.id == "n1"


@pytest.mark.parametrize("state", ["pending", "delivered"])
def test_only_a_failed_notification_is_retried(store, outbox, put, clock, state):
    put("n1")
    ended(outbox, "oncall", state, "what the receiver said")
    assert not audit.retry_failed(store.database, "n1", clock)
    assert audit.read_notification(store.database, "n1").notification.state == state


def test_a_superseded_notification_is_not_retried(store, outbox, put, clock):
    put("n1")
    ended(outbox, "oncall", "failed", "client_error: HTTP 404")
    put("other", group_key="spike")
    put("n2")
    ended(outbox, "oncall", "delivered", "ok")
    assert audit.read_notification(store.database, "n1").superseded_by is None  # another group's
    ended(outbox, "oncall", "delivered", "ok")
    assert audit.read_notification(store.database, "n1").superseded_by == "n2"
    assert not audit.retry_failed(store.database, "n1", clock)
    assert audit.read_notification(store.database, "n1").notification.state == "failed"


def test_an_unreadable_body_hides_no_notification(store, put):
    put("n1")
    with store.database.transaction() as connection:
        connection.execute("UPDATE notifications SET body = 'damaged'")
    assert ids(audit.list_notifications(store.database)) == ["n1"]
    assert audit.read_notification(store.database, "n1").alerts == ()


def test_a_dropped_or_damaged_notification_is_not_retried(store, put, clock):
    for id_, cause in (("n1", LossCause.CAPACITY), ("n2", LossCause.DAMAGED)):
        put(id_, group_key=id_)
        with store.database.transaction() as connection:
            connection.execute("UPDATE notifications SET state = 'failed', loss_cause = ? WHERE id = ?", (cause, id_))
        assert not audit.retry_failed(store.database, id_, clock)


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        '{"alerts": 7}',
        '{"alerts": [7, null, "x", {}]}',
        '{"alerts": {"a": 1}, "created": "yesterday"}',
        '{"alerts": null, "created": null, "reason": []}',
        '{"alerts": [], "created": 1e999}',
        '{"created": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_a_body_of_another_shape_is_shown_as_far_as_its_columns_allow(store, put, body):
    put("n1")
    with store.database.transaction() as connection:
        connection.execute("UPDATE notifications SET body = ?", (body,))
    [record] = audit.list_notifications(store.database)
    detail = audit.read_notification(store.database, "n1")
    assert (record.notification_id, record.created_at, detail.notification) == ("n1", 0.0, record)
    with store.database.transaction() as connection:
        connection.execute("INSERT INTO notified (receiver, rule, fingerprint, alert) VALUES ('oncall', 'r', 'f', '7')")
        assert notified.unresolved_alerts(connection) == []
        assert notified.read_knowledge(connection, ["oncall"]).unresolved == []
        assert notified.newest_deliveries(connection) == {}
