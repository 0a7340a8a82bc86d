"""Differences of the kernel's totals: each event and byte counts once, in every case between two readings."""

import errno

import numpy as np
import pytest

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import (
    CONNECTION,
    DATAGRAMS,
    DATAGRAMS_KEY,
    FLAG_ACCEPTED,
    FLAG_CONNECT,
    FLAG_CORRECTION,
    FLAG_DENIED,
    FLAG_FAILED,
    FLAG_UNSENT,
    RESPONSE,
    SUMS,
    SUMS_COUNTERS,
    SUMS_KEY,
)
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS, FAILURES, TCP_STATES
from watchdog.measure.connection_metrics import is_listener
from watchdog.measure.connection_table import ConnectionTable
from watchdog.measure.deltas import KNOWN, Deltas

OUT, IN = DIRECTIONS.index("out"), DIRECTIONS.index("in")
SECOND = 1_000_000_000


def make_deltas():
    return Deltas(ConnectionTable(KNOWN))


def connection(**values):
    row = np.zeros(1, CONNECTION)
    defaults = {"cookie": 1, "born_ns": 5, "direction": OUT, "state": TCP_STATES.index("ESTABLISHED"), "family": 2}
    for name, value in (defaults | values).items():
        row[name] = value
    return row


def listener(port, **values):
    listening = {"cookie": 99, "state": TCP_STATES.index("LISTEN"), "direction": 0, "born_ns": 0, "netns": 1}
    return connection(**listening | values, local_port=port)


def reading(live=(), closed=(), at_ns=SECOND, sums=(), responses=(), datagrams=None):
    nothing = np.empty(0, CONNECTION)
    keys, values = np.zeros(len(sums), SUMS_KEY), np.zeros(len(sums), SUMS)
    for number, (tgid, totals) in enumerate(sums):
        keys["tgid"][number] = values["owner"]["tgid"][number] = tgid
        keys["direction"][number] = OUT
        for name, total in totals.items():
            values[name][number] = total
    return Reading(
        at_ns=at_ns,
        live=np.concatenate([nothing, *live]),
        closed=np.concatenate([nothing, *closed]),
        sums=Totals(keys, values),
        responses=np.array(list(responses), RESPONSE),
        datagrams=datagrams or Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
        quality=Quality(),
    )


def test_a_new_connection_counts_from_its_start():
    row = connection(
        flags=FLAG_CONNECT,
        established_ns=1_000_005,
        bytes_sent=7,
        bytes_received=9,
        packets_sent=3,
        packets_received=2,
        srtt_us=1500,
    )
    changes = make_deltas().advance(reading(live=[row]))
    counted = {name: values[0] for name, values in changes.metrics.items()}

    assert {name: counted[name] for name in ("connects", "established", "accepts", "closes", "open")} == {
        "connects": 1, "established": 1, "accepts": 0, "closes": 0, "open": 1,
    }  # fmt: skip
    assert (counted["bytes_sent"], counted["bytes_received"]) == (7, 9)
    assert (counted["packets_sent"], counted["packets_received"]) == (3, 2)
    assert counted["connect_latency"] == pytest.approx(0.001)
    assert counted["rtt"] == pytest.approx(0.0015)
    assert np.isnan(counted["lifetime"])


def test_only_changes_count_at_the_next_reading():
    deltas = make_deltas()
    deltas.advance(reading(live=[connection(flags=FLAG_CONNECT, established_ns=9, bytes_sent=100)]))
    changes = deltas.advance(reading(live=[connection(flags=FLAG_CONNECT, established_ns=9, bytes_sent=130)]))

    assert {name: values[0] for name, values in changes.metrics.items() if not np.isnan(values[0]) and values[0]} == {
        "bytes_sent": 30, "open": 1,
    }  # fmt: skip


def test_the_end_counts_the_rest_since_the_last_reading():
    deltas = make_deltas()
    deltas.advance(reading(live=[connection(flags=FLAG_CONNECT, established_ns=9, bytes_sent=100)]))
    end = connection(flags=FLAG_CONNECT, established_ns=9, bytes_sent=150, ended_ns=5 + 2 * SECOND)
    changes = deltas.advance(reading(closed=[end]))
    counted = {name: values[0] for name, values in changes.metrics.items()}

    assert (counted["connects"], counted["closes"], counted["bytes_sent"], counted["open"]) == (0, 1, 50, 0)
    assert counted["lifetime"] == 2


