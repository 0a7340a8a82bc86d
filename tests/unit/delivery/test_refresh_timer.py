"""The phases of the refreshes of a fleet, and the time between two refreshes of one host."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from watchdog.clock import SECOND_NS
from watchdog.delivery.refresh_timer import RefreshTimer

INTERVAL = 60.0
HOSTS = 3_000
MINUTES = 5


def refresh_times(timer, since_ns, took_ns=0, outage_ns=(0, 0)):
    """Return the times of the refreshes of one host from `since_ns` on that arrived.

    Each takes `took_ns`; those within `outage_ns` fail.
    """
    times_ns, now_ns = [], since_ns
    while (due_ns := max(now_ns, timer.due_ns(now_ns, INTERVAL))) < since_ns + MINUTES * INTERVAL * SECOND_NS:
        arrived = not outage_ns[0] <= due_ns < outage_ns[1]
        times_ns += [due_ns] * arrived
        now_ns = due_ns + took_ns
        timer.refreshed(now_ns, INTERVAL, succeeded=arrived)
    return times_ns


def make_fleet(*, stopped):
    draw = random.Random(7).uniform
    timers = [RefreshTimer(draw) for _ in range(HOSTS)]
    for timer in timers:
        if stopped:
            timer.stop()
    return timers


def busiest_second(times_ns):
    return max(Counter(at_ns // SECOND_NS for at_ns in times_ns).values())


def test_alerts_that_fire_on_all_hosts_at_once_are_refreshed_evenly_over_the_interval():
    times_ns = [at_ns for timer in make_fleet(stopped=True) for at_ns in refresh_times(timer, 10**12, 20_000_000)]
    assert busiest_second(times_ns) < 2 * HOSTS / INTERVAL
    assert len(times_ns) > HOSTS * (MINUTES - 1)


def test_alerts_that_fire_at_a_start_are_refreshed_at_once_and_evenly_from_then_on():
    since_ns = 10**12
    times_ns = [refresh_times(timer, since_ns) for timer in make_fleet(stopped=False)]
    assert {each[0] for each in times_ns} == {since_ns}
    assert busiest_second([at_ns for each in times_ns for at_ns in each[1:]]) < 2 * HOSTS / INTERVAL


def test_no_host_waits_longer_than_the_interval():
    for timer in make_fleet(stopped=True):
        times_ns = [10**12, *refresh_times(timer, 10**12)]
        assert max(after - before for before, after in itertools.pairwise(times_ns)) <= INTERVAL * SECOND_NS


def test_after_a_time_without_alerts_the_phase_is_drawn_anew():
    timer = RefreshTimer(random.Random(7).uniform)
    first_ns = refresh_times(timer, 10**12)[1] - 10**12
    timer.stop()
    assert refresh_times(timer, 10**13)[0] - 10**13 != first_ns


def test_after_an_outage_alerts_are_refreshed_soon_and_evenly_from_then_on():
    since_ns, outage_ns = 10**12, (10**12 + 90 * SECOND_NS, 10**12 + 190 * SECOND_NS)
    later_ns = []
    for timer in make_fleet(stopped=True):
        times_ns = [at_ns for at_ns in refresh_times(timer, since_ns, outage_ns=outage_ns) if at_ns >= outage_ns[1]]
        assert times_ns[0] <= outage_ns[1] + INTERVAL / 4 * SECOND_NS
        later_ns += [at_ns for at_ns in times_ns if at_ns >= outage_ns[1] + INTERVAL * SECOND_NS]
    assert busiest_second(later_ns) < 2 * HOSTS / INTERVAL
