"""Log lines for groups without room: in the alerts of a rule, where one alert has their number, or in its memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from watchdog import sanitize
from watchdog.rules.language.rule import Labels

MAX_NAMED_PER_TICK: Final = 200
_NAMES_PER_LINE = 20


def log_left_out(log: logging.Logger, left_out: Iterable[tuple[str, Sequence[Labels]]]) -> None:
    """Log groups that joined an overflow, by rule id: some lines of several names each."""
    for rule, groups in left_out:
        for first in range(0, len(groups), _NAMES_PER_LINE):
            part = groups[first : first + _NAMES_PER_LINE]
            names = "; ".join(" ".join(f"{name}={value or '-'}" for name, value in labels) for labels in part)
            line = f"fires in the overflow alert, without one of its own: rule={rule} groups={len(part)}: {names}"
            log.warning("%s", sanitize.escape_unprintable(line))


def log_dropped(log: logging.Logger, dropped: Mapping[str, int]) -> None:
    """Log the rules whose novelty or long window had no room, with the number of combinations or groups dropped."""
    for rule, count in dropped.items():
        log.warning("memory of a rule is full, entries dropped: rule=%s entries=%d", rule, count)
