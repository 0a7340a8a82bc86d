"""Places for series: a bounded number of pairs of process and unit has one, the rest shares the place `(other)`.

A pair keeps its place until the daemon ends: a counter that moved from one series to another would be counted twice.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from watchdog import sanitize
from watchdog.measure.interning import OTHER_NAME

Pair = tuple[str, str]
"""Process and unit."""

OTHER: Final[Pair] = (OTHER_NAME, OTHER_NAME)
OTHER_PLACE: Final = 0
_MAX_SHARE = 0.75  # of the places for one unit: a process can make names without end


class SeriesPlaces:
    """Gives places to pairs.

    `pairs`: those with a place, in the order of their places. `refused`: number of times that a pair found no place.
    """

    def __init__(self, max_places: int) -> None:
        """Start with the place of `(other)`; there are at most `max_places`."""
        self.pairs = [OTHER]
        self.refused = 0
        self._places = {OTHER: OTHER_PLACE}
        self._of_owner: Counter[str] = Counter()
        self._max_places = max_places
        self._max_of_owner = max(1, int((max_places - 1) * _MAX_SHARE))

    def find(self, process: str, unit: str) -> int:
        """Return the place of a pair, `OTHER_PLACE` if none is free for it.

        Units of one user, `user@1000/app.service`, count as one.
        """
        pair = sanitize.escape_unprintable(process), sanitize.escape_unprintable(unit)
        place = self._places.get(pair)
        if place is not None:
            return place
        owner = pair[1].partition("/")[0]
        if len(self.pairs) >= self._max_places or self._of_owner[owner] >= self._max_of_owner:
            self.refused += 1
            return OTHER_PLACE
        self._of_owner[owner] += 1
        self._places[pair] = place = len(self.pairs)
        self.pairs.append(pair)
        return place
