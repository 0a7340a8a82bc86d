"""Each shipped rule fires on its case, and stays silent on near misses: rows of snapshots to alerts."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.daemon.pipeline import OWN_ALERTS
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_layered_rules
from watchdog.rules.language.overrides import Overrides

DAY = 86_400


def load_all():
    """Return the shipped rules, those that are off switched on."""
    off = [key for key, table in Overrides().shipped_tables.items() if table.data.get("enabled") is False]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "on.toml"
        path.write_text("".join(f'[[override]]\nid = "{rule}"\nenabled = true\n' for rule in off))
        return load_layered_rules(path, receivers=()).rules


RULES = load_all()
QUIET: list[dict] = []


@pytest.fixture
def fired(host):
    """Return a function from ticks, lists of rows, to {rule id: highest severity} of the alerts that fire.

    A tick takes 1 s; one with another length is (seconds, rows).
    """
    engine, lifecycle = Engine(RULES), Lifecycle("web-1")
    lifecycle.restore([], RULES, host.at_ns, 0, 0)
    engine.evaluate(host.baseline(), [])

    def fired(ticks):
        severities = {}
        for tick in [QUIET, *ticks]:
            seconds, rows = tick if isinstance(tick, tuple) else (1, tick)
            snapshot = host.tick(*rows, seconds=seconds)
            verdicts = engine.evaluate(snapshot, lifecycle.active_keys(), lifecycle.firing_keys())
            for transition in lifecycle.advance(verdicts, Now(snapshot.at_ns, 5_000.0)):
                alert = transition.alert
                severities[alert.rule] = max(severities.get(alert.rule, alert.severity), alert.severity)
        assert engine.take_failures() == lifecycle.take_failures() == []
        return {rule: severity.label for rule, severity in severities.items()}

    return fired


def app(**values):
    return {"process": "app", "unit": "app.service"} | values


def other(**values):
    return {"process": "other", "unit": "other.service"} | values


def each(count, **values):
    """Return rows of single connections, such as percentiles need."""
    return [app(**values)] * count


def ended(failed, worked, **values):
    row = {"direction": "out", "state": "CLOSE", "closes": 1, **values}
    return [app(**row, connect_failures=1)] * failed + [app(**row)] * worked


def waiting(number, connects=0, **values):
    row = {"direction": "out", "state": "SYN_SENT", "open": 1, **values}
    return [app(**row, connects=int(index < connects)) for index in range(number)]


def listener(share, **values):
    return app(direction="in", state="LISTEN", accept_queue=share, **values)


def drops(number, row=app):
    return row(direction="in", state="LISTEN", listen_drops=number)


def ports(in_use):
    return {"ports_in_use": in_use, "ports": 28_232}


def half_open(number, established=0):
    rows = [app(direction="in", state="LISTEN", half_open=number)]
    return [*rows, app(direction="in", state="ESTABLISHED", established=established)]


def scan(first, last, remote="10.0.{0}.1", **values):
    """Return rows of connects to the ports `first` to `last`, or to as many addresses."""
    row = {"direction": "out", "connects": 1, "remote_port": 443, **values}
    return [app(**row, remote=remote.format(number // 250, number % 250)) for number in range(first, last)]


def ports_of(first, last, **values):
    return [row | {"remote_port": 1 + first + number} for number, row in enumerate(scan(0, last - first, "10.0.0.1"))]


def under_names(rows, tick=0):
    """Return `rows` of one user, each under a name of its own."""
    return [row | {"process": f"s{tick}-{number}", "user": "games"} for number, row in enumerate(rows)]


def listens(port, process="app", user="app"):
    return app(process=process, user=user, direction="in", state="LISTEN", local_port=port, listeners=1)


def talks(network, remote, process="app", **values):
    row = {"user": "app", "direction": "out", "connects": 1, "remote_net": network, "remote": remote}
    return app(**row, process=process, **values)


HOME = [listens(443), listens(22, "sshd", "root"), talks("192.0.2.0/24", "192.0.2.1")]
LEARNT = [(6 * DAY, HOME), (2 * DAY, HOME)]


def many(count, user="games", **values):
    """Return rows of `count` processes of one user, each with a name of its own: none has much of the value."""
    return [{"process": f"w{number}", "unit": "", "user": user} | values for number in range(count)]


def of_many_users(count, **values):
    """Return rows of `count` users with one process each."""
    return [{"process": f"w{number}", "unit": "", "user": f"user{number}"} | values for number in range(count)]


def ends(failed, worked, rows=many, **values):
    row = {"direction": "out", "state": "CLOSE", "closes": 1, **values}
    return [*rows(failed, **row, connect_failures=1), *rows(worked, **row)]


def syn_sent(number, rows=many, **values):
    return rows(number, direction="out", state="SYN_SENT", open=1, **values)


def of_listener(tick, **values):
    """Return the row of a listener that has another name in each tick."""
    return [{"process": f"w{tick}", "user": "games", "direction": "in", "state": "LISTEN", **values}]


def watchdog(**values):
    return [{"process": "bpf-watchdog", **values}]


FIRES = [
    ("bytes-sent-spike", "warning", [[app(bytes_sent=101e6)]] * 6),
    ("bytes-sent-spike", "critical", [[app(bytes_sent=501e6)]] * 6),
    ("bytes-received-spike", "warning", [[app(bytes_received=101e6)]] * 6),
    ("bytes-received-spike", "critical", [[app(bytes_received=501e6)]] * 6),
    ("outbound-connection-storm", "warning", [[app(direction="out", connects=101)]] * 6),
    ("outbound-connection-storm", "critical", [[app(direction="out", connects=501)]] * 6),
    ("inbound-connection-storm", "warning", [[app(direction="in", established=201)]] * 6),
    ("inbound-connection-storm", "critical", [[app(direction="in", established=1001)]] * 6),
    ("failed-connect-storm", "warning", [ended(4, 8), *[QUIET] * 8]),
    ("failed-connect-storm", "critical", [ended(10, 0), *[QUIET] * 8]),
    ("connects-without-answer", "warning", [waiting(11, connects=11), *[waiting(11)] * 5]),
    ("connects-without-answer", "critical", [waiting(101)] * 6),
    ("connect-latency", "warning", [each(5, direction="out", connects=1, connect_latency=0.3)] * 20),
    ("connect-latency", "critical", [each(5, direction="out", connects=1, connect_latency=1.1)] * 20),
    ("round-trip-time", "warning", [each(5, rtt=0.5, packets_received=10)] * 40),
    ("round-trip-time", "critical", [each(5, rtt=1.1, packets_received=10)] * 40),
    ("retransmission-share", "warning", [[app(packets_sent=100, retransmits=4)]] * 25),
    ("retransmission-share", "critical", [[app(packets_sent=100, retransmits=11)]] * 25),
    ("accept-queue-full", "warning", [[listener(0.85)]] * 12),
    ("accept-queue-full", "critical", [[listener(1.0)]] * 12),
    ("accept-queue-full", "warning", [[listener(0.9), listener(0.0)], *[[listener(0.0)] * 2] * 3] * 4),
    ("listen-drops", "warning", [[drops(4)]] * 3),
    ("listen-drops", "critical", [[drops(101)]]),
    ("local-ports-used-up", "warning", [[ports(23_000)]] * 12),
    ("local-ports-used-up", "critical", [[ports(27_500)]] * 12),
    ("half-open-flood", "warning", [half_open(64)] * 12),
    ("half-open-flood", "warning", [half_open(128, established=100)] * 12),
    ("half-open-flood", "critical", [half_open(512, established=10)] * 12),
    ("outbound-connection-storm-by-user", "warning", [many(201, direction="out", connects=1)] * 6),
    ("outbound-connection-storm-by-user", "critical", [many(200, direction="out", connects=6)] * 6),
    ("outbound-connection-storm-of-host", "warning", [of_many_users(501, direction="out", connects=1)] * 6),
    ("outbound-connection-storm-of-host", "critical", [of_many_users(501, direction="out", connects=5)] * 6),
    ("inbound-connection-storm-by-user", "warning", [many(401, direction="in", established=1)] * 6),
    ("inbound-connection-storm-by-user", "critical", [many(201, direction="in", established=10)] * 6),
    ("inbound-connection-storm-of-host", "warning", [of_many_users(1001, direction="in", established=1)] * 6),
    ("inbound-connection-storm-of-host", "critical", [of_many_users(501, direction="in", established=10)] * 6),
    *(
        (f"{metric.replace('_', '-')}-spike-{scope}", severity, [rows(50, **{metric: amount})] * 6)
        for metric in ("bytes_sent", "bytes_received")
        for scope, rows, severity, amount in (
            ("by-user", many, "warning", 5e6),
            ("by-user", many, "critical", 21e6),
            ("of-host", of_many_users, "warning", 11e6),
            ("of-host", of_many_users, "critical", 51e6),
        )
    ),
    ("failed-connect-storm-by-user", "warning", [ends(20, 40), *[QUIET] * 12]),
    ("failed-connect-storm-by-user", "critical", [ends(50, 0), *[QUIET] * 12]),
    ("failed-connect-storm-of-host", "warning", [ends(80, 180, of_many_users), *[QUIET] * 17]),
    ("failed-connect-storm-of-host", "critical", [ends(250, 0, of_many_users), *[QUIET] * 17]),
    ("connects-without-answer-by-user", "warning", [syn_sent(21)] * 6),
    ("connects-without-answer-by-user", "critical", [syn_sent(201)] * 6),
    ("connects-without-answer-of-host", "warning", [syn_sent(51, of_many_users)] * 6),
    ("connects-without-answer-of-host", "critical", [syn_sent(501, of_many_users)] * 6),
    ("connect-latency-by-user", "warning", [many(10, connects=0.5, connect_latency=0.3)] * 38),
    ("connect-latency-by-user", "critical", [many(10, connects=0.5, connect_latency=1.1)] * 38),
    ("round-trip-time-by-user", "warning", [many(40, rtt=0.5, packets_received=1)] * 70),
    ("round-trip-time-by-user", "critical", [many(40, rtt=1.1, packets_received=1)] * 70),
    ("retransmission-share-by-user", "warning", [many(30, packets_sent=25, retransmits=1)] * 35),
    ("retransmission-share-by-user", "critical", [many(30, packets_sent=25, retransmits=3)] * 35),
    ("accept-queue-full-by-user", "warning", [of_listener(tick, accept_queue=0.9) for tick in range(20)]),
    ("accept-queue-full-by-user", "critical", [of_listener(tick, accept_queue=1.0) for tick in range(20)]),
    ("listen-drops-by-user", "warning", [of_listener(tick, listen_drops=8) for tick in range(8)]),
    ("listen-drops-by-user", "critical", [of_listener(tick, listen_drops=9) for tick in range(25)]),
    ("half-open-flood-by-user", "warning", [of_listener(tick, half_open=110) for tick in range(12)]),
    ("half-open-flood-by-user", "critical", [of_listener(tick, half_open=900) for tick in range(12)]),
    ("watchdog-late-bytes-by-user", "warning", [many(50, late_bytes=5e6)]),
    ("watchdog-lost-connections", "warning", [watchdog(lost_connections=1)]),
    ("watchdog-late-bytes", "warning", [[app(late_bytes=101e6)]]),
    ("watchdog-missed-ticks", "warning", [watchdog(missed_ticks=3)]),
    ("watchdog-missed-ticks", "critical", [watchdog(missed_ticks=21)]),
    ("watchdog-failed-ticks", "warning", [watchdog(failed_ticks=1)]),
    ("watchdog-long-interval", "warning", [watchdog(tick_interval=2, configured_interval=1)]),
    ("watchdog-long-interval", "critical", [watchdog(tick_interval=16, configured_interval=2)]),
]

FIRES += [
    ("port-scan", "warning", [ports_of(0, 101)]),
    ("port-scan", "critical", [ports_of(tick * 50, tick * 50 + 50) for tick in range(21)]),
    ("port-scan-by-user", "warning", [under_names(ports_of(0, 201))]),
    ("port-scan-by-user", "critical", [under_names(ports_of(t * 100, t * 100 + 100), t) for t in range(21)]),
    ("address-scan-by-user", "warning", [under_names(scan(0, 501, "10.0.{0}.{1}"))]),
    (
        "address-scan-by-user",
        "critical",
        [under_names(scan(t * 180, t * 180 + 180, "10.0.{0}.{1}", connects=0.1), t) for t in range(28)],
    ),
    ("address-scan", "warning", [scan(0, 251, "10.0.{0}.{1}")]),
    ("address-scan", "critical", [scan(tick * 90, tick * 90 + 90, "10.0.{0}.{1}") for tick in range(28)]),
    ("new-listener", "warning", [*LEARNT, [*HOME, listens(4444)]]),
    ("new-listener", "warning", [*LEARNT, [*HOME, listens(443, "nc", "www-data")]]),
    (
        "new-listener",
        "warning",
        [(6 * DAY, [*HOME, listens(25)]), (2 * DAY, HOME), (20 * DAY, HOME), (15 * DAY, HOME), [*HOME, listens(25)]],
    ),
    ("new-destination", "warning", [*LEARNT, [*HOME, talks("198.51.100.0/24", "198.51.100.7")]]),
]

STAYS_SILENT = [
    ("port-scan", "ninety-nine ports", [ports_of(0, 99)] * 3),
    ("port-scan", "a busy proxy with three backends", [[app(direction="out", connects=900, remote_port=8080)]] * 9),
    ("port-scan", "two hundred ports in four minutes", [[row] for row in ports_of(0, 200)]),
    ("port-scan-by-user", "two hundred ports", [under_names(ports_of(0, 200))] * 3),
    ("port-scan-by-user", "the scan of one name", [ports_of(0, 900)] * 3),
    ("address-scan-by-user", "five hundred addresses", [under_names(scan(0, 500, "10.0.{0}.{1}"))] * 3),
    ("address-scan-by-user", "the scan of one name", [scan(0, 900, "10.0.{0}.{1}")] * 3),
    ("address-scan", "an office at a browser", [scan(0, 240, "10.0.{0}.{1}")] * 3),
    ("address-scan", "thousands of clients", [scan(0, 900, "10.0.{0}.{1}", direction="in")] * 3),
    ("new-listener", "while it learns", [(6 * DAY, HOME), [*HOME, listens(4444)]]),
    ("new-listener", "a restarted server", [*LEARNT, *[QUIET] * 3, HOME]),
    ("new-listener", "a port that the kernel chose", [*LEARNT, [*HOME, listens(40_000)]]),
    ("new-destination", "another address of a known network", [*LEARNT, [talks("192.0.2.0/24", "192.0.2.9")]]),
    ("new-destination", "the own site", [*LEARNT, [talks("10.1.2.0/24", "10.1.2.3")]]),
    ("new-destination", "a client", [*LEARNT, [{**talks("203.0.113.0/24", "203.0.113.1"), "direction": "in"}]]),
    ("local-ports-used-up", "three quarters", [[ports(21_000)]] * 15),
    ("local-ports-used-up", "all for five seconds", [*[[ports(9_000)]] * 12, *[[ports(28_000)]] * 5, [ports(9_000)]]),
    ("half-open-flood", "the mean wait is 0.2 s", [half_open(100, established=500)] * 15),
    ("half-open-flood", "a burst of one tick", [half_open(500), *[half_open(3, established=3)] * 12]),
    ("half-open-flood", "forty-nine", [half_open(49)] * 15),
    ("bytes-sent-spike", "a file of 499 MB", [[app(bytes_sent=499e6)], *[QUIET] * 5]),
    ("bytes-sent-spike", "two processes of 60 MB/s", [[app(bytes_sent=60e6), other(bytes_sent=60e6)]] * 8),
    ("bytes-received-spike", "a file of 499 MB", [[app(bytes_received=499e6)], *[QUIET] * 5]),
    ("bytes-received-spike", "the limit itself", [[app(bytes_received=100e6)]] * 8),
    ("outbound-connection-storm", "a burst of 499", [[app(direction="out", connects=499)], *[QUIET] * 5]),
    ("outbound-connection-storm", "inbound ones", [[app(direction="in", established=150, accepts=150)]] * 8),
    ("inbound-connection-storm", "outbound ones", [[app(direction="out", established=300)]] * 8),
    ("inbound-connection-storm", "a burst of 999", [[app(direction="in", established=999)], *[QUIET] * 5]),
    ("failed-connect-storm", "nine attempts", [ended(9, 0), *[QUIET] * 8]),
    ("failed-connect-storm", "one in five", [ended(4, 16), *[QUIET] * 8]),
    ("failed-connect-storm", "the watchdog itself", [ended(20, 0, user="bpf-watchdog"), *[QUIET] * 8]),
    ("failed-connect-storm", "long streams that are reset", [ended(0, 12, resets_received=1, failure="reset")] * 8),
    ("connects-without-answer", "ten", [waiting(10)] * 9),
    ("connects-without-answer", "distant peers", [waiting(30, connects=8)] * 9),
    ("connect-latency", "few connects", [each(1, direction="out", connects=1, connect_latency=2.0)] * 19),
    (
        "connect-latency",
        "one slow connect in thirty",
        [[*each(29, connects=1, connect_latency=0.01), *each(1, connects=1, connect_latency=3.0)]] * 20,
    ),
    ("round-trip-time", "few segments", [each(1, rtt=2.0, packets_received=1)] * 60),
    (
        "round-trip-time",
        "one slow peer of three",
        [[*each(2, rtt=0.02, packets_received=10), *each(1, rtt=2.0, packets_received=10)]] * 45,
    ),
    ("retransmission-share", "few segments", [[app(packets_sent=33, retransmits=16)]] * 45),
    ("retransmission-share", "three per cent", [[app(packets_sent=1000, retransmits=30)]] * 45),
    ("accept-queue-full", "a burst of 3 s", [*[[listener(1.0)]] * 3, *[[listener(0.0)]] * 15]),
    ("accept-queue-full", "three quarters", [[listener(0.75)]] * 30),
    ("listen-drops", "ten", [[drops(10)], *[QUIET] * 5]),
    ("listen-drops", "eight of each of two servers", [[drops(8), drops(8, other)], *[QUIET] * 5]),
    ("listen-drops", "ten now and ten later", [[drops(10)], *[QUIET] * 61, [drops(10)], QUIET]),
    ("outbound-connection-storm-by-user", "two hundred", [many(200, direction="out", connects=1)] * 8),
    ("outbound-connection-storm-by-user", "the storm of one name", [[app(direction="out", connects=5000)]] * 8),
    ("outbound-connection-storm-of-host", "five hundred", [of_many_users(500, direction="out", connects=1)] * 8),
    ("outbound-connection-storm-of-host", "the storm of one user", [many(300, direction="out", connects=9)] * 8),
    ("inbound-connection-storm-by-user", "four hundred", [many(400, direction="in", established=1)] * 8),
    ("inbound-connection-storm-by-user", "the storm of one name", [[app(direction="in", established=9000)]] * 8),
    ("inbound-connection-storm-of-host", "a thousand", [of_many_users(1000, direction="in", established=1)] * 8),
    ("inbound-connection-storm-of-host", "the storm of one user", [many(300, direction="in", established=20)] * 8),
    *(
        (f"{metric.replace('_', '-')}-spike-{scope}", why, [rows] * 8)
        for metric in ("bytes_sent", "bytes_received")
        for scope, why, rows in (
            ("by-user", "the limit itself", many(50, **{metric: 4e6})),
            ("by-user", "the spike of one name", [app(**{metric: 900e6})]),
            ("of-host", "the limit itself", of_many_users(50, **{metric: 10e6})),
            ("of-host", "the spike of one user", many(50, **{metric: 60e6})),
        )
    ),
    ("failed-connect-storm-by-user", "forty-nine attempts", [ends(49, 0), *[QUIET] * 14]),
    ("failed-connect-storm-by-user", "one name that fails", [ended(50, 0)] * 25),
    ("failed-connect-storm-by-user", "the watchdog", [many(99, "bpf-watchdog", closes=1, connect_failures=1)] * 14),
    ("failed-connect-storm-of-host", "one in five", [ends(60, 240, of_many_users), *[QUIET] * 14]),
    ("failed-connect-storm-of-host", "one name and one user", [ended(90, 0) + ends(30, 0)] * 25),
    ("connects-without-answer-by-user", "twenty", [syn_sent(20)] * 9),
    ("connects-without-answer-by-user", "one name that waits", [waiting(900)] * 9),
    ("connects-without-answer-of-host", "fifty", [syn_sent(50, of_many_users)] * 9),
    ("connects-without-answer-of-host", "one user that waits", [syn_sent(900)] * 9),
    ("connect-latency-by-user", "few connects", [many(1, connects=1, connect_latency=2.0)] * 99),
    ("connect-latency-by-user", "one slow name", [each(9, direction="out", connects=1, connect_latency=2.0)] * 40),
    ("round-trip-time-by-user", "few segments", [many(9, rtt=2.0, packets_received=1)] * 80),
    ("round-trip-time-by-user", "one distant name", [each(30, rtt=2.0, packets_received=9)] * 80),
    ("retransmission-share-by-user", "few segments", [many(30, packets_sent=10, retransmits=9)] * 60),
    ("retransmission-share-by-user", "one lossy name", [[app(packets_sent=900, retransmits=90)]] * 60),
    ("accept-queue-full-by-user", "a burst of 9 s", [of_listener(tick, accept_queue=1.0) for tick in range(9)]),
    ("accept-queue-full-by-user", "one full queue", [[listener(1.0)]] * 40),
    ("listen-drops-by-user", "twenty", [many(20, direction="in", state="LISTEN", listen_drops=1), *[QUIET] * 5]),
    ("listen-drops-by-user", "one listener", [[drops(500)]] * 9),
    ("half-open-flood-by-user", "a hundred", [of_listener(tick, half_open=100) for tick in range(15)]),
    ("half-open-flood-by-user", "one listener", [half_open(900)] * 15),
    ("watchdog-late-bytes-by-user", "199 MB", [many(50, late_bytes=3.98e6), *[QUIET] * 3]),
    ("watchdog-late-bytes-by-user", "one process", [[app(late_bytes=900e6)]] * 3),
    ("watchdog-lost-connections", "nothing lost", [watchdog(lost_connections=0)] * 5),
    ("watchdog-lost-connections", "another loss", [watchdog(missed_ticks=9, failed_ticks=9)]),
    ("watchdog-late-bytes", "99 MB", [[app(late_bytes=99e6)], *[QUIET] * 3]),
    ("watchdog-late-bytes", "60 MB of each of two", [[app(late_bytes=60e6), other(late_bytes=60e6)], *[QUIET] * 3]),
    ("watchdog-missed-ticks", "two", [watchdog(missed_ticks=2), *[QUIET] * 5]),
    ("watchdog-missed-ticks", "two now and two later", [watchdog(missed_ticks=2), *[QUIET] * 61] * 2),
    ("watchdog-failed-ticks", "no failure", [watchdog(failed_ticks=0)] * 5),
    ("watchdog-failed-ticks", "another loss", [watchdog(missed_ticks=9, lost_connections=9)]),
    ("watchdog-long-interval", "a long configured one", [watchdog(tick_interval=60, configured_interval=60)] * 3),
    ("watchdog-long-interval", "missed ticks", [watchdog(missed_ticks=2, tick_interval=1, configured_interval=1)] * 3),
]


@pytest.mark.parametrize(("rule", "severity", "ticks"), FIRES)
def test_fires(fired, rule, severity, ticks):
    assert fired(ticks) == {rule: severity}


@pytest.mark.parametrize(
    ("rule", "ticks"), [pytest.param(rule, ticks, id=f"{rule}-{why}") for rule, why, ticks in STAYS_SILENT]
)
def test_a_near_miss_stays_silent(fired, rule, ticks):
    assert rule not in fired(ticks)


def test_each_rule_has_a_runbook():
    page = (Path(__file__).parents[3] / "docs" / "runbooks.md").read_text()
    assert set(re.findall(r"^## ([a-z0-9-]+)$", page, re.MULTILINE)) == {rule.id for rule in RULES} | set(OWN_ALERTS)


def test_each_rule_has_its_cases_and_each_severity_fires():
    rules = [rule for rule in RULES if rule.baseline is None]  # the others: test_shipped_baselines.py
    severities = {(rule.id, severity.label) for rule in rules for severity in rule.thresholds.fire}
    assert {(rule, severity) for rule, severity, _ in FIRES} == severities
    near_misses = [rule for rule, _, _ in STAYS_SILENT]
    assert {rule.id for rule in rules if near_misses.count(rule.id) < 2} == set()
