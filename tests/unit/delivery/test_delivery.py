import dataclasses
import logging
import sqlite3
import threading

import pytest

import factories
from watchdog.clock import SystemClock
from watchdog.delivery import delivery as delivery_module
from watchdog.delivery.delivery import Delivery
from watchdog.errors import DeliveryError, DeliveryErrorReason, StoreError
from watchdog.state.outbox import QueueStatus
from watchdog.state.store import Store

PATIENCE_SECONDS = 60.0  # for actions of milliseconds


class QuietReceiver:
    """Records the notifications it gets and sets `arrived`; with a `gate` it hangs until that opens."""

    def __init__(self, name, gate=None):
        self.name = name
        self.rate_limit = None
        self.timeout_seconds = 10.0
        self.joins_copies = False
        self.send_resolved = True
        self.source = None
        self.gate = gate
        self.ids = []
        self.entered = threading.Event()
        self.arrived = threading.Event()
        self.closed = threading.Event()

    def send(self, notification, deadline_seconds):
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(PATIENCE_SECONDS)
        self.ids.append(notification.id)
        self.arrived.set()

    def close(self):
        self.closed.set()


class RefusingReceiver(QuietReceiver):
    def send(self, notification, deadline_seconds):
        self.arrived.set()
        raise DeliveryError(DeliveryErrorReason.AUTH, "HTTP 403", retryable=False)


def make_notification(id_, receiver, group_key="storm"):
    return factories.make_notification(factories.make_alert(rule=group_key), id=id_, receiver=receiver)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, SystemClock(), "boot1")
    yield store
    store.close()


def put(store, *notifications):
    store.commit(alerts=(), groups=(), notifications=notifications)


def make_delivery(store, *receivers):
    return Delivery(store, receivers, SystemClock(), logging.getLogger("test"))


def test_notifications_of_a_former_daemon_and_later_ones_are_delivered(store):
    receiver = QuietReceiver("oncall")
    put(store, make_notification("n1", "oncall"))
    delivery = make_delivery(store, receiver)
    delivery.start()
    assert receiver.arrived.wait(PATIENCE_SECONDS)
    receiver.arrived.clear()
    put(store, make_notification("n2", "oncall"))
    delivery.wake_workers()
    assert receiver.arrived.wait(PATIENCE_SECONDS)
    delivery.stop(PATIENCE_SECONDS)
    assert receiver.ids == ["n1", "n2"]
    assert receiver.closed.is_set()
    assert delivery.counters().delivered == {"oncall": 2}


def test_counts_go_on_over_a_reload(store):
    receivers = [QuietReceiver("oncall"), QuietReceiver("oncall")]
    delivery = None
    for number, receiver in enumerate(receivers, start=1):
        put(store, make_notification(f"n{number}", "oncall"))
        if delivery is not None:
            delivery.retire()
        delivery = Delivery(store, [receiver], SystemClock(), logging.getLogger("test"), delivery)
        delivery.start()
        assert receiver.arrived.wait(PATIENCE_SECONDS)
    delivery.stop(PATIENCE_SECONDS)
    assert delivery.counters().delivered == {"oncall": 2}


def test_a_receiver_that_hangs_delays_neither_another_nor_the_stop(store):
    gate = threading.Event()
    hanging, quick = QuietReceiver("hanging", gate), QuietReceiver("quick")
    delivery = make_delivery(store, hanging, quick)
    delivery.start()
    put(store, make_notification("n1", "hanging"), make_notification("n2", "quick"))
    delivery.wake_workers()
    assert quick.arrived.wait(PATIENCE_SECONDS)
    assert hanging.entered.wait(PATIENCE_SECONDS)
    clock = SystemClock()
    before_ns = clock.boottime_ns()
    delivery.stop(0.1)
    assert (clock.boottime_ns() - before_ns) / 1e9 < PATIENCE_SECONDS / 2
    assert quick.closed.wait(PATIENCE_SECONDS)
    counters = delivery.counters()
    assert counters.delivered == {"hanging": 0, "quick": 1}
    assert counters.queues["hanging"].pending == 1
    gate.set()
    assert hanging.closed.wait(PATIENCE_SECONDS)


