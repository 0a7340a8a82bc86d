"""The disturbances over which Alertmanager loses an alert or tells the wrong state, and what the daemon makes of them.

Each for an alert that lasts and for one that ends before it could be told. See "Compared with Alertmanager" in
docs/delivery.md, and tests/bench/bench_delivery.py, which runs both.
"""

from __future__ import annotations

import pytest

for_both = pytest.mark.parametrize("lasts", [True, False], ids=["an alert that lasts", "a short alert"])


@pytest.fixture
def last_state_is_told(watchdog, server, storm, told, wait_for):
    """Return a function that checks what was told of the alert, once the disturbance is over; and lets it end."""

    def check(*before, lasts):
        if lasts:
            told(*before)
            storm.release()
        first, *_, last = [*told(*before, "resolved")] if before else [*told("resolved")] * 2
        [began], [ended] = first["alerts"], last["alerts"]
        assert began["startsAt"] == ended["startsAt"] < ended["endsAt"]
        assert set(watchdog.saved("SELECT state FROM notifications")) <= {"delivered", "merged"}

    return check


def refuse(server, status):
    server.answer = (status, {}, b"")


def accept(server):
    server.answer = (200, {}, b"")


@for_both
def test_a_receiver_that_asks_to_wait_once(guarded, server, storm, wait_for, last_state_is_told, lasts):
    refuse(server, 429)
    guarded()
    storm.hold()
    wait_for(lambda: server.posts, "the refused notice")
    accept(server)
    if not lasts:
        storm.release()
    last_state_is_told("firing", lasts=lasts)


@for_both
def test_a_receiver_that_fails_for_a_while(guarded, watchdog, server, storm, wait_for, last_state_is_told, lasts):
    refuse(server, 500)
    guarded()
    storm.hold()
    wait_for(lambda: len(server.posts) > 1, "the second refusal")
    if not lasts:
        storm.release()
        wait_for(lambda: not watchdog.saved("SELECT document FROM alerts"), "the end of the alert")
    accept(server)
    last_state_is_told("firing", lasts=lasts)
    assert len(server.notifications()) == 2


@for_both
def test_a_kill_while_the_alert_waits_in_its_group(watchdog, server, storm, wait_for, last_state_is_told, lasts):
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
    last_state_is_told(*(["firing"] if lasts else []), lasts=lasts)
    assert len(server.posts) == (2 if lasts else 1)


@for_both
def test_a_kill_with_the_answer_outstanding(guarded, watchdog, server, storm, wait_for, last_state_is_told, lasts):
    server.answering.clear()
    guarded()
    storm.hold()
    wait_for(lambda: server.posts, "the request")
    watchdog.kill()
    if not lasts:
        storm.release()
    server.answering.set()
    watchdog.start()
    last_state_is_told("firing", lasts=lasts)
    (first, told_first), (second, told_again), _ = server.documents()
    assert (first, told_first) == (second, told_again)
