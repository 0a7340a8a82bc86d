"""The disturbances over which Alertmanager loses an alert or sends the wrong state, on the daemon.

Each for an alert that lasts and for one that ends before it could be told. See "Compared with Alertmanager" in
docs/delivery.md, and tests/bench/bench_delivery.py, which runs both.
"""

from __future__ import annotations

import pytest

from watchdog.delivery.worker import POSSIBLE_COPY

for_both = pytest.mark.parametrize("lasts", [True, False], ids=["an alert that lasts", "a short alert"])


@pytest.fixture
def check_last_state(watchdog, server, storm, notified, wait_for):
    """Return a function that checks the notifications after the disturbance, and then ends the storm."""

    def check(*before, lasts):
        if lasts:
            notified(*before)
            storm.release()
        first, *_, last = [*notified(*before, "resolved")] if before else [*notified("resolved")] * 2
        [began], [ended] = first["alerts"], last["alerts"]
        assert began["startsAt"] == ended["startsAt"] < ended["endsAt"]
        assert set(watchdog.saved("SELECT state FROM notifications")) <= {"delivered", "merged"}

    return check


def refuse(server, status):
    server.answer = (status, {}, b"")


def accept(server):
    server.answer = (200, {}, b"")


@for_both
def test_a_receiver_that_asks_to_wait_once(start_daemon, server, storm, wait_for, check_last_state, lasts):
    refuse(server, 429)
    start_daemon()
    storm.hold()
    wait_for(lambda: server.posts, "the refused notice")
    accept(server)
    if not lasts:
        storm.release()
    check_last_state("firing", lasts=lasts)


@for_both
def test_a_receiver_that_fails_for_a_while(start_daemon, watchdog, server, storm, wait_for, check_last_state, lasts):
    refuse(server, 500)
    start_daemon()
    storm.hold()
    wait_for(lambda: len(server.posts) > 1, "the second refusal")
    if not lasts:
        storm.release()
        wait_for(lambda: not watchdog.saved("SELECT document FROM alerts"), "the end of the alert")
    accept(server)
    check_last_state("firing", lasts=lasts)
    assert len(server.notifications()) == 2


@for_both
def test_a_kill_while_the_alert_waits_in_its_group(watchdog, server, storm, wait_for, check_last_state, lasts):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
    settings = watchdog.config.read_text()
    watchdog.config.write_text(settings.replace("[routing]", '[routing]\ngroup_wait = "3s"'))
    watchdog.start()
    storm.hold()
    wait_for(lambda: watchdog.saved("SELECT document FROM alerts"), "the alert")
    watchdog.kill()
    assert server.posts == []
    if not lasts:
        storm.release()
    watchdog.start()
    check_last_state(*(["firing"] if lasts else []), lasts=lasts)
    assert len(server.posts) == (2 if lasts else 1)


@for_both
def test_a_kill_with_the_answer_outstanding(start_daemon, watchdog, server, storm, wait_for, check_last_state, lasts):
    server.answering.clear()
    start_daemon()
    storm.hold()
    wait_for(lambda: server.posts, "the request")
    watchdog.kill()
    if not lasts:
        storm.release()
    server.answering.set()
    watchdog.start()
    check_last_state("firing", lasts=lasts)
    (first, told_first), (second, told_again), _ = server.documents()
    reasons = [told.pop("notification_reason") for told in (told_first, told_again)]
    assert (first, told_first) == (second, told_again)
    assert reasons == ["first notification", f"first notification: {POSSIBLE_COPY}"]
