"""Arithmetic over metrics in the rule keys `metric` and `only_if`, like `"connect_failures / connects"`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, cast

from watchdog.config import suggestions
from watchdog.measure.catalogue import METRICS, MetricKind, Unit
from watchdog.rules.language.quantity import parse_quantity

Operator = Literal["+", "-", "*", "/"]
Comparator = Literal["<", "<=", ">", ">="]

COMPARE: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

_COUNT = "count"
# Each failed attempt is a connection that ended; each segment sent again is a segment sent.
_PARTS_OF_SAME_TICKS = {"connect_failures": ("closes",), "retransmits": ("packets_sent",)}
# Later events of connections are a part of earlier ones: more in one window than there were before is a matter of time.
_PARTS = {
    "connect_failures": ("connects",),
    "established": ("connects",),
    "accepts": ("established",),
    "closes": ("connects", "established", "accepts"),
}
_MAX_LENGTH = 500
_MAX_DEPTH = 20
_MAX_NUMBER = 2**63
_TOKEN = re.compile(r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<mark>[-+*/()]))", re.ASCII)
_COMPARISON = re.compile(r"([^<>=]*)(<=|>=|<|>)([^<>=]*)")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True, slots=True)
class MetricReference:
    """A metric of the catalogue."""

    metric: str


@dataclass(frozen=True, slots=True)
class ValueCount:
    """The number of values of a distribution: `count` in `only_if`."""

    metric: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Operation:
    """`left operator right`; a divisor of 0 counts as 1."""

    operator: Operator
    left: Expression
    right: Expression


Expression = MetricReference | ValueCount | Constant | Operation


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`, over the same window as the rule's metric: the condition `only_if`."""

    operator: Comparator
    left: Expression
    right: float


class ExpressionError(ValueError):
    """The text is not an expression; the message names the problem."""


class _Parser:
    """Precedence climbing over the tokens of one text; `counted`: the distribution that `count` refers to."""

    def __init__(self, text: str, counted: str | None = None) -> None:
        self._counted = counted
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def parse_expression(self) -> Expression:
        expression = self._operations(1)
        if self._peek() is not None:
            raise ExpressionError(f"expected + - * or / before {self._peek()!r}")
        return expression

    def _peek(self) -> str | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _operations(self, min_precedence: int) -> Expression:
        left = self._operand()
        while (mark := self._peek()) is not None and _PRECEDENCE.get(mark, 0) >= min_precedence:
            self._next += 1
            left = Operation(cast("Operator", mark), left, self._operations(_PRECEDENCE[mark] + 1))
        return left

    def _operand(self) -> Expression:
        token = self._peek()
        if token is None:
            raise ExpressionError("incomplete: expected a metric or a number at the end")
        self._next += 1
        if token == "(":
            return self._parentheses()
        if token[0].isdigit():
            return Constant(_number(token))
        if not (token[0].isalpha() or token[0] == "_"):
            raise ExpressionError(f"expected a metric or a number, not {token!r}")
        if token == _COUNT and self._counted is not None:
            return ValueCount(self._counted)
        if token not in METRICS:
            raise ExpressionError(suggestions.unknown_name("metric", token, METRICS))
        return MetricReference(token)

    def _parentheses(self) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpressionError(f"more than {_MAX_DEPTH} nested parentheses")
        inside = self._operations(1)
        if self._peek() != ")":
            raise ExpressionError("a parenthesis is not closed")
        self._next += 1
        self._depth -= 1
        return inside


def _number(token: str) -> float:
    number = float(token)
    if number >= _MAX_NUMBER:  # products of larger ones could be infinite
        raise ExpressionError(f"{suggestions.quote_value(token)} is too large: must be below 2^63")
    return number


def _tokens(text: str) -> Iterator[str]:
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"longer than {_MAX_LENGTH} characters")
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            wrong = suggestions.quote_value(text[position:].strip()[0])
            raise ExpressionError(f"cannot use {wrong}: use only metrics, numbers, + - * / and parentheses")
        yield match[match.lastgroup or 0]
        position = match.end()


def parse_expression(text: str) -> Expression:
    """Return the expression in `text`: metrics, numbers, + - * / and parentheses.

    Raises:
        ExpressionError: `text` is not an expression, names an unknown metric, or names no metric.
    """
    expression = _Parser(text).parse_expression()
    if not metrics_of(expression):
        raise ExpressionError("must name a metric")
    return expression


def parse_comparison(text: str, counted: str | None = None) -> Comparison:
    """Return the comparison in `text`: an expression, one of < <= > >=, and a number with or without unit.

    `counted`: the distribution of the values that `count` counts, None where there is none.

    Raises:
        ExpressionError: `text` is not a comparison.
    """
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ExpressionError('must be one comparison, like "connects >= 50"')
    if counted is None and re.search(rf"\b{_COUNT}\b", match[1], re.ASCII):
        raise ExpressionError("count is the number of values of a distribution, and metric is none: use a counter")
    left = _Parser(match[1], counted).parse_expression()
    if not metrics_of(left):
        raise ExpressionError("must name a metric")
    try:
        right = parse_quantity(match[3].strip(), unit_of(left), per_second=False)
    except ValueError as error:
        raise ExpressionError(str(error)) from None
    return Comparison(cast("Comparator", match[2]), left, right)


