"""docs/cookbook.md as tests read it: its rules, settings and texts, and traffic for which each rule fires."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from watchdog.alerts.alert import Alert
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_rules

PAGE = (Path(__file__).parents[1] / "docs" / "cookbook.md").read_text()
MINUTE, DAY = 60, 86_400
QUIET: list[dict] = []
START = 1_750_032_000.0  # of the clock; ticks begin a second later


@dataclass(frozen=True)
class Recipe:
    """A section of the page: its rules and settings as TOML, and the text of its notification."""

    title: str
    rules: str
    settings: str
    notification: list[str]


def read_recipes() -> dict[str, Recipe]:
    """Return the sections of the page by the id of their rule."""
    recipes = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        tables = [text for language, text in blocks if language == "toml"]
        settings = [text for text in tables if text.startswith("# watchdog.toml\n")]
        [rules] = [text for text in tables if text not in settings]
        [rule] = tomllib.loads(rules)["rule"]
        notification = "".join(text for language, text in blocks if language == "text").splitlines()
        recipes[rule["id"]] = Recipe(section.partition("\n")[0], rules, "".join(settings), notification)
    return recipes


RECIPES = read_recipes()


def load_recipe(rule_id, folder):
    """Return the rule of a section, loaded as the daemon does; `folder` gets its file."""
    path = folder / "rule.toml"
    path.write_text(RECIPES[rule_id].rules)
    [rule] = load_rules([path], receivers=()).rules
    return rule


def run_rule(rule, host, ticks) -> list[Alert]:
    """Run a rule on ticks of `host`; return the alerts that fired or rose, in order.

    A tick is a list of rows and takes 1 s; one with another length is (seconds, rows).
    """
    engine, lifecycle = Engine([rule]), Lifecycle("web-1")
    lifecycle.restore([], [rule], host.at_ns, 0, 0)
    engine.evaluate(host.baseline(), [])
    alerts, wall = [], START
    for tick in [QUIET, *ticks]:
        seconds, rows = tick if isinstance(tick, tuple) else (1, tick)
        wall += seconds
        snapshot = replace(host.tick(*rows, seconds=seconds), wall=wall)
        verdicts = engine.evaluate(snapshot, lifecycle.active_keys(), lifecycle.firing_keys())
        moment = Now(snapshot.at_ns, wall)
        alerts += [one.alert for one in lifecycle.advance(verdicts, moment) if one.alert.resolved is None]
    assert engine.take_failures() == lifecycle.take_failures() == []
    return alerts


def of(unit, count=1, **values):
    """Return `count` rows of a process of `unit`, which connects out."""
    return [{"process": unit, "exe": unit, "unit": f"{unit}.service", "direction": "out"} | values] * count


def by_user(user, exe="app", **values):
    return [{"process": exe, "exe": exe, "user": user, "direction": "out"} | values]


def server(unit="nginx", **values):
    return of(unit, direction="in", state="LISTEN", local="192.0.2.1", **values)


def upload(gigabytes, **values):
    """Return a tick of ten minutes in which `sync.service` sends."""
    return (10 * MINUTE, of("sync", bytes_sent=gigabytes * 1e9, **{"remote": "203.0.113.9"} | values))


def ports(first, last, user="www-data"):
    return [row for port in range(first, last) for row in by_user(user, connects=1, remote_port=1 + port)]


def segments(sent, again, remote="10.20.3.7", remote_net="10.20.3.0/24"):
    return of("app", packets_sent=sent, retransmits=again, remote=remote, remote_net=remote_net)


def latencies(seconds, count=2, port=5432):
    return of("shop", count, connect_latency=seconds, connects=1, remote_port=port)


def refused(count, failure="refused"):
    peer = {"remote": "10.20.3.7", "remote_net": "10.20.3.0/24"}
    return of("shop", count, state="CLOSE", closes=1, connect_failures=1, failure=failure, **peer)


def listens(exe, user, port, local="192.0.2.1"):
    row = {"direction": "in", "state": "LISTEN", "listeners": 1, "local_port": port, "local": local}
    return by_user(user, exe, **row)


def outside(exe, user, remote="203.0.113.9"):
    return by_user(user, exe, connects=1, remote=remote)


def pool(number, unit="shop", **values):
    return of(unit, open=number, **{"state": "ESTABLISHED", "remote_port": 5432} | values)


def waiting(number, state="CLOSE_WAIT"):
    return of("importer", open=number, state=state)


def abroad(megabytes, country):
    return by_user("www-data", "curl", bytes_sent=megabytes * 1e6, remote_country=country)


def miner(number=1, sent=4_000, user="www-data"):
    """Return a tick of a minute of a miner and its pool."""
    peer = {"remote": "203.0.113.9", "remote_net": "203.0.113.0/24", "state": "ESTABLISHED"}
    return (MINUTE, by_user(user, "kworkerd", open=number, bytes_sent=sent, **peer))


def backup(megabytes):
    """Return a day in ticks of ten minutes in which the backup sends this much."""
    return [(10 * MINUTE, of("restic-backup", bytes_sent=megabytes * 1e6)), *[(10 * MINUTE, QUIET)] * 143]


def container(number, name="3f4e8c1b3f4e"):
    return of("app", open=number, state="ESTABLISHED", container=name)


def moves(megabytes, user="alice"):
    return by_user(user, bytes_sent=megabytes * 1e6 / 3, bytes_received=megabytes * 2e6 / 3, remote="10.1.1.1")


def ended(failed, worked):
    row = {"state": "CLOSE", "closes": 1}
    return [*of("shop", failed, connect_failures=1, **row), *of("shop", worked, **row)]


def receives(megabytes, process="rsync", remote="10.7.0.6"):
    return of(process, bytes_received=megabytes * 1e6, remote=remote)


def usual(bytes_sent, minutes):
    """Return minutes, two in a tick, in which `app.service` sends about `bytes_sent` each."""
    amounts = (2 * bytes_sent * (0.7 + 0.3 * (tick % 7) / 6) for tick in range(minutes // 2))
    return [(2 * MINUTE, of("app", bytes_sent=amount)) for amount in amounts]


LEARNT_PORTS = [(4 * DAY, listens("nginx", "root", 443)), (4 * DAY, listens("nginx", "root", 443))]
LEARNT_PROGRAMS = [(8 * DAY, outside("apt", "root")), (8 * DAY, outside("apt", "root"))]
GONE = [(10, QUIET)] * 15

# By rule: ticks that make it fire with the text of the page.
FIRES = {
    "payments-connection-storm": [of("payments", connects=40)] * 45,
    "daily-upload": [upload(0.7)] * 72,
    "database-connect-latency": [latencies(0.045)] * 60,
    "lossy-network": [segments(200, 4)] * 60,
    "web-backlog-full": [server(listen_drops=400)],
    "backend-refuses": [refused(24)],
    "new-port": [*LEARNT_PORTS, listens("nc", "www-data", 4444)],
    "new-program-outside": [*LEARNT_PROGRAMS, outside("curl", "postgres")],
    "slow-port-scan": [(MINUTE, ports(n * 2, n * 2 + 2)) for n in range(30)] + [ports(60, 61)],
    "database-pool-full": [pool(88)] * 125,
    "leaked-connections": [(10, waiting(620))] * 70,
    "listener-gone": [*[server(listeners=1, local_port=443)] * 20, *GONE],
    "data-to-other-countries": [abroad(25, "BR")],
    "long-quiet-connection": [miner()] * 280,
    "backup-missing": backup(20) * 2,
    "container-connections": [container(2_400)] * 125,
    "noisy-neighbour": [moves(75)] * 185,
    "unusual-upload": [*usual(6e6, 50 * 60), *usual(600e6, 10)],
    "failing-connects": [ended(20, 5)],
    "fast-receive": [receives(150)] * 35,
}
