"""Contributors to a value: by peer, by process and by tick."""

from __future__ import annotations

import math

import pytest

from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import parse_expression
from watchdog.rules.language.rule import Condition

LABELS = (("process", "crawler"),)
CRAWLER = {"process": "crawler", "pid": 4711, "exe": "crawler", "user": "www-data", "direction": "out"}


def connection(remote="192.0.2.7", port=443, **row):
    return {**CRAWLER, "remote": remote, "remote_port": port, **row}


REFUSED = connection(connects=1, connect_failures=1, closes=1, failure="refused", state="CLOSE")


def contributors_of(rule, *ticks, host, labels=LABELS):
    """Return the contributors of the last of `ticks`, each a list of rows."""
    engine = Engine([rule])
    for rows in ticks:
        snapshot = host.tick(*rows)
        engine.evaluate(snapshot, [])
    found = engine.find_contributors(snapshot, rule.id, labels)
    assert found is None or found[0] is rule
    return found and found[1]


def test_peers_are_in_order_of_their_share_with_bytes_states_and_failures(host, make_rule):
    alive = connection("198.51.100.20", 5432, connects=1, open=1, state="ESTABLISHED", bytes_sent=10, bytes_received=20)
    found = contributors_of(make_rule(), [alive, *[REFUSED] * 3, alive], host=host)

    assert [(peer.address, peer.port, peer.amount, peer.connections) for peer in found.peers] == [
        ("192.0.2.7", 443, 3, 3),
        ("198.51.100.20", 5432, 2, 2),
    ]
    assert [(peer.states, peer.failures) for peer in found.peers] == [
        ((), (("refused", 3),)),
        ((("ESTABLISHED", 2),), ()),
    ]
    assert [(peer.bytes_sent, peer.bytes_received) for peer in found.peers] == [(0, 0), (20, 40)]
    assert (found.metric, found.amount, found.peer_count, found.tick_seconds) == ("connects", 5, 2, 1)


def test_connections_of_other_groups_and_those_excluded_by_where_are_ignored(host, make_rule):
    rule = make_rule(where=[Condition("remote_port", any_of=("443",))])
    rows = [connection(connects=1), connection(port=80, connects=1), connection(connects=1, process="other", pid=1)]
    found = contributors_of(rule, [*rows, connection(open=1)], host=host)

    assert [(peer.port, peer.amount) for peer in found.peers] == [(443, 1)]
    assert [one.pid for one in found.processes] == [4711]


def test_the_first_five_of_many_peers_are_returned_and_all_are_counted(host, make_rule):
    rows = [connection(f"192.0.2.{last}", connects=1) for last in range(1, 9) for _ in range(last)]
    found = contributors_of(make_rule(), [rows[0], *rows], host=host)

    assert [peer.address for peer in found.peers] == [f"192.0.2.{last}" for last in (8, 7, 6, 5, 4)]
    assert (found.peer_count, found.amount) == (8, 37)


def test_a_peer_of_an_inbound_connection_is_identified_by_the_local_port(host, make_rule):
    rows = [connection(port=40_000 + n, direction="in", local_port=8080, established=1, open=1) for n in range(3)]
    found = contributors_of(make_rule(metric="established"), rows, host=host)

    assert [(peer.direction, peer.port, peer.connections) for peer in found.peers] == [("in", 8080, 3)]


def test_a_listener_is_identified_by_its_local_address(host, make_rule):
    listener = {**CRAWLER, "local": "0.0.0.0", "local_port": 80, "state": "LISTEN", "accept_queue": 0.9}
    found = contributors_of(make_rule(metric="accept_queue", stat="max", above=0.5), [listener], host=host)

    assert [(peer.address, peer.port, peer.amount) for peer in found.peers] == [("0.0.0.0", 80, 0.9)]
    assert math.isnan(found.amount)


def test_a_ratio_is_broken_down_by_its_numerator(host, make_rule):
    rule = make_rule(metric=parse_expression("connect_failures / connects"), above=0.2)
    found = contributors_of(rule, [REFUSED, connection("198.51.100.20", connects=1, open=1)], host=host)

    assert (found.metric, found.amount) == ("connect_failures", 1)
    assert [peer.address for peer in found.peers] == ["192.0.2.7"]


def test_a_distribution_has_the_largest_value_of_each_peer(host, make_rule):
    rows = [connection(rtt=0.1, open=1), connection(rtt=0.3, open=1), connection("198.51.100.20", rtt=0.2, open=1)]
    found = contributors_of(make_rule(metric="rtt", stat="p50", above=0.05), [*rows, connection(open=1)], host=host)

    assert [(peer.address, peer.amount, peer.connections) for peer in found.peers] == [
        ("192.0.2.7", 0.3, 2),
        ("198.51.100.20", 0.2, 1),
    ]


