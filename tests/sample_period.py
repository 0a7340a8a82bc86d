"""A period of `sample` on a made-up host: ticks of given connections go through a meter into an aggregate."""

import numpy as np

from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS
from watchdog.measure.meter import Meter

SECOND = 1_000_000_000
OUT = DIRECTIONS.index("out")


def make_connections(count=1, first=1, **values):
    rows = np.zeros(count, CONNECTION)
    rows["cookie"] = np.arange(first, first + count)
    for name, value in ({"born_ns": SECOND, "direction": OUT, "state": 1, "family": 2} | values).items():
        rows[name] = value
    rows["owner"]["tgid"], rows["owner"]["comm"] = 2**22 + 1, b"culprit"
    return rows


def make_sums(closes):
    keys, values = np.zeros(1, SUMS_KEY), np.zeros(1, SUMS)
    values["closes"] = closes
    return Totals(keys, values)


def nothing(key, value):
    return Totals(np.empty(0, key), np.empty(0, value))


class Period:
    """A meter and an aggregate after their baseline: an empty host."""

    def __init__(self, aggregate):
        self.aggregate, self.meter, self.second = aggregate, Meter(), 1
        self.meter.names.set_retention(0)  # as in the command
        self.meter.advance_with_changes(self.reading(), 0)

    def reading(self, live=(), closed=(), responses=(), folded=None):
        empty = np.empty(0, CONNECTION)
        return Reading(
            at_ns=self.second * SECOND,
            live=np.concatenate([empty, *live]),
            closed=np.concatenate([empty, *closed]),
            sums=folded or nothing(SUMS_KEY, SUMS),
            responses=np.array(list(responses), RESPONSE),
            datagrams=nothing(DATAGRAMS_KEY, DATAGRAMS),
            quality=Quality(),
        )

    def tick(self, **given):
        self.second += 1
        self.aggregate.add(*self.meter.advance_with_changes(self.reading(**given), 0))
