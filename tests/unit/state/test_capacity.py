"""Limits of the outbox: the order in which notifications are dropped, and the count of each loss."""

import json

import pytest

from watchdog.alerts.alert import AlertState
from watchdog.errors import StoreError
from watchdog.state import capacity, pending_writes
from watchdog.state.capacity import OutboxCapacity
from watchdog.state.outbox import AttemptOutcome, Outbox
from watchdog.state.store import Store

TIMEOUT = "timeout: no answer"


@pytest.fixture
def open_store(tmp_path, clock):
    stores = []

    def open_it(**most):
        if stores:
            stores[-1].close()
        stores.append(Store(tmp_path, clock, "boot1", OutboxCapacity(**most)))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def put(make_alert, make_notification):
    def put(store, *made):
        """Commit notifications of one alert each, given as (id, group, kind); "repeat": a repeat of a firing alert."""
        notifications = []
        for id_, group, kind, *receiver in made:
            resolved = 9.0 if kind == "resolved" else None
            state = AlertState.FIRING if resolved is None else AlertState.RESOLVED
            alert = make_alert(rule=group, fingerprint=group.ljust(16, "0"), resolved=resolved, state=state)
            notifications.append(
                make_notification(
                    alert, id=id_, group_key=group, reason=kind if kind != "firing" else "new alert in group",
                    receiver=receiver[0] if receiver else "oncall",
                )
            )  # fmt: skip
        store.commit(alerts=(), groups=(), notifications=notifications)

    return put


def deliver(store, clock, state="delivered", result="ok"):
    """Attempt the first due notification; return its id."""
    outbox = Outbox(store.database, clock)
    attempt = outbox.begin_attempt("oncall")
    outbox.finish_attempt(AttemptOutcome(attempt, state, result, clock.boottime_ns() + 60 * 10**9))
    return attempt.notification.id


def states(store):
    with store.database.transaction() as connection:
        return dict(connection.execute("SELECT id, state FROM notifications ORDER BY sequence"))


def pending(store):
    return [id_ for id_, state in states(store).items() if state == "pending"]


def lost(store, clock):
    return dict(Outbox(store.database, clock).losses())


def test_within_capacity_nothing_is_changed(open_store, put, clock):
    store = open_store(max_receiver_notifications=2)
    put(store, ("n1", "storm", "firing"), ("n2", "storm", "resolved"))
    assert states(store) == {"n1": "pending", "n2": "pending"}
    assert lost(store, clock) == {}


def test_notifications_of_one_group_are_merged_before_any_is_dropped(open_store, put, clock):
    store = open_store(max_receiver_notifications=2)
    put(store, ("n1", "storm", "firing"), ("n2", "storm", "resolved"), ("n3", "spike", "firing"))
    assert states(store) == {"n1": "pending", "n2": "merged", "n3": "pending"}
    assert lost(store, clock) == {}


def test_evidence_is_dropped_before_any_alert(open_store, put, clock):
    store = open_store()
    put(store, ("n1", "a", "firing"), ("n2", "b", "firing"))
    with store.database.transaction() as connection:
        connection.execute(
            "UPDATE notifications SET body = json_set(body, '$.alerts[0].evidence', json(?)), has_evidence = 1",
            (json.dumps({"top": "x" * 1_000}),),
        )
        capacity._strip_evidence(connection)
        bodies = [json.loads(body) for (body,) in connection.execute("SELECT body FROM notifications")]
    assert [body["alerts"][0]["evidence"] for body in bodies] == [None, None]
    assert [body["alerts"][0]["fingerprint"][0] for body in bodies] == ["a", "b"]


def test_a_damaged_notification_delays_no_other(open_store, put, clock, caplog):
    store = open_store(max_receiver_notifications=2)
    put(store, ("n1", "a", "firing"), ("n2", "b", "firing"))
    with store.database.transaction() as connection:
        connection.execute(
            "UPDATE notifications SET body = replace(body, 'storm', 'stork'), checksum = 1 WHERE id = 'n1'"
        )
    assert deliver(store, clock) == "n2"
    assert caplog.messages == ["damaged notifications discarded: receiver=oncall ids=n1"]
    assert states(store) == {"n1": "failed", "n2": "delivered"}
    assert lost(store, clock) == {("oncall", "damaged"): 1}