def test_stop_delivers_notifications_committed_just_before(store):
    receiver = QuietReceiver("oncall")
    delivery = make_delivery(store, receiver)
    delivery.start()
    put(store, *(make_notification(f"n{number}", "oncall", f"rule{number}") for number in range(50)))
    delivery.stop(PATIENCE_SECONDS)
    assert receiver.ids == [f"n{number}" for number in range(50)]


def test_stop_before_start_returns(store):
    make_delivery(store, QuietReceiver("oncall")).stop(PATIENCE_SECONDS)


def test_counters_have_failed_attempts_losses_and_queues(store):
    receiver = RefusingReceiver("oncall")
    put(store, make_notification("n1", "oncall"), make_notification("n2", "gone"))
    delivery = make_delivery(store, receiver)
    delivery.start()
    delivery.stop(PATIENCE_SECONDS)
    counters = delivery.counters()
    assert counters.delivered == {"oncall": 0}
    assert counters.failed_attempts == {("oncall", "auth"): 1}
    assert counters.losses == {("oncall", "refused"): 1, ("gone", "receiver_removed"): 1}
    assert counters.queues == {
        "oncall": QueueStatus(pending=0, failed=1),
        "gone": QueueStatus(pending=0, failed=1),
    }


def test_a_store_that_cannot_be_written_is_logged_once_and_tried_again(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(delivery_module, "STORE_RETRY_SECONDS", 0.01)
    receiver = QuietReceiver("oncall")
    put(store, make_notification("n1", "oncall"))
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'no room'); END")
    delivery = make_delivery(store, receiver)
    tries = threading.Semaphore(0)
    end = delivery._outbox.finish_attempt
    monkeypatch.setattr(delivery._outbox, "finish_attempt", lambda outcome: (tries.release(), end(outcome)))
    delivery.start()
    for _ in range(3):
        assert tries.acquire(timeout=PATIENCE_SECONDS)
    other.execute("DROP TRIGGER full")
    other.close()
    delivery.stop(PATIENCE_SECONDS)
    assert receiver.ids == ["n1"]
    assert caplog.messages == [
        f"outbox unavailable, deliveries paused: receiver=oncall error=cannot write {tmp_path}/state.sqlite3: no room",
        "outbox available again: receiver=oncall",
    ]


def test_a_defect_around_the_outbox_is_logged_without_its_text_and_tried_again(store, monkeypatch, caplog):
    monkeypatch.setattr(delivery_module, "STORE_RETRY_SECONDS", 0.01)
    receiver = QuietReceiver("oncall")
    put(store, make_notification("n1", "oncall"))
    delivery = make_delivery(store, receiver)
    begin, errors = delivery._outbox.begin_attempt, [ValueError("https://hooks.example.net/secret")] * 2

    def begin_in_the_end(*asked):
        if errors:
            raise errors.pop()
        return begin(*asked)

    monkeypatch.setattr(delivery._outbox, "begin_attempt", begin_in_the_end)
    delivery.start()
    assert receiver.arrived.wait(PATIENCE_SECONDS)
    delivery.stop(PATIENCE_SECONDS)
    assert delivery.counters().failed_attempts == {("oncall", "internal"): 2}
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(
        "outbox unavailable, deliveries paused: receiver=oncall error=ValueError in test_delivery.py:"
    )
    assert caplog.messages[1] == "outbox available again: receiver=oncall"
    assert "secret" not in caplog.text


# ----------------------------------------------------------------------------------------------------------- refreshing


class ForgetfulReceiver(QuietReceiver):
    """A receiver with refreshes; `notified` has (status or host, alerts) in order, `again` counts refreshes."""

    refresh_interval_seconds = 0.02

    def __init__(self, name):
        super().__init__(name)
        self.notified = []
        self.again = threading.Semaphore(0)

    def send(self, notification, deadline_seconds):
        super().send(notification, deadline_seconds)
        self.notified.append((notification.status, [alert.fingerprint for alert in notification.alerts]))

    def refresh(self, alerts, host, deadline_seconds):
        self.notified.append((host, [alert.fingerprint for alert in alerts]))
        self.again.release()


