"""The filter of `top`: where an error is, and values that need quotes."""

import pytest

from watchdog.cli.top_filter import FilterProblem, exact_matcher, parse_filter, quote_matcher


def test_a_filter_is_the_conditions_of_sample():
    assert parse_filter("") == ()
    assert parse_filter("  process=nginx*  remote!=10.0.0.0/8 ") == ("process=nginx*", "remote!=10.0.0.0/8")
    assert parse_filter('process="Web Content" pid=1-99') == ("process=Web Content", "pid=1-99")


@pytest.mark.parametrize(
    ("text", "marked", "reason"),
    [
        ("process=a proces=b", "proces=b", 'did you mean "process"'),
        ("pid=x", "pid=x", "not a number"),
        ("remote=10.0.0.1/8 pid=1", "remote=10.0.0.1/8", 'did you mean "10.0.0.0/8"'),
        ("pid=1 nonsense", "nonsense", "NAME=PATTERN"),
        ('pid=1 process="a b', '"a b', "no end"),
        ("state=LISTENING", "state=LISTENING", "LISTEN"),
        ("process=a process!=a", "process=a process!=a", "never matches"),
    ],
)
def test_an_error_has_its_place_and_a_reason(text, marked, reason):
    found = parse_filter(text)
    assert isinstance(found, FilterProblem)
    assert text[found.position : found.position + found.length] == marked
    assert reason in found.text


@pytest.mark.parametrize("name", ["nginx", "a*b", "[x]", "!bang", "two words", "what?"])
def test_the_matcher_of_one_value_can_be_written_and_read(name):
    text = quote_matcher(exact_matcher("user", name))
    assert parse_filter(text) == (exact_matcher("user", name),)
