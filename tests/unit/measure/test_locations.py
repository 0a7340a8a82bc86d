"""Country and autonomous system of peers, from MaxMind DB files."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import netaddr
import numpy as np
import pytest
from mmdb_writer import MMDBWriter

from watchdog.config.location_files import LocationFiles
from watchdog.config.settings import open_document, read_settings
from watchdog.errors import ConfigError, WatchdogError
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.live_sockets import Coverage
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.locations import report_location_files
from watchdog.measure.meter import Meter
from watchdog.rules.engine.selection import Selection
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.location_rules import check_locations
from watchdog.rules.language.rule import Condition

SECOND = 1_000_000_000
PEERS = ("192.0.2.7", "192.0.2.200", "198.51.100.1", "2001:db8:1::3", "10.0.0.1")


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a MaxMind DB of records by network and returns its path."""

    def write(name, records, version=6):
        writer = MMDBWriter(version, "Test", ipv4_compatible=version == 6)
        for network, record in records.items():
            writer.insert_network(netaddr.IPSet([network]), record)
        path = tmp_path / name
        writer.to_db_file(str(path))
        return str(path)

    return write


@pytest.fixture
def files(write):
    countries = {
        "192.0.2.0/24": {"country": {"iso_code": "DE"}},
        "198.51.100.0/24": {"country": "FR"},
        "2001:db8::/32": {"registered_country": {"iso_code": "NL"}},
    }
    systems = {
        "192.0.2.0/25": {"autonomous_system_number": 64496, "autonomous_system_organization": "Example"},
        "198.51.100.0/24": {"asn": "AS64511"},
    }
    return LocationFiles(write("country.mmdb", countries), write("asn.mmdb", systems))


def connection(cookie, remote):
    row = np.zeros(1, CONNECTION)
    address = ipaddress.ip_address(remote)
    mapped = address if address.version == 6 else ipaddress.ip_address(f"::ffff:{remote}")
    for name, value in {"cookie": cookie, "born_ns": SECOND, "direction": 1, "state": 1, "family": 10}.items():
        row[name] = value
    row["remote"] = np.frombuffer(mapped.packed, np.uint8)
    return row


def reading(at_s, *rows, coverage=Coverage.ALL):
    return Reading(
        at_ns=at_s * SECOND,
        live=np.concatenate([np.empty(0, CONNECTION), *rows]),
        closed=np.empty(0, CONNECTION),
        sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
        responses=np.empty(0, RESPONSE),
        datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
        quality=Quality(),
        coverage=coverage,
    )


def locations(snapshot):
    found = {}
    columns = [snapshot.dimensions[name].tolist() for name in ("remote", "remote_country", "remote_asn")]
    for remote, country, system in zip(*columns, strict=True):
        name = snapshot.names.text("remote", remote)
        found[name] = snapshot.names.text("remote_country", country), snapshot.names.text("remote_asn", system)
    return {name: found[name] for name in PEERS}


KNOWN = {
    "192.0.2.7": ("DE", "AS64496"),
    "192.0.2.200": ("DE", ""),
    "198.51.100.1": ("FR", "AS64511"),
    "2001:db8:1::3": ("NL", ""),
    "10.0.0.1": ("", ""),
}


def test_each_peer_has_the_country_and_the_system_of_its_network_whether_idle_or_not(files):
    meter = Meter(files=files)
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    assert locations(meter.advance(reading(1, *rows), 0)) == KNOWN
    idle = meter.advance(reading(2, rows[2], coverage=Coverage.CHANGED), 0)
    assert locations(idle) == KNOWN
    for where, selected in (
        (Condition("remote_country", any_of=("DE", "N?")), 3),
        (Condition("remote_country", none_of=("DE", "")), 2),
        (Condition("remote_asn", any_of=("AS64511",)), 1),
    ):
        assert Selection().mask(idle, [where]).sum() == selected


def test_without_files_every_peer_is_nowhere():
    meter = Meter()
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    assert set(locations(meter.advance(reading(1, *rows), 0)).values()) == {("", "")}


def test_a_code_that_another_address_got_is_looked_up_again(files):
    meter = Meter(files=files)
    meter.names.set_retention(0)
    seen = set()
    for second in range(40):
        peers = [f"198.51.100.{second}", f"192.0.2.{second}"]
        rows = [connection(2 * second + number, peer) for number, peer in enumerate(peers, 1)]
        snapshot = meter.advance(reading(1 + 300 * second, *rows), 0)
        codes = snapshot.dimensions["remote_country"][:2].tolist()
        seen.add(tuple(snapshot.names.text("remote_country", code) for code in codes))
    assert seen == {("FR", "DE")}


