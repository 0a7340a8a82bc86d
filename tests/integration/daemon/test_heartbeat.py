"""The heartbeat of the real daemon to a real server: while the daemon works, and no longer."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import time

import pytest

from watchdog import __version__
from watchdog.clock import SECOND_NS, SystemClock, boot_id
from watchdog.config.permissions import ACCOUNT
from watchdog.delivery.health import ReceiverHealth
from watchdog.rules.language.load import load_layered_rules
from watchdog.rules.language.ruleset_hash import ruleset_hash
from watchdog.state.receiver_state import StoredReceiverState
from watchdog.state.store import Store

STOP_SECONDS = 5.0
PATH = "/ping/secret-path?create=1"


@pytest.fixture
def start_with_heartbeat(watchdog, server, storm):
    """Return a function that starts the daemon with a heartbeat to a port of this host."""

    def start(port):
        secret = watchdog.config.with_name("heartbeat")
        secret.write_text(f"http://127.0.0.1:{port}{PATH}\n")
        os.chown(secret, pwd.getpwnam(ACCOUNT).pw_uid, -1)
        secret.chmod(0o600)
        watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
        watchdog.configure_more(f'[heartbeat]\nurl_file = "{secret}"\ninterval = "1s"')
        watchdog.start()

    return start


def heartbeats(server):
    """Return (path, document) of every heartbeat."""
    return [(path, json.loads(body)) for path, _, body in list(server.posts)]


def test_heartbeats_come_while_the_daemon_works_and_stop_when_it_is_stopped_or_killed(
    start_with_heartbeat, watchdog, other_server, wait_for
):
    start_with_heartbeat(other_server.server_port)
    wait_for(lambda: len(other_server.posts) >= 2, "two beats")
    rules = load_layered_rules(watchdog.rules, receivers=["hook"], interval_ns=200_000_000).rules
    for path, document in heartbeats(other_server):
        assert path == PATH
        assert 0 <= document.pop("last_good_tick_age_seconds") < 10
        assert document == {
            "host": socket.gethostname(),
            "version": __version__,
            "status": "ok",
            "trouble": [],
            "rule_count": len(rules),
            "ruleset_sha256": ruleset_hash(rules),
        }
    for end, again in ((signal.SIGSTOP, signal.SIGCONT), (signal.SIGKILL, None)):
        watchdog.process.send_signal(end)
        time.sleep(0.5)  # heartbeats under way
        heard = len(other_server.posts)
        time.sleep(2.5)
        assert len(other_server.posts) == heard
        if again is not None:
            watchdog.process.send_signal(again)
            wait_for(lambda heard=heard: len(other_server.posts) > heard, "the next beat")
    assert "secret-path" not in watchdog.log() + watchdog.output()


class PastClock(SystemClock):
    """Eleven minutes ago: longer than `receiver_down_after`, which is ten."""

    def boottime_ns(self):
        return super().boottime_ns() - 660 * SECOND_NS

    def wall(self):
        return super().wall() - 660


def begin_outage(watchdog, reason):
    """Save an outage of the receiver `hook` that began eleven minutes ago in the state file of the stopped daemon."""
    clock = PastClock()
    store = Store(watchdog.state, clock, boot_id())
    health = ReceiverHealth(StoredReceiverState(store.database, "hook", clock), clock, 30.0)
    health.attempt_succeeded()  # ends the outage of the daemon, which is seconds old
    health.save()
    health.attempt_failed(reason)
    health.save()
    store.close()
    return health.outage


def test_a_receiver_that_is_down_makes_the_heartbeat_fail_until_it_works_again(
    start_with_heartbeat, watchdog, server, other_server, storm, wait_for
):
    server.answer = (401, {}, b"")
    start_with_heartbeat(other_server.server_port)
    storm.hold()
    wait_for(lambda: "cause=refused" in watchdog.log(), "the notification to fail")
    assert watchdog.terminate()[0] == 0
    assert not any("/fail" in path for path, _ in heartbeats(other_server))  # it is not down yet
    outage = begin_outage(watchdog, "auth: 127.0.0.1 answered 401")
    watchdog.start()
    wait_for(
        lambda: [path for path, _ in heartbeats(other_server) if path == "/ping/secret-path/fail?create=1"], "bad news"
    )
    bad = [(document["status"], document["trouble"]) for path, document in heartbeats(other_server) if "/fail" in path]
    assert bad[0] == ("fail", [outage.describe("hook")])
    assert "receiver down" in bad[0][1][0]
    server.answer = (200, {}, b"")
    retried = watchdog.ask("notifications", "retry", "--failed")
    # The daemon notifies the receiver anew by itself: that may have been delivered before the retry.
    assert retried[0] == 0 or "superseded" in str(retried), retried
    wait_for(lambda: "/fail" not in heartbeats(other_server)[-1][0], "good news")


def test_a_target_that_hangs_delays_neither_ticks_nor_notifications_nor_the_stop(
    start_with_heartbeat, watchdog, other_server, storm, notified, wait_for
):
    other_server.answering.clear()
    start_with_heartbeat(other_server.server_port)
    wait_for(lambda: other_server.posts, "the beat")
    storm.hold()
    notified("firing")
    code, took = watchdog.terminate()
    assert (code, took < STOP_SECONDS) == (0, True)


def test_an_unreachable_target_is_logged_once_and_so_is_its_recovery(
    start_with_heartbeat, watchdog, start_server, unused_port, wait_for
):
    port = unused_port(socket.SOCK_STREAM)
    start_with_heartbeat(port)
    failed = 'retry=0.25s reason="connect: 127.0.0.1: cannot connect: Connection refused"'
    wait_for(lambda: failed in watchdog.log(), "the failure in the log")
    time.sleep(1.0)
    target = start_server(port)
    wait_for(lambda: target.posts, "the beat")
    wait_for(lambda: "heartbeat works again: failures=" in watchdog.log(), "its recovery in the log")
    assert watchdog.log().count("heartbeat failed") == 1
    assert "secret-path" not in watchdog.log()


def test_a_reload_removes_it_and_one_with_an_error_changes_nothing(
    start_with_heartbeat, watchdog, other_server, wait_for
):
    start_with_heartbeat(other_server.server_port)
    wait_for(lambda: other_server.posts, "a beat")
    right = watchdog.config.read_text()
    line = right.splitlines().index('interval = "1s"')
    watchdog.config.write_text(right.replace('interval = "1s"', 'intervall = "1s"'))
    assert f'{watchdog.config}:{line + 1}: heartbeat.intervall: unknown key "intervall"' in watchdog.reload()
    heard = len(other_server.posts)
    wait_for(lambda: len(other_server.posts) > heard + 1, "further beats")
    watchdog.config.write_text(right.partition("[heartbeat]")[0])
    assert "reloaded" in watchdog.reload()
    time.sleep(0.5)
    heard = len(other_server.posts)
    time.sleep(2.0)
    assert len(other_server.posts) == heard
