from __future__ import annotations

import fcntl
import os

import pytest

from watchdog.errors import DeliveryError
from watchdog.receivers.console import Console
from watchdog.receivers.render import notification_text
from watchdog.rules.language.rule import Severity

STORM_LINES = (
    "[FIRING] critical: crawler opens 612/s connections (limit 500/s)\n"
    "    value 612/s, limit 500/s, peak 640/s\n"
    "    process=crawler, unit=crawler.service\n"
    "    since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s\n"
    "    host web-1, rule outbound-connection-storm\n"
    "    next: bpf-watchdog alerts show 01234567; to silence: bpf-watchdog ack 01234567;"
    " delivery: bpf-watchdog notifications show 5f0c7e7a8d9b\n"
)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def terminal():
    leader, follower = os.openpty()
    yield follower
    os.close(leader)
    os.close(follower)


def test_writes_a_few_lines_per_alert(pipe, make_notification):
    reading, writing = pipe
    Console("console", writing).send(make_notification(), 1.0)
    assert os.read(reading, 10_000).decode() == STORM_LINES


def test_a_reason_with_a_detail_stands_under_the_title(pipe, make_notification):
    notification = make_notification(
        reason="escalated", reason_detail="oncall does not answer since 2025-06-15 15:06:40 UTC"
    )
    lines = Console("console", pipe[1]).render(notification).decode().splitlines()
    assert (lines[1], len(lines)) == ("    escalated: oncall does not answer since 2025-06-15 15:06:40 UTC", 7)


def test_the_worst_alert_comes_first_and_the_runbook_last(pipe, make_alert, make_notification):
    notification = make_notification(
        make_alert(severity=Severity.WARNING), make_alert(runbook="https://wiki.example/storm")
    )
    lines = Console("console", pipe[1]).render(notification).decode().splitlines()
    assert [lines[0][:18], lines[5], lines[6][:17]] == [
        "[FIRING] critical:",
        "    runbook: https://wiki.example/storm",
        "[FIRING] warning:",
    ]


@pytest.mark.parametrize(
    ("changes", "colour"),
    [({}, "\x1b[1;31m"), ({"severity": Severity.WARNING}, "\x1b[1;33m"), ({"resolved": 1_750_000_100.0}, "\x1b[1;32m")],
    ids=["critical", "warning", "resolved"],
)
def test_titles_are_coloured_on_a_terminal_only(terminal, pipe, make_alert, make_notification, changes, colour):
    notification = make_notification(make_alert(**changes))
    on_terminal = Console("console", terminal).render(notification).decode()
    assert on_terminal.startswith(f"{colour}[")
    assert (
        on_terminal.replace(colour, "").replace("\x1b[0m", "")
        == Console("console", pipe[1]).render(notification).decode()
    )


@pytest.mark.parametrize(
    ("changes", "level"),
    [({}, "<2>"), ({"severity": Severity.WARNING}, "<4>"), ({"resolved": 1_750_000_100.0}, "<5>")],
    ids=["critical", "warning", "resolved"],
)
def test_every_line_for_the_journal_has_its_level(pipe, monkeypatch, make_alert, make_notification, changes, level):
    status = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    console = Console("console", pipe[1])
    lines = console.render(make_notification(make_alert(**changes))).decode().splitlines()
    assert all(line.startswith(level) for line in lines)
    assert console.destination() == "the journal"


def test_a_journal_stream_other_than_standard_output_is_ignored(pipe, monkeypatch, make_notification):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    console = Console("console", pipe[1])
    assert console.render(make_notification()).decode() == STORM_LINES
    assert console.destination() == "standard output"


def test_a_terminal_is_detected(terminal):
    assert Console("console", terminal).destination() == "the terminal"


def test_hostile_names_cannot_control_the_terminal_or_forge_a_line(
    pipe, terminal, hostile_notification, make_notification
):
    lines = Console("console", pipe[1]).render(hostile_notification).decode().splitlines(keepends=True)
    [alert] = hostile_notification.alerts
    has_labels = any(value for _, value in alert.labels)
    assert len(lines) == 5 + has_labels + len(notification_text.evidence_lines(alert, hostile_notification))
    assert all(line.removesuffix("\n").isprintable() for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])
    assert Console("console", terminal).render(hostile_notification).count(b"\x1b") == 2


def test_an_unread_pipe_fails_at_the_deadline(pipe, make_notification):
    os.write(pipe[1], bytes(fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)))
    with pytest.raises(DeliveryError, match="standard output does not accept data") as caught:
        Console("console", pipe[1]).send(make_notification(), 0.05)
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)


def test_a_closed_reader_is_an_error_not_a_crash(make_notification):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(DeliveryError, match="standard output: Broken pipe") as caught:
            Console("console", writing).send(make_notification(), 1.0)
    finally:
        os.close(writing)
    assert caught.value.reason == "socket"


def test_a_closed_standard_output_is_an_error_not_a_crash(make_notification):
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(DeliveryError, match="standard output: Bad file descriptor"):
        Console("console", writing).send(make_notification(), 1.0)