def test_records_of_another_form_are_nowhere(write):
    odd = {
        "192.0.2.0/25": {"country": {"iso_code": 7}},
        "192.0.2.128/25": {"country": "Germany"},
        "198.51.100.0/24": {"asn": "none"},
        "10.0.0.0/8": {"autonomous_system_number": 2**63},
    }
    meter = Meter(files=LocationFiles(write("odd.mmdb", odd), write("odd-asn.mmdb", odd)))
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    assert set(locations(meter.advance(reading(1, *rows), 0)).values()) == {("", "")}


def test_a_file_of_ipv4_addresses_knows_no_others(write):
    only_ipv4 = write("v4.mmdb", {"192.0.2.0/24": {"country": {"iso_code": "DE"}}}, version=4)
    meter = Meter(files=LocationFiles(only_ipv4))
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    found = locations(meter.advance(reading(1, *rows), 0))
    assert (found["192.0.2.7"], found["2001:db8:1::3"]) == (("DE", ""), ("", ""))


@pytest.mark.parametrize("written", ["nothing", "another file", "garbage"])
def test_a_file_that_is_overwritten_in_its_place_is_read_as_it_was(files, tmp_path, written):
    meter = Meter(files=files)
    for path in map(Path, (files.country_file, files.asn_file)):
        content = {"nothing": b"", "another file": b"x" * 100_000, "garbage": b"\xff" * path.stat().st_size}
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(content[written])
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    assert locations(meter.advance(reading(1, *rows), 0)) == KNOWN


def test_in_a_damaged_file_no_peer_is_anywhere(files):
    for path in map(Path, (files.country_file, files.asn_file)):
        content = path.read_bytes()
        path.write_bytes(b"\xff" * 600 + content[600:])
    meter = Meter(files=files)
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    assert set(locations(meter.advance(reading(1, *rows), 0)).values()) == {("", "")}


def problem_of(tmp_path, country_file):
    """Return the only problem of settings with this file."""
    settings_file = tmp_path / "watchdog.toml"
    settings_file.write_text(f'[networks]\ncountry_file = "{country_file}"\n')
    settings_file.chmod(0o644)
    document = open_document(str(settings_file))
    report_location_files(read_settings(document))
    (problem,) = document.problems
    return problem


def test_a_file_that_others_can_change_is_a_problem(tmp_path, files):
    os.chown(files.country_file, 65534, -1)
    problem = problem_of(tmp_path, files.country_file)
    assert problem.message == (
        f"'{files.country_file}': belongs to nobody, who can change it: chown root {files.country_file}"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be used: No such file or directory"),
        (b"no database", "cannot be used: "),
        (b"", "cannot be used: "),
        ("folder", "cannot be used: not a regular file"),
        ("pipe", "cannot be used: not a regular file"),
    ],
)
def test_a_missing_or_bad_file_is_one_problem_with_its_line(tmp_path, content, message):
    path = tmp_path / "country.mmdb"
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    problem = problem_of(tmp_path, path)
    assert (problem.line, problem.key) == (2, "networks.country_file")
    assert problem.message.startswith(message)
    assert "/proc/" not in problem.message
    with pytest.raises(WatchdogError, match="cannot be used"):
        Meter(files=LocationFiles(country_file=str(path)))


def test_a_relative_path_is_a_problem(tmp_path):
    settings_file = tmp_path / "watchdog.toml"
    settings_file.write_text('[networks]\nasn_file = "asn.mmdb"\n')
    settings_file.chmod(0o644)
    document = open_document(str(settings_file))
    read_settings(document)
    with pytest.raises(ConfigError, match="must be an absolute path"):
        document.raise_problems()


@pytest.mark.parametrize(
    "key",
    ['by = ["remote_country"]', 'where = { remote_country = "DE" }', 'stat = "distinct:remote_country"'],
)
def test_a_rule_without_its_file_is_refused(tmp_path, key):
    path = tmp_path / "rules.toml"
    stat = "" if key.startswith("stat") else 'stat = "sum"\n'
    path.write_text(
        f'[[rule]]\nid = "r"\nsummary = "s"\nmetric = "connects"\n{stat}window = "10s"\n{key}\nfire_above = 1\n'
    )
    path.chmod(0o644)
    rules = load_rules([path], receivers=()).rules
    (problem,) = check_locations(rules, LocationFiles(asn_file="/x"))
    assert str(problem) == f"{path}:1: rule: remote_country needs country_file in [networks] of watchdog.toml"
    assert list(check_locations(rules, LocationFiles(country_file="/x"))) == []
