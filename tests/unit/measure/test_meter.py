"""Snapshots made of readings: what rules see, and what totals see."""

import numpy as np

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.totals import Totals
from watchdog.measure.meter import Meter
from watchdog.quality import Quality

SECOND = 1_000_000_000


def connection(**values):
    row = np.zeros(1, CONNECTION)
    for name, value in ({"cookie": 1, "born_ns": SECOND, "direction": 1, "state": 1, "family": 2} | values).items():
        row[name] = value
    return row


def reading(at_s, live=(), closed=(), responses=()):
    nothing = np.empty(0, CONNECTION)
    return Reading(
        at_ns=at_s * SECOND,
        live=np.concatenate([nothing, *live]),
        closed=np.concatenate([nothing, *closed]),
        sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
        responses=np.array(list(responses), RESPONSE),
        datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
        quality=Quality(),
    )


def test_late_traffic_is_in_the_totals_and_in_no_rate():
    meter = Meter()
    for second in range(1, 30):
        meter.advance(reading(second), 0)
    ended = connection(bytes_sent=10**9, packets_sent=10**6, ended_ns=30 * SECOND)
    changes, snapshot = meter.measure(reading(30, closed=[ended]), 0)

    assert changes.metrics["bytes_sent"].sum() == 10**9
    assert (snapshot.metrics["bytes_sent"].sum(), snapshot.metrics["packets_sent"].sum()) == (0, 0)
    assert snapshot.metrics["closes"].sum() == 1
    assert snapshot.quality.late_bytes == 10**9


def test_each_answer_is_a_row_of_its_connection_that_counts_nothing_else():
    row = connection(local_port=80, remote_port=4000, bytes_sent=5)
    row["remote"][0, 10:] = [255, 255, 10, 0, 0, 1]
    _, snapshot = Meter().measure(reading(1, live=[row], responses=[(1, 2_000_000), (1, 3_000_000)]), 0)
    latencies = snapshot.metrics["response_latency"]
    answers = ~np.isnan(latencies)

    assert latencies[answers].tolist() == [0.002, 0.003]
    assert snapshot.dimensions["local_port"][answers].tolist() == [80, 80]
    codes = snapshot.dimensions["remote"][answers].tolist()
    assert [snapshot.names.text("remote", code) for code in codes] == ["10.0.0.1", "10.0.0.1"]
    assert snapshot.addresses["remote"][answers].tolist() == [[0, 0xFFFF_0A00_0001]] * 2
    assert (snapshot.metrics["bytes_sent"].sum(), snapshot.metrics["open"].sum()) == (5, 1)
    assert {len(column) for column in snapshot.metrics.values()} == {4}  # the connection, the watchdog, two answers
