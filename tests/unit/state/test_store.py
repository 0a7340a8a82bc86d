import json
import sqlite3
from dataclasses import replace

import pytest

import factories
from watchdog.alerts.alert import AlertState
from watchdog.errors import StoreError
from watchdog.state.documents import dump_document
from watchdog.state.outbox import AttemptOutcome, DeliveryAttempt, Outbox
from watchdog.state.store import MAX_HISTORY_ROWS, Store
from watchdog.storage.checksum import checksum
from watchdog.storage.schema import APPLICATION_ID, SCHEMA_STEPS, apply_step

SECOND_NS = 1_000_000_000


def make_notification(number, receiver="oncall", process="nginx"):
    alert = factories.make_alert(
        fingerprint="f" * 16, labels=(("process", process),), value=float("inf"), receivers=("oncall",)
    )
    return factories.make_notification(alert, id=f"id{number}", receiver=receiver, group_key="storm")


@pytest.fixture
def open_store(tmp_path, clock):
    stores = []

    def open_it(boot_id="boot1"):
        if stores:
            stores[-1].close()
        stores.append(Store(tmp_path, clock, boot_id))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


def rows(store, query):
    with store.database.transaction() as connection:
        return connection.execute(query).fetchall()


def commit(store, alerts=(), groups=(), notifications=()):
    store.commit(alerts=alerts, groups=groups, notifications=notifications)


def test_new_store_is_empty(open_store):
    saved = open_store().load()
    assert (saved.alerts, saved.groups, saved.boottime_shift_ns, saved.downtime_ns) == ((), (), 0, 0)


def test_committed_state_is_loaded_after_a_restart(open_store):
    store = open_store()
    commit(store, [("f1", {"n": 1}), ("f2", {"n": 2})], [(("oncall", "storm"), {"g": 1})], [make_notification(1)])
    commit(store, [("f1", {"n": 3}), ("f2", None)], [(("log", "storm"), {"g": 2})])
    store = open_store()
    saved = store.load()
    assert (saved.alerts, saved.groups) == (({"n": 3},), ({"g": 2}, {"g": 1}))
    commit(store, groups=[(("oncall", "storm"), None)])
    assert open_store().load().groups == ({"g": 2},)


def test_a_notification_comes_back_unchanged_from_the_outbox(open_store, clock):
    hostile = make_notification(1, process='a"\udcff\u2028<!channel>\n\x1b[2J')
    commit(open_store(), notifications=[hostile])
    assert Outbox(open_store().database, clock).begin_attempt("oncall") == DeliveryAttempt(hostile, 1)


def test_commit_of_nothing_writes_nothing(open_store):
    store = open_store()
    commit(store, [("f1", {})])
    before = rows(store, "SELECT * FROM clocks")
    store._clock.advance(60)
    commit(store)
    assert rows(store, "SELECT * FROM clocks") == before


def test_a_failed_commit_writes_nothing_and_the_next_writes_the_newest_of_all(open_store, tmp_path):
    store = open_store()
    commit(store, [("old", {"n": 0}), ("f1", {"n": 0})])
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON notifications BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StoreError, match="no room"):
        commit(store, [("f1", {"n": 1}), ("old", None)], [(("oncall", "storm"), {"g": 1})], [make_notification(1)])
    assert rows(store, "SELECT fingerprint, document FROM alerts ORDER BY 1") == [("f1", '{"n":0}'), ("old", '{"n":0}')]
    assert rows(store, "SELECT * FROM groups") == []
    other.execute("DROP TRIGGER full")
    other.close()
    commit(store, [("f1", {"n": 2}), ("f2", {"n": 1})], notifications=[make_notification(2)])
    assert rows(store, "SELECT fingerprint, document FROM alerts ORDER BY 1") == [("f1", '{"n":2}'), ("f2", '{"n":1}')]
    assert rows(store, "SELECT receiver, group_key, document FROM groups") == [("oncall", "storm", '{"g":1}')]
    assert rows(store, "SELECT id FROM notifications ORDER BY sequence") == [("id1",), ("id2",)]


def test_changes_of_a_failed_commit_are_written_by_the_next_tick_without_news(open_store, tmp_path):
    store = open_store()
    store.database._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        commit(store, [("f1", {"n": 1})])
    other.execute("ROLLBACK")
    other.close()
    commit(store)
    assert store.load().alerts == ({"n": 1},)


def test_commit_that_was_on_disk_although_it_failed_is_not_written_twice(open_store):
    store = open_store()
    commit(store, notifications=[make_notification(1)])
    commit(store, notifications=[make_notification(1), make_notification(2)])
    assert rows(store, "SELECT id FROM notifications ORDER BY sequence") == [("id1",), ("id2",)]


def test_restart_within_one_boot_needs_no_shift(open_store, clock):
    commit(open_store(), [("f1", {})])
    clock.advance(100)
    saved = open_store().load()
    assert (saved.boottime_shift_ns, saved.downtime_ns) == (0, 100 * SECOND_NS)


