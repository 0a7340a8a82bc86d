"""Mute times: hours of the week in a zone, over midnight and on the days on which its clock is set."""

import datetime as dt
import itertools
import tomllib
from zoneinfo import ZoneInfo

import pytest

import factories
from watchdog.clock import Now
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.routing.mute_times import parse_times
from watchdog.routing.suppression_rules import SuppressionRules, read_suppression_rules
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.language.rule import Severity

MONDAY, SUNDAY = 0, 6


def read(text):
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return read_suppression_rules(read_settings(document)).mute_times, [str(one) for one in document.problems]


def mute_time(times, zone="UTC", more=""):
    [found], problems = read(f'[[mute]]\ntimes = "{times}"\nzone = "{zone}"\n{more}')
    assert problems == []
    return found


def wall(text):
    """Return the wall-clock seconds of a time with its offset: "2026-03-29T03:00+02:00"."""
    return dt.datetime.fromisoformat(text).timestamp()


def edges(muted, first, last):
    """Return the times, in UTC, of each change from `first` to `last`, minute by minute."""
    begin, end = int(wall(first)), int(wall(last))
    states = [(second, muted.holds(second)) for second in range(begin, end, 60)]
    return [
        dt.datetime.fromtimestamp(second, dt.UTC).strftime("%d %H:%M") + (" on" if holds else " off")
        for (_, before), (second, holds) in itertools.pairwise(states)
        if before != holds
    ]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("Mon-Fri 09:00-17:00", ["Mon 09:00", "Fri 16:59"], ["Mon 08:59", "Mon 17:00", "Sat 12:00"]),
        ("Mon-Fri 22:00-06:00", ["Mon 22:00", "Tue 05:59", "Sat 05:59"], ["Mon 05:59", "Sat 06:00", "Sat 22:00"]),
        ("Sun 23:00-01:00", ["Sun 23:00", "Mon 00:59"], ["Sun 00:30", "Mon 01:00", "Mon 23:30"]),
        ("Sat,Sun", ["Sat 00:00", "Sun 23:59"], ["Fri 23:59", "Mon 00:00"]),
        ("fri-mon", ["Fri 00:00", "Mon 23:59", "Sun 12:00"], ["Tue 00:00", "Thu 23:59"]),
        ("22:00-24:00", ["Wed 23:59"], ["Wed 00:00", "Wed 21:59"]),
        ("18:00-00:00", ["Wed 23:59"], ["Wed 00:00", "Wed 17:59"]),
        ("00:00-24:00", ["Wed 00:00", "Sun 23:59"], []),
        ("Mon, Wed-Thu  10:00-11:00", ["Mon 10:00", "Thu 10:59"], ["Tue 10:00", "Fri 10:00"]),
    ],
)
def test_times_contain_their_minutes_and_no_others(text, inside, outside):
    times = parse_times(text)

    def contains(moment):
        day, clock = moment.split()
        names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
        return times.contains(names.index(day), int(clock[:2]) * 60 + int(clock[3:]))

    assert all(map(contains, inside))
    assert not any(map(contains, outside))


@pytest.mark.parametrize(
    "text",
    ["", " ", "Mon-", "Foo", "9:00-17:00", "09:00", "09:00-09:00", "25:00-26:00", "10:60-11:00", "24:00-06:00",
     "Mon22:00-23:00", "Mon 22:00-23:00 Tue", "22:00-23:00 Mon", "24:01-03:00"],
)  # fmt: skip
def test_text_that_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"not a time|is empty"):
        parse_times(text)


@pytest.mark.parametrize(
    ("zone", "first", "last", "expected"),
    [
        # Berlin: 02:00 +01:00 → 03:00 +02:00 on 29 March 2026.
        ("Europe/Berlin", "2026-03-28T12:00+00:00", "2026-03-30T12:00+00:00",
         ["28 21:00 on", "29 04:00 off", "29 20:00 on", "30 04:00 off"]),
        # 03:00 +02:00 → 02:00 +01:00 on 25 October 2026.
        ("Europe/Berlin", "2026-10-24T12:00+00:00", "2026-10-26T12:00+00:00",
         ["24 20:00 on", "25 05:00 off", "25 21:00 on", "26 05:00 off"]),
        # New York: 02:00 -05:00 → 03:00 -04:00 on 8 March 2026, and back on 1 November.
        ("America/New_York", "2026-03-07T18:00+00:00", "2026-03-09T18:00+00:00",
         ["08 03:00 on", "08 10:00 off", "09 02:00 on", "09 10:00 off"]),
        ("America/New_York", "2026-10-31T18:00+00:00", "2026-11-02T18:00+00:00",
         ["01 02:00 on", "01 11:00 off", "02 03:00 on", "02 11:00 off"]),
    ],
)  # fmt: skip
def test_nights_on_which_the_clock_is_set_end_at_the_hour_of_the_zone(zone, first, last, expected):
    assert edges(mute_time("22:00-06:00", zone), first, last) == expected


