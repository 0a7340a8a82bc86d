"""Memories of rules over the end of a daemon: combinations that were seen, and sums over long windows."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest


@pytest.fixture
def listen(unused_port):
    """Return a function that listens on a free port until the end of the test and returns the port."""
    with contextlib.ExitStack() as open_sockets:

        def listen(port):
            open_sockets.enter_context(socket.create_server(("127.0.0.1", port), backlog=50))
            return port

        yield listen


def test_a_new_listener_is_reported_once_also_after_kill_9(watchdog, server, listen, unused_port, notified):
    ports = [unused_port(socket.SOCK_STREAM) for _ in range(3)]
    rule = {
        "summary": "port {local_port}",
        "metric": "listeners",
        "by": ["local_port"],
        "where": {"local_port": ports},
        "keep_firing_for": "1h",
        "novelty": {"learn": "0s", "forget": "1h"},
    }
    watchdog.configure({"hook": server.as_receiver()}, {"new-port": rule})
    listen(ports[0])
    watchdog.start()

    notified("firing")
    for number in (1, 2):
        watchdog.kill()
        watchdog.start()
        listen(ports[number])
        notified(*["firing"] * (number + 1))
    watchdog.kill()
    watchdog.start()
    assert watchdog.terminate()[0] == 0
    found = [alert["labels"]["local_port"] for one in server.notifications().values() for alert in one["alerts"]]
    assert sorted(set(found), key=found.index) == [str(port) for port in ports]
    assert len(server.notifications()) == 3


def _explained(watchdog, rule):
    code, out, err = watchdog.ask("explain", rule, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_sum_of_a_day_goes_on_after_a_restart(watchdog, server, listen, unused_port, notified, wait_for):
    port = listen(unused_port(socket.SOCK_STREAM))
    rule = {
        "summary": "{value} connects",
        "metric": "connects",
        "stat": "sum",
        "window": "1d",
        "where": {"remote_port": port},
        "fire_above": 7,
    }
    watchdog.configure({"hook": server.as_receiver()}, {"many": rule})
    for count, total in ((4, 4), (3, 7)):
        watchdog.start()
        for _ in range(count):
            socket.create_connection(("127.0.0.1", port)).close()
        wait_for(lambda total=total: _explained(watchdog, "many")["value"] == total, f"{total} connects")
        assert watchdog.terminate()[0] == 0
    assert server.notifications() == {}
    watchdog.start()
    socket.create_connection(("127.0.0.1", port)).close()
    (notification,) = notified("firing")
    assert notification["alerts"][0]["annotations"]["summary"] == "8 connects"