def test_a_connection_that_ends_during_the_reading_counts_once():
    live = connection(flags=FLAG_CONNECT, established_ns=9, bytes_sent=100)
    end = connection(flags=FLAG_CONNECT, established_ns=9, bytes_sent=150, ended_ns=SECOND)
    changes = make_deltas().advance(reading(live=[live], closed=[end]))

    assert len(changes.rows) == 1
    assert [changes.metrics[name][0] for name in ("connects", "closes", "bytes_sent", "open")] == [1, 1, 150, 0]


def test_a_connection_older_than_the_programs_is_a_baseline():
    deltas = make_deltas()
    old = {"born_ns": 0, "bytes_sent": 2 * 10**12, "packets_sent": 10**9, "retransmits": 5}
    first = deltas.advance(reading(live=[connection(**old)]))
    later = deltas.advance(reading(live=[connection(**old | {"bytes_sent": 2 * 10**12 + 3})]))
    never_seen = deltas.advance(reading(closed=[connection(**old | {"cookie": 2, "ended_ns": SECOND})]))

    assert (first.metrics["bytes_sent"][0], first.metrics["connects"][0]) == (0, 0)
    assert later.metrics["bytes_sent"][0] == 3
    assert [never_seen.metrics[name][0] for name in ("bytes_sent", "packets_sent", "closes")] == [0, 0, 1]


def test_the_totals_of_a_connection_without_a_file_are_kept_until_it_ends():
    deltas = make_deltas()
    deltas.advance(reading(live=[connection(established_ns=9, bytes_sent=100)]))
    deltas.advance(reading(at_ns=2 * SECOND))
    deltas.advance(reading(at_ns=600 * SECOND))
    changes = deltas.advance(
        reading(closed=[connection(established_ns=9, bytes_sent=400, ended_ns=9)], at_ns=601 * SECOND)
    )

    assert (changes.metrics["bytes_sent"][0], changes.metrics["established"][0]) == (300, 0)


def test_counters_of_32_bits_wrap():
    deltas = make_deltas()
    deltas.advance(reading(live=[connection(packets_sent=2**32 - 3, retransmits=2**32 - 1)]))
    changes = deltas.advance(reading(live=[connection(packets_sent=4, retransmits=0)]))

    assert (changes.metrics["packets_sent"][0], changes.metrics["retransmits"][0]) == (7, 1)


def test_the_same_socket_connecting_again_is_another_connection():
    deltas = make_deltas()
    deltas.advance(reading(live=[connection(flags=FLAG_CONNECT, bytes_sent=100)]))
    changes = deltas.advance(
        reading(
            live=[connection(flags=FLAG_CONNECT, incarnation=1, bytes_sent=10)],
            closed=[connection(flags=FLAG_CONNECT, bytes_sent=120, ended_ns=SECOND)],
        )
    )

    assert sorted(changes.metrics["bytes_sent"]) == [10, 20]
    assert changes.metrics["connects"].sum() == 1


def test_the_fin_subtracted_one_reading_later_leaves_the_total_correct():
    deltas = make_deltas()
    totals = [
        deltas.advance(reading(live=[connection(bytes_received=received)])).metrics["bytes_received"][0]
        for received in (10, 21, 20)  # at 21 the FIN is counted, and its flag is not yet set
    ]

    assert totals == [10, 11, -1]


def test_a_correction_adds_one_reset_and_nothing_else():
    deltas = make_deltas()
    deltas.advance(reading(closed=[connection(flags=FLAG_CONNECT, bytes_sent=120, ended_ns=SECOND)]))
    correction = connection(flags=FLAG_CORRECTION, born_ns=0, resets_sent=1, ended_ns=SECOND)
    changes = deltas.advance(reading(closed=[correction]))

    assert {name: values[0] for name, values in changes.metrics.items() if not np.isnan(values[0]) and values[0]} == {
        "resets_sent": 1
    }


def test_listeners_are_not_connections():
    changes = make_deltas().advance(reading(live=[listener(80), connection()]))

    assert is_listener(changes.rows).tolist() == [True, False]
    assert changes.metrics["open"].tolist() == [0, 1]
    assert changes.metrics["listeners"].tolist() == [1, 0]


