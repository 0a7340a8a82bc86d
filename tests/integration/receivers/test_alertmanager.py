"""Two real Alertmanagers in a cluster, a webhook behind them: what is told to them comes out at the far end."""

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
    """Run two Alertmanagers that know each other; their webhook is `server`."""
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
    """Return a function that makes a receiver of instances."""
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
    """Tell of a storm that fires now: an Alertmanager goes by its own clock."""
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


def told(server):
    """Return what came out at the far end."""
    return alertmanagers.told(body for _, _, body in list(server.posts))


def test_firing_and_end_come_out_once_at_the_far_end(cluster, server, receiver_of, now_firing, wait_for):
    receiver = receiver_of(cluster)
    receiver.send(now_firing, DEADLINE)
    wait_for(lambda: server.posts, "the firing to come out")
    for instance in cluster:
        wait_for(lambda instance=instance: instance.alerts() == [("web-1", "critical")], "both to have it")
    receiver.send(over(now_firing), DEADLINE)
    wait_for(lambda: len(server.posts) == 2, "the end to come out")
    time.sleep(PEER_TIMEOUT_SECONDS + 2)  # in which the other instance would tell it, had they not agreed
    assert told(server) == [("web-1", "critical", "firing"), ("web-1", "critical", "resolved")]
    [alert] = json.loads(server.posts[0][2])["alerts"]
    assert alert["annotations"]["summary"] == "crawler opens 612/s connections (limit 500/s)"


def test_an_instance_that_was_down_hears_what_fires_and_one_that_hung_what_is_over(
    cluster, server, receiver_of, now_firing, wait_for
):
    first, second = cluster
    receiver = receiver_of(cluster)
    second.kill()
    receiver.send(now_firing, DEADLINE)
    wait_for(lambda: told(server) == [("web-1", "critical", "firing")], "the firing to come out")
    second.start()
    wait_for(lambda: second.alerts() == [("web-1", "critical")], "the instance to be told when it is back")

    first.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    receiver.send(over(now_firing), DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    wait_for(lambda: ("web-1", "critical", "resolved") in told(server), "the end to come out")
    first.process.send_signal(signal.SIGCONT)
    wait_for(lambda: first.alerts() == [], "the other to hear of the end")


def test_with_none_of_them_up_it_fails_to_be_tried_again(cluster, receiver_of, now_firing):
    for instance in cluster:
        instance.kill()
    with pytest.raises(DeliveryError) as caught:
        receiver_of(cluster).send(now_firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("connect", True)


def test_a_severity_that_rises_is_one_alert_that_fires(cluster, server, receiver_of, now_firing, wait_for):
    receiver = receiver_of(cluster)
    [alert] = now_firing.alerts
    warning = dataclasses.replace(alert, severity=type(alert.severity).WARNING)
    receiver.send(dataclasses.replace(now_firing, alerts=(warning,)), DEADLINE)
    wait_for(lambda: told(server) == [("web-1", "warning", "firing")], "the warning to come out")
    receiver.send(now_firing, DEADLINE)
    for instance in cluster:
        wait_for(lambda instance=instance: instance.alerts() == [("web-1", "critical")], "the critical alone to fire")


def test_what_is_refreshed_goes_on_firing_and_what_is_not_ends(
    cluster, server, receiver_of, now_firing, monkeypatch, wait_for
):
    monkeypatch.setattr(Alertmanager, "alert_expiry_seconds", 5.0)
    receiver = receiver_of(cluster)
    receiver.send(now_firing, DEADLINE)
    end = time.monotonic() + 7
    while time.monotonic() < end:
        receiver.refresh(now_firing.alerts, now_firing.host, DEADLINE)
        time.sleep(0.5)
    assert told(server) == [("web-1", "critical", "firing")]
    wait_for(lambda: told(server)[-1] == ("web-1", "critical", "resolved"), "the alert to end by itself")


@pytest.mark.timeout(120)
def test_twenty_hosts_alerts_come_out_once_each(cluster, server, tmp_path, wait_for):
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
            wait_for(lambda: set(told(server)) == set(expected), f"every host's alert to come out {status}")  # noqa: B023
            time.sleep(PEER_TIMEOUT_SECONDS + 2)
            assert Counter(told(server)) == expected
        print("stop", file=fleet.stdin, flush=True)
        assert fleet.stdout.readline() == "done\n"
        fleet.stdin.close()
        assert fleet.wait(30) == 0
    finally:
        fleet.kill()
        fleet.wait(10)
        fleet.stdout.close()