def test_processes_are_in_order_of_their_share_with_their_names(host, make_rule):
    rows = [connection(connects=1), *[connection(connects=1, pid=4712, user="root")] * 2]
    found = contributors_of(make_rule(), rows, host=host)

    assert [(one.pid, one.amount, one.process, one.user) for one in found.processes] == [
        (4712, 2, "crawler", "root"),
        (4711, 1, "crawler", "www-data"),
    ]
    assert found.process_count == 2


def test_processes_with_equal_shares_are_in_order_from_the_newest(host, make_rule):
    found = contributors_of(make_rule(), [connection(connects=1, pid=pid) for pid in (7, 9, 8)], host=host)

    assert [one.pid for one in found.processes] == [9, 8, 7]


def test_a_rule_for_the_whole_host_finds_the_process_with_the_largest_share(host, make_rule):
    rows = [connection(connects=1), *[connection(connects=1, process="other", pid=9)] * 2]
    found = contributors_of(make_rule(by=()), rows, host=host, labels=())

    assert [(one.process, one.amount) for one in found.processes] == [("other", 2), ("crawler", 1)]


def test_a_row_that_is_not_a_connection_has_neither_peer_nor_process(host, make_rule):
    own = {"process": "bpf-watchdog", "pid": None, "remote": None, "local": None, "lost_connections": 3}
    rule = make_rule(metric="lost_connections", stat="sum", above=0)
    found = contributors_of(rule, [own], host=host, labels=(("process", "bpf-watchdog"),))

    assert (found.peers, found.processes, found.amount, found.history) == ((), (), 3, (3,))


def test_a_silent_group_has_only_history(host, make_rule):
    found = contributors_of(make_rule(below=1), [connection(connects=5)], [], [connection(process="other")], host=host)

    assert (found.peers, found.processes, found.history) == ((), (), (5, 0, 0))


def test_a_rule_that_the_engine_does_not_have_has_no_contributors(host, make_rule):
    engine = Engine([make_rule()])
    snapshot = host.tick()
    engine.evaluate(snapshot, [])
    assert engine.find_contributors(snapshot, "another", LABELS) is None
    assert engine.find_contributors(snapshot, "storm", (("process", "never seen"),))[1].history == (0,)


@pytest.mark.parametrize(
    ("options", "rows", "history"),
    [
        ({"stat": "rate"}, [{"connects": 2}, {}, {"connects": 6}], (2, 0, 6)),
        ({"stat": "sum"}, [{"connects": 2}, {}, {"connects": 6}], (2, 0, 6)),
        ({"stat": "max"}, [{"connects": 2}, {}, {"connects": 6}], (2, 0, 6)),
        ({"metric": "open", "stat": "mean"}, [{"open": 2}, {"open": 3}], (2, 3)),
        ({"metric": "rtt", "stat": "mean"}, [{"rtt": 0.5}, {}, {"rtt": 0.25}], (0.5, None, 0.25)),
        ({"metric": "rtt", "stat": "p90"}, [{"rtt": 0.5}, {}, {"rtt": 0.25}], (0.5, None, 0.25)),
        (
            {"metric": parse_expression("connect_failures / connects")},
            [{"connects": 4, "connect_failures": 1}, {}, {"connects": 1, "connect_failures": 1}],
            (0.25, 0, 1),
        ),
    ],
)
def test_history_has_the_value_of_each_single_tick(host, make_rule, options, rows, history):
    found = contributors_of(make_rule(**options), *[[connection(**row)] for row in rows], host=host)

    assert tuple(None if math.isnan(value) else value for value in found.history) == history
    assert found.history_seconds == len(rows)


def test_history_is_longer_than_the_window_and_has_at_most_twenty_ticks(host, make_rule):
    ticks = [[connection(connects=number)] for number in range(30)]

    assert contributors_of(make_rule(window_seconds=15), *ticks, host=host).history == tuple(range(10, 30))


def test_history_begins_where_the_slot_can_no_longer_be_that_of_another_group(host, make_rule):
    ticks = [[connection(connects=number)] for number in range(30)]

    assert contributors_of(make_rule(window_seconds=3), *ticks, host=host).history == tuple(range(24, 30))


def test_history_of_very_many_groups_is_short(host, make_rule):
    rule = make_rule(by=("pid",), window_seconds=15, above=10_000)
    many = [connection(pid=pid, connects=1000) for pid in range(1, 9_000)]
    found = contributors_of(rule, *[many] * 6, host=host, labels=(("pid", "4711"),))

    assert found.history == (1000,) * 3  # of two bytes for each of 9,000 groups, 65,536 bytes hold three
