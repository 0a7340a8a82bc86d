"""The networks of peers in snapshots: of changed, idle and lost connections, with any prefixes."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.config.network_prefixes import NetworkPrefixes
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.live_sockets import Coverage
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.meter import Meter
from watchdog.measure.networks import network_halves
from watchdog.rules.engine.selection import Selection
from watchdog.rules.language.rule import Condition

SECOND = 1_000_000_000


def connection(cookie, remote):
    row = np.zeros(1, CONNECTION)
    address = ipaddress.ip_address(remote)
    mapped = address if address.version == 6 else ipaddress.ip_address(f"::ffff:{remote}")
    values = {"cookie": cookie, "born_ns": SECOND, "direction": 1, "state": 1, "family": 10, "remote_port": 443}
    for name, value in values.items():
        row[name] = value
    row["remote"] = np.frombuffer(mapped.packed, np.uint8)
    return row


def reading(at_s, *rows, coverage=Coverage.ALL, sums=None):
    nothing = Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS))
    return Reading(
        at_ns=at_s * SECOND,
        live=np.concatenate([np.empty(0, CONNECTION), *rows]),
        closed=np.empty(0, CONNECTION),
        sums=nothing if sums is None else sums,
        responses=np.empty(0, RESPONSE),
        datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
        quality=Quality(),
        coverage=coverage,
    )


def networks(snapshot):
    codes = snapshot.dimensions["remote_net"].tolist()
    return [snapshot.names.text("remote_net", code) for code in codes]


PEERS = ("192.0.2.7", "192.0.2.200", "198.51.100.1", "2001:db8:1:2::3", "2001:db8:1:ff::9")


def test_peers_of_one_network_have_one_code_whether_idle_or_not():
    meter = Meter()
    rows = [connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]
    first = meter.advance(reading(1, *rows), 0)
    wanted = ["192.0.2.0/24", "192.0.2.0/24", "198.51.100.0/24", "2001:db8:1::/48", "2001:db8:1::/48", ""]
    assert networks(first) == wanted
    idle = meter.advance(reading(2, rows[2], coverage=Coverage.CHANGED), 0)
    assert sorted(networks(idle)) == sorted(wanted)
    assert len(set(idle.dimensions["remote_net"].tolist())) == 4
    code = idle.names.find_code("remote_net", "192.0.2.0/24")
    assert (idle.dimensions["remote_net"] == code).sum() == 2
    assert idle.names.find_code("remote_net", "192.0.2.0/25") is None


def test_the_prefixes_are_those_of_the_settings():
    meter = Meter(NetworkPrefixes(ipv4_prefix=16, ipv6_prefix=64))
    snapshot = meter.advance(reading(1, *[connection(cookie, remote) for cookie, remote in enumerate(PEERS, 1)]), 0)
    assert networks(snapshot)[:5] == [
        "192.0.0.0/16",
        "192.0.0.0/16",
        "198.51.0.0/16",
        "2001:db8:1:2::/64",
        "2001:db8:1:ff::/64",
    ]


@pytest.mark.parametrize(
    ("any_of", "none_of", "selected"),
    [
        (("192.0.0.0/8",), (), 2),
        (("192.0.2.0/24",), (), 2),
        (("2001:db8::/32",), (), 2),
        ((), ("192.0.2.0/24",), 3),
    ],
)
def test_conditions_select_networks(any_of, none_of, selected):
    snapshot = Meter().advance(reading(1, *[connection(cookie, one) for cookie, one in enumerate(PEERS, 1)]), 0)
    mask = Selection().mask(snapshot, [Condition("remote_net", any_of, none_of)])
    assert mask.sum() == selected


def test_a_lost_peer_is_a_lost_network():
    keys, values = np.zeros(1, SUMS_KEY), np.zeros(1, SUMS)
    keys["netns"], values["closes"] = 1, 1
    meter = Meter()
    meter.advance(reading(1), 0)
    snapshot = meter.advance(reading(2, sums=Totals(keys, values)), 0)
    partial = snapshot.partial
    where = [Condition("remote_net", ("192.0.2.0/24",))]
    assert len(partial) == 1
    assert Selection().possible(snapshot, where, partial).tolist() == [True]
    assert not Selection().mask(snapshot, where).any()


@given(
    st.lists(st.ip_addresses(), min_size=1, max_size=8),
    st.integers(8, 32),
    st.integers(16, 128),
)
def test_networks_are_those_of_the_standard_library(addresses, ipv4, ipv6):
    prefixes = NetworkPrefixes(ipv4, ipv6)
    meter = Meter(prefixes)
    snapshot = meter.advance(reading(1, *[connection(at, str(one)) for at, one in enumerate(addresses, 1)]), 0)
    wanted = []
    for one in addresses:
        mapped = one.ipv4_mapped if one.version == 6 else None
        address = mapped or one
        length = ipv4 if address.version == 4 else ipv6
        wanted.append(str(ipaddress.ip_network(f"{address}/{length}", strict=False)))
    assert networks(snapshot)[:-1] == wanted


def test_no_address_is_no_network():
    nothing = np.full((1, 2), 2**64 - 1, np.uint64)
    assert (network_halves(nothing, NetworkPrefixes()) == nothing).all()
