"""The interval is raised while ticks are long, and lowered again."""

import pytest

from watchdog.clock import SECOND_NS
from watchdog.scheduling.adaptive_interval import MAX_RAISED_NS, AdaptiveInterval


def changes(pace, took_seconds, ticks):
    """Return the intervals in seconds after each tick that changed them."""
    return [pace.interval_ns / SECOND_NS for _ in range(ticks) if pace.record_tick_duration(took_seconds)]


def seconds_until_configured(pace, took_seconds):
    """Return the time until the interval is 1 s with ticks that take `took_seconds`, the first wait included."""
    seconds = 0.0
    while pace.interval_ns > SECOND_NS:
        assert seconds < 3600
        seconds += pace.interval_ns / SECOND_NS
        pace.record_tick_duration(took_seconds)
    return seconds


def test_ticks_that_take_less_than_half_the_interval_change_nothing():
    assert changes(AdaptiveInterval(SECOND_NS), 0.5, 1000) == []


def test_three_ticks_in_a_row_that_take_longer_double_the_interval():
    pace = AdaptiveInterval(SECOND_NS)

    assert changes(pace, 0.6, 2) == []
    assert changes(pace, 0.1, 1) == []
    assert changes(pace, 0.6, 2) == []
    assert changes(pace, 0.6, 1) == [2]


def test_the_interval_grows_until_a_tick_takes_half_of_it_and_no_longer_than_the_time_of_a_recovery():
    assert changes(AdaptiveInterval(SECOND_NS), 3, 100) == [2, 4, 8]
    assert changes(AdaptiveInterval(SECOND_NS), 500, 1000) == [2, 4, 8, 16]


@pytest.mark.parametrize("took_seconds", [0.6, 1.5, 3, 7, 500])
def test_it_returns_to_the_configured_interval_within_twenty_seconds_of_the_end_of_the_cause(took_seconds):
    pace = AdaptiveInterval(SECOND_NS)
    changes(pace, took_seconds, 100)
    assert pace.interval_ns > SECOND_NS

    assert 10 <= seconds_until_configured(pace, 0.1) <= 20


def test_it_is_lowered_as_far_as_the_ticks_allow():
    pace = AdaptiveInterval(SECOND_NS)
    changes(pace, 3, 100)

    assert changes(pace, 0.6, 1000) == [4]
    assert changes(pace, 0.3, 1000) == [2]
    assert changes(pace, 0.1, 1000) == [1]


@pytest.mark.parametrize("took_seconds", [0.51, 0.6, 0.99, 1.01, 3, 500])
def test_it_does_not_alternate(took_seconds):
    pace = AdaptiveInterval(SECOND_NS)
    raised = changes(pace, took_seconds, 10_000)

    assert raised == sorted(raised)


def test_a_cause_that_comes_and_goes_makes_ever_fewer_changes():
    pace = AdaptiveInterval(SECOND_NS)
    lowered = 0
    seconds = 0.0
    while seconds < 3600:  # 5 s of ticks that take 0.7 s, 15 s of short ones, and so on
        seconds += pace.interval_ns / SECOND_NS
        before_ns = pace.interval_ns
        pace.record_tick_duration(0.7 if seconds % 20 < 5 else 0.1)
        lowered += pace.interval_ns < before_ns

    assert lowered <= 3600 / 60


def test_relapses_are_forgotten_after_a_quiet_time():
    pace = AdaptiveInterval(SECOND_NS)
    for _ in range(8):
        changes(pace, 0.7, 3)
        seconds_until_configured(pace, 0.1)
    changes(pace, 0.7, 3)
    assert seconds_until_configured(pace, 0.1) > 60
    changes(pace, 0.1, 1_000)
    changes(pace, 0.7, 3)

    assert seconds_until_configured(pace, 0.1) <= 20


def test_an_interval_longer_than_the_longest_raised_one_is_kept():
    configured_ns = 300 * SECOND_NS
    assert configured_ns > MAX_RAISED_NS
    assert changes(AdaptiveInterval(configured_ns), 299, 100) == []
