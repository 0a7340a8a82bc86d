"""Escalation by the real daemon: the target gets the alert and its resolved notification, over kill -9."""

from __future__ import annotations

import socket


def test_the_target_gets_the_alert_and_its_resolved_notification_over_kill_9(
    watchdog, server, storm, unused_port, wait_for
):
    port = unused_port(socket.SOCK_STREAM)
    oncall = {"type": "webhook", "url": f"http://127.0.0.1:{port}/", "escalate_to": "hook", "escalate_after": "1s"}
    watchdog.configure(
        {"oncall": oncall, "hook": server.as_receiver()}, {"storm": storm.crowd_rule(receivers=["oncall"])}
    )
    watchdog.start()
    storm.hold()
    wait_for(lambda: server.posts, "the notification at the target")
    watchdog.kill()
    watchdog.start()
    storm.release()
    wait_for(lambda: "resolved" in server.statuses(), "the resolved notification at the target")
    assert watchdog.terminate()[0] == 0

    reasons = [document["notification_reason"] for document in server.notifications().values()]
    assert server.statuses() == ["firing", "resolved"]
    assert [reason.partition(" since ")[0] for reason in reasons] == ["escalated: oncall does not answer"] * 2
