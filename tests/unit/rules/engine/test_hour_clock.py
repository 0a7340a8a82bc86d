from watchdog.rules.engine.hour_clock import EndedHour, HourClock

HOUR = 3600


def ended(*times, clock=None, measured=True):
    clock = clock or HourClock()
    return [one for time in times if (one := clock.advance(time, is_measured=measured)) is not None]


def every(seconds, first, last):
    return range(first, last, seconds)


def test_an_hour_of_ticks_is_whole():
    assert ended(*every(10, 0, 2 * HOUR + 1)) == [EndedHour(0, True), EndedHour(1, True)]


def test_an_hour_that_begins_or_ends_without_ticks_is_not():
    assert ended(*every(10, 600, HOUR + 1)) == [EndedHour(0, False)]
    assert ended(*every(10, 0, 3000), HOUR + 10) == [EndedHour(0, False)]
    assert ended(*every(10, 200, HOUR + 1)) == [EndedHour(0, True)]  # nine tenths suffice


def test_unmeasured_ticks_do_not_count():
    assert ended(*every(10, 0, HOUR + 1), measured=False) == [EndedHour(0, False)]


def test_a_step_of_the_clock_breaks_the_hours_it_touches():
    forward = ended(*every(10, 0, 1800), *every(10, 5000, 3 * HOUR + 1))
    assert forward == [EndedHour(0, False), EndedHour(1, False), EndedHour(2, True)]
    back = ended(*every(10, HOUR, HOUR + 600), *every(10, 1800, 3 * HOUR + 1))
    assert back == [EndedHour(1, False), EndedHour(0, False), EndedHour(1, True), EndedHour(2, True)]


def test_a_jitter_over_the_full_hour_costs_no_hour():
    times = [*every(10, 0, HOUR), HOUR + 1, HOUR - 1, *every(10, HOUR + 2, 2 * HOUR + 10)]
    assert EndedHour(1, True) in ended(*times)


def test_summer_time_repeats_an_hour_and_skips_one():
    # 02:59:50 is followed by 02:00:00: all hours are whole, one number comes twice.
    autumn = ended(*every(10, 2 * HOUR, 3 * HOUR), *every(10, 2 * HOUR, 4 * HOUR + 1))
    assert [one.number for one in autumn] == [2, 3] or [one.number for one in autumn] == [2, 2, 3]
    spring = ended(*every(10, HOUR, 2 * HOUR), *every(10, 3 * HOUR, 4 * HOUR + 1))
    assert spring == [EndedHour(1, True), EndedHour(3, True)]


def test_goes_on_after_a_restart_without_the_time_in_between():
    clock = HourClock()
    clock.resume(5, 3300.0)
    assert ended(5 * HOUR + 3400, 5 * HOUR + 3410, 6 * HOUR + 10, clock=clock) == [EndedHour(5, True)]
    clock.resume(5, 100.0)
    assert ended(5 * HOUR + 3400, 5 * HOUR + 3590, 6 * HOUR + 10, clock=clock) == [EndedHour(5, False)]
