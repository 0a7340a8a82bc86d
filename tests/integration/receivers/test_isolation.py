"""Misbehaving receivers beside a correct one: no delays, no growth, no losses."""

from __future__ import annotations

import dataclasses
import http.client
import json
import logging
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path

import pytest

from watchdog.clock import SystemClock
from watchdog.config.secrets import Secret
from watchdog.delivery.delivery import Delivery
from watchdog.delivery.worker import Worker
from watchdog.errors import DeliveryError
from watchdog.receivers.base import ReceiverOptions
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.webhook import Webhook
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

HERE = Path(__file__).parent
EXPIRED = HERE / "expired.pem"
HEAD = b"HTTP/1.1 200 OK\r\n"


def webhook(name, url):
    # Short attempts: many within the time of a test.
    return Webhook(name, Endpoint(Secret(url)), None, SystemClock(), options=ReceiverOptions(timeout_seconds=0.5))


def drip(connection, stopped):
    while not stopped.wait(0.05):
        connection.sendall(b"H")


def drip_headers(connection, stopped):
    connection.recv(65_536)
    connection.sendall(HEAD)
    while not stopped.wait(0.05):
        connection.sendall(b"X-More: x\r\n")


def hang(connection, stopped):
    stopped.wait()


def reset(connection, stopped):
    connection.recv(1)


def limit(connection, stopped):
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")


def bomb(connection, stopped):
    """Answer with 10 GB of zeros, compressed to about 10 MB."""
    connection.recv(65_536)
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\n\r\n")
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1_000_000)
    for _ in range(10_000):
        if stopped.is_set():
            return
        connection.sendall(deflate.compress(zeros))


BEHAVIOURS = {behave.__name__: behave for behave in (drip, drip_headers, hang, reset, limit, bomb)}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state", SystemClock(), "boot1")
    yield store
    store.close()


def put(store, *notifications):
    store.commit(alerts=(), groups=(), notifications=notifications)


@pytest.fixture
def make_notification(firing):
    """Return a function that builds notification `number` for a receiver, in its own group by default."""

    def make(receiver, number, group_key=None):
        rule = f"rule{number}" if group_key is None else group_key
        alert = dataclasses.replace(firing.alerts[0], rule=rule, fingerprint=f"{number:016x}")
        return dataclasses.replace(
            firing, id=f"{receiver}-{number}", receiver=receiver, group_key=rule, alerts=(alert,), created=float(number)
        )

    return make


def test_a_misbehaving_receiver_delays_no_other(raw_server, server, store, make_notification):
    bad = [webhook(name, raw_server(behave).url) for name, behave in BEHAVIOURS.items()]
    delivery = Delivery(store, [*bad, webhook("good", server.url)], SystemClock(), logging.getLogger("test"))
    put(store, *(make_notification(one.name, number) for one in bad for number in range(300)))
    delivery.start()
    committed = {}
    for number in range(200):
        notification = make_notification("good", number)
        committed[notification.id] = time.monotonic()
        put(store, notification)
        delivery.wake_workers()
        until_arrived(server, notification.id)
        committed[notification.id] = time.monotonic() - committed[notification.id]
    delivery.stop(1.0)
    delays = sorted(committed.values())

    assert delays[int(len(delays) * 0.99) - 1] < 1.0
    assert server.notifications().keys() == committed.keys()


def until_arrived(server, notification):
    end = time.monotonic() + 15
    while not any(headers["X-Notification-Id"] == notification for _, headers, _ in server.posts[-3:]):
        assert time.monotonic() < end, f"{notification} did not arrive"
        time.sleep(0.001)


