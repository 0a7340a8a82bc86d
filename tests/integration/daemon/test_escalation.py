"""A whole daemon whose first receiver is down: the second hears of it and of its end, over kill -9."""

from __future__ import annotations

import socket


def test_the_second_receiver_hears_what_the_first_cannot_and_its_end_over_kill_9(
    watchdog, server, storm, unused_port, wait_for
):
    port = unused_port(socket.SOCK_STREAM)
    oncall = {"type": "webhook", "url": f"http://127.0.0.1:{port}/", "escalate_to": "hook", "escalate_after": "1s"}
    watchdog.configure(
        {"oncall": oncall, "hook": server.as_receiver()}, {"storm": storm.crowd_rule(receivers=["oncall"])}
    )
    watchdog.start()
    storm.hold()
    wait_for(lambda: server.posts, "the second receiver to be told")
    watchdog.kill()
    watchdog.start()
    storm.release()
    wait_for(lambda: "resolved" in server.statuses(), "the second receiver to be told the end")
    assert watchdog.terminate()[0] == 0

    reasons = [document["notification_reason"] for document in server.notifications().values()]
    assert server.statuses() == ["firing", "resolved"]
    assert [reason.partition(" since ")[0] for reason in reasons] == ["escalated: oncall does not answer"] * 2
