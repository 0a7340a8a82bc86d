"""Losses cannot turn a complete verdict: it is compared with that of the same ticks without any loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.clock import SECOND_NS
from watchdog.measure.catalogue import OTHER_CODE
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import Comparison, Constant, MetricReference, Operation
from watchdog.rules.language.rule import Absent, Condition

_FOLDED = ("local", "local_port", "remote", "remote_port", "state", "failure")
_COUNTED = ("connects", "established", "closes", "connect_failures")
_FAILED, _ENDED = MetricReference("connect_failures"), MetricReference("closes")
_SHARE = Operation("/", _FAILED, _ENDED)
_WHERES = (
    (),
    (Condition("direction", any_of=("out",)),),
    (Condition("remote", any_of=("10.0.0.0/8",)),),
    (Condition("failure", any_of=("refused",)), Condition("process", none_of=("b",))),
)
_METRICS = (
    ("connects", "sum"),
    ("connects", "max"),
    ("connects", "min"),
    (_SHARE, "rate"),
    (Operation("-", _ENDED, _FAILED), "sum"),
    ("lifetime", "p50"),
    ("lifetime", "p95"),
    ("lifetime", "max"),
    ("lifetime", "min"),
    ("lifetime", "mean"),
    ("lifetime", "sum"),
    ("open", "mean"),
    ("open", "last"),
)
_GATES = (None, *(Comparison(sign, left, 3) for sign in ("<", ">=") for left in (_ENDED, MetricReference("lifetime"))))


@st.composite
def connections(draw):
    """Return a connection, and how it is lost: not at all, its details, its name, or as a whole."""
    row = {
        "process": draw(st.sampled_from("abc")),
        "direction": draw(st.sampled_from(("out", "in"))),
        "remote": draw(st.sampled_from(("10.0.0.1", "192.0.2.1"))),
        "failure": draw(st.sampled_from(("", "refused"))),
    }
    row |= {name: draw(st.integers(0, 1)) for name in _COUNTED[:2]}
    if draw(st.booleans()):
        row |= {"closes": 1, "connect_failures": draw(st.integers(0, 1)), "lifetime": float(draw(st.integers(1, 9)))}
    else:
        row["open"] = 1
    return row, draw(st.sampled_from(("", "", "", "", "details", "name", "all")))


def lossy(ticks):
    """Return rows and number of lost connections, as the meter makes them of a tick with losses."""
    rows, lost = [], 0
    for row, loss in ticks:
        if loss == "all":
            lost += 1
        elif loss == "name":
            rows.append(row | {"process": None})
        elif loss == "details" and "closes" in row:
            folded = {name: row[name] for name in ("process", "direction", *_COUNTED)}
            rows.append(folded | dict.fromkeys(_FOLDED))
        else:
            rows.append(row)
    return rows, lost


def severities(verdicts):
    return {one.labels: (one.breached, one.not_cleared, one.complete) for one in verdicts}


@settings(max_examples=150, deadline=None)
@given(
    ticks=st.lists(st.lists(connections(), max_size=8), min_size=4, max_size=7),
    metric=st.sampled_from(_METRICS),
    where=st.sampled_from(_WHERES),
    by=st.sampled_from((("process",), ("remote",), ())),
    gate=st.sampled_from(_GATES),
    limit=st.sampled_from((0.1, 0.4, 0.9, 2.0, 4.5)),
    above=st.booleans(),
)
def test_a_complete_verdict_is_that_of_the_ticks_without_loss(
    make_rule, make_host, ticks, metric, where, by, gate, limit, above
):
    thresholds = {"above": limit, "critical": 2 * limit} if above else {"below": limit}
    rule = make_rule("r", metric[0], metric[1], by, where, window_seconds=3, only_if=gate, **thresholds)
    values = {"process": "abc", "remote": ("10.0.0.1", "192.0.2.1")}
    active = [("r", ((by[0], value),)) for value in values[by[0]]] if by else [("r", ())]
    whole, partial = Engine([rule]), Engine([rule])
    true_host, lossy_host = make_host(), make_host()
    names = [{"process": name, "remote": remote} for name in "abc" for remote in ("10.0.0.1", "192.0.2.1")]
    whole.evaluate(true_host.baseline(*names), active)
    partial.evaluate(lossy_host.baseline(*names), active)
    for tick in ticks:
        true = severities(whole.evaluate(true_host.tick(*(row for row, _ in tick)), active))
        rows, lost = lossy(tick)
        seen = severities(partial.evaluate(lossy_host.tick(*rows, sums_full=lost), active))
        for labels, (breached, not_cleared, complete) in seen.items():
            if complete:
                assert (breached, not_cleared, True) == true[labels]
            elif true[labels][2]:
                assert (breached or 0) <= (true[labels][0] or 0)
        assert partial.unknown_rules or severities_fired(true) <= severities_fired(seen)


def severities_fired(verdicts):
    return {labels for labels, (breached, _, _) in verdicts.items() if breached}


@pytest.mark.parametrize(("lost", "share", "complete"), [(4, 0.98, True), (4, 0.985, False), (40, 0.5, True)])
def test_a_few_lost_connections_of_nobody_leave_a_share_of_240_failures_known(
    make_rule, make_host, lost, share, complete
):
    rule = make_rule("r", _SHARE, window_seconds=30, above=share, only_if=Comparison(">=", _ENDED, 10))
    engine, host = Engine([rule]), make_host()
    engine.evaluate(host.baseline(), [])
    for number in range(30):
        row = {"process": "victim", "connects": 8, "closes": 8, "connect_failures": 8}
        verdicts = engine.evaluate(host.tick(row, missed_events=lost // 4 if number % 8 == 0 else 0), [])
    assert [verdict.complete and verdict.breached is not None for verdict in verdicts] == [True] * complete


def test_a_constant_in_arithmetic_is_not_missing(make_rule, make_host):
    doubled = Operation("*", Constant(2), MetricReference("connects"))
    engine, host = Engine([make_rule("r", doubled, "sum", window_seconds=3, above=20.5)]), make_host()
    active = [("r", (("process", "a"),))]
    for snapshot in (host.baseline(), *(host.tick() for _ in range(3))):
        engine.evaluate(snapshot, active)
    rows = [{"process": "a", "connects": 9}], []
    verdicts = [engine.evaluate(host.tick(*row, missed_events=1), active)[0] for row in rows]
    assert [verdict.complete for verdict in verdicts] == [True, False]


@pytest.mark.parametrize(("lost", "fires"), [({}, True), ({"missed_events": 1}, False)])
def test_a_group_whose_rows_may_be_lost_is_not_known_to_be_absent(make_rule, make_host, lost, fires):
    rule = make_rule(
        "r", "bytes_sent", "max", window_seconds=2, above=10**9, absent=Absent.FIRE, absent_for_ns=SECOND_NS
    )
    engine, host = Engine([rule]), make_host()
    ticks = [
        host.baseline(),
        *(host.tick({"process": "a", "open": 1}) for _ in range(3)),
        host.tick(),
        host.tick(**lost),
    ]
    verdicts = [engine.evaluate(snapshot, []) for snapshot in ticks]
    assert bool(verdicts[-1]) is fires


@pytest.mark.parametrize("above", [True, False])
def test_a_share_lies_between_its_bounds_and_is_at_most_1(make_rule, make_host, above):
    limits = {"above": 0.999} if above else {"above": None, "below": 0.5}
    engine, host = Engine([make_rule("r", _SHARE, window_seconds=3, **limits)]), make_host()
    active = [("r", (("process", "a"),))]
    for snapshot in (host.baseline(), *(host.tick() for _ in range(3))):
        engine.evaluate(snapshot, active)
    failing = {"process": "a", "closes": 8, "connect_failures": 4}
    verdict = engine.evaluate(host.tick(failing, missed_events=2), active)[0]
    assert (verdict.complete, verdict.breached) == (above, None)


def test_names_without_space_are_a_group_that_fires_and_leave_others_known(make_rule, make_host):
    other = {"process": None, "user": "nobody", "connects": 60}
    host = make_host()
    engine = Engine([make_rule("r", stat="sum", window_seconds=3, above=50)])
    engine.evaluate(host.baseline(), [])
    for _ in range(3):
        engine.evaluate(host.tick(), [])
    snapshot = host.tick(other, {"process": "a", "connects": 45})
    snapshot.dimensions["process"][0] = OTHER_CODE  # as the meter does
    verdicts = engine.evaluate(snapshot, [("r", (("process", "a"),))])

    found = {dict(verdict.labels)["process"]: (verdict.complete, verdict.value) for verdict in verdicts}
    assert found == {"(other)": (True, 60), "a": (True, 45)}


@pytest.mark.parametrize("where", [Condition("process", none_of=("a",)), Condition("process", any_of=("a",))])
def test_a_condition_on_a_name_is_unknown_for_names_without_space(make_rule, make_host, where):
    host = make_host()
    engine = Engine([make_rule("r", stat="sum", by=(), where=[where], window_seconds=3, above=50)])
    engine.evaluate(host.baseline(), [])
    for _ in range(3):
        engine.evaluate(host.tick(), [])
    snapshot = host.tick({"process": None, "connects": 60})
    snapshot.dimensions["process"][0] = OTHER_CODE
    assert (engine.evaluate(snapshot, []), engine.unknown_rules) == ([], ("r",))


def test_an_owner_without_any_known_name_fires_as_other_and_can_be_of_any_group(make_rule, make_host):
    host = make_host()
    engine = Engine([make_rule("r", stat="sum", window_seconds=3, above=50)])
    engine.evaluate(host.baseline(), [])
    for _ in range(3):
        engine.evaluate(host.tick(), [])
    snapshot = host.tick({"process": None, "connects": 60}, {"process": "a", "connects": 45})
    for name in ("process", "exe", "user", "unit", "container"):
        snapshot.dimensions[name][0] = OTHER_CODE
    verdicts = engine.evaluate(snapshot, [("r", (("process", "a"),))])

    found = {dict(verdict.labels)["process"]: (verdict.complete, verdict.breached is not None) for verdict in verdicts}
    assert found == {"(other)": (True, True), "a": (False, False)}
