"""Ten thousand names of random bytes, sent through real sockets to a real rsyslog."""

from __future__ import annotations

import dataclasses
import random

import pytest

from watchdog.receivers.syslog.syslog_receiver import Syslog
from watchdog.receivers.syslog.wires import wire_from_address

RECORDS, A_NOTICE = 10_000, 500
COMM_BYTES = 15
DEADLINE = 30.0
PIECES = (
    b"\x1b[2J",
    b"\r\n<26>1 - - ",
    b"\n",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    "\u202e\u2028é".encode(),
    b'"]\\',
    b"%msg%",
)


def names():
    randomness = random.Random(1)
    for _ in range(RECORDS):
        whole = b"".join(randomness.choice((*PIECES, randomness.randbytes(2))) for _ in range(8))
        yield whole[:COMM_BYTES].decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("wire", ["log", "log5424", "tcp"])
def test_ten_thousand_hostile_names_are_ten_thousand_records(rsyslog, wire, firing):
    receiver = Syslog("log", wire_from_address(rsyslog.address(wire)), 3, use_local_format=wire == "log")
    alerts = [
        dataclasses.replace(alert, labels=(("process", name),), summary=name, reason=name)
        for alert in firing.alerts
        for name in names()
    ]
    sent = []
    for start in range(0, RECORDS, A_NOTICE):
        notification = dataclasses.replace(firing, alerts=tuple(alerts[start : start + A_NOTICE]))
        receiver.send(notification, DEADLINE)
        sent += receiver.render(notification).decode().split("\n")
    arrived = rsyslog.arrived(RECORDS)
    assert len(arrived) == len(sent) == RECORDS
    assert sorted(record["raw"] for record in arrived) == sorted(sent)
    assert {(record["app"], record["pri"]) for record in arrived} == {("bpf-watchdog", "26")}