def test_firing_alerts_are_refreshed_after_a_start_and_at_each_interval_until_they_resolve(store):
    receiver, other = ForgetfulReceiver("forgetful"), QuietReceiver("quiet")
    alert = make_notification("n1", "forgetful").alerts[0]
    delivery = make_delivery(store, receiver, other)
    delivery.set_refreshed_alerts({"forgetful": [alert]}, "db1")
    delivery.start()
    for _ in range(3):
        assert receiver.again.acquire(timeout=PATIENCE_SECONDS)
    delivery.limit_refresh_to({"forgetful": []})
    end = make_notification("n2", "forgetful")
    end = dataclasses.replace(end, alerts=(dataclasses.replace(alert, resolved=9.0),))
    put(store, end)
    delivery.wake_workers()
    assert receiver.arrived.wait(PATIENCE_SECONDS)
    while receiver.again.acquire(blocking=False):
        pass
    assert not receiver.again.acquire(timeout=10 * receiver.refresh_interval_seconds)
    delivery.stop(PATIENCE_SECONDS)
    assert receiver.notified[:3] == [("db1", [alert.fingerprint])] * 3
    assert receiver.notified[-1] == ("resolved", [alert.fingerprint])  # and no refresh after it


def test_alerts_that_fire_later_are_refreshed_after_their_notification(store):
    receiver = ForgetfulReceiver("forgetful")
    delivery = make_delivery(store, receiver)
    delivery.set_refreshed_alerts({"forgetful": []}, "db1")
    delivery.start()
    put(store, make_notification("n1", "forgetful"))
    delivery.wake_workers()
    assert receiver.arrived.wait(PATIENCE_SECONDS)
    delivery.set_refreshed_alerts({"forgetful": make_notification("n1", "forgetful").alerts}, "db1")
    delivery.wake_workers()
    assert receiver.again.acquire(timeout=PATIENCE_SECONDS)
    delivery.stop(PATIENCE_SECONDS)
    assert [status for status, _ in receiver.notified[:2]] == ["firing", "db1"]


# --------------------------------------------------------------------------------------------------------------- health


class UnreachableReceiver(QuietReceiver):
    def send(self, notification, deadline_seconds):
        self.entered.set()
        raise DeliveryError(DeliveryErrorReason.CONNECT, "cannot connect", retryable=True)


def test_an_outage_has_its_beginning_and_reason_and_the_queue_shows_the_pending_notifications(store):
    unreachable, quick = UnreachableReceiver("deaf"), QuietReceiver("quick")
    put(
        store,
        make_notification("n1", "deaf"),
        make_notification("n2", "deaf", "spike"),
        make_notification("n3", "quick"),
    )
    delivery = make_delivery(store, unreachable, quick)
    before = SystemClock().wall()
    delivery.start()
    delivery.stop(0.5)
    outages, queues = delivery.outages(), delivery.counters().queues
    assert before <= outages["deaf"].since <= SystemClock().wall()
    assert outages["deaf"].reason == "connect: cannot connect"
    assert queues["deaf"].pending == 2
    assert queues["deaf"].oldest_seconds > 0
    assert queues.get("quick", QueueStatus()) == QueueStatus()
    assert outages.keys() == {"deaf"}


def test_the_next_daemon_knows_the_begin_of_an_outage(store, monkeypatch):
    put(store, make_notification("n1", "deaf"))
    first = make_delivery(store, UnreachableReceiver("deaf"))
    first.start()
    first.stop(0.5)
    since_ns = first.outages()["deaf"].since_ns
    monkeypatch.setattr(delivery_module, "STALE_OUTAGE_SECONDS", 0.0)
    second = make_delivery(store, UnreachableReceiver("deaf"))
    second.start()
    second.stop(0.5)
    assert second.outages()["deaf"].since_ns == since_ns  # a notification is pending to try it with


@pytest.mark.parametrize(("stale_seconds", "known"), [(0.0, False), (3600.0, True)], ids=["long ago", "just now"])
def test_a_start_forgets_an_old_outage_of_a_receiver_without_pending_notifications(
    store, monkeypatch, stale_seconds, known
):
    put(store, make_notification("n1", "oncall"))
    first = make_delivery(store, RefusingReceiver("oncall"))
    first.start()
    first.stop(PATIENCE_SECONDS)
    monkeypatch.setattr(delivery_module, "STALE_OUTAGE_SECONDS", stale_seconds)
    second = make_delivery(store, QuietReceiver("oncall"))
    second.start()
    second.stop(PATIENCE_SECONDS)
    assert ("oncall" in second.outages()) is known
    assert ("oncall" in make_delivery(store, QuietReceiver("oncall")).outages()) is known


