"""The facts that a baseline gives for the text of an alert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from watchdog.rules.language.rule import Severity


@dataclass(frozen=True, slots=True)
class BaselineFacts:
    """What a baseline knows of one group, for the text of an alert; amounts in the metric's unit.

    `usual`: the reference of this hour; `highest`: of any hour; None while unknown. `rarity_hours`: the value is
    expected less than once in so many hours, at most `learnt_hours`. `learnt_hours`: of the group, or of the rule where
    `is_new`: then the group is too young for a limit of its own, and `highest` is the highest limit of the others.
    `limits`: in force.
    """

    limits: Mapping[Severity, float]
    usual: float | None
    highest: float | None
    rarity_hours: float
    learnt_hours: int
    is_new: bool