class Sender:
    """A process that runs `sender.py`."""

    def __init__(self, folder, attempt_seconds, speed, receiver_urls):
        command = [sys.executable, str(HERE / "sender.py"), str(folder), str(attempt_seconds), str(speed)]
        command += [f"{name}={url}" for name, url in receiver_urls.items()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def report(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def drain(self):
        """Wait until no notification is pending."""
        end = time.monotonic() + 60
        while self.report()["pending"].get("oncall", 0):
            assert time.monotonic() < end
            time.sleep(0.02)

    def terminate(self):
        """End the process; return the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        return time.monotonic() - began


@pytest.fixture
def send():
    running = []

    def start(*arguments):
        running.append(Sender(*arguments))
        return running[-1]

    yield start
    for sender in running:
        sender.process.kill()
        sender.process.wait()
        sender.process.stdin.close()
        sender.process.stdout.close()


class Recovering:
    """A server that misbehaves until `is_correct` is set, then accepts everything; `posts` are in order."""

    def __init__(self, behave):
        self.is_correct = threading.Event()
        self.asked = threading.Event()
        self.posts = []
        self._behave = behave

    def __call__(self, connection, stopped):
        self.asked.set()
        if not self.is_correct.is_set():
            self._behave(connection, self.is_correct)
            return
        connection.settimeout(15)
        with connection.makefile("rb") as stream:
            stream.readline()
            headers = http.client.parse_headers(stream)
            body = stream.read(int(headers.get("Content-Length", 0)))
        if not body:
            return  # the sender has closed the connection
        self.posts.append((headers["X-Notification-Id"], json.loads(body)))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def alerts(self):
        return {alert["fingerprint"] for _, document in list(self.posts) for alert in document["alerts"]}


@pytest.mark.parametrize("behave", [hang, drip, limit], ids=lambda behave: behave.__name__)
def test_an_hour_of_failures_costs_no_memory_and_ten_thousand_pending_alerts_arrive(
    raw_server, tmp_path, make_notification, send, wait_for, behave
):
    with_clock = Store(tmp_path / "state", SystemClock(), "boot1")
    put(with_clock, make_notification("oncall", 0, "rule0"))
    with_clock.close()
    recovering = Recovering(behave)
    server = raw_server(recovering)
    sender = send(tmp_path / "state", 0.2, 1200, {"oncall": server.url})
    wait_for(lambda: sender.report()["failed"], "the first attempt to fail")
    before = sender.report()["resident"]
    sender.terminate()
    with_clock = Store(tmp_path / "state", SystemClock(), "boot1")
    put(with_clock, *(make_notification("oncall", number, f"rule{number % 100}") for number in range(1, 10_000)))
    with_clock.close()

    sender = send(tmp_path / "state", 0.2, 1200, {"oncall": server.url})
    began = time.monotonic()
    peak = 0
    while time.monotonic() - began < 3.2:  # 64 minutes on the fast clock
        peak = max(peak, sender.report()["resident"])
        time.sleep(0.2)
    recovering.is_correct.set()
    sender.drain()
    peak = max(peak, sender.report()["resident"])

    assert peak - before < 20_000_000
    assert recovering.alerts() == {f"{number:016x}" for number in range(10_000)}


def test_sigterm_ends_in_time_and_keeps_a_thousand_pending_notifications_in_order(
    raw_server, tmp_path, make_notification, send
):
    state = tmp_path / "state"
    store = Store(state, SystemClock(), "boot1")
    put(store, *(make_notification("oncall", number, f"rule{number % 100}") for number in range(1_000)))
    store.close()
    recovering = Recovering(hang)
    server = raw_server(recovering)
    sender = send(state, 10, 1, {"oncall": server.url})
    assert recovering.asked.wait(60)
    took = sender.terminate()
    assert took < 5.0

    store = Store(state, SystemClock(), "boot1")
    with store.database.transaction() as connection:
        kept = connection.execute("SELECT body FROM notifications WHERE state = 'pending'").fetchall()
    store.close()
    waiting = {alert["fingerprint"] for (body,) in kept for alert in json.loads(body)["alerts"]}
    assert waiting == {f"{number:016x}" for number in range(1_000)}

    recovering.is_correct.set()
    sender = send(state, 10, 600, {"oncall": server.url})
    sender.drain()
    assert recovering.alerts() == waiting
    by_group = {}
    for notification, document in recovering.posts:
        by_group.setdefault(document["groupLabels"]["alertname"], []).append(int(notification.partition("-")[2]))
    assert all(numbers == sorted(numbers) for numbers in by_group.values())


@pytest.mark.parametrize("behave", ["bomb", "endless"])
def test_an_endless_body_costs_no_memory(raw_server, behave):
    def endless(connection, stopped):
        connection.recv(65_536)
        connection.sendall(HEAD + b"\r\n")
        while not stopped.is_set():
            connection.sendall(b"x" * 65_536)

    url = raw_server(bomb if behave == "bomb" else endless).url
    script = f"""
        import resource
        from pathlib import Path
        from watchdog.receivers.transport.http import Endpoint
        from watchdog.config.secrets import Secret

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

        endpoint = Endpoint(Secret("{url}"))
        endpoint.post(b"{{}}", {{}}, 2.0)
        before = resident()
        read = [len(endpoint.post(b"{{}}", {{}}, 2.0).body) for _ in range(5)]
        print(max(read), resident() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=170, check=True,
        cwd=HERE.parents[2],
    )  # fmt: skip
    read, grown = map(int, done.stdout.split())
    assert read <= 65_536
    assert grown < 5_000_000


# --------------------------------------------------------------------------------------------------- meaning of answers


@pytest.mark.parametrize(
    ("retry_after", "min_wait", "max_wait"),
    [
        ("0", 0, 1),
        ("30", 30, 30),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 1),
        ("1000000000000", 3600, 3600),
        ("9" * 400, 0, 1),
        ("soon", 0, 1),
        ("-5", 0, 1),
        ("1e3", 0, 1),
    ],
)
def test_retry_after_is_obeyed_within_limits(server, store, make_notification, clock, retry_after, min_wait, max_wait):
    server.answer = (429, {"Retry-After": retry_after}, b"")
    worker = Worker(webhook("hook", server.url), Outbox(store.database, clock), clock, logging.getLogger("test"))
    store._clock = clock
    put(store, make_notification("hook", 1))
    due_ns = worker.deliver_due()
    wait = (due_ns - clock.boottime_ns()) / 1e9
    assert min_wait <= wait <= max_wait
    assert worker.failed_attempts == {"rate_limited": 1}


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        (500, "server_error", "pending"),
        (503, "server_error", "pending"),
        (408, "client_error", "pending"),
        (425, "client_error", "pending"),
        (404, "client_error", "failed"),
        (400, "client_error", "failed"),
        (401, "auth", "failed"),
    ],
)
def test_the_status_decides_about_a_retry(server, store, make_notification, clock, status, reason, state):
    server.answer = (status, {}, b"")
    store._clock = clock
    worker = Worker(webhook("hook", server.url), Outbox(store.database, clock), clock, logging.getLogger("test"))
    put(store, make_notification("hook", 1))
    worker.deliver_due()
    with store.database.transaction() as connection:
        assert connection.execute("SELECT state, attempts FROM notifications").fetchall() == [(state, 1)]
    assert worker.failed_attempts == {reason: 1}
    assert worker.outage is not None


