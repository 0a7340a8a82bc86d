"""Conditions as texts: the texts of a command line give the same conditions again."""

from __future__ import annotations

import pytest

from watchdog.cli import silence
from watchdog.cli.explain import _exception_text
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.routing.silencing import parse_matchers
from watchdog.rules.language.condition_text import matchers_text, patterns_of
from watchdog.rules.language.rule import Condition


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ((Condition("process", ("nginx*", "web"), ("nginx-test",)),), "process=nginx* process=web process!=nginx-test"),
        ((Condition("unit", ("",)), Condition("remote", (), ("10.0.0.0/8",))), "unit=- remote!=10.0.0.0/8"),
        ((Condition("unit", (), ("",)), Condition("remote_port", ("1-1023", "8080"))), None),
        ((Condition("exe", ("a=b", "c,d")),), "exe=a=b exe=c,d"),
    ],
)
def test_the_text_is_that_of_a_command_which_gives_the_conditions_again(conditions, text):
    shown = matchers_text(patterns_of(conditions))
    assert text is None or shown == text
    given = [one[:-1] if one.endswith("=-") else one for one in shown.split(" ")]  # as `silence add` does
    assert parse_matchers(given, DIMENSIONS) == conditions


def test_silences_and_exceptions_have_the_same_text():
    where = patterns_of([Condition("process", ("a", "b"), ("c",))])
    exception = {"where": where, "owner": "ann", "reason": "move", "until": None, "has_excluded": True}
    assert silence._subject({"fingerprint": None, "matchers": where}) == "process=a process=b process!=c"
    assert _exception_text(exception) == "process=a process=b process!=c (ann: move)"
