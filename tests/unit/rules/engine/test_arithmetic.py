"""Expressions, evaluated for all groups together."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.rules.engine.arithmetic import evaluate_expression, never_overestimates, time_power
from watchdog.rules.language.expression import parse_expression

VALUES = {"connects": np.array([0.0, 4.0, 0.0]), "accepts": np.array([0.0, 2.0, 5.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connects + accepts", [0, 6, 5]),
        ("connects - accepts", [0, 2, -5]),
        ("connects * accepts", [0, 8, 0]),
        ("connects / accepts", [0, 2, 0]),
        ("accepts / connects", [0, 0.5, 5]),
        ("(connects - accepts) / connects", [0, 0.5, -5]),
        ("connects / 2 + 1", [1, 3, 1]),
    ],
)
def test_values_are_combined_group_by_group(text, expected):
    assert evaluate_expression(parse_expression(text), VALUES.__getitem__).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connects + accepts", 1),
        ("2 * connects / 3", 1),
        ("connects / accepts", 0),
        ("connects * accepts", 2),
        ("connects + 5", None),
        ("(connects + 5) * accepts", None),
    ],
)
def test_the_power_of_time_of_an_expression(text, expected):
    assert time_power(parse_expression(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connects + 2 * accepts", True),
        ("connects / 2", True),
        ("connects - 5", True),
        ("connects / accepts", False),
        ("connects - accepts", False),
        ("5 - connects", False),
        ("(connects - accepts) * 2", False),
    ],
)
def test_values_are_never_too_high_if_each_metric_only_adds_to_them(text, expected):
    assert never_overestimates(parse_expression(text)) is expected