def test_a_listener_that_ended_listens_no_more():
    deltas = make_deltas()
    deltas.advance(reading(live=[listener(80)]))
    changes = deltas.advance(reading(closed=[listener(80, ended_ns=5)]))

    assert changes.metrics["listeners"].tolist() == [0]
    assert changes.metrics["closes"].tolist() == [0]


def test_the_accept_queue_is_a_share_of_its_limit():
    changes = make_deltas().advance(reading(live=[listener(80, receive_queue=3, send_queue=4), connection()]))

    assert changes.metrics["accept_queue"][0] == 0.6  # of 5: the kernel lets backlog + 1 connections wait
    assert np.isnan(changes.metrics["accept_queue"][1])


def test_drops_count_from_the_first_reading_or_the_start_of_the_listener():
    deltas = make_deltas()
    old = deltas.advance(reading(live=[listener(80, drops=100)]))
    later = deltas.advance(reading(live=[listener(80, drops=103), listener(81, cookie=98, born_ns=7, drops=5)]))

    assert old.metrics["listen_drops"].tolist() == [0]
    assert later.metrics["listen_drops"].tolist() == [3, 5]


@pytest.mark.parametrize(
    ("state", "queue", "unacknowledged"),
    [("ESTABLISHED", 10, 10), ("SYN_SENT", 1, 0), ("FIN_WAIT1", 11, 10), ("LAST_ACK", 1, 0), ("FIN_WAIT2", 0, 0)],
)
def test_a_syn_or_fin_in_the_queue_is_not_a_byte(state, queue, unacknowledged):
    row = connection(state=TCP_STATES.index(state), send_queue=queue, receive_queue=6)
    changes = make_deltas().advance(reading(live=[row]))

    assert changes.metrics["send_queue"][0] == unacknowledged
    assert changes.metrics["receive_queue"][0] == (0 if state == "SYN_SENT" else 6)


def test_the_direction_of_an_old_connection_comes_from_the_listeners():
    old = {"born_ns": 0, "direction": 0, "netns": 1}
    rows = [
        listener(80),
        connection(**old, cookie=1, local_port=80),
        connection(**old, cookie=2, local_port=81),
        connection(**old | {"netns": 2}, cookie=3, local_port=80),
    ]
    changes = make_deltas().advance(reading(live=rows))

    directions = dict(zip(changes.rows["cookie"].tolist(), changes.rows["direction"].tolist(), strict=True))
    assert {cookie: directions[cookie] for cookie in (1, 2, 3)} == {1: IN, 2: OUT, 3: OUT}


@pytest.mark.parametrize(
    ("error", "flags", "failure", "failed_connects"),
    [
        (errno.ECONNREFUSED, FLAG_FAILED, "refused", 1),
        (errno.ETIMEDOUT, FLAG_FAILED, "timeout", 1),
        (errno.EHOSTUNREACH, FLAG_FAILED, "unreachable", 1),
        (errno.ENETUNREACH, FLAG_FAILED, "unreachable", 1),
        (0, FLAG_FAILED, "aborted", 1),
        (errno.EACCES, FLAG_FAILED, "denied", 1),
        (errno.EADDRNOTAVAIL, FLAG_FAILED, "no_port", 1),
        (errno.EADDRINUSE, FLAG_FAILED, "no_port", 1),
        (errno.ENETUNREACH, FLAG_FAILED | FLAG_UNSENT, "no_route", 1),
        (errno.EHOSTUNREACH, FLAG_FAILED | FLAG_UNSENT, "no_route", 1),
        (errno.EINVAL, FLAG_FAILED | FLAG_UNSENT, "no_route", 1),
        (errno.EADDRNOTAVAIL, FLAG_FAILED | FLAG_UNSENT, "no_route", 1),
        (errno.EACCES, FLAG_FAILED | FLAG_UNSENT, "denied", 1),
        (errno.EINVAL, FLAG_FAILED, "other", 1),
        (errno.ENETUNREACH, FLAG_FAILED | FLAG_DENIED, "denied", 1),
        (errno.ENOBUFS, FLAG_FAILED, "other", 1),
        (1000, FLAG_FAILED, "other", 1),
        (errno.ECONNRESET, FLAG_FAILED, "reset", 1),
        (errno.ECONNRESET, 0, "reset", 0),
        (errno.ETIMEDOUT, 0, "timeout", 0),
        (0, 0, "", 0),
    ],
)
def test_the_cause_of_a_failure_is_the_error_of_the_socket(error, flags, failure, failed_connects):
    row = connection(flags=FLAG_CONNECT | flags, error=error, ended_ns=SECOND)
    changes = make_deltas().advance(reading(closed=[row]))

    assert FAILURES[changes.failure[0]] == failure
    assert changes.metrics["connect_failures"][0] == failed_connects