@pytest.mark.parametrize(
    ("zone", "first", "last", "expected"),
    [
        ("Europe/Berlin", "2026-03-29T00:00+00:00", "2026-03-29T06:00+00:00", ["29 01:00 on", "29 01:30 off"]),
        ("Europe/Berlin", "2026-10-25T00:00+00:00", "2026-10-25T06:00+00:00",
         ["25 00:30 on", "25 01:00 off", "25 01:30 on", "25 02:30 off"]),
        ("America/New_York", "2026-03-08T05:00+00:00", "2026-03-08T12:00+00:00", ["08 07:00 on", "08 07:30 off"]),
    ],
)  # fmt: skip
def test_hours_that_are_skipped_or_come_twice_are_those_of_the_clock(zone, first, last, expected):
    # 02:30-03:30: in spring the clock jumps from 02:00 to 03:00; in Berlin's autumn from 03:00 to 02:00.
    assert edges(mute_time("02:30-03:30", zone), first, last) == expected


def test_every_zone_agrees_with_the_clock_of_the_zone():
    muted = mute_time("Mon-Fri 22:00-06:00", "Australia/Lord_Howe")  # its clock is set by half an hour
    begin = int(wall("2026-04-03T00:00+00:00"))
    for second in range(begin, begin + 7 * 86_400, 600):
        local = dt.datetime.fromtimestamp(second, ZoneInfo("Australia/Lord_Howe"))
        night_of = local.weekday() if local.hour >= 22 else (local.weekday() - 1) % 7
        assert muted.holds(second) == ((local.hour >= 22 or local.hour < 6) and night_of < 5)


def test_critical_alerts_pass_unless_they_are_named():
    warning, critical = (factories.make_alert(severity=severity) for severity in Severity)
    usual = mute_time("00:00-24:00")
    assert (usual.matches(warning), usual.matches(critical)) == (True, False)
    named = mute_time("00:00-24:00", more='where = { severity = ["warning", "critical"], rule = "outbound-*" }')
    assert (named.matches(warning), named.matches(critical)) == (True, True)
    assert not mute_time("00:00-24:00", more='where = { rule = "other" }').matches(warning)


def test_muted_alert_has_the_mute_time_as_its_cause():
    [night], _ = read('[[mute]]\nname = "night"\ntimes = ["Mon 22:00-06:00", "Sat-Sun"]\n')
    suppressor, alert = Suppressor(), factories.make_alert(severity=Severity.WARNING)
    suppressor.configure(SuppressionRules((night,)), ["log"])
    for text, causes in (("2026-11-30T21:59+00:00", []), ("2026-11-30T22:00+00:00", ["mute time night"])):
        suppressor.update((), {}, Now(0, wall(text)))
        assert [cause.describe() for cause in suppressor.find_all(alert)] == causes
        assert suppressor.is_active == bool(causes)
    assert suppressor.find("log", alert) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "mute.times: missing"),
        ('times = "soon"', 'not a time of the week: "soon"'),
        ('times = ["Sat", "x"]', 'not a time of the week: "x"'),
        ("times = []", "must not be empty"),
        ('times = "Sat"\nzone = "Berlin"', 'no time zone "Berlin"'),
        ('times = "Sat"\nzone = "../passwd"', "no time zone"),
        ('times = "Sat"\nwhere = { proces = "x" }', 'did you mean "process"'),
        ('times = "Sat"\nzones = "UTC"', 'unknown key "zones"'),
    ],
)
def test_problems_of_a_mute_time_are_reported(text, problem):
    _, problems = read(f"[[mute]]\n{text}\n")
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('name = "night"\ntimes = "Sat"', 'name = "night"\ntimes = "Sun"'),
        ('times = "Sat"', 'times = "Sat"\nwhere = { rule = "x*" }'),
        ('times = "Sat"', 'name = "Sat UTC"\ntimes = "Sun"'),
    ],
)
def test_two_mute_times_of_one_name_are_a_problem_with_the_line_of_the_first(first, second):
    _, problems = read(f"[[mute]]\n{first}\n[[mute]]\n{second}\n")
    assert len(problems) == 1
    assert "is already the mute time of line 1" in problems[0]
