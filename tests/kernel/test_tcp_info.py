"""Rows say of a socket just what getsockopt(TCP_INFO) says of it."""

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
def test_rows_equal_what_the_socket_tells_of_itself(reader, run, delay_seconds, lose_every):
    wire = run(sys.executable, WIRE, delay_seconds, lose_every)
    told = wire.hear()
    rows = reader.rows(told["port"])
    wire.end()

    names = told["out"].keys()
    assert {end: numbers(rows, end, names) for end in ("out", "in")} == {end: told[end] for end in ("out", "in")}
    assert (told["out"]["bytes_sent"], told["out"]["bytes_received"]) == (REQUEST, ANSWER)
    if delay_seconds:
        assert min(told[end]["rtt_us"] for end in ("out", "in")) >= 2 * delay_seconds * 1e6
        assert rows.where(direction="out")[0]["connect_latency_us"] >= 2 * delay_seconds * 1e6
    if lose_every:
        # Each segment of payload that the wire lost was sent again at least once.
        assert told["out"]["retransmits"] >= REQUEST // 1460 // lose_every
        assert told["in"]["retransmits"] >= ANSWER // 1460 // lose_every