def test_four_times_500_then_200_is_one_notification_with_one_id(server, store, make_notification, clock):
    server.answer = (500, {}, b"")
    store._clock = clock
    worker = Worker(webhook("hook", server.url), Outbox(store.database, clock), clock, logging.getLogger("test"))
    put(store, make_notification("hook", 1))
    for attempt in range(5):
        if attempt == 4:
            server.answer = (200, {}, b"")
        due_ns = worker.deliver_due()
        clock.advance(0 if due_ns is None else max(0, due_ns - clock.boottime_ns()) / 1e9)
    assert [headers["X-Notification-Id"] for _, headers, _ in server.posts] == ["hook-1"] * 5
    assert (worker.delivered, worker.failed_attempts, worker.outage) == (1, {"server_error": 4}, None)


def test_an_expired_certificate_is_retryable(start_server, firing, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(EXPIRED)
    monkeypatch.setenv("SSL_CERT_FILE", str(EXPIRED))
    server = start_server(context=context)
    with pytest.raises(DeliveryError) as caught:
        webhook("hook", f"https://localhost:{server.server_port}/in/secret").send(firing, 5.0)
    assert (caught.value.reason, caught.value.retryable) == ("tls", True)
    assert str(caught.value) == "localhost: certificate refused: certificate has expired"


def test_an_unknown_host_name_is_retryable(firing):
    # RFC 6761 section 6.4: no name server resolves .invalid.
    with pytest.raises(DeliveryError) as caught:
        webhook("hook", "http://alerts.invalid/in/secret").send(firing, 10.0)
    assert (caught.value.reason, caught.value.retryable) in {("dns", True), ("timeout", True)}