def test_a_state_file_that_cannot_be_written_is_a_failure_of_every_receiver(store, monkeypatch):
    delivery = make_delivery(store, QuietReceiver("oncall"))
    tried = threading.Event()

    def fail(_):
        tried.set()
        raise StoreError("cannot write state.sqlite3: disk full")

    monkeypatch.setattr(delivery._outbox, "expire_old", fail)
    delivery.start()
    assert tried.wait(PATIENCE_SECONDS)
    delivery.stop(PATIENCE_SECONDS)
    assert delivery.outages()["oncall"].reason == "store: cannot write state.sqlite3: disk full"


# ------------------------------------------------------------------------------------------------------ reload and stop


def test_after_a_reload_a_receiver_waits_for_its_attempt_under_way(store):
    gate = threading.Event()
    old, old_other = QuietReceiver("oncall", gate), QuietReceiver("other")
    former = make_delivery(store, old, old_other)
    former.start()
    put(store, make_notification("n1", "oncall"))
    former.wake_workers()
    assert old.entered.wait(PATIENCE_SECONDS)

    former.retire()
    new, new_other = QuietReceiver("oncall"), QuietReceiver("other")
    delivery = Delivery(store, (new, new_other), SystemClock(), logging.getLogger("test"), former)
    delivery.start()
    put(store, make_notification("n2", "oncall", "more"), make_notification("n3", "other"))
    delivery.wake_workers()
    assert new_other.arrived.wait(PATIENCE_SECONDS)  # a receiver that hangs delays no other
    assert (new.ids, old_other.ids) == ([], [])

    gate.set()
    delivery.wake_workers()
    assert new.arrived.wait(PATIENCE_SECONDS)
    delivery.stop(PATIENCE_SECONDS)
    assert (old.ids, new.ids) == (["n1"], ["n2"])
    assert old.closed.is_set()


def test_several_reloads_during_one_attempt_send_nothing_twice(store):
    gate = threading.Event()
    deliveries = [make_delivery(store, QuietReceiver("oncall", gate))]
    receivers = [QuietReceiver("oncall") for _ in range(5)]
    put(store, make_notification("n1", "oncall"))
    deliveries[0].start()
    first = deliveries[0].threads_by_receiver()["oncall"].worker._receiver
    assert first.entered.wait(PATIENCE_SECONDS)
    for receiver in receivers:
        deliveries[-1].retire()
        deliveries.append(Delivery(store, (receiver,), SystemClock(), logging.getLogger("test"), deliveries[-1]))
        deliveries[-1].start()
    gate.set()
    deliveries[-1].stop(PATIENCE_SECONDS)
    assert (first.ids, [receiver.ids for receiver in receivers]) == (["n1"], [[]] * 5)
    assert deliveries[-1].counters().queues == {}


def test_a_stop_lets_an_attempt_end_and_begins_no_other(store):
    gate = threading.Event()
    receiver = QuietReceiver("oncall", gate)
    delivery = make_delivery(store, receiver)
    delivery.start()
    put(store, make_notification("n1", "oncall", "a"), make_notification("n2", "oncall", "b"))
    delivery.wake_workers()
    assert receiver.entered.wait(PATIENCE_SECONDS)
    threading.Timer(0.3, gate.set).start()
    delivery.stop(PATIENCE_SECONDS, 0.1)
    assert receiver.ids == ["n1"]
    assert delivery.counters().queues["oncall"].pending == 1


def test_the_outage_of_an_attempt_under_way_is_known_after_a_reload(store, monkeypatch):
    monkeypatch.setattr("watchdog.delivery.worker.HANG_TIMEOUT_SECONDS", 0.0)
    gate = threading.Event()
    former = make_delivery(store, old := QuietReceiver("oncall", gate))
    former.start()
    put(store, make_notification("n1", "oncall"))
    former.wake_workers()
    assert old.entered.wait(PATIENCE_SECONDS)
    former.retire()
    delivery = Delivery(store, (QuietReceiver("oncall"),), SystemClock(), logging.getLogger("test"), former)
    delivery.start()
    assert delivery.outages()["oncall"].reason == "timeout: an attempt does not end"
    gate.set()
    delivery.stop(PATIENCE_SECONDS)
    assert delivery.outages() == {}
