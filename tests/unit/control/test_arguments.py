from __future__ import annotations

import pytest

from watchdog.control.arguments import RequestArguments
from watchdog.errors import UsageError


def test_arguments_are_had_by_type_and_null_is_none():
    arguments = RequestArguments({"a": "x", "b": 3, "c": ["y"], "d": None})
    assert arguments.text("a", choices=("x", "y")) == "x"
    assert arguments.integer("b", 1, maximum=3) == 3
    assert arguments.texts("c", max_count=1) == ("y",)
    assert arguments.text("d") is None
    assert arguments.integer("e", 7, maximum=9) == 7
    arguments.reject_unknown_arguments()


@pytest.mark.parametrize(
    ("given", "ask", "message"),
    [
        ({"a": 1}, lambda a: a.text("a"), "a must be a text"),
        ({"a": "z"}, lambda a: a.text("a", choices=("x",)), 'unknown a "z": known are x'),
        ({"a": True}, lambda a: a.integer("a", 1, maximum=9), "a must be a whole number from 1 to 9"),
        ({"a": 0}, lambda a: a.integer("a", 1, maximum=9), "a must be a whole number from 1 to 9"),
        ({"a": 10}, lambda a: a.integer("a", 1, maximum=9), "a must be a whole number from 1 to 9"),
        ({"a": []}, lambda a: a.texts("a", max_count=1), "a must be an array of texts"),
        ({}, lambda a: a.texts("a", max_count=1), "a must be an array of texts"),
        ({"a": ["x", 3]}, lambda a: a.texts("a", max_count=2), "a must be an array of texts"),
        ({"a": ["x", "y"]}, lambda a: a.texts("a", max_count=1), "a can have at most 1 texts"),
        (
            {"limti": 1},
            lambda a: (a.text("limit"), a.reject_unknown_arguments()),
            'unknown argument "limti": did you mean "limit"?',
        ),
    ],
)
def test_a_wrong_argument_is_reported(given, ask, message):
    with pytest.raises(UsageError) as caught:
        ask(RequestArguments(given))
    assert str(caught.value) == message
