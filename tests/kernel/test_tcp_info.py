"""Rows have the values that getsockopt(TCP_INFO) returns for the same socket."""

import sys
from pathlib import Path

import pytest

WIRE = Path(__file__).with_name("wire.py")
REQUEST, ANSWER = 200_003, 50_021  # as in wire.py


def numbers(rows, direction, names):
    (row,) = rows.where(direction=direction)
    return {name: row[name] for name in names}


@pytest.mark.parametrize(
    ("delay_seconds", "lose_every"), [(0.0, 0), (0.03, 0), (0.002, 11)], ids=["plain", "delay", "loss"]
)
def test_rows_equal_tcp_info(reader, run, delay_seconds, lose_every):
    wire = run(sys.executable, WIRE, delay_seconds, lose_every)
    reported = wire.receive()
    rows = reader.rows(reported["port"])
    wire.end()

    names = reported["out"].keys()
    assert {end: numbers(rows, end, names) for end in ("out", "in")} == {end: reported[end] for end in ("out", "in")}
    assert (reported["out"]["bytes_sent"], reported["out"]["bytes_received"]) == (REQUEST, ANSWER)
    if delay_seconds:
        assert min(reported[end]["rtt_us"] for end in ("out", "in")) >= 2 * delay_seconds * 1e6
        assert rows.where(direction="out")[0]["connect_latency_us"] >= 2 * delay_seconds * 1e6
    if lose_every:
        # Each lost segment with payload was sent again at least once.
        assert reported["out"]["retransmits"] >= REQUEST // 1460 // lose_every
        assert reported["in"]["retransmits"] >= ANSWER // 1460 // lose_every
