"""The log writer: lines that arrive, lines that are dropped, and no thread that blocks."""

from __future__ import annotations

import logging
import os
import re
import select
import threading

import pytest

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
