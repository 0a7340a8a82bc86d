"""The outbox compared with a list, through commits, attempts, refusals, drops and crashes."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import factories
from watchdog.errors import StoreError
from watchdog.routing.notification import NotificationReason
from watchdog.state.capacity import DROPPED_RESULT, OutboxCapacity
from watchdog.state.outbox import FIRING_EXPIRY_NS, AttemptOutcome, Outbox
from watchdog.state.store import MAX_HISTORY_SECONDS, Store

RECEIVERS, GROUPS, ALERTS = ("oncall", "log"), ("storm", "spike", "lag"), ("a", "b")
SECOND_NS = 10**9
MEMORY = Path("/dev/shm")  # thousands of commits, each synced


@dataclass
class Entry:
    """A pending notification: the state of each alert (True: firing), and its attempts."""

    id: str
    receiver: str
    group: str
    says: dict
    created_ns: int = 0
    due_ns: int = 0
    attempts: int = 0


def make_alert(group, process, fires):
    return factories.make_alert(
        rule=group, labels=(("process", process),), summary=process, resolved=None if fires else 9.0
    )


def said(notification):
    return {alert.labels[0][1]: alert.resolved is None for alert in notification.alerts}


class OutboxMachine(RuleBasedStateMachine):
    """The model: all pending notifications, in order of creation."""

    def __init__(self):
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.clock, self.capacity = factories.FakeClock(), OutboxCapacity()
        self.waiting, self.unwritten, self.ended, self.ended_ns, self.under_way = [], [], {}, {}, []
        self.lost, self.made, self.crashes = {}, 0, 0
        self.store = None

    def teardown(self):
        if self.store is not None:
            self.store.close()
        shutil.rmtree(self.home)

    @initialize(most=st.sampled_from([2, 4, 1_000]))
    def begin_anew(self, most):
        self.capacity = OutboxCapacity(max_receiver_notifications=most)
        self.open()

    def open(self):
        self.store = Store(self.home / str(self.crashes), self.clock, "boot1", self.capacity)
        self.outbox = Outbox(self.store.database, self.clock)

    @rule(
        made=st.lists(
            st.tuples(
                st.sampled_from(RECEIVERS),
                st.sampled_from(GROUPS),
                st.dictionaries(st.sampled_from(ALERTS), st.booleans(), min_size=1),
                st.sampled_from([NotificationReason.NEW_ALERT, NotificationReason.REPEAT]),
            ),
            min_size=1,
            max_size=5,
        ),
        works=st.sampled_from([True, True, True, False]),
    )
    def put(self, made, works):
        notifications = []
        for receiver, group, says, reason in made:
            self.made += 1
            alerts = tuple(make_alert(group, process, fires) for process, fires in says.items())
            notifications.append(
                factories.make_notification(
                    *alerts, id=f"n{self.made}", receiver=receiver, reason=reason, created=float(self.made)
                )
            )
            self.unwritten.append(Entry(f"n{self.made}", receiver, group, says))
        if works:
            self.commit(notifications)
        else:
            self.fail_to_commit(notifications)

    def fail_to_commit(self, notifications):
        connection = self.store.database._connection
        connection.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON main.notifications BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        with pytest.raises(StoreError, match="no room"):
            self.store.commit(alerts=(), groups=(), notifications=notifications)
        connection.execute("DROP TRIGGER full")

    def commit(self, notifications):
        self.store.commit(alerts=(), groups=(), notifications=notifications)
        for entry in self.unwritten:
            entry.created_ns = entry.due_ns = self.clock.boottime_ns()
        self.waiting += self.unwritten
        self.unwritten = []
        self.follow_drops()

    def follow_drops(self):
        """Take the choice of dropped notifications from the outbox; check that these are reported and counted."""
        most = self.capacity.max_receiver_notifications
        if max(self.backlogs().values(), default=0) <= most:
            return
        for receiver in RECEIVERS:
            for group in GROUPS:
                self.merge(receiver, group)
        too_full = {receiver for receiver, count in self.backlogs().items() if count > most}
        with self.store.database.transaction() as connection:
            rows = {id_: rest for id_, *rest in connection.execute("SELECT id, state, last_error FROM notifications")}
        for entry in list(self.waiting):
            if rows[entry.id] == ["failed", DROPPED_RESULT]:
                assert entry.receiver in too_full
                self.end(entry, "failed")
                self.lose(entry.receiver, "capacity")
        assert max(self.backlogs().values()) <= most

    def backlogs(self):
        return Counter(entry.receiver for entry in self.waiting)

    @rule(receiver=st.sampled_from(RECEIVERS))
    def begin(self, receiver):
        due = [
            entry
            for entry in self.waiting
            if entry.receiver == receiver
            and entry is self.first(receiver, entry.group)
            and entry.due_ns <= self.clock.boottime_ns()
        ]
        attempt = self.outbox.begin_attempt(receiver)
        if not due:
            assert attempt is None
            return
        self.merge(receiver, due[0].group)
        entry = due[0]
        entry.attempts += 1
        assert (attempt.notification.id, attempt.number) == (entry.id, entry.attempts)
        assert said(attempt.notification) == entry.says
        self.under_way.append(attempt)

    def first(self, receiver, group):
        return next(entry for entry in self.waiting if (entry.receiver, entry.group) == (receiver, group))

    def merge(self, receiver, group):
        """Merge the unattempted notifications of a group, with the newest state of each alert."""
        mine = [
            entry for entry in self.waiting if (entry.receiver, entry.group) == (receiver, group) and not entry.attempts
        ]
        for later in mine[1:]:
            mine[0].says = mine[0].says | later.says
            mine[0].created_ns = later.created_ns
            self.end(later, "merged")

    def end(self, entry, state):
        self.waiting.remove(entry)
        self.ended[entry.id] = state
        self.ended_ns[entry.id] = self.clock.boottime_ns()

    def lose(self, receiver, cause):
        self.lost[receiver, cause] = self.lost.get((receiver, cause), 0) + 1

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), state=st.sampled_from(["delivered", "failed", "pending"]), wait=st.integers(0, 300))
    def finish(self, data, state, wait):
        attempt = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(attempt)
        due_ns = self.clock.boottime_ns() + wait * SECOND_NS
        self.outbox.finish_attempt(
            AttemptOutcome(attempt, state, "ok" if state == "delivered" else "timeout: no answer", due_ns)
        )
        notification = attempt.notification
        entry = next((entry for entry in self.waiting if entry.id == notification.id), None)
        if entry is None:
            with self.store.database.transaction() as connection:
                row = connection.execute("SELECT state FROM notifications WHERE id = ?", (notification.id,)).fetchone()
            before = self.ended.get(notification.id)
            if state == "delivered" and before == "failed" and row == ("delivered",):  # dropped, and it arrived
                self.ended[notification.id] = "delivered"
                self.lost[notification.receiver, "capacity"] -= 1
        elif state == "pending" and attempt.number == entry.attempts:
            entry.due_ns = due_ns
        elif state == "delivered" or (state == "failed" and attempt.number == entry.attempts):
            self.end(entry, state)
            if state == "failed":
                self.lose(notification.receiver, "refused")

    @rule(seconds=st.sampled_from([1, 60, 300, FIRING_EXPIRY_NS // SECOND_NS + 1]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(receiver=st.sampled_from(RECEIVERS))
    def expire(self, receiver):
        old = [
            entry
            for entry in self.waiting
            if entry.receiver == receiver
            and all(entry.says.values())
            and entry.created_ns < self.clock.boottime_ns() - FIRING_EXPIRY_NS
        ]
        assert set(self.outbox.expire_old(receiver)) == {entry.id for entry in old}
        for entry in old:
            self.end(entry, "failed")
            self.lose(receiver, "expired")

    @rule()
    def crash(self):
        """Restart from the file; attempts in flight and unwritten changes are lost from memory."""
        before = self.home / str(self.crashes)
        self.crashes += 1
        shutil.copytree(before, self.home / str(self.crashes))
        self.store.close()
        shutil.rmtree(before)
        self.unwritten, self.under_way = [], []
        self.open()

    @invariant()
    def what_waits_is_what_should_wait(self):
        if self.store is None:
            return
        with self.store.database.transaction() as connection:
            rows = connection.execute("SELECT id, state FROM notifications ORDER BY sequence").fetchall()
        assert [id_ for id_, state in rows if state == "pending"] == [entry.id for entry in self.waiting]
        ended = {id_: state for id_, state in rows if state != "pending"}
        for pruned in self.ended.keys() - ended.keys():
            assert self.clock.boottime_ns() - self.ended_ns[pruned] >= MAX_HISTORY_SECONDS * SECOND_NS
            del self.ended[pruned]
        assert ended == self.ended
        assert dict(self.outbox.losses()) == {key: count for key, count in self.lost.items() if count}


def test_the_outbox_behaves_like_a_list_that_survives_crashes():
    run_state_machine_as_test(OutboxMachine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))