def test_repeats_are_dropped_first_the_oldest_before_the_others(open_store, put, clock):
    store = open_store(max_receiver_notifications=3)
    put(store, ("n1", "a", "firing"), ("n2", "b", "repeat"), ("n3", "c", "resolved"), ("n4", "d", "repeat"))
    assert pending(store) == ["n1", "n3", "n4"]
    assert lost(store, clock) == {("oncall", "capacity"): 1}


def test_resolved_alerts_of_an_unnotified_receiver_are_dropped_before_firing_ones(open_store, put, clock, caplog):
    store = open_store(max_receiver_notifications=2)
    put(store, ("n1", "a", "firing"), ("n2", "b", "resolved"), ("n3", "c", "resolved"), ("n4", "d", "firing"))
    assert pending(store) == ["n1", "n4"]
    put(store, ("n5", "e", "firing"))
    assert pending(store) == ["n4", "n5"]  # the oldest
    assert lost(store, clock) == {("oncall", "capacity"): 3}
    clock.advance(60)
    store.commit(alerts=(), groups=(), notifications=())
    assert caplog.messages == [
        "outbox full, oldest notifications dropped: receiver=oncall dropped=2",
        "outbox full, oldest notifications dropped: receiver=oncall dropped=1",
    ]


def test_the_resolved_notification_of_a_notified_alert_is_dropped_last(open_store, put, clock):
    store = open_store(max_receiver_notifications=1)
    put(store, ("n1", "a", "firing"))
    deliver(store, clock)
    put(store, ("n2", "a", "resolved"), ("n3", "b", "firing"), ("n4", "c", "resolved"), ("n5", "d", "repeat"))
    assert pending(store) == ["n2"]
    assert lost(store, clock) == {("oncall", "capacity"): 3}


def test_the_end_of_a_firing_notification_that_may_have_arrived_is_kept(open_store, put, clock):
    store = open_store(max_receiver_notifications=2)
    put(store, ("n1", "a", "firing"))
    deliver(store, clock, "pending", TIMEOUT)  # no answer: it may have arrived
    put(store, ("n2", "a", "resolved"), ("n3", "b", "firing"))
    assert pending(store) == ["n1", "n2"]


def test_the_end_of_an_alert_in_a_digest_that_may_have_arrived_is_kept(open_store, put, clock):
    store = open_store(max_receiver_notifications=2)
    put(store, ("n1", "a", "firing"))
    with store.database.transaction() as connection:  # as the row of a digest of this and others
        connection.execute(
            "UPDATE notifications SET group_key = '(digest)', body = json_set(body, '$.group_key', '(digest)')"
        )
    deliver(store, clock, "pending", TIMEOUT)
    put(store, ("n2", "a", "resolved"), ("n3", "b", "firing"))
    assert pending(store) == ["n1", "n2"]
    assert lost(store, clock) == {("oncall", "capacity"): 1}


def test_the_end_of_a_notified_alert_is_kept_in_groups_by_label_too(open_store, clock, make_alert, make_notification):
    store = open_store(max_receiver_notifications=1)
    group = {"group_key": '{unit="a"}', "group_labels": (("unit", "a"),), "receiver": "oncall"}
    store.commit(alerts=(), groups=(), notifications=[make_notification(make_alert(rule="a"), id="n1", **group)])
    assert deliver(store, clock) == "n1"
    over = make_alert(rule="a", resolved=9.0, state=AlertState.RESOLVED)
    new = make_notification(make_alert(rule="b"), id="n3", group_key="b", receiver="oncall")
    store.commit(alerts=(), groups=(), notifications=[make_notification(over, id="n2", **group), new])
    assert pending(store) == ["n2"]


