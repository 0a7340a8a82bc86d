"""The interval is raised while ticks are long, and lowered again."""

from watchdog.clock import SECOND_NS
from watchdog.scheduling.adaptive_interval import AdaptiveInterval


def changes(pace, took_seconds, ticks):
    """Return the intervals in seconds after each tick that changed them."""
    return [pace.interval_ns / SECOND_NS for _ in range(ticks) if pace.record_tick_duration(took_seconds)]


def test_ticks_that_take_less_than_half_the_interval_change_nothing():
    assert changes(AdaptiveInterval(SECOND_NS), 0.5, 1000) == []


def test_three_ticks_in_a_row_that_take_longer_double_the_interval():
    pace = AdaptiveInterval(SECOND_NS)

    assert changes(pace, 0.6, 2) == []
    assert changes(pace, 0.1, 1) == []
    assert changes(pace, 0.6, 2) == []
    assert changes(pace, 0.6, 1) == [2]


def test_the_interval_grows_until_a_tick_takes_half_of_it_and_no_longer_than_a_minute():
    assert changes(AdaptiveInterval(SECOND_NS), 3, 100) == [2, 4, 8]
    assert changes(AdaptiveInterval(SECOND_NS), 500, 1000) == [2, 4, 8, 16, 32, 60]


def test_it_returns_to_the_configured_interval():
    pace = AdaptiveInterval(SECOND_NS)
    changes(pace, 3, 100)

    assert changes(pace, 0.1, 29) == []
    assert changes(pace, 0.1, 1000) == [4, 2, 1]


def test_it_does_not_alternate():
    pace = AdaptiveInterval(SECOND_NS)

    assert changes(pace, 0.6, 10_000) == [2]


def test_an_interval_longer_than_a_minute_is_kept():
    assert changes(AdaptiveInterval(300 * SECOND_NS), 299, 100) == []
