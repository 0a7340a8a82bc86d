import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.measure.catalogue import Unit
from watchdog.rules.language.expression import (
    Comparison,
    Constant,
    ExpressionError,
    MetricReference,
    Operation,
    ValueCount,
    is_linear,
    metrics_of,
    never_negative,
    parse_comparison,
    parse_expression,
    unit_of,
)

CONNECTS, ACCEPTS, CLOSES = MetricReference("connects"), MetricReference("accepts"), MetricReference("closes")


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("connects", CONNECTS),
        (" ( connects ) ", CONNECTS),
        ("connects/accepts", Operation("/", CONNECTS, ACCEPTS)),
        ("connects + accepts * 2", Operation("+", CONNECTS, Operation("*", ACCEPTS, Constant(2.0)))),
        ("(connects + accepts) * 0.5", Operation("*", Operation("+", CONNECTS, ACCEPTS), Constant(0.5))),
        ("connects - accepts - closes", Operation("-", Operation("-", CONNECTS, ACCEPTS), CLOSES)),
        ("connects / accepts * closes", Operation("*", Operation("/", CONNECTS, ACCEPTS), CLOSES)),
        ("connects - (accepts - closes)", Operation("-", CONNECTS, Operation("-", ACCEPTS, CLOSES))),
    ],
)
def test_arithmetic_has_the_usual_precedence(text, expression):
    assert parse_expression(text) == expression


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "incomplete: expected a metric or a number at the end"),
        ("connects /", "incomplete: expected a metric or a number at the end"),
        ("1 + 2", "must name a metric"),
        ("conects", 'unknown metric "conects": did you mean "connects"?'),
        ("Connects", 'unknown metric "Connects": did you mean "connects"?'),
        ("connects accepts", "expected + - * or / before 'accepts'"),
        ("connects * 1e3", "expected + - * or / before 'e3'"),
        ("connects * / 2", "expected a metric or a number, not '/'"),
        ("-connects", "expected a metric or a number, not '-'"),
        ("(connects", "a parenthesis is not closed"),
        ("connects)", "expected + - * or / before ')'"),
        ("connects ** 2", "expected a metric or a number, not '*'"),
        ("connects.real", 'cannot use ".": use only metrics, numbers, + - * / and parentheses'),
        ("connects > 3", 'cannot use ">": use only metrics, numbers, + - * / and parentheses'),
        ("connect\u0455", 'cannot use "\u0455": use only metrics, numbers, + - * / and parentheses'),
        ("(" * 21 + "connects" + ")" * 21, "more than 20 nested parentheses"),
        ("connects + " * 50 + "1", "longer than 500 characters"),
    ],
)
def test_an_invalid_expression_has_an_error_message(text, message):
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert str(caught.value) == message


@given(st.text(st.sampled_from("connects 12.+-*/()<>=%\n\0é"), max_size=600))
def test_any_text_is_parsed_or_raises_an_expression_error(text):
    for reader in (parse_expression, parse_comparison):
        with contextlib.suppress(ExpressionError):
            reader(text)


@pytest.mark.parametrize(
    ("text", "comparison"),
    [
        ("connects >= 50", Comparison(">=", CONNECTS, 50.0)),
        ("connects<0.5", Comparison("<", CONNECTS, 0.5)),
        ("bytes_sent > 10MB", Comparison(">", MetricReference("bytes_sent"), 1e7)),
        ("closes / connects <= 5%", Comparison("<=", Operation("/", CLOSES, CONNECTS), 0.05)),
    ],
)
def test_comparisons_are_parsed(text, comparison):
    assert parse_comparison(text) == comparison


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("count >= 20", ValueCount("rtt")),
        ("count / closes >= 20", Operation("/", ValueCount("rtt"), CLOSES)),
        ("(count) >= 20", ValueCount("rtt")),
    ],
)
def test_count_is_the_number_of_values_of_the_distribution(text, left):
    assert parse_comparison(text, "rtt") == Comparison(">=", left, 20.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("connects", 'must be one comparison, like "connects >= 50"'),
        ("connects == 3", 'must be one comparison, like "connects >= 50"'),
        ("1 < connects < 3", 'must be one comparison, like "connects >= 50"'),
        ("connects => 3", 'must be one comparison, like "connects >= 50"'),
        ("50 <= connects", "must name a metric"),
        ("connects > accepts", 'not a number: "accepts"; write it like 100'),
        ("connects > 10MB", 'wrong unit "MB" in "10MB": connections are written without a unit'),
        ("bytes_sent > 10MB/s", '"10MB/s" is a rate, but the value of the metric is not'),
        ("count >= 5", "count is the number of values of a distribution, and metric is none: use a counter"),
        ("1 + count >= 5", "count is the number of values of a distribution, and metric is none: use a counter"),
    ],
)
def test_an_invalid_comparison_has_an_error_message(text, message):
    with pytest.raises(ExpressionError) as caught:
        parse_comparison(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "unit", "linear", "positive"),
    [
        ("bytes_sent", Unit.BYTES, True, True),
        ("bytes_sent + bytes_received", Unit.BYTES, True, True),
        ("bytes_sent - bytes_received", Unit.BYTES, True, False),
        ("bytes_sent + 1", Unit.BYTES, True, True),
        ("bytes_sent * 8", None, True, True),
        ("8 * bytes_sent", None, True, True),
        ("bytes_sent / 2", None, True, True),
        ("bytes_sent / connects", None, False, True),
        ("retransmits / packets_sent", Unit.RATIO, False, True),
        ("1 - retransmits / packets_sent", Unit.RATIO, False, False),
        ("100 * retransmits / packets_sent", None, False, True),
        ("connects + bytes_sent", None, True, True),
        ("connects * connects", None, False, True),
        ("1 / connects", None, False, True),
    ],
)
def test_an_expression_has_a_unit_and_known_bounds(text, unit, linear, positive):
    expression = parse_expression(text)
    assert (unit_of(expression), is_linear(expression), never_negative(expression)) == (unit, linear, positive)


def test_an_expression_lists_its_metrics():
    assert metrics_of(parse_expression("(connects + 3 * closes) / connects")) == {"connects", "closes"}


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 400, "1" + "0" * 19 + ".5"])
def test_a_number_that_makes_values_infinite_is_refused(number):
    with pytest.raises(ExpressionError, match=r"is too large: must be below 2\^63"):
        parse_expression(f"connects * {number}")
