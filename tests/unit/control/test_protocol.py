"""Requests and responses as bytes: they survive the way, and other bytes are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.control import protocol
from watchdog.errors import DaemonUnreachable, UsageError, WatchdogError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text(), st.dictionaries(st.text(), VALUES))
def test_a_request_is_one_line_and_comes_out_as_it_went_in(name, arguments):
    line = protocol.pack_request(protocol.Request(name, arguments))
    assert line.count(b"\n") == 1
    assert protocol.parse_request(line) == protocol.Request(name, arguments)


@given(VALUES)
def test_a_result_is_one_line_and_comes_out_as_it_went_in(result):
    line = protocol.pack_result(result)
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert protocol.parse_response(line) == result


def test_an_error_keeps_its_words_and_its_exit_code():
    with pytest.raises(WatchdogError, match=r"^nobody is there$") as caught:
        protocol.parse_response(protocol.pack_error(DaemonUnreachable("nobody is there")))
    assert caught.value.exit_code == 3
    assert WatchdogError.exit_code == 1


@given(st.binary())
def test_any_bytes_are_a_request_or_a_usage_error(line):
    with contextlib.suppress(UsageError):
        protocol.parse_request(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"3", b'{"request": 3}', b'{"arguments": {}}', b'{"request": "a", "arguments": []}',
     b'{"request": "a", "more": 1}', b"[" * 60_000, b"\xff"],
)  # fmt: skip
def test_bytes_that_are_no_request_are_refused(line):
    with pytest.raises(UsageError, match="request"):
        protocol.parse_request(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"version": 1, "error": "x"}', b'{"version": 2, "result": 3}', b'{"result": 3}', b'{"resul',
     b"[" * 60_000],
)  # fmt: skip
def test_bytes_that_are_no_response_are_refused(line):
    with pytest.raises(WatchdogError, match="incomplete or malformed"):
        protocol.parse_response(line)