def test_an_inbound_connection_counts_as_accepted_once():
    deltas = make_deltas()
    row = {"direction": IN, "established_ns": 9}
    waiting = deltas.advance(reading(live=[connection(**row)]))
    accepted = deltas.advance(reading(live=[connection(**row, flags=FLAG_ACCEPTED)]))
    after = deltas.advance(reading(live=[connection(**row, flags=FLAG_ACCEPTED)]))

    assert [changes.metrics["accepts"][0] for changes in (waiting, accepted, after)] == [0, 1, 0]


def test_sums_add_rows_with_their_changes():
    deltas = make_deltas()
    first = deltas.advance(reading(sums=[(7, {"connects": 3, "bytes_sent": 30}), (8, {"closes": 1})]))
    second = deltas.advance(reading(sums=[(7, {"connects": 5, "bytes_sent": 50}), (8, {"closes": 1})]))
    third = deltas.advance(reading(sums=[(7, {"connects": 5, "bytes_sent": 50}), (8, {"closes": 1})]))

    assert first.rows["owner"]["tgid"].tolist() == [7, 8]
    assert [first.metrics[name].tolist() for name in ("connects", "bytes_sent", "closes")] == [[3, 0], [30, 0], [0, 1]]
    assert second.rows["owner"]["tgid"].tolist() == [7]
    assert {name: second.metrics[name][0] for name in SUMS_COUNTERS if second.metrics[name][0]} == {
        "connects": 2, "bytes_sent": 20,
    }  # fmt: skip
    assert np.isnan(second.metrics["rtt"][0])
    assert len(third.rows) == 0


def test_an_entry_that_was_deleted_and_created_again_counts_from_zero():
    deltas = make_deltas()
    totals = [
        deltas.advance(reading(sums=sums)).metrics["closes"].sum()
        for sums in ([(7, {"closes": 5})], [], [(7, {"closes": 2})], [(7, {"closes": 1})])
    ]

    assert totals == [5, 0, 2, 1]


def test_responses_belong_to_the_newest_incarnation_of_their_socket():
    changes = make_deltas().advance(
        reading(
            live=[connection(cookie=4), connection(cookie=1, incarnation=1)],
            closed=[connection(cookie=1, ended_ns=SECOND)],
            responses=[(1, 2_000_000), (4, 3_000_000), (1, 4_000_000), (77, 5_000_000)],
        )
    )
    cookies = changes.rows["cookie"][changes.responses.rows].tolist()

    assert list(zip(cookies, changes.responses.seconds.tolist(), strict=True)) == [(1, 0.002), (4, 0.003), (1, 0.004)]


@pytest.mark.parametrize(
    ("cookies", "unassigned"),
    [((), 0), ((1,), 0), ((1, 77), 1), ((0, 0, 1), 2), ((77, 78, 79), 3)],
)
@pytest.mark.parametrize("rows", [0, 1])
def test_responses_without_a_row_of_their_connection_are_counted(cookies, unassigned, rows):
    live = [connection(cookie=1)] * rows
    responses = make_deltas().advance(reading(live, responses=[(cookie, 5) for cookie in cookies])).responses

    assert responses.unassigned == (unassigned if rows else len(cookies))
    assert len(responses.rows) == len(responses.seconds) == len(cookies) - responses.unassigned


