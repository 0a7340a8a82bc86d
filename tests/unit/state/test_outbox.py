from dataclasses import replace

import pytest

import factories
from watchdog.alerts.alert import AlertState
from watchdog.state.outbox import FIRING_EXPIRY_NS, AttemptOutcome, QueueStatus, merge_notifications

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


def make_alert(process, resolved=None):
    return factories.make_alert(rule="storm", labels=(("process", process),), summary=process, resolved=resolved)


def make_notification(id_, *alerts, receiver="oncall", group_key="storm", reason="new alert in group"):
    alerts = alerts or (make_alert("nginx"),)
    return factories.make_notification(
        *alerts, id=id_, receiver=receiver, group_key=group_key, reason=reason, created=3.0
    )


def put(store, *notifications):
    store.commit(alerts=(), groups=(), notifications=notifications)


def again_in(outbox, attempt, clock, seconds):
    outbox.finish_attempt(
        AttemptOutcome(attempt, "pending", "timeout: no answer", clock.boottime_ns() + round(seconds * SECOND_NS))
    )


def states(store):
    with store.database.transaction() as connection:
        return dict(connection.execute("SELECT id, state FROM notifications ORDER BY sequence"))


def test_empty_outbox_gives_nothing(outbox):
    assert outbox.begin_attempt("oncall") is None
    assert outbox.next_due_ns("oncall") is None
    assert outbox.queues() == {}


def test_a_notification_is_taken_once_and_delivered_when_the_attempt_succeeds(outbox, store):
    put(store, make_notification("n1"))
    attempt = outbox.begin_attempt("oncall")
    assert (attempt.notification, attempt.number) == (make_notification("n1"), 1)
    outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
    assert outbox.begin_attempt("oncall") is None
    assert states(store) == {"n1": "delivered"}


def test_an_attempt_that_never_ended_is_repeated_with_the_next_number(outbox, store):
    put(store, make_notification("n1"))
    outbox.begin_attempt("oncall")
    attempt = outbox.begin_attempt("oncall")
    assert (attempt.notification.id, attempt.number) == ("n1", 2)


def test_failure_of_a_superseded_attempt_does_not_count_and_its_success_does(outbox, store, clock):
    put(store, make_notification("n1"))
    superseded, newest = outbox.begin_attempt("oncall"), outbox.begin_attempt("oncall")
    outbox.finish_attempt(AttemptOutcome(superseded, "failed", "auth: HTTP 403"))
    assert states(store) == {"n1": "pending"}
    outbox.finish_attempt(AttemptOutcome(superseded, "delivered", "ok"))
    again_in(outbox, newest, clock, 5)
    assert states(store) == {"n1": "delivered"}


def test_receivers_have_queues_of_their_own(outbox, store):
    put(store, make_notification("n1"), make_notification("n2", receiver="log"))
    assert outbox.begin_attempt("log").notification.id == "n2"
    assert outbox.begin_attempt("web") is None


def test_a_notification_is_not_taken_before_it_is_due(outbox, store, clock):
    put(store, make_notification("n1"))
    again_in(outbox, outbox.begin_attempt("oncall"), clock, 5)
    assert outbox.begin_attempt("oncall") is None
    assert outbox.next_due_ns("oncall") == clock.boottime_ns() + 5 * SECOND_NS
    clock.advance(5)
    assert outbox.begin_attempt("oncall").number == 2


def test_a_later_notification_of_a_group_never_overtakes_an_earlier_one(outbox, store, clock):
    put(store, make_notification("n1", make_alert("a")))
    again_in(outbox, outbox.begin_attempt("oncall"), clock, 300)
    put(store, make_notification("n2", make_alert("a", resolved=9.0), reason="resolved"))
    assert outbox.begin_attempt("oncall") is None
    clock.advance(300)
    attempt = outbox.begin_attempt("oncall")
    assert attempt.notification.id == "n1"
    outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
    assert outbox.begin_attempt("oncall").notification.id == "n2"


def test_a_retried_group_does_not_delay_other_groups(outbox, store, clock):
    put(store, make_notification("n1", group_key="storm"))
    again_in(outbox, outbox.begin_attempt("oncall"), clock, 300)
    put(store, make_notification("n2", group_key="spike"))
    assert outbox.begin_attempt("oncall").notification.id == "n2"