def test_reboot_shifts_by_downtime_of_the_wall_clock(open_store, clock):
    commit(open_store(), [("f1", {})])  # at 1,000 s of the first boot
    clock._boottime_ns = 20 * SECOND_NS
    clock.step(90)
    # the commit was 90 s ago, at -70 s of this boot
    saved = open_store("boot2").load()
    assert (saved.boottime_shift_ns, saved.downtime_ns) == ((-70 - 1000) * SECOND_NS, 90 * SECOND_NS)


@pytest.mark.parametrize(("timers_running", "down_seconds"), [(True, 104), (False, 109)])
def test_while_timers_run_the_end_of_a_daemon_is_known_to_within_five_seconds(
    open_store, clock, timers_running, down_seconds
):
    store = open_store()
    commit(store, [("f1", {})])
    for _ in range(9):
        clock.advance(1)
        store.commit(alerts=(), groups=(), notifications=(), timers_running=timers_running)
    clock.advance(100)
    assert open_store().load().downtime_ns == down_seconds * SECOND_NS


def test_invalid_json_is_loaded_as_an_empty_document(open_store):
    store = open_store()
    with store.database.transaction() as connection:
        connection.executemany(
            "INSERT INTO alerts (fingerprint, kind, document) VALUES (?, 'rule', ?)",
            [("f1", '{"n": 1'), ("f2", "[]"), ("f3", '{"n": 3}')],
        )
    assert store.load().alerts == ({}, {}, {"n": 3})


def test_a_wall_clock_set_back_during_a_reboot_gives_no_negative_downtime(open_store, clock):
    commit(open_store(), [("f1", {})])
    clock._boottime_ns = 20 * SECOND_NS
    clock.step(-1_700_000_000)
    assert open_store("boot2").load().boottime_shift_ns == (20 - 1000) * SECOND_NS


def test_shift_lasts_until_the_first_commit_of_the_new_boot(open_store, clock):
    commit(open_store(), [("f1", {})])
    clock._boottime_ns = 20 * SECOND_NS
    clock.step(90)
    store = open_store("boot2")
    boottime_shift_ns = store.load().boottime_shift_ns
    store = open_store("boot2")  # crashed before its first commit
    assert store.load().boottime_shift_ns == boottime_shift_ns
    commit(store, [("f1", {})])
    assert open_store("boot2").load().boottime_shift_ns == 0


def test_the_due_time_of_a_notification_is_shifted_at_a_reboot(open_store, clock):
    store = open_store()
    commit(store, notifications=[make_notification(1)])
    outbox = Outbox(store.database, clock)
    outbox.finish_attempt(
        AttemptOutcome(
            outbox.begin_attempt("oncall"), "pending", "timeout: no answer", clock.boottime_ns() + 300 * SECOND_NS
        )
    )
    clock._boottime_ns = 20 * SECOND_NS
    clock.step(90)
    for _ in range(2):  # shifted once, not at each start
        outbox = Outbox(open_store("boot2").database, clock)
        assert outbox.next_due_ns("oncall") == (20 + 300 - 90) * SECOND_NS
    assert outbox.begin_attempt("oncall") is None
    clock.advance(210)
    assert outbox.begin_attempt("oncall").number == 2


def test_ended_notifications_are_pruned_after_seven_days_and_pending_ones_never(open_store, clock):
    store = open_store()
    outbox = Outbox(store.database, clock)
    commit(
        store,
        notifications=[
            make_notification(1),
            make_notification(2, receiver="log"),
            make_notification(3, receiver="web"),
        ],
    )
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "delivered", "ok"))
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("log"), "failed", "client_error: 404"))
    clock.advance(7 * 24 * 3600)
    commit(store, [("f1", {})])
    assert rows(store, "SELECT id FROM notifications ORDER BY sequence") == [("id1",), ("id2",), ("id3",)]
    clock.advance(3600)
    commit(store, [("f1", {})])
    assert rows(store, "SELECT id FROM notifications") == [("id3",)]


def test_pruning_keeps_the_newest_of_many(open_store, clock):
    store = open_store()
    body = json.dumps(make_notification(1).to_json())
    with store.database.transaction() as connection:
        connection.executemany(
            "INSERT INTO notifications "
            "(id, receiver, group_key, reason, status, has_evidence, body, created_ns, due_ns, state, ended) "
            "VALUES (?, 'oncall', 'storm', 'first notification', 'firing', 0, ?, 0, 0, 'delivered', ?)",
            [(f"n{number}", body, clock.wall()) for number in range(MAX_HISTORY_ROWS + 7)],
        )
        connection.executemany(
            "INSERT INTO attempts (notification_id, number, ended, result) VALUES ('n', 1, 0, 'ok')",
            [()] * (MAX_HISTORY_ROWS + 5),
        )
    commit(store, [("f1", {})])
    assert rows(store, "SELECT count(*), min(sequence), max(sequence) FROM notifications") == [
        (MAX_HISTORY_ROWS, 8, MAX_HISTORY_ROWS + 7)
    ]
    assert rows(store, "SELECT count(*), min(sequence) FROM attempts") == [(MAX_HISTORY_ROWS, 6)]


