"""Limits are shown as the rule has them, and values with digits enough to differ from them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from watchdog.alerts import wording
from watchdog.alerts.alert import Alert
from watchdog.receivers.render.notification_text import fact_lines
from watchdog.routing.group_member import GroupMember
from watchdog.rules.language.formats import FORMATS, format_exact, format_number
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import Severity

RULE = """[[rule]]
id = "r"
summary = "{{value}} over {{threshold}}"
metric = "{metric}"
stat = "{stat}"
window = "10s"
fire_above = {limit}
"""
KINDS = {
    "rate": ("connects", "rate"),
    "count": ("connects", "sum"),
    "bytes": ("send_queue", "max"),
    "bytes/s": ("bytes_sent", "rate"),
    "seconds": ("rtt", "p99"),
    "percent": ("retransmits / packets_sent", "rate"),
}


@pytest.fixture
def load(tmp_path):
    """Return the rule of a format, a limit and further keys."""

    def load(name, limit, more=""):
        metric, stat = KINDS[name]
        path = tmp_path / "rules.toml"
        path.write_text(RULE.format(metric=metric, stat=stat, limit=limit) + more)
        path.chmod(0o644)
        (rule,) = load_rules([path], receivers=()).rules
        return rule

    return load


@pytest.mark.parametrize(
    ("name", "limit", "text"),
    [
        ("rate", "19.96", "19.96/s"),
        ("rate", "1.25", "1.25/s"),
        ("rate", "100", "100/s"),
        ("rate", '"19.96"', "19.96/s"),
        ("count", "123456.5", "123,456.5"),
        ("bytes", '"1.25GiB"', "1.25 GiB"),
        ("bytes/s", '"1.25 GiB/s"', "1.25 GiB/s"),
        ("bytes/s", '"1.25GiB"', "1.25 GiB/s"),
        ("bytes", "1342177280", "1.34217728 GB"),
        ("seconds", '"59.97s"', "59.97 s"),
        ("seconds", "5.997", "5.997 s"),
        ("seconds", '"90m"', "90 min"),
        ("seconds", '"1250us"', "1250 us"),
        ("percent", '"5.25%"', "5.25 %"),
        ("percent", "0.07", "7 %"),
    ],
)
def test_a_limit_is_shown_as_the_rule_has_it(load, name, limit, text):
    rule = load(name, limit)
    value = rule.thresholds.fire[Severity.WARNING] * 1.5
    summary = wording.render_summary(rule, (), Severity.WARNING, "web-1", value=value, peak=value, since_seconds=1)
    assert summary.endswith(f"over {text}")
    assert wording.breach_reason(rule, Severity.WARNING) == f"value above {text}"
    assert wording.clear_reason(rule, Severity.WARNING, "") == f"value below {text}"
    assert (
        wording.fallback_summary(rule, wording.limit_of(rule, Severity.WARNING, None), value, KeyError("x"))
        .split("limit ")[1]
        .startswith(text)
    )


def test_a_limit_to_clear_is_shown_as_the_rule_has_it(load):
    rule = load("bytes/s", '"1.25GiB"', more='clear_below = "1000.4KiB"')
    assert wording.clear_reason(rule, Severity.WARNING, "") == "value below 1000.4 KiB/s"


@pytest.mark.parametrize(
    ("name", "value", "limit", "text"),
    [
        ("rate", 19.962, "19.96", "20/s"),
        ("rate", 20.02, "19.96", "20/s"),
        ("rate", 100.04, "100", "100.04/s"),
        ("bytes", 1.3422e9, '"1.25GiB"', "1.3422 GB"),
        ("seconds", 0.25004, '"250ms"', "250.04 ms"),
        ("percent", 0.05004, '"5%"', "5.004 %"),
        ("count", 1e6 + 1, "1000000", "1,000,001"),
    ],
)
def test_a_value_beyond_the_limit_never_reads_the_same(load, name, value, limit, text):
    rule = load(name, limit)
    summary = wording.render_summary(rule, (), Severity.WARNING, "web-1", value=value, peak=value, since_seconds=1)
    assert summary.split(" over ")[0] == text
    threshold = rule.thresholds.fire[Severity.WARNING]
    alert = factories.make_alert(value=value, peak=value, threshold=threshold, format=name)
    assert fact_lines(alert, factories.make_notification(alert))[0].startswith(f"value {text}, limit ")
    ended = replace(alert, resolved=alert.fired + 9)
    assert f"peak {text}, last value {text} (limit" in fact_lines(ended, factories.make_notification(ended))[0]


SCALES = {"bytes": 1e18, "bytes/s": 1e18, "percent": 1e3, "seconds": 1e7}


@given(
    name=st.sampled_from(sorted(set(FORMATS) - {"ago"})),
    share=st.floats(1e-9, 1),
    distance=st.one_of(st.floats(-0.5, 0.5), st.floats(-1e-6, 1e-6), st.just(0.0)),
)
def test_a_value_reads_on_its_side_of_the_limit(name, share, distance):
    limit = float(f"{share * SCALES.get(name, 1e9):.4g}")
    value = limit * (1 + distance)
    read, limit_read = as_number(format_number(name, value, limit)), as_number(format_exact(name, limit))
    if math.isclose(value, limit, rel_tol=1e-8):
        assert math.isclose(read, limit_read, rel_tol=0.05)
    else:
        assert (read > limit_read) == (value > limit)
        assert not math.isclose(read, limit_read, rel_tol=1e-9)


def as_number(text):
    number, _, unit = text.removesuffix("/s").partition(" ")
    scales = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "us": 1e-6, "ms": 1e-3, "min": 60, "h": 3600}
    return float(number.replace(",", "")) * (scales | {"d": 86_400}).get(unit, 1)


def test_the_text_of_the_limit_survives_a_restart_and_goes_with_the_highest_severity():
    alert = factories.make_alert(threshold=1.25 * 2**30, threshold_text="1.25 GiB", format="bytes")
    assert Alert.from_json_text(json.dumps(alert.to_json())).limit.text == "1.25 GiB"
    member = GroupMember(alert)
    member.mark_notified_firing(alert)
    lower = replace(alert, severity=Severity.WARNING, threshold=1.0, threshold_text="1 B", resolved=alert.fired + 9)
    member.resolve(lower, was_held_back=False)
    assert GroupMember.from_json(member.to_json()).end().limit.text == "1.25 GiB"