def format_expression(expression: Expression) -> str:
    """Return the text of `expression`, which `parse_expression` reads as the same; `count` for a number of values."""
    match expression:
        case MetricReference(metric):
            return metric
        case ValueCount():
            return _COUNT
        case Constant(value):
            return f"{Decimal(repr(value)).normalize():f}"  # never with an exponent
    mark = expression.operator
    left, right = format_expression(expression.left), format_expression(expression.right)
    if isinstance(expression.left, Operation) and _PRECEDENCE[expression.left.operator] < _PRECEDENCE[mark]:
        left = f"({left})"
    if isinstance(expression.right, Operation) and _PRECEDENCE[expression.right.operator] <= _PRECEDENCE[mark]:
        right = f"({right})"
    return f"{left} {mark} {right}"


def metrics_of(expression: Expression) -> frozenset[str]:
    """Return the metrics that `expression` reads."""
    match expression:
        case MetricReference(metric) | ValueCount(metric):
            return frozenset((metric,))
        case Operation(_, left, right):
            return metrics_of(left) | metrics_of(right)
        case _:
            return frozenset()


def distributions_in(expression: Expression) -> frozenset[str]:
    """Return the distributions of the values that `expression` reads, not counts."""
    match expression:
        case MetricReference(metric) if METRICS[metric].kind is MetricKind.DISTRIBUTION:
            return frozenset((metric,))
        case Operation(_, left, right):
            return distributions_in(left) | distributions_in(right)
        case _:
            return frozenset()


def unit_of(expression: Expression) -> Unit | None:
    """Return the unit of the value of `expression` (of sums, not rates), None where it has no name."""
    match expression:
        case MetricReference(metric):
            return METRICS[metric].unit
        case Operation("+" | "-", left, right):
            units = {unit_of(side) for side in (left, right) if not isinstance(side, Constant)}
            return units.pop() if len(units) == 1 else None
        case Operation("/", left, right):
            unit = unit_of(left)
            return Unit.RATIO if unit is not None and unit is unit_of(right) else None
        case _:
            return None


def leading_metric(expression: Expression) -> str | None:
    """Return the first metric of `expression`."""
    match expression:
        case MetricReference(metric) | ValueCount(metric):
            return metric
        case Constant():
            return None
    return leading_metric(expression.left) or leading_metric(expression.right)


def is_linear(expression: Expression) -> bool:
    """Return whether the value of `expression` grows with time like its metrics: true of sums, not of ratios."""
    match expression:
        case MetricReference():
            return True
        case Operation("+" | "-", left, right):
            return all(is_linear(side) for side in (left, right) if not isinstance(side, Constant))
        case Operation("*", left, right):
            return isinstance(left, Constant) != isinstance(right, Constant) and is_linear(_variable(left, right))
        case Operation("/", left, Constant()):
            return is_linear(left)
        case _:
            return False


def never_negative(expression: Expression) -> bool:
    """Return whether every value of `expression` is at least 0: true without subtraction, as every metric is."""
    match expression:
        case Operation("-"):
            return False
        case Operation(_, left, right):
            return never_negative(left) and never_negative(right)
        case _:
            return True


def is_share(expression: Expression) -> bool:
    """Return whether no value of `expression` is above 1: a part, divided by a sum that it is a part of."""
    return _is_part_of(expression, _PARTS) or is_share_of_same_ticks(expression)


def is_share_of_same_ticks(expression: Expression) -> bool:
    """Return whether `expression` is a share, its parts counted in the ticks of their wholes."""
    return _is_part_of(expression, _PARTS_OF_SAME_TICKS)


def _is_part_of(expression: Expression, parts: Mapping[str, Collection[str]]) -> bool:
    match expression:
        case Operation("/", MetricReference(part), whole):
            wholes = {MetricReference(name) for name in (part, *parts.get(part, ()))}
            return never_negative(whole) and not wholes.isdisjoint(_terms(whole))
        case _:
            return False


def _terms(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, Operation) and expression.operator == "+":
        yield from _terms(expression.left)
        yield from _terms(expression.right)
    else:
        yield expression


def value_without_rows(expression: Expression) -> float:
    """Return the value of `expression` without rows: NaN for distributions; 0 for each of all other metrics."""
    match expression:
        case MetricReference(metric):
            return math.nan if METRICS[metric].kind is MetricKind.DISTRIBUTION else 0.0
        case ValueCount():
            return 0.0
        case Constant(value):
            return value
    left, right = value_without_rows(expression.left), value_without_rows(expression.right)
    match expression.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / (right or 1.0)


def _variable(left: Expression, right: Expression) -> Expression:
    return right if isinstance(left, Constant) else left