def told(open_store):
    return [(receiver, alert.fingerprint) for receiver, alert in open_store().load().notified]


def deliver(store, clock, state="delivered"):
    outbox = Outbox(store.database, clock)
    outbox.finish_attempt(
        AttemptOutcome(
            outbox.begin_attempt("oncall"), state, "ok" if state == "delivered" else "client_error: HTTP 404"
        )
    )


def ended_notice(number):
    notification = make_notification(number)
    (alert,) = notification.alerts
    return replace(notification, reason="resolved", alerts=(replace(alert, state=AlertState.RESOLVED, resolved=5.0),))


def test_delivered_alerts_are_notified_and_refused_ones_are_not(open_store, clock):
    store = open_store()
    commit(store, notifications=[make_notification(1)])
    assert told(open_store) == []
    deliver(open_store(), clock, "failed")
    assert told(open_store) == []
    commit(open_store(), notifications=[make_notification(2)])
    deliver(open_store(), clock)
    assert told(open_store) == [("oncall", "f" * 16)]


def test_a_pending_or_delivered_end_settles_an_alert_and_a_failed_one_does_not(open_store, clock):
    commit(open_store(), notifications=[make_notification(1)])
    deliver(open_store(), clock)
    commit(open_store(), notifications=[ended_notice(2)])
    assert told(open_store) == []
    deliver(open_store(), clock, "failed")
    assert told(open_store) == [("oncall", "f" * 16)]
    commit(open_store(), notifications=[ended_notice(3)])
    deliver(open_store(), clock)
    assert told(open_store) == []


def test_an_alert_that_fires_again_after_a_pending_end_is_unresolved(open_store, clock):
    commit(open_store(), notifications=[make_notification(1)])
    deliver(open_store(), clock)
    store = open_store()
    commit(store, notifications=[ended_notice(2), make_notification(3)])
    assert told(open_store) == [("oncall", "f" * 16)]


def test_a_removed_receiver_leaves_no_notified_alerts(open_store, clock):
    commit(open_store(), notifications=[make_notification(1)])
    store = open_store()
    deliver(store, clock)
    Outbox(store.database, clock).fail_unconfigured({"log"})
    assert told(open_store) == []


def test_a_document_with_a_wrong_checksum_is_loaded_as_empty(open_store):
    store = open_store()
    commit(store, [("f1", {"n": 1}), ("f2", {"n": 2})], [(("oncall", "storm"), {"g": 1})])
    with store.database.transaction() as connection:
        connection.execute("UPDATE alerts SET document = replace(document, '1', '7')")
        connection.execute("UPDATE groups SET document = replace(document, '1', '7')")
    saved = open_store().load()
    assert (saved.alerts, saved.groups) == (({}, {"n": 2}), ({},))


def test_a_file_of_version_2_is_updated_with_its_pending_notifications(open_store, tmp_path, clock):
    body = json.dumps(make_notification(1).to_json())
    connection = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    for statement in (*SCHEMA_STEPS[0], *SCHEMA_STEPS[1]):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 2")
    connection.execute(
        "INSERT INTO notices (id, receiver, rule, status, body, created_ns, due_ns) "
        "VALUES ('id1', 'oncall', 'storm', 'firing', ?, 0, 0)",
        (body,),
    )
    connection.execute("INSERT INTO alerts VALUES ('f1', '{\"n\":1}')")
    connection.close()
    store = open_store()
    assert store.load().alerts == ({"n": 1},)
    assert Outbox(store.database, clock).begin_attempt("oncall") == DeliveryAttempt(make_notification(1), 1)


def test_a_file_of_version_5_knows_which_attempts_never_ended(open_store, tmp_path, clock):
    connection = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    for step in SCHEMA_STEPS[:5]:
        apply_step(connection, step)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 5")
    for number, attempts in ((1, 0), (2, 1), (3, 2)):
        notification = make_notification(number)
        body = dump_document(notification.to_json())
        connection.execute(
            "INSERT INTO notifications (id, receiver, group_key, reason, status, attempts, created_ns, due_ns,"
            " has_evidence, checksum, body) VALUES (?, ?, ?, 'first notification', 'firing', ?, 0, 0, 0, ?, ?)",
            (notification.id, notification.receiver, f"group{number}", attempts, checksum(body), body),
        )
        connection.executemany(
            "INSERT INTO attempts (notification_id, number, ended, result) VALUES (?, ?, 0, 'timeout')",
            [(notification.id, ended) for ended in range(1, attempts)],
        )
    connection.execute("INSERT INTO attempts (notification_id, number, ended, result) VALUES ('id2', 1, 0, 'timeout')")
    connection.close()
    outbox = Outbox(open_store().database, clock)
    seen = []
    while (attempt := outbox.begin_attempt("oncall")) is not None:
        seen.append((attempt.number, attempt.open_attempts))
        outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
    assert seen == [(1, 0), (2, 0), (3, 1)]
