"""Arithmetic over metrics, as `metric` and `only_if` of a rule write it: `"connect_failures / connects"`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operator = Literal["+", "-", "*", "/"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A metric of the catalogue."""

    metric: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Operation:
    """`left operator right`; x / 0 is 0 where x is 0, else infinite."""

    operator: Operator
    left: Expression
    right: Expression


Expression = Operand | Constant | Operation


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`, over the same window as the rule's metric: the volume gate `only_if`."""

    operator: Literal["<", "<=", ">", ">="]
    left: Expression
    right: float
