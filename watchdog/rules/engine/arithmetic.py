"""The values of expressions, over all groups at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from watchdog.measure.snapshot import Numbers
from watchdog.rules.language.expression import (
    Constant,
    Expression,
    MetricReference,
    ValueCount,
    is_share,
    is_share_of_same_ticks,
)


def evaluate_expression(expression: Expression, read: Callable[[str], Numbers]) -> Numbers:
    """Return the value of `expression`, where `read` returns the values of a metric.

    Shapes are as numpy broadcasts them: (1,) for an expression without metrics.
    """
    match expression:
        case MetricReference(metric) | ValueCount(metric):
            return read(metric)
        case Constant(value):
            return np.float64(value).reshape(1)
    left, right = evaluate_expression(expression.left, read), evaluate_expression(expression.right, read)
    match expression.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            quotient = _divide(left, right)
            return np.fmin(quotient, 1.0) if is_share(expression) else quotient


Bounds = tuple[Numbers, Numbers]
"""The least and the greatest possible values."""


def evaluate_bounds(expression: Expression, read: Callable[[str], Bounds]) -> Bounds:
    """Return bounds of the value of `expression`, where `read` returns those of a metric (interval arithmetic).

    A metric that occurs twice counts as two, so that the bounds can be wider than the values.
    """
    match expression:
        case MetricReference(metric) | ValueCount(metric):
            return read(metric)
        case Constant(value):
            return np.float64(value).reshape(1), np.float64(value).reshape(1)
    left, right = evaluate_bounds(expression.left, read), evaluate_bounds(expression.right, read)
    with np.errstate(invalid="ignore"):  # infinite - infinite and 0 * infinite: no number, and so no bound
        match expression.operator:
            case "+":
                return left[0] + right[0], left[1] + right[1]
            case "-":
                return left[0] - right[1], left[1] - right[0]
            case "*":
                return _extremes([low * high for low in left for high in right])
            case "/":
                low, high = _divide_bounds(left, right)
                if is_share_of_same_ticks(expression):
                    # Each missing part is also missing in the whole.
                    high = np.fmin(high, _divide(left[1], right[0] + left[1] - left[0]))
                return (np.fmin(low, 1.0), np.fmin(high, 1.0)) if is_share(expression) else (low, high)


def _extremes(corners: Sequence[Numbers]) -> Bounds:
    """Return the least and the greatest of the values at the corners; those that are no number do not count."""
    stacked = np.stack(np.broadcast_arrays(*corners))
    return np.fmin.reduce(stacked), np.fmax.reduce(stacked)


def _divide_bounds(left: Bounds, right: Bounds) -> Bounds:
    low, high = _extremes([_divide(one, other) for one in left for other in right])
    # Next to 0, quotients grow without bound.
    near_zero = (right[0] <= 0) & (right[1] > 0) | (right[0] < 0) & (right[1] == 0)
    downward = near_zero & ((left[0] < 0) | (right[0] < 0))
    upward = near_zero & ((left[1] > 0) | (right[0] < 0))
    return np.where(downward, -np.inf, low), np.where(upward, np.inf, high)


def _divide(left: Numbers, right: Numbers) -> Numbers:
    """Divide; a divisor of 0 counts as 1: 0 / 0 is 0, and no quotient is infinite."""
    return left / np.where(right == 0, 1.0, right)


def time_power(expression: Expression) -> int | None:
    """Return the power of time that all terms share when each metric stands for a sum over time; None if they differ.

    1 for `a + b`: its rate is its sum divided by time. 0 for `a / b`: its rate does not depend on time.
    """
    match expression:
        case MetricReference() | ValueCount():
            return 1
        case Constant():
            return 0
    left, right = time_power(expression.left), time_power(expression.right)
    if left is None or right is None:
        return None
    match expression.operator:
        case "*":
            return left + right
        case "/":
            return left - right
        case _:
            return left if left == right else None


def never_overestimates(expression: Expression) -> bool:
    """Return whether metrics that counted too little can only make the value too low."""
    match expression:
        case MetricReference() | ValueCount():
            return True
        case Constant(value):
            return value >= 0
    if expression.operator in "+*":
        return never_overestimates(expression.left) and never_overestimates(expression.right)
    if isinstance(expression.right, Constant):
        return never_overestimates(expression.left) and (expression.operator == "-" or expression.right.value > 0)
    return False
