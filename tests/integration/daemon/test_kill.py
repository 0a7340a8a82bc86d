"""kill -9 while an alert fires: its notification keeps its id, none is sent as new twice, one is resolved."""

from __future__ import annotations

import json
import socket

from watchdog.delivery.worker import POSSIBLE_COPY


def end(storm, watchdog, notified):
    """End the storm and the daemon; return the notifications, which must be one firing and one resolved one."""
    storm.release()
    notified("firing", "resolved")
    assert watchdog.terminate()[0] == 0
    return notified("firing", "resolved")


def test_while_the_receiver_hangs_with_the_first_notification(
    start_daemon, watchdog, server, storm, notified, wait_for
):
    server.answering.clear()
    start_daemon()
    storm.hold()
    wait_for(lambda: server.posts, "the request")
    watchdog.kill()
    server.answering.set()
    watchdog.start()
    wait_for(lambda: len(server.posts) == 2, "the copy")
    end(storm, watchdog, notified)

    (first, told_first), (second, told_again), _ = server.documents()
    assert first == second
    assert POSSIBLE_COPY in told_again.pop("notification_reason")
    assert POSSIBLE_COPY not in told_first.pop("notification_reason")
    assert told_first == told_again


def test_while_the_receiver_hangs_with_the_last_notification(start_daemon, watchdog, server, storm, notified, wait_for):
    start_daemon()
    storm.hold()
    notified("firing")
    server.answering.clear()
    storm.release()
    wait_for(lambda: len(server.posts) == 2, "the request")
    watchdog.kill()
    server.answering.set()
    watchdog.start()
    wait_for(lambda: len(server.posts) == 3, "the copy")
    end(storm, watchdog, notified)

    _, (last, told_last), (again, told_again) = server.documents()
    assert last == again
    assert POSSIBLE_COPY in told_again.pop("notification_reason")
    assert POSSIBLE_COPY not in told_last.pop("notification_reason")
    assert told_last == told_again


def test_while_the_condition_holds(start_daemon, watchdog, server, storm, notified):
    start_daemon()
    storm.hold()
    notified("firing")
    watchdog.kill()
    watchdog.start()
    assert "1 alert still firing from before" in watchdog.log()
    first, last = end(storm, watchdog, notified)

    assert len(server.posts) == 2
    assert first["alerts"][0]["startsAt"] == last["alerts"][0]["startsAt"]


def test_while_the_alert_clears(start_daemon, watchdog, server, storm, notified, wait_for):
    start_daemon(keep_firing_for="3s")
    storm.hold()
    notified("firing")
    storm.release()

    def clears():
        [alert] = watchdog.saved("SELECT document FROM alerts")
        return json.loads(alert)["severity_timers"]["warning"]["cleared_ns"] is not None

    wait_for(clears, "the alert to begin to clear")
    watchdog.kill()
    assert server.statuses() == ["firing"]
    watchdog.start()
    end(storm, watchdog, notified)
    assert len(server.posts) == 2


def test_right_after_the_commit_while_nobody_listens(watchdog, unused_port, start_server, storm, wait_for):
    port = unused_port(socket.SOCK_STREAM)
    hook = {"type": "webhook", "url": f"http://127.0.0.1:{port}/"}
    watchdog.configure({"hook": hook}, {"storm": storm.crowd_rule()})
    watchdog.start()
    storm.hold()
    wait_for(lambda: watchdog.saved("SELECT id FROM notifications"), "the commit")
    watchdog.kill()
    committed = watchdog.saved("SELECT id FROM notifications")
    server = start_server(port)
    watchdog.start()
    wait_for(lambda: server.posts, "the notice")
    storm.release()
    wait_for(lambda: len(server.posts) == 2, "the end")
    assert watchdog.terminate()[0] == 0

    assert server.statuses() == ["firing", "resolved"]
    assert list(server.notifications())[:1] == committed
    assert len(server.posts) == 2
