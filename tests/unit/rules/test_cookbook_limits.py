"""docs/cookbook.md: each number and condition of a rule has its effect: limits, waits, traffic that does not count."""

from __future__ import annotations

import pytest

from cookbook_cases import (
    DAY,
    FIRES,
    GONE,
    LEARNT_PORTS,
    LEARNT_PROGRAMS,
    MINUTE,
    QUIET,
    RECIPES,
    START,
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

SITE = ["10.1.1.1", "172.16.1.1", "192.168.1.1", "127.0.0.1", "::1", "fd00::1"]

# By rule: ticks for an amount, and by severity an amount that does not fire and the next one that does.
LIMITS = {
    "payments-connection-storm": (
        lambda n: [of("payments", connects=n)] * 45,
        {"warning": (10, 11), "critical": (100, 101)},
    ),
    "daily-upload": (lambda gigabytes: [upload(gigabytes / 72)] * 72, {"warning": (49, 51), "critical": (199, 201)}),
    "database-connect-latency": (lambda s: [latencies(s)] * 60, {"warning": (0.02, 0.021), "critical": (1, 1.01)}),
    "lossy-network": (lambda n: [segments(1000, n)] * 60, {"warning": (10, 11), "critical": (50, 51)}),
    "web-backlog-full": (lambda n: [server(listen_drops=n)], {"warning": (5, 6), "critical": (100, 101)}),
    "backend-refuses": (lambda n: [refused(n)], {"warning": (10, 11), "critical": (200, 201)}),
    "slow-port-scan": (lambda n: [ports(0, n)], {"warning": (60, 61), "critical": (500, 501)}),
    "database-pool-full": (lambda n: [pool(n)] * 125, {"warning": (80, 81), "critical": (95, 96)}),
    "leaked-connections": (lambda n: [(10, waiting(n))] * 70, {"warning": (50, 51), "critical": (500, 501)}),
    "listener-gone": (lambda n: [server(listeners=n, local_port=443)] * 20, {"critical": (1, 0)}),
    "data-to-other-countries": (lambda n: [abroad(n, "BR")], {"warning": (20, 21), "critical": (1000, 1001)}),
    "long-quiet-connection": (lambda n: [miner(n)] * 280, {"warning": (0, 1)}),
    "backup-missing": (lambda megabytes: backup(megabytes) * 2, {"critical": (1001, 999)}),
    "container-connections": (lambda n: [container(n)] * 125, {"warning": (2000, 2001), "critical": (10000, 10001)}),
    "noisy-neighbour": (lambda n: [moves(n)] * 185, {"warning": (59, 61), "critical": (99, 101)}),
    "failing-connects": (lambda n: [ended(n, 100 - n)], {"warning": (5, 6), "critical": (50, 51)}),
    "fast-receive": (lambda n: [receives(n)] * 35, {"warning": (100, 101), "critical": (500, 501)}),
}

# By rule: seconds from the first tick of its case in `FIRES` to the alert.
FIRES_AFTER = {
    "payments-connection-storm": 18,  # 300 in 30 s are passed in the eighth second; 10 s of `for`
    "daily-upload": 72 * 10 * MINUTE,
    "database-connect-latency": 40,  # 20 values in ten ticks, 30 s of `for`
    "lossy-network": 35,  # 1,000 segments in five ticks, 30 s of `for`
    "web-backlog-full": 1,
    "backend-refuses": 1,
    "new-port": 8 * DAY + 1,
    "new-program-outside": 16 * DAY + 1,
    "slow-port-scan": 30 * MINUTE + 1,
    "database-pool-full": 55 + MINUTE,  # the mean of the window passes 80 in the 55th second
    "leaked-connections": 11 * MINUTE,
    "listener-gone": 20 + 2 * MINUTE,
    "data-to-other-countries": 1,
    "long-quiet-connection": (30 + 4 * 60) * MINUTE,
    "backup-missing": 26 * 60 * MINUTE,
    "container-connections": 51 + MINUTE,
    "noisy-neighbour": 49 + 2 * MINUTE,
    "unusual-upload": (50 * 60 + 2) * MINUTE,  # the first tick above
    "failing-connects": 1,
    "fast-receive": 7 + 20,
}

# By rule and dimension: values with which the same traffic does not count.
OUTSIDE = {
    "payments-connection-storm": {"unit": ["proxy.service"]},
    "daily-upload": {"remote": SITE, "direction": ["in"]},
    "database-connect-latency": {"remote_port": [443]},
    "lossy-network": {"remote": ["203.0.113.7"]},
    "web-backlog-full": {"unit": ["gitea.service"]},
    "backend-refuses": {"failure": ["timeout"], "remote": ["203.0.113.7"]},
    "new-port": {"local_port": [40_000], "local": ["127.0.0.1", "::1"]},
    "new-program-outside": {"remote": SITE},
    "slow-port-scan": {"user": ["monitoring"]},
    "database-pool-full": {"direction": ["in"], "state": ["CLOSE_WAIT"], "remote_port": [443]},
    "leaked-connections": {"state": ["ESTABLISHED"]},
    "listener-gone": {"unit": ["gitea.service"], "local_port": [40_000]},
    "data-to-other-countries": {"remote_country": ["DE", "FR", "US", ""]},
    "long-quiet-connection": {"direction": ["in"], "state": ["CLOSE_WAIT"], "user": ["root"], "remote": SITE},
    "container-connections": {"container": [""]},
    "noisy-neighbour": {"user": ["root"], "remote": ["127.0.0.1", "::1"]},
    "failing-connects": {"direction": ["in"]},
}

FOR_89_DAYS, FOR_91_DAYS = [(days * DAY, QUIET) for days in (89, 91)]
ALSO_FIRES = {
    "database-connect-latency": {
        "a pool manager": [latencies(0.045, port=6432)] * 60,
        "exactly twenty": [*[latencies(0.045, 1)] * 20, *[QUIET] * 60],
    },
    "lossy-network": {"exactly a thousand segments": [segments(1000, 20), *[QUIET] * 50]},
    "web-backlog-full": {"the other server": [server("haproxy", listen_drops=400)]},
    "new-port": {"a port of three months ago": [*LEARNT_PORTS, FOR_91_DAYS, listens("nginx", "root", 443)]},
    "new-program-outside": {"a program of three months ago": [*LEARNT_PROGRAMS, FOR_91_DAYS, outside("apt", "root")]},
    "listener-gone": {
        "a database": [*[server("postgresql@15-main", listeners=1, local_port=5432)] * 20, *GONE],
    },
    "long-quiet-connection": {"1,999,980 bytes in half an hour": [miner(sent=66_666)] * 280},
    "failing-connects": {"twenty attempts within a minute": [ended(10, 0), *[QUIET] * 55, ended(10, 0)]},
    "fast-receive": {"another program with the excepted peer": [receives(150, "curl", "10.7.0.5")] * 35},
}
ALSO_SILENT = {
    "new-port": {"a port of the last three months": [*LEARNT_PORTS, FOR_89_DAYS, listens("nginx", "root", 443)]},
    "new-program-outside": {
        "a program of the last three months": [*LEARNT_PROGRAMS, FOR_89_DAYS, outside("apt", "root")]
    },
    "unusual-upload": {"while it learns": [*usual(6e6, 47 * 60), *usual(600e6, 10)]},
    "failing-connects": {"twenty attempts in more than a minute": [ended(10, 0), *[QUIET] * 61, ended(10, 0)]},
}


@pytest.fixture
def firing(host, tmp_path):
    """Return a function that runs a rule of the page on ticks, and returns the alerts that fired or rose."""
    return lambda rule_id, ticks: run_rule(load_recipe(rule_id, tmp_path), host, ticks)


def severities(alerts):
    return {alert.severity.label for alert in alerts}


@pytest.mark.parametrize(
    ("rule_id", "severity"), [(rule, severity) for rule, (_, levels) in LIMITS.items() for severity in levels]
)
def test_each_severity_fires_above_its_limit_and_not_at_it(make_host, tmp_path, rule_id, severity):
    rule = load_recipe(rule_id, tmp_path)
    ticks_of, levels = LIMITS[rule_id]
    silent, firing = levels[severity]
    assert severity not in severities(run_rule(rule, make_host(), ticks_of(silent)))
    assert severity in severities(run_rule(rule, make_host(), ticks_of(firing)))


def test_each_fixed_limit_of_the_page_has_its_amounts(tmp_path):
    rules = [load_recipe(rule_id, tmp_path) for rule_id in RECIPES]
    fixed = [rule for rule in rules if rule.baseline is None and rule.novelty is None]
    assert {rule.id: {severity.label for severity in rule.thresholds.fire} for rule in fixed} == {
        rule: set(levels) for rule, (_, levels) in LIMITS.items()
    }


@pytest.mark.parametrize("rule_id", list(RECIPES))
def test_fires_after_its_window_and_its_wait(firing, rule_id):
    assert firing(rule_id, FIRES[rule_id])[0].fired - START - 1 == FIRES_AFTER[rule_id]


@pytest.mark.parametrize("rule_id", list(OUTSIDE))
def test_traffic_outside_of_a_condition_does_not_count(firing, rule_id):
    changes = [{dimension: value} for dimension, values in OUTSIDE[rule_id].items() for value in values]
    ticks = [tick if isinstance(tick, tuple) else (1, tick) for tick in FIRES[rule_id]]
    elsewhere = [(seconds, [row | change for row in rows for change in changes]) for seconds, rows in ticks]
    assert firing(rule_id, elsewhere) == []


@pytest.mark.parametrize(
    ("rule_id", "ticks"),
    [
        pytest.param(rule, ticks, id=f"{rule}-{why}")
        for rule, cases in ALSO_FIRES.items()
        for why, ticks in cases.items()
    ],
)
def test_fires_in_a_case_at_its_border(firing, rule_id, ticks):
    assert firing(rule_id, ticks) != []


@pytest.mark.parametrize(
    ("rule_id", "ticks"),
    [
        pytest.param(rule, ticks, id=f"{rule}-{why}")
        for rule, cases in ALSO_SILENT.items()
        for why, ticks in cases.items()
    ],
)
def test_stays_silent_in_a_case_at_its_border(firing, rule_id, ticks):
    assert firing(rule_id, ticks) == []
