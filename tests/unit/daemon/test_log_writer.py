"""The log writer: lines that arrive, lines that are dropped, and no thread that blocks."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import socket
import threading

import pytest

from watchdog.config.settings import LogFormat
from watchdog.daemon.log_writer import LogWriter

PATIENCE = 60.0


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        os.close(descriptor)


@pytest.fixture
def logger():
    logger = logging.getLogger("test.logs")
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers.clear()


def lines(reading):
    return os.read(reading, 1 << 20).decode().splitlines()


def test_lines_come_in_order_with_time_and_level(pipe, logger):
    reading, writing = pipe
    writer = LogWriter(writing)
    logger.addHandler(writer)
    logger.info("first %s", "\udcff")
    logger.error("second")

    assert writer.drain(PATIENCE)
    assert [re.sub(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", "", line) for line in lines(reading)] == [
        r"INFO first \xff",
        "ERROR second",
    ]


def test_without_the_socket_of_the_journal_each_line_has_its_priority(pipe, logger, monkeypatch):
    reading, writing = pipe
    status = os.fstat(writing)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    writer = LogWriter(writing, journal_socket="/nonexistent/socket")
    logger.addHandler(writer)
    logger.info("fine")
    logger.warning("hm")
    logger.error("bad\nworse")

    assert writer.drain(PATIENCE)
    assert lines(reading) == ["<6>fine", "<4>hm", "<3>bad", "<3>  worse"]


def test_a_stuck_reader_blocks_no_thread_and_dropped_lines_are_logged_later(pipe, logger):
    reading, writing = pipe
    writer = LogWriter(writing, capacity=10)
    logger.addHandler(writer)
    long = "x" * 10_000  # six of them fill a pipe
    speaking = threading.Thread(target=lambda: [logger.info(long) for _ in range(1_000)], daemon=True)
    speaking.start()
    speaking.join(PATIENCE)
    assert not speaking.is_alive()
    assert not writer.drain(0.05)

    seen = []
    listening = threading.Thread(target=lambda: seen.extend(iter(lambda: os.read(reading, 1 << 20), b"END")))
    listening.start()
    assert writer.drain(PATIENCE)
    while select.select([reading], [], [], 0)[0]:
        threading.Event().wait(0.01)
    os.write(writing, b"END")
    listening.join(PATIENCE)
    told = b"".join(seen).decode().splitlines()
    whole = sum(line.endswith(long) for line in told)
    counts = [
        int(found[1])
        for line in told
        if (found := re.search(r"log lines dropped, the reader of the log was too slow: lines=(\d+)", line))
    ]

    assert whole + sum(counts) == 1_000
    assert whole <= 20


def test_a_reader_that_is_gone_blocks_nothing(logger):
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    logger.addHandler(writer)
    os.close(reading)
    for _ in range(3):
        logger.info("anyone?")

    assert writer.drain(PATIENCE)
    os.close(writing)


def test_json_has_one_object_a_line(pipe, logger):
    reading, writing = pipe
    writer = LogWriter(writing)
    writer.use_format(LogFormat.JSON)
    logger.addHandler(writer)
    logger.error("delivery failed: receiver=%s attempt=%d", "x\ny", 3)

    assert writer.drain(PATIENCE)
    [line] = lines(reading)
    shown = json.loads(line)
    del shown["time"]
    assert shown == {"level": "error", "event": "delivery failed", "receiver": r"x\x0ay", "attempt": 3}


@pytest.fixture
def journal(tmp_path, pipe, monkeypatch):
    """Return the socket of a journal, for a log that is the journal's stream."""
    status = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.settimeout(PATIENCE)
        journal.bind(str(tmp_path / "socket"))
        yield journal


def test_the_journal_gets_events_and_facts_in_fields(journal, pipe, logger):
    writer = LogWriter(pipe[1], journal_socket=journal.getsockname())
    logger.addHandler(writer)
    logger.warning("delivery failed: receiver=%s reason=%s", "oncall", "no answer\nMESSAGE=forged")

    assert writer.drain(PATIENCE)
    assert journal.recv(65_536).decode().splitlines() == [
        "WATCHDOG_RECEIVER=oncall",
        r"WATCHDOG_REASON=no answer\x0aMESSAGE=forged",
        "WATCHDOG_EVENT=delivery failed",
        r'MESSAGE=delivery failed: receiver=oncall reason="no answer\\x0aMESSAGE=forged"',
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=bpf-watchdog",
    ]


def test_an_entry_too_long_for_a_datagram_is_sent_to_the_journal_as_a_file(journal, pipe, logger):
    writer = LogWriter(pipe[1], journal_socket=journal.getsockname())
    logger.addHandler(writer)
    logger.error("defect: error=%s", "x" * 1_000_000)

    assert writer.drain(PATIENCE)
    data, [file], _, _ = socket.recv_fds(journal, 100, 1)
    assert data == b""
    with os.fdopen(file, "rb") as entry:
        entry.seek(0)
        assert b"WATCHDOG_ERROR=" + b"x" * 1_000_000 + b"\n" in entry.read()