def test_a_dropped_group_leaves_no_firing_notification_behind(open_store, put, clock):
    store = open_store(max_receiver_notifications=1)
    put(store, ("n1", "a", "firing"), ("n2", "b", "firing"))
    assert pending(store) == ["n2"]
    put(store, ("n3", "a", "resolved"))
    assert pending(store) == ["n2"]


def test_bytes_are_limited_as_well_as_notifications(open_store, put, clock):
    store = open_store(max_receiver_bytes=1_500)  # a notification has some 600
    put(store, ("n1", "a", "firing"), ("n2", "b", "firing"), ("n3", "c", "firing"))
    assert pending(store) == ["n2", "n3"]


def test_the_queue_of_one_receiver_takes_nothing_from_another_unless_all_is_full(open_store, put, clock):
    store = open_store(max_receiver_notifications=2, max_notifications=3)
    put(store, ("n1", "a", "firing", "log"), ("n2", "a", "firing"), ("n3", "b", "firing"), ("n4", "c", "firing"))
    assert pending(store) == ["n1", "n3", "n4"]
    put(store, ("n5", "b", "firing", "log"))
    assert len(pending(store)) == 3
    assert sum(lost(store, clock).values()) == 2


def test_a_notification_dropped_during_its_attempt_is_no_loss_if_it_arrives(open_store, put, clock):
    store = open_store(max_receiver_notifications=1)
    put(store, ("n1", "a", "repeat"))
    outbox = Outbox(store.database, clock)
    under_way = outbox.begin_attempt("oncall")
    put(store, ("n2", "b", "firing"))
    assert states(store) == {"n1": "failed", "n2": "pending"}
    assert lost(store, clock) == {("oncall", "capacity"): 1}
    outbox.finish_attempt(AttemptOutcome(under_way, "delivered", "ok"))
    assert states(store) == {"n1": "delivered", "n2": "pending"}
    assert lost(store, clock) == {}


def test_losses_are_known_after_a_restart(open_store, put, clock):
    store = open_store(max_receiver_notifications=1)
    put(store, ("n1", "a", "firing"), ("n2", "b", "firing"))
    deliver(store, clock, "failed", "auth: HTTP 403")
    assert lost(open_store(), clock) == {("oncall", "capacity"): 1, ("oncall", "refused"): 1}


def test_pending_writes_are_not_merged_past_another_group_with_the_same_alert(
    monkeypatch, make_alert, make_notification
):
    monkeypatch.setattr(pending_writes, "_MAX_NOTIFICATIONS", 2)
    waits = pending_writes.PendingWrites()
    firing, over = make_alert(rule="a"), make_alert(rule="a", resolved=9.0, state=AlertState.RESOLVED)
    groups = ("a", "b", '{severity="critical"}', "a", "b")
    told = (
        firing,
        make_alert(rule="b", fingerprint="b" * 16),
        firing,
        over,
        make_alert(rule="b", fingerprint="b" * 16),
    )
    made = [
        make_notification(each, id=f"n{n}", group_key=group)
        for n, (group, each) in enumerate(zip(groups, told, strict=True))
    ]
    waits.add((), (), made, pending_writes.OutageChanges())
    waits.merge_groups()
    assert [notification.id for notification in waits.notifications.values()] == ["n0", "n4", "n2", "n3"]


def test_pending_writes_are_bounded_when_nothing_can_be_written(open_store, put, monkeypatch, clock):
    store = open_store()
    write = store._write

    def full(_held):
        raise StoreError("disk full")

    monkeypatch.setattr(store, "_write", full)
    for number in range(3_000):
        with pytest.raises(StoreError, match="disk full"):
            put(store, (f"n{number}", f"g{number % 10}", "firing"))
    assert len(store._pending_writes.notifications) <= 1_001
    monkeypatch.setattr(store, "_write", write)
    store.commit(alerts=(), groups=(), notifications=())
    assert {f"n{number}" for number in range(2_990, 3_000)} <= set(pending(store))
