"""Places for series: their bound, and names that strangers choose."""

from __future__ import annotations

import pytest

from watchdog.web.series_places import OTHER, OTHER_PLACE, SeriesPlaces


def test_a_pair_keeps_its_place():
    places = SeriesPlaces(10)
    first, second = places.find("nginx", "nginx.service"), places.find("nginx", "")
    assert (first, second, places.find("nginx", "nginx.service")) == (1, 2, 1)
    assert places.pairs == [OTHER, ("nginx", "nginx.service"), ("nginx", "")]
    assert places.refused == 0


def test_beyond_the_limit_pairs_share_one_place_and_are_counted():
    places = SeriesPlaces(5)
    found = [places.find("worker", f"{number}.service") for number in range(100)]
    assert found == [1, 2, 3, 4, *[OTHER_PLACE] * 96]
    assert (len(places.pairs), places.refused) == (5, 96)


@pytest.mark.parametrize("unit", ["", "user@1000/{}.service", "batch.service"])
def test_one_unit_or_user_leaves_a_quarter_to_the_others(unit):
    places = SeriesPlaces(101)
    for number in range(1_000):
        places.find(f"name{number}", unit.format(number))
    assert len(places.pairs) == 76
    assert places.find("nginx", "nginx.service") == 76


def test_hostile_names_are_escaped_and_encodable(hostile_name):
    places = SeriesPlaces(10)
    assert places.find(hostile_name, hostile_name) == 1
    shown = places.pairs[1][0]
    assert shown.isprintable()
    assert shown.encode().decode() == shown
