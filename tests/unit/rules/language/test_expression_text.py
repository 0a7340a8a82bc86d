"""The text of an expression is read as the same expression."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchdog.rules.language.expression import (
    Constant,
    MetricReference,
    Operation,
    format_expression,
    metrics_of,
    parse_expression,
)

EXPRESSIONS = st.recursive(
    st.sampled_from(("connects", "closes", "bytes_sent")).map(MetricReference)
    | st.decimals(0, 1000, places=3).map(float).map(Constant)
    | st.sampled_from((1e-20, 1e-5, 2 / 3, 1e17, 1e18 + 256, 2.0**62)).map(Constant),
    lambda inner: st.builds(Operation, st.sampled_from("+-*/"), inner, inner),
    max_leaves=6,
)


@given(EXPRESSIONS.filter(metrics_of))
def test_the_text_of_an_expression_is_read_as_the_same(expression):
    assert parse_expression(format_expression(expression)) == expression
