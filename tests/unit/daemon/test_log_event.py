"""Lines of the log: facts by name, and texts from the host that stay inside their values."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from watchdog import sanitize
from watchdog.daemon.log_event import read_record

AT = 1_750_000_000.25
TIME = "2025-06-15T15:06:40.250Z"


def event(template, *arguments, level=logging.WARNING, **more):
    record = logging.LogRecord("watchdog", level, "", 0, template, arguments, more.pop("exc_info", None))
    record.created = AT
    for name, value in more.items():
        setattr(record, name, value)
    return read_record(record)


@pytest.mark.parametrize(
    ("template", "arguments", "text", "facts"),
    [
        ("stopped", (), "stopped", {}),
        ("a: receiver=%s attempt=%d", ("x", 3), "a: receiver=x attempt=3", {"receiver": "x", "attempt": 3}),
        ("a: took=%.2fs", (0.126,), "a: took=0.13s", {"took": "0.13s"}),
        ("a: rate=%.1f n=%d", (0.126, -5), "a: rate=0.1 n=-5", {"rate": 0.1, "n": -5}),
        ("a: file=%s-wal lost=%d", ("/x", 1), "a: file=/x-wal lost=1", {"file": "/x-wal", "lost": 1}),
        ("a: cause=gone n=%d", (1,), "a: cause=gone n=1", {"cause": "gone", "n": 1}),
        ("lost %d of %s: error=%s", (1, "b", "c"), "lost 1 of b: error=c", {"error": "c"}),
        ("a: reason=%s", ("no answer",), 'a: reason="no answer"', {"reason": "no answer"}),
        ("a: reason=%s", ("",), 'a: reason=""', {"reason": ""}),
        ("a: reason=%s", ('"',), r'a: reason="\""', {"reason": '"'}),
        ("a: reason=%s", ("b\\ c",), r'a: reason="b\\ c"', {"reason": "b\\ c"}),
        ("a: share=%d%%", (5,), "a: share=5%", {"share": "5%"}),
        ("100%", (), "100%", {}),
        ("key=%s", ("x",), "key=x", {"key": "x"}),
    ],
)
def test_an_event_and_its_facts(template, arguments, text, facts):
    found = event(template, *arguments)
    assert found.line() == f"{TIME} WARNING {text}"
    shown = json.loads(found.json_line())
    name = text.partition(": " if facts else "\n")[0] if template != "key=%s" else ""
    assert shown == {"time": TIME, "level": "warning", "event": name, **facts}


HOSTILE = [
    *("x receiver=other", 'x" receiver="other', "x\nreceiver=other", "x\n2025-06-15T15:06:40.250Z ERROR forged: a=b"),
    *("x\r\x1b[2Jy", "\u202ex", "x\u2028y", "%s %d", "\udcff", "x=y", '"', "\\", '\\"', ""),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_from_the_host_makes_no_line_and_no_fact(text):
    found = event("failed: reason=%s receiver=%s", text, "oncall")
    line = found.line()
    assert line.isprintable()
    assert line.startswith(f"{TIME} WARNING failed: reason=")
    assert line.endswith(" receiver=oncall")
    value = line.removeprefix(f"{TIME} WARNING failed: reason=").removesuffix(" receiver=oncall")
    if value.startswith('"'):
        assert json.loads(value) == sanitize.for_log(text)
    else:
        assert value == sanitize.for_log(text)
        assert not set(' ="') & set(value)
    printed = found.json_line()
    assert printed.isprintable()
    assert {**json.loads(printed), "reason": ""} == {
        "time": TIME, "level": "warning", "event": "failed", "reason": "", "receiver": "oncall",
    }  # fmt: skip
    entry = found.journal_entry(found.message())
    assert entry.count(b"\n") == 6  # one for each field: none has a line end inside
    assert b"WATCHDOG_RECEIVER=oncall\n" in entry


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_from_the_host_in_an_event_makes_no_line_that_looks_like_one(text):
    lines = event("%s", f"firing: {text}").line().split("\n")
    assert lines[0].startswith(f"{TIME} WARNING firing: ")
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])


def test_further_lines_are_the_detail():
    found = event("reload refused:\n%s", "a.toml:1: x\na.toml:2: y")
    assert found.line() == f"{TIME} WARNING reload refused:\n  a.toml:1: x\n  a.toml:2: y"
    shown = json.loads(found.json_line())
    assert (shown["event"], shown["detail"]) == ("reload refused:", "a.toml:1: x\na.toml:2: y")


def test_an_exception_is_the_detail():
    try:
        {}["x\n2025 ERROR forged"]
    except KeyError:
        found = event("job failed: job=%s", "tick", exc_info=sys.exc_info())
    first, *rest = found.message().split("\n")
    assert first == "job failed: job=tick"
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in rest)
    assert json.loads(found.json_line())["detail"].startswith("Traceback")


def test_further_facts_are_in_the_structured_forms_only():
    found = event("%s", "firing: storm", facts={"rule": "storm", "level": "x", "label_process": "a\nb"})
    assert found.message() == "firing: storm"
    shown = json.loads(found.json_line())
    assert (shown["rule"], shown["level"], shown["field_level"]) == ("storm", "warning", "x")
    assert b"WATCHDOG_LABEL_PROCESS=a\\x0ab\n" in found.journal_entry("firing: storm")


@pytest.mark.parametrize(("template", "arguments"), [("a: b=%s", ()), ("a: b=%s", (1, 2)), ("a: b=%d", ("x",))])
def test_arguments_that_do_not_fit_are_an_error(template, arguments):
    with pytest.raises((TypeError, ValueError, RuntimeError, StopIteration)):
        event(template, *arguments)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 3), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 6)],
)
def test_priorities_of_syslog(level, priority):
    assert event("x", level=level).priority == priority
