import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.config.durations import format_duration, parse_duration

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0s", 0),
        ("10s", 10 * SECOND),
        ("1m30s", 90 * SECOND),
        ("500ms", SECOND // 2),
        ("250us", 250_000),
        ("4h", 14_400 * SECOND),
        ("7d", 604_800 * SECOND),
        ("1.5h", 5_400 * SECOND),
        ("0.1s", 100_000_000),
        ("1d2h3m4s5ms6us", 93_784_005_006_000),
    ],
)
def test_reads_numbers_with_units(text, duration_ns):
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "-1s", "1s1m", "1s1s", "1M", "1e3s", "1.s", "٣s", "10s\n", "1w"]
)
def test_refuses_everything_else(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 10**15))
def test_a_formatted_duration_parses_to_the_same_value(microseconds):
    assert parse_duration(format_duration(microseconds * 1_000)) == microseconds * 1_000