def test_unattempted_notifications_of_a_group_are_merged_with_the_id_of_the_oldest(outbox, store):
    put(store, make_notification("n1", make_alert("a"), reason="first notification"))
    put(store, make_notification("n2", make_alert("b"), make_alert("a", resolved=9.0)))
    put(store, make_notification("other", group_key="spike"))
    put(store, make_notification("n3", make_alert("c"), make_alert("b")))
    notification = outbox.begin_attempt("oncall").notification
    assert (notification.id, notification.reason) == ("n1", "first notification")
    assert notification.alerts == (make_alert("c"), make_alert("b"), make_alert("a", resolved=9.0))
    assert states(store) == {"n1": "pending", "n2": "merged", "other": "pending", "n3": "merged"}


def test_an_attempted_notification_is_never_changed(outbox, store, clock):
    put(store, make_notification("n1", make_alert("a")))
    first = outbox.begin_attempt("oncall")
    again_in(outbox, first, clock, 1)
    put(store, make_notification("n2", make_alert("a", resolved=9.0)))
    put(store, make_notification("n3", make_alert("b")))
    clock.advance(1)
    again = outbox.begin_attempt("oncall")
    assert again.notification == first.notification
    outbox.finish_attempt(AttemptOutcome(again, "delivered", "ok"))
    last = outbox.begin_attempt("oncall").notification
    assert (last.id, last.alerts) == ("n2", (make_alert("b"), make_alert("a", resolved=9.0)))
    assert states(store) == {"n1": "delivered", "n2": "pending", "n3": "merged"}


def test_merging_ends_with_the_last_state_of_an_alert():
    firing, ended = make_alert("a"), make_alert("a", resolved=9.0)
    ups_and_downs = [make_notification("n1", firing), make_notification("n2", ended), make_notification("n3", firing)]
    assert merge_notifications(ups_and_downs).alerts == (firing,)
    assert merge_notifications(ups_and_downs[:2]) == make_notification("n1", ended)


def test_merged_first_notification_whose_alerts_are_over_is_no_first_notification():
    merged = merge_notifications(
        [
            make_notification("n1", make_alert("a"), reason="first notification"),
            make_notification("n2", make_alert("a", resolved=9.0), reason="resolved"),
        ]
    )
    assert (merged.status, merged.reason) == ("resolved", "resolved")


def test_a_due_time_that_no_attempt_can_have_set_counts_as_over(outbox, store, clock):
    put(store, make_notification("n1"))
    again_in(outbox, outbox.begin_attempt("oncall"), clock, 3601)
    assert outbox.begin_attempt("oncall").number == 2
    again_in(outbox, outbox.begin_attempt("oncall"), clock, 3600)
    assert outbox.begin_attempt("oncall") is None


def test_firing_notifications_expire_after_24_hours_and_resolved_ones_never(outbox, store, clock):
    put(
        store,
        make_notification("n1", group_key="a"),
        make_notification("n2", make_alert("x", resolved=9.0), group_key="b"),
    )
    put(store, make_notification("n3", receiver="log"))
    put(store, make_notification("n4", make_alert("y"), make_alert("z", resolved=9.0), group_key="c"))
    clock.advance(FIRING_EXPIRY_NS / SECOND_NS)
    assert outbox.expire_old("oncall") == []
    clock.advance(1)
    assert outbox.expire_old("oncall") == ["n1"]
    assert outbox.expire_old("oncall") == []
    assert states(store) == {"n1": "failed", "n2": "pending", "n3": "pending", "n4": "pending"}
    assert outbox.begin_attempt("oncall").notification.id == "n2"


def test_pending_notifications_of_removed_receivers_fail(outbox, store):
    put(
        store,
        make_notification("n1"),
        make_notification("n2", receiver="gone"),
        make_notification("n3", receiver="gone", group_key="spike"),
    )
    assert outbox.fail_unconfigured({"oncall", "log"}) == [("gone", "n2"), ("gone", "n3")]
    assert outbox.fail_unconfigured({"oncall", "log"}) == []
    assert states(store) == {"n1": "pending", "n2": "failed", "n3": "failed"}


def test_queues_are_counted_by_receiver(outbox, store, clock):
    put(
        store,
        make_notification("n1", group_key="a"),
        make_notification("n2", group_key="b"),
        make_notification("n3", receiver="log"),
    )
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "failed", "client_error: 404"))
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("log"), "delivered", "ok"))
    clock.advance(90)
    assert outbox.queues() == {"oncall": QueueStatus(pending=1, failed=1, oldest_seconds=90.0)}


