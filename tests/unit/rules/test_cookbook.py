"""docs/cookbook.md: each rule of the page fires on its case with the text of the page, and is silent on near misses."""

from __future__ import annotations

import datetime as dt
import re
import tomllib

import netaddr
import pytest
from mmdb_writer import MMDBWriter

import factories
from cookbook_cases import (
    FIRES,
    GONE,
    LEARNT_PORTS,
    LEARNT_PROGRAMS,
    MINUTE,
    PAGE,
    QUIET,
    RECIPES,
    abroad,
    backup,
    container,
    ended,
    latencies,
    listens,
    load_recipe,
    miner,
    moves,
    of,
    outside,
    pool,
    ports,
    receives,
    refused,
    run_rule,
    segments,
    server,
    upload,
    usual,
    waiting,
)
from watchdog.cli.check_files import CheckRequest, check_files
from watchdog.clock import Now
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.receivers.console import Console
from watchdog.routing.routes import Router, read_routes
from watchdog.routing.suppression_rules import read_suppression_rules
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.language.rule import Severity

COUNTRY_FILE = "/var/lib/GeoIP/GeoLite2-Country.mmdb"  # as the page has it


@pytest.fixture
def country_file(tmp_path):
    """Return the path of a file of countries."""
    writer = MMDBWriter(6, "Test", ipv4_compatible=True)
    writer.insert_network(netaddr.IPSet(["192.0.2.0/24"]), {"country": {"iso_code": "DE"}})
    writer.to_db_file(str(tmp_path / "country.mmdb"))
    return str(tmp_path / "country.mmdb")


@pytest.fixture
def firing(host, tmp_path):
    """Return a function that runs a rule of the page on ticks, and returns the alerts that fired or rose."""
    return lambda rule_id, ticks: run_rule(load_recipe(rule_id, tmp_path), host, ticks)


# By rule: ticks that are near the case, and the reason why they make no alert.
STAYS_SILENT = {
    "payments-connection-storm": {
        "a pool of 299": [of("payments", connects=299), *[QUIET] * 60],
        "another unit": [of("proxy", connects=900)] * 60,
    },
    "daily-upload": {
        "49 GB in a day": [*[upload(0.34)] * 144, *[(10 * MINUTE, QUIET)] * 5],
        "60 GB in two days": [upload(0.2)] * 300,
        "a copy inside of the site": [upload(9, remote="10.1.1.1")] * 100,
    },
    "database-connect-latency": {
        "fewer than 20": [*[latencies(0.9, 1)] * 19, *[QUIET] * 60],
        "a fast database": [latencies(0.004)] * 90,
        "another port": [latencies(0.9, port=443)] * 90,
    },
    "lossy-network": {
        "few segments": [segments(16, 2)] * 120,
        "one percent": [segments(200, 2)] * 120,
        "the internet": [segments(200, 9, "203.0.113.7", "203.0.113.0/24")] * 120,
    },
    "web-backlog-full": {
        "five": [server(listen_drops=5), *[QUIET] * 20],
        "another server": [server("gitea", listen_drops=90)] * 20,
    },
    "backend-refuses": {
        "ten": [refused(10), *[QUIET] * 20],
        "a firewall that drops": [refused(30, "timeout")] * 5,
        "nine now and nine later": [refused(9), *[QUIET] * 61, refused(9)],
    },
    "new-port": {
        "while it learns": [LEARNT_PORTS[0], listens("nc", "www-data", 4444)],
        "a restarted server": [*LEARNT_PORTS, QUIET, QUIET, listens("nginx", "root", 443)],
        "a port of loopback": [*LEARNT_PORTS, listens("redis", "redis", 6379, "127.0.0.1")],
        "a port that the kernel chose": [*LEARNT_PORTS, listens("rpc", "root", 40_000)],
    },
    "new-program-outside": {
        "another address of a known program": [*LEARNT_PROGRAMS, outside("apt", "root", "198.51.100.1")],
        "the own site": [*LEARNT_PROGRAMS, outside("curl", "postgres", "10.1.1.1")],
    },
    "slow-port-scan": {
        "sixty ports": [ports(0, 60)] * 5,
        "a hundred ports in two hours": [(MINUTE, ports(n, n + 1)) for n in range(60)]
        + [(MINUTE, QUIET)] * 61
        + [(MINUTE, ports(n, n + 1)) for n in range(60, 100)],
        "the account of the probes": [ports(0, 300, "monitoring")] * 5,
    },
    "database-pool-full": {
        "all workers start at once": [*[pool(100)] * 40, *[pool(50)] * 120],
        "eighty": [pool(80)] * 200,
        "peers that connected here": [pool(99, direction="in")] * 200,
    },
    "leaked-connections": {
        "nine minutes": [*[(10, waiting(90))] * 55, *[(10, waiting(0))] * 10],
        "an idle pool": [(10, waiting(50))] * 90,
        "established ones": [(10, waiting(900, "ESTABLISHED"))] * 90,
    },
    "listener-gone": {
        "a restart": [*[server(listeners=1, local_port=443)] * 20, *GONE[:10], server(listeners=1, local_port=443)],
        "a port that was never open": GONE * 4,
        "another unit": [*[server("gitea", listeners=1, local_port=3000)] * 20, *GONE],
    },
    "data-to-other-countries": {
        "twenty megabytes": [abroad(20, "BR"), *[QUIET] * 5],
        "a country of ours": [abroad(900, "DE")] * 5,
        "the own site": [abroad(900, "")] * 5,
    },
    "long-quiet-connection": {
        "a connection of four hours": [*[miner()] * 235, *[miner(0)] * 60],
        "a busy one": [miner(sent=100_000)] * 300,
        "an agent of root": [miner(user="root")] * 300,
        "one that pauses": [*[miner()] * 200, miner(0), *[miner()] * 200],
    },
    "backup-missing": {
        "each night": backup(1_500) * 4,
        "two hours late": [*backup(1_500), *[(10 * MINUTE, QUIET)] * 11, *backup(1_500), *backup(1_500)],
        "less than 26 hours seen": [(10 * MINUTE, QUIET)] * 150,
    },
    "container-connections": {
        "two thousand": [container(2_000)] * 200,
        "a burst": [*[container(9_000)] * 5, *[container(100)] * 120],
        "a service of the host": [container(9_000, "")] * 200,
    },
    "noisy-neighbour": {
        "a download of 7 GB": [*[moves(110)] * 63, *[moves(1)] * 200],
        "two users": [moves(40) + moves(40, "bob")] * 200,
        "root": [moves(110, "root")] * 200,
    },
    "unusual-upload": {
        "a little more than usual": [*usual(6e6, 50 * 60), *usual(8e6, 30)],
        "far more, below the floor": [*usual(100e3, 50 * 60), *usual(8e6, 30)],
    },
    "failing-connects": {
        "few attempts": [ended(19, 0), *[QUIET] * 5],
        "one in twenty": [ended(2, 38)] * 5,
    },
    "fast-receive": {
        "the exception": [receives(150, remote="10.7.0.5")] * 60,
        "a file of a gigabyte": [*[receives(150)] * 7, *[QUIET] * 60],
    },
}


