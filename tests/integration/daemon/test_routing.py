"""A daemon with routes and rate limits: receivers and number of its notifications."""

from __future__ import annotations

import os

import pytest

ROUTES = """
[[route]]
where = { severity = "critical" }
receivers = ["pager"]
[[route]]
where = { rule = ["flood-*", "!flood-9"] }
receivers = ["chat"]
[[route]]
where = { rule = "flood-1" }
receivers = ["pager"]
"""
FLOOD = {f"flood-{number}" for number in range(5)}


@pytest.fixture
def flood(watchdog, server, other_server, start_storm):
    """Start a daemon with five rules about one storm for the chat, one for the pager, and one that names it."""
    storm = start_storm(f"flood-{os.getpid()}")
    rules = {name: storm.crowd_rule() for name in sorted(FLOOD)}
    rules["worst"] = storm.crowd_rule(fire_above={"critical": storm.LIMIT}, clear_below={"critical": storm.LIMIT})
    rules["own"] = storm.crowd_rule(receivers=["pager"])

    def configure(rate_limit):
        chat = other_server.as_receiver(rate_limit=rate_limit)
        watchdog.configure({"pager": server.as_receiver(), "chat": chat}, rules)
        with watchdog.config.open("a") as file:
            file.write(ROUTES)

    configure("3/h")
    watchdog.start()
    return configure, storm


def notified(server):
    """Return (reason, rules) of each notification."""
    return [
        (document["notification_reason"], {alert["labels"]["alertname"] for alert in document["alerts"]})
        for document in server.notifications().values()
    ]


def test_alerts_go_where_routes_say_and_a_flood_of_them_becomes_a_digest(
    watchdog, server, other_server, flood, wait_for
):
    configure, storm = flood
    assert "watchdog.toml:" in watchdog.log()
    assert "route: no alert can reach this route: the route at line" in watchdog.log()
    storm.hold()
    wait_for(lambda: len(server.posts) == 2 and other_server.posts, "the first notices")
    storm.release()
    wait_for(lambda: len(server.posts) == 4, "the ends that no rate limit holds")
    held = "SELECT count(*) FROM notifications WHERE receiver = 'chat' AND state = 'pending'"
    wait_for(lambda: watchdog.saved(held) == [len(FLOOD)], "the ends that the rate limit holds")
    wanted = [(reason, rule) for reason in ("first notification", "resolved") for rule in ("own", "worst")]
    assert sorted((reason, *rules) for reason, rules in notified(server)) == wanted
    assert notified(other_server) == [("digest", FLOOD)]

    watchdog.kill()
    watchdog.start()
    assert len(other_server.posts) == 1
    configure("none")
    watchdog.reload()
    wait_for(lambda: len(other_server.notifications()) == 1 + len(FLOOD), "the ends, now that there is no rate limit")
    assert sorted(map(str, notified(other_server)[1:])) == sorted(str(("resolved", {name})) for name in FLOOD)
    assert other_server.statuses() == ["firing", *["resolved"] * len(FLOOD)]