def test_attempts_are_recorded(outbox, store, clock):
    put(store, make_notification("n1"))
    again_in(outbox, outbox.begin_attempt("oncall"), clock, 0)
    clock.advance(2)
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "failed", "client_error: \udcff" + "x" * 300))
    with store.database.transaction() as connection:
        attempts = connection.execute(
            "SELECT notification_id, number, ended, result FROM attempts ORDER BY sequence"
        ).fetchall()
        last_error = connection.execute("SELECT last_error FROM notifications").fetchone()[0]
    assert attempts == [
        ("n1", 1, clock.wall() - 2, "timeout: no answer"),
        ("n1", 2, clock.wall(), last_error),
    ]
    assert last_error == "client_error: \\udcff" + "x" * 185


# ------------------------------------------------------------------------------- groups of more than one rule


def test_a_notification_about_several_rules_keeps_its_order_among_others_about_them(outbox, store, clock):
    by_unit = '{unit="a"}'
    put(store, make_notification("n1", make_alert("a")))
    first = outbox.begin_attempt("oncall")
    again_in(outbox, first, clock, 300)
    put(store, make_notification("n2", make_alert("a"), group_key=by_unit))
    put(store, make_notification("n3", make_alert("a")), make_notification("n4", group_key="spike"))
    assert outbox.begin_attempt("oncall").notification.id == "n4"
    clock.advance(300)
    order = []
    while (attempt := outbox.begin_attempt("oncall")) is not None:
        order.append(attempt.notification.id)
        outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
    assert order == ["n1", "n2", "n3", "n4"]


def test_notifications_of_one_group_are_not_merged_past_another_group_between_them(outbox, store):
    firing, worse, ended = make_alert("a"), make_alert("a"), make_alert("a", resolved=9.0)
    put(store, make_notification("n1", firing))
    put(store, make_notification("n2", worse, group_key='{severity="critical"}'))
    put(store, make_notification("n3", ended))
    told = []
    while (attempt := outbox.begin_attempt("oncall")) is not None:
        told.append((attempt.notification.id, attempt.notification.status))
        outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
    assert told == [("n1", "firing"), ("n2", "firing"), ("n3", "resolved")]


def test_ordering_keys_exist_only_while_a_notification_is_pending(outbox, store):
    put(store, make_notification("n1"), make_notification("n2", group_key="(all)"))
    with store.database.transaction() as connection:
        before = connection.execute(
            "SELECT ordering_key, sequence FROM ordering_keys ORDER BY ordering_key, sequence"
        ).fetchall()
        connection.execute("DELETE FROM notifications WHERE id = 'n2'")
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "delivered", "ok"))
    with store.database.transaction() as connection:
        assert connection.execute("SELECT * FROM ordering_keys").fetchall() == []
    assert before == [("(all)", 2), ("storm", 1), ("storm", 2)]


def test_no_notification_is_merged_past_one_of_its_group_that_must_wait(store, outbox):
    drip, spike = replace(make_alert("a"), rule="drip"), replace(make_alert("b"), rule="spike")
    ended = replace(drip, state=AlertState.RESOLVED, resolved=9.0)
    put(store, make_notification("n1", ended, group_key="{}"))
    put(store, make_notification("n2", spike, group_key="spike"))
    put(store, make_notification("n3", drip, spike, group_key="{}"))  # behind n2, which has an older state of the spike
    put(store, make_notification("n4", ended, group_key="{}"))

    delivered = []
    while (attempt := outbox.begin_attempt("oncall")) is not None:
        outbox.finish_attempt(AttemptOutcome(attempt, "delivered", "ok"))
        states_of_alerts = {alert.rule: alert.state.value for alert in attempt.notification.alerts}
        delivered.append((attempt.notification.id, states_of_alerts))
    assert delivered == [
        ("n1", {"drip": "resolved"}),
        ("n2", {"spike": "firing"}),
        ("n3", {"drip": "resolved", "spike": "firing"}),
    ]


@pytest.mark.parametrize(("state", "left"), [("failed", ["a", "b"]), ("delivered", ["b"])])
def test_a_later_state_counts_unless_its_notification_failed_for_good(outbox, store, clock, state, left):
    put(store, make_notification("n1", make_alert("a"), make_alert("b")))
    attempt = outbox.begin_attempt("oncall")
    outbox.finish_attempt(AttemptOutcome(attempt, "pending", "timeout", clock.boottime_ns() + SECOND_NS, is_open=True))
    put(store, make_notification("n2", make_alert("a", resolved=9.0)))
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), state, "HTTP 400"))
    clock.advance(1)
    assert [alert.summary for alert in outbox.begin_attempt("oncall").notification.alerts] == left
