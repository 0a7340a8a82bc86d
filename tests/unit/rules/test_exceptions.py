"""Exceptions of rules: the rows that they exclude, their last day, and exceptions that nothing needs."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Now
from watchdog.daemon.exception_watch import UNUSED_AFTER_NS, ExceptionWatch
from watchdog.errors import ConfigError
from watchdog.rules.engine.engine import Engine
from watchdog.rules.engine.selection import Selection, is_excluded
from watchdog.rules.language.exceptions import notes_on_ended_exceptions
from watchdog.rules.language.load import load_layered_rules, load_rules
from watchdog.rules.language.rule import Condition, RuleException
from watchdog.rules.language.ruleset_hash import ruleset_hash

BACKUP = (Condition("process", ("backup",)), Condition("remote_port", ("873",)))
RULE = """
[[rule]]
id = "storm"
summary = "{value}"
metric = "connects"
stat = "rate"
window = "10s"
fire_above = 1
"""
GOOD = '[[rule.except]]\nwhere = { process = "backup" }\nowner = "ada"\nreason = "nightly"\n'
DAY = 86_400


def exception(*where, until=None):
    return RuleException(where or BACKUP, "ada", "nightly", until, "rules.toml", 7)


@pytest.fixture
def load(tmp_path):
    def load(text, layered=False):
        (tmp_path / "rules.toml").write_text(text)
        return (load_layered_rules(tmp_path, receivers=()) if layered else load_rules([tmp_path], receivers=())).rules

    return load


def test_exception_is_read_with_its_conditions_owner_reason_and_last_day(load):
    [rule] = load(RULE + GOOD + "until = 2027-03-31\n" + GOOD.replace("backup", "x") + 'until = "2027-04-01"\n')
    first, second = rule.exceptions
    assert (first.where, first.owner, first.reason) == ((Condition("process", ("backup",)),), "ada", "nightly")
    assert (first.until, first.line) == (dt.date(2027, 3, 31), 9)
    assert second.until == dt.date(2027, 4, 1)
    assert len(ruleset_hash([rule])) == 64


def test_override_adds_exceptions_to_a_shipped_rule(load):
    text = '[[override]]\nid = "outbound-connection-storm"\n' + GOOD.replace("rule.except", "override.except")
    rules = {rule.id: rule for rule in load(text, layered=True)}
    assert [one.owner for one in rules["outbound-connection-storm"].exceptions] == ["ada"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD.replace("[[rule.except]]", "[rule.except]"), "rule.except: must be tables: write [[rule.except]]"),
        (GOOD.replace("owner", "owners"), 'did you mean "owner"'),
        (GOOD.replace('owner = "ada"\n', ""), "owner: missing"),
        (GOOD.replace('reason = "nightly"\n', ""), "reason: missing"),
        (GOOD.replace('where = { process = "backup" }\n', ""), "at least one condition"),
        (GOOD.replace("process", "proces"), 'did you mean "process"'),
        (GOOD + "until = 2027-03-31T10:00:00Z\n", "must be a day like 2027-03-31, not a time of day"),
        (GOOD + 'until = "soon"\n', 'must be a day like 2027-03-31, not "soon"'),
        (GOOD + "until = 5\n", "must be a day like 2027-03-31, not 5"),
    ],
)
def test_problems_of_an_exception_are_reported(load, text, problem):
    with pytest.raises(ConfigError) as caught:
        load(RULE + text)
    assert any(problem in str(one) for one in caught.value.problems)


def test_rows_of_an_exception_do_not_count(host):
    rule = factories.make_rule(stat="sum", above=5, by=["process"], exceptions=(exception(),))
    engine = Engine([rule])
    engine.evaluate(host.baseline(), [])
    rows = [
        {"process": "backup", "remote_port": 873, "connects": 100},
        {"process": "backup", "remote_port": 22, "connects": 7},
        {"process": "other", "remote_port": 873, "connects": 8},
    ]
    for _ in range(12):
        engine.evaluate(host.tick(), [])
    verdicts = engine.evaluate(host.tick(*rows), [])
    assert {dict(one.labels)["process"]: one.value for one in verdicts} == {"backup": 7, "other": 8}
    found = engine.find_contributors(host.tick(*rows), rule.id, (("process", "backup"),))
    assert found is not None
    assert found[1].amount == 7


DIMENSIONS = st.fixed_dictionaries(
    {
        "process": st.sampled_from([None, "a", "b"]),
        "remote_port": st.sampled_from([22, 80]),
        "user": st.sampled_from("xy"),
    }
)
CONDITIONS = st.lists(
    st.sampled_from(
        [
            Condition("process", ("a",)),
            Condition("remote_port", ("80",)),
            Condition("user", (), ("x",)),
            Condition("user", ("y",)),
        ]
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda condition: condition.dimension,
).map(tuple)


def meets(row, conditions):
    def one(condition):
        if row[condition.dimension] is None:
            return False
        value = str(row[condition.dimension])
        return (not condition.any_of or value in condition.any_of) and value not in condition.none_of

    return all(map(one, conditions))


@given(rows=st.lists(DIMENSIONS, min_size=1, max_size=6), where=CONDITIONS, exclusions=st.lists(CONDITIONS, max_size=3))
def test_selection_agrees_with_a_row_by_row_model(make_host, rows, where, exclusions):
    snapshot, selection = make_host().tick(*rows), Selection()
    mask = selection.counted(snapshot, where, exclusions)
    assert mask.tolist() == [meets(row, where) and not any(meets(row, one) for one in exclusions) for row in rows]
    possible = selection.possible(snapshot, where, np.arange(len(rows)), exclusions)
    lost = [row["process"] is None for row in rows]
    assert all(maybe for sure, maybe in zip(mask, possible, strict=True) if sure)
    assert [bool(one) for one, gone in zip(possible, lost, strict=True) if not gone] == [
        bool(one) for one, gone in zip(mask, lost, strict=True) if not gone
    ]


def test_group_is_excluded_where_all_conditions_are_on_its_labels():
    labels = (("process", "backup"), ("remote_port", "873"))
    assert is_excluded([BACKUP], labels)
    assert not is_excluded([BACKUP], labels[:1])
    assert not is_excluded([BACKUP], (("process", "backup"), ("remote_port", "22")))


def test_alert_of_a_new_exception_ends_as_no_longer_selected(host):
    rule = factories.make_rule(stat="sum", above=5, by=["process"])
    engine, lifecycle = Engine([rule]), Lifecycle("host")
    engine.evaluate(host.baseline(), [])
    for _ in range(12):
        snapshot = host.tick({"process": "backup", "connects": 10})
        lifecycle.advance(engine.evaluate(snapshot, lifecycle.active_keys()), Now(snapshot.at_ns, 0.0))
    assert len(lifecycle.firing_alerts()) == 1
    lifecycle.replace_rules([replace(rule, exceptions=(exception(Condition("process", ("backup",))),))])
    [transition] = lifecycle.advance([], Now(snapshot.at_ns + 1, 0.0))
    assert transition.alert.reason == "no longer selected"


def test_exception_holds_until_the_end_of_its_last_day_in_utc():
    one = exception(until=dt.date(2027, 3, 31))
    end = dt.datetime(2027, 4, 1, tzinfo=dt.UTC).timestamp()
    assert not one.has_ended(end - 1)
    assert one.has_ended(end)
    assert not exception().has_ended(end * 10)
    rule = factories.make_rule(exceptions=(one, exception()))
    assert notes_on_ended_exceptions([rule], end - 1) == []
    [note] = notes_on_ended_exceptions([rule], end)
    assert (note.file, note.line) == ("rules.toml", 7)
    assert "ended on 2027-03-31" in note.message


def test_exceptions_end_while_the_daemon_runs_and_return_with_the_clock(caplog):
    caplog.set_level(logging.INFO)
    day = dt.date(2027, 3, 31)
    begin = dt.datetime(2027, 3, 31, 12, tzinfo=dt.UTC).timestamp()
    rule = factories.make_rule(exceptions=(exception(until=day), exception(Condition("user", ("x",)))))
    watch = ExceptionWatch([rule], Now(0, begin), logging.getLogger("test"))
    assert watch.rules_in_force == (rule,)
    assert [watch.has_changed(Now(0, wall)) for wall in (begin, begin + DAY, begin + DAY, begin)] == [
        False,
        True,
        False,
        True,
    ]
    assert watch.rules_in_force == (rule,)
    assert caplog.messages == [
        "exception ended: rule=storm file=rules.toml:7 owner='ada' reason='nightly' until=2027-03-31"
    ]


def test_exceptions_that_nothing_needs_are_reported_once_after_a_week(host, caplog):
    caplog.set_level(logging.INFO)
    unneeded = exception(Condition("process", ("gone",)))
    rule = factories.make_rule(where=(Condition("process", ("b*",)),), exceptions=(exception(), unneeded))
    engine = Engine([rule])
    watch = ExceptionWatch(engine.rules, Now(0, 0.0), logging.getLogger("test"))
    engine.evaluate(host.baseline(), [])
    engine.evaluate(host.tick({"process": "backup", "remote_port": 873}, {"process": "gone"}), [])
    for now_ns in (UNUSED_AFTER_NS - SECOND_NS, UNUSED_AFTER_NS, 2 * UNUSED_AFTER_NS):
        watch.report_unused(engine.unused_exceptions, now_ns)
    [message] = caplog.messages
    assert message.startswith("exception never used within 7d, remove it: rule=storm")
    assert engine.unused_exceptions() == [(rule, unneeded)]