def test_udp_adds_rows_of_its_processes():
    keys, values = np.zeros(1, DATAGRAMS_KEY), np.zeros(1, DATAGRAMS)
    keys["tgid"] = values["owner"]["tgid"] = 7
    keys["family"], values["bytes_sent"], values["datagrams_sent"] = 10, 30, 3
    changes = make_deltas().advance(reading(live=[connection(bytes_sent=1)], datagrams=Totals(keys, values)))

    assert changes.rows["family"].tolist() == [2, 10]
    assert changes.metrics["udp_bytes_sent"].tolist() == [0, 30]
    assert changes.metrics["udp_datagrams_sent"].tolist() == [0, 3]
    assert changes.metrics["bytes_sent"].tolist() == [1, 0]
    assert changes.metrics["open"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("born_s", "seen_s", "late"),
    [(1, (), True), (1, (29,), False), (1, (2,), True), (29, (), False), (0, (), False)],
)
def test_traffic_of_a_connection_that_was_unseen_for_long_is_late(born_s, seen_s, late):
    deltas = make_deltas()
    row = {"born_ns": born_s * SECOND, "established_ns": born_s * SECOND, "bytes_sent": 1000}
    for second in range(1, 30):
        deltas.advance(reading(live=[connection(**row)] if second in seen_s else [], at_ns=second * SECOND))
    changes = deltas.advance(
        reading(closed=[connection(**row | {"bytes_sent": 9000, "ended_ns": 30 * SECOND})], at_ns=30 * SECOND)
    )

    unseen = 30 - max([born_s, *seen_s])
    assert changes.unseen_ns.tolist() == [unseen * SECOND if late else 0]
    assert changes.metrics["bytes_sent"][0] == (0 if not born_s else 8000 if seen_s else 9000)
    assert changes.metrics["late_bytes"][0] == (changes.metrics["bytes_sent"][0] if late else 0)


def test_no_traffic_is_late_because_of_a_long_interval():
    deltas = make_deltas()
    deltas.advance(reading(at_ns=SECOND))
    deltas.advance(reading(live=[connection(born_ns=2 * SECOND)], at_ns=3600 * SECOND))
    changes = deltas.advance(reading(live=[connection(born_ns=2 * SECOND)], at_ns=7200 * SECOND))

    assert changes.unseen_ns.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "before", "now", "change", "refused"),
    [
        ("bytes_sent", 1000, 1000 + 2**53, 0, 1),
        ("bytes_sent", 1000, 1000 + 2**53 - 1, 2**53 - 1, 0),
        ("bytes_sent", 2**50, 5, 0, 1),
        ("bytes_sent", 0, 2**64 - 4_208_720_728, 0, 1),
        ("bytes_received", 1000, 2**63, 0, 1),
        ("bytes_received", 1000, 900, 0, 1),
        ("packets_sent", 10, 9, 0, 1),
        ("retransmits", 2**31, 0, 0, 1),
        ("packets_received", 2**32 - 1, 2**31 - 2, 2**31 - 1, 0),
    ],
)
def test_a_change_that_no_connection_can_make_is_refused_and_counted(name, before, now, change, refused):
    deltas = make_deltas()
    deltas.advance(reading(live=[connection(**{name: before})]))
    changes = deltas.advance(reading(live=[connection(**{name: now}), connection(cookie=2, bytes_sent=7)]))

    assert (changes.metrics[name][0], len(changes.refused)) == (change, refused)
    assert changes.metrics["bytes_sent"][1] == 7


def test_a_total_that_no_connection_can_have_is_refused_at_once():
    changes = make_deltas().advance(reading(closed=[connection(bytes_received=2**60, ended_ns=SECOND)]))
    assert (changes.metrics["bytes_received"][0], changes.refused.tolist()) == (0, [0])


def test_a_step_back_that_a_retransmission_makes_is_made_up_for_and_is_no_loss():
    deltas = make_deltas()
    seen = [
        deltas.advance(reading(live=[connection(bytes_sent=total)])) for total in (100_000, 36_000, 100_000, 130_000)
    ]
    assert [changes.metrics["bytes_sent"][0] for changes in seen] == [100_000, 0, 0, 30_000]
    assert [len(changes.refused) for changes in seen] == [0, 0, 0, 0]


def test_a_reading_in_the_middle_of_the_answer_to_a_connect_has_no_round_trip_time_yet():
    opening = connection(flags=FLAG_CONNECT, state=TCP_STATES.index("SYN_SENT"), packets_received=1, srtt_us=900)
    deltas = make_deltas()
    first = deltas.advance(reading(live=[opening]))
    second = deltas.advance(
        reading(live=[connection(flags=FLAG_CONNECT, established_ns=9, packets_received=2, srtt_us=900)])
    )

    assert np.isnan(first.metrics["rtt"][0])
    assert second.metrics["rtt"][0] == pytest.approx(0.0009)
