"""Two real Alertmanagers in a cluster, with a webhook that records their notifications."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import alertmanagers
import pytest
from alertmanagers import PEER_TIMEOUT_SECONDS, pair

from watchdog.clock import SystemClock
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers import alertmanager
from watchdog.receivers.alertmanager import API_PATH, Alertmanager
from watchdog.receivers.transport.http import Endpoint

FLEET = Path(__file__).with_name("fleet.py")
DEADLINE = 10.0


@pytest.fixture
def cluster(tmp_path, server, wait_for):
    """Run a cluster of two Alertmanagers; their webhook is `server`."""
    instances = pair(tmp_path, server.url)
    try:
        for instance in instances:
            instance.start()
        wait_for(lambda: all(instance.is_joined() for instance in instances), "the cluster to settle")
        yield instances
    finally:
        for instance in instances:
            instance.kill()


@pytest.fixture
def receiver_of(monkeypatch):
    """Return a function that builds a receiver for the members."""
    monkeypatch.setattr(alertmanager, "RETRY_SECONDS", 0.2)
    made = []

    def make(instances):
        endpoints = [Endpoint(Secret(instance.url + API_PATH)) for instance in instances]
        made.append(Alertmanager("am", endpoints, SystemClock()))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def now_firing(firing):
    """Return the notification of a storm that fires now: Alertmanager uses its own clock."""
    now = time.time()
    [alert] = firing.alerts
    return dataclasses.replace(firing, alerts=(dataclasses.replace(alert, started=now, fired=now),), created=now)


def over(notification):
    now = time.time()
    return dataclasses.replace(
        notification,
        reason="resolved",
        alerts=tuple(dataclasses.replace(alert, resolved=now) for alert in notification.alerts),
    )


def received_alerts(server):
    """Return the alerts that arrived at the webhook."""
    return alertmanagers.notified_alerts(body for _, _, body in list(server.posts))


def test_firing_and_resolved_arrive_once_at_the_webhook(cluster, server, receiver_of, now_firing, wait_for):
    receiver = receiver_of(cluster)
    receiver.send(now_firing, DEADLINE)
    wait_for(lambda: server.posts, "the firing alert")
    for instance in cluster:
        wait_for(lambda instance=instance: instance.alerts() == [("web-1", "critical")], "both to have it")
    receiver.send(over(now_firing), DEADLINE)
    wait_for(lambda: len(server.posts) == 2, "the resolved alert")
    time.sleep(
        PEER_TIMEOUT_SECONDS + 2
    )  # in this time the other member would send it too, if the members had not agreed
    assert received_alerts(server) == [("web-1", "critical", "firing"), ("web-1", "critical", "resolved")]
    [alert] = json.loads(server.posts[0][2])["alerts"]
    assert alert["annotations"]["summary"] == "crawler opens 612/s connections (limit 500/s)"


def test_a_member_that_was_down_gets_firing_alerts_and_a_hanging_one_resolved_alerts(
    cluster, server, receiver_of, now_firing, wait_for
):
    first, second = cluster
    receiver = receiver_of(cluster)
    second.kill()
    receiver.send(now_firing, DEADLINE)
    wait_for(lambda: received_alerts(server) == [("web-1", "critical", "firing")], "the firing alert")
    second.start()
    wait_for(lambda: second.alerts() == [("web-1", "critical")], "the member to get the alert when it is back")

    first.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    receiver.send(over(now_firing), DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    wait_for(lambda: ("web-1", "critical", "resolved") in received_alerts(server), "the resolved alert")
    first.process.send_signal(signal.SIGCONT)
    wait_for(lambda: first.alerts() == [], "the other to hear of the end")


def test_without_a_running_member_delivery_fails_and_is_retryable(cluster, receiver_of, now_firing):
    for instance in cluster:
        instance.kill()
    with pytest.raises(DeliveryError) as caught:
        receiver_of(cluster).send(now_firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("connect", True)


def test_a_raised_severity_leaves_one_firing_alert(cluster, server, receiver_of, now_firing, wait_for):
    receiver = receiver_of(cluster)
    [alert] = now_firing.alerts
    warning = dataclasses.replace(alert, severity=type(alert.severity).WARNING)
    receiver.send(dataclasses.replace(now_firing, alerts=(warning,)), DEADLINE)
    wait_for(lambda: received_alerts(server) == [("web-1", "warning", "firing")], "the warning")
    receiver.send(now_firing, DEADLINE)
    for instance in cluster:
        wait_for(lambda instance=instance: instance.alerts() == [("web-1", "critical")], "the critical alone to fire")


def test_refreshed_alerts_keep_firing_and_others_end(cluster, server, receiver_of, now_firing, monkeypatch, wait_for):
    monkeypatch.setattr(Alertmanager, "alert_expiry_seconds", 5.0)
    receiver = receiver_of(cluster)
    receiver.send(now_firing, DEADLINE)
    end = time.monotonic() + 7
    while time.monotonic() < end:
        receiver.refresh(now_firing.alerts, now_firing.host, DEADLINE)
        time.sleep(0.5)
    assert received_alerts(server) == [("web-1", "critical", "firing")]
    wait_for(lambda: received_alerts(server)[-1] == ("web-1", "critical", "resolved"), "the alert to end by itself")


def test_alerts_of_twenty_hosts_arrive_once_each(cluster, server, tmp_path, wait_for):
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    urls = [instance.url for instance in cluster]
    fleet = subprocess.Popen(
        [sys.executable, str(FLEET), str(hosts), "20", *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    expected = Counter()
    try:
        assert fleet.stdout.readline() == "done\n"
        for order, status in (("fire", "firing"), ("end", "resolved")):
            print(order, file=fleet.stdin, flush=True)
            assert fleet.stdout.readline() == "done\n"
            expected += Counter((f"host-{number}", "critical", status) for number in range(1, 21))
            wait_for(lambda: set(received_alerts(server)) == set(expected), f"all alerts to be {status}")  # noqa: B023
            time.sleep(PEER_TIMEOUT_SECONDS + 2)
            assert Counter(received_alerts(server)) == expected
        print("stop", file=fleet.stdin, flush=True)
        assert fleet.stdout.readline() == "done\n"
        fleet.stdin.close()
        assert fleet.wait(60) == 0
    finally:
        fleet.kill()
        fleet.wait(60)
        fleet.stdout.close()