def test_the_page_has_twenty_situations_and_each_its_cases():
    assert len(RECIPES) == 20
    assert set(FIRES) == set(STAYS_SILENT) == set(RECIPES)
    assert {rule for rule, cases in STAYS_SILENT.items() if len(cases) < 2} == set()


@pytest.mark.parametrize("rule_id", list(FIRES))
def test_fires_with_the_text_of_the_page(firing, rule_id):
    alerts = firing(rule_id, FIRES[rule_id])
    assert alerts
    lines = Console("console", 1).render(factories.make_notification(alerts[0])).decode().splitlines()
    shown = RECIPES[rule_id].notification
    assert lines[: len(shown)] == shown
    assert len(shown) >= 2


@pytest.mark.parametrize("former", [[], backup(1_500) * 2], ids=["never ran", "ran until yesterday"])
def test_a_backup_that_does_not_run_at_all_is_missing(firing, former):
    [alert] = firing("backup-missing", [*former, *[(10 * MINUTE, of("other", bytes_sent=9e9))] * 160])
    assert alert.value == 0


@pytest.mark.parametrize(
    ("rule_id", "ticks"),
    [
        pytest.param(rule, ticks, id=f"{rule}-{why}")
        for rule, cases in STAYS_SILENT.items()
        for why, ticks in cases.items()
    ],
)
def test_a_near_miss_stays_silent(firing, rule_id, ticks):
    assert firing(rule_id, ticks) == []


@pytest.mark.parametrize("rule_id", list(RECIPES))
def test_check_has_no_problem_with_the_files_of_a_section(tmp_path, country_file, rule_id):
    folder = tmp_path / "rules.d"
    folder.mkdir()
    (folder / f"{rule_id}.toml").write_text(RECIPES[rule_id].rules)
    (tmp_path / "watchdog.toml").write_text(RECIPES[rule_id].settings.replace(COUNTRY_FILE, country_file))
    report = check_files(CheckRequest([folder], tmp_path / "watchdog.toml"))
    assert [str(problem) for problem in report.problems] == []


@pytest.mark.parametrize("heading", ["**The numbers.**", "**The notification.**", "**False alarms.**"])
def test_each_situation_has_its_parts(heading):
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0] for section in sections if section.count(heading) != 1] == []


# ------------------------------------------------------------------- settings of the section on quiet hours


@pytest.fixture
def quiet_hours():
    """Return the settings of the section, read."""
    text = RECIPES["failing-connects"].settings
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    settings = read_settings(document)
    document.raise_problems()
    return settings


def test_critical_alerts_page_and_warnings_go_to_the_chat(quiet_hours):
    router = Router(quiet_hours.values.routing, read_routes(quiet_hours))
    receivers = {
        severity: [one.receiver for one in router.destinations(factories.make_alert(severity=severity))]
        for severity in Severity
    }
    assert receivers == {Severity.WARNING: ["chat"], Severity.CRITICAL: ["oncall", "chat"]}


@pytest.mark.parametrize(
    ("moment", "muted"),
    [
        ("2026-12-01T21:59+01:00", []),
        ("2026-12-01T22:00+01:00", [Severity.WARNING]),
        ("2026-12-02T06:59+01:00", [Severity.WARNING]),
        ("2026-12-02T07:00+01:00", []),
        ("2026-12-05T12:00+01:00", [Severity.WARNING]),
    ],
)
def test_warnings_wait_for_the_morning(quiet_hours, moment, muted):
    suppressor = Suppressor()
    suppressor.configure(read_suppression_rules(quiet_hours), [])
    suppressor.update((), {}, Now(0, dt.datetime.fromisoformat(moment).timestamp()))
    alerts = {severity: factories.make_alert(severity=severity) for severity in Severity}
    assert [severity for severity, alert in alerts.items() if suppressor.find("chat", alert)] == muted
