"""Inhibition: the alerts that are withheld while their cause fires."""

import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from watchdog.clock import Now
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.routing.inhibition import Inhibition, check_inhibits, find_inhibited, inhibitions_of_rules
from watchdog.routing.suppression_rules import SuppressionRules, read_suppression_rules
from watchdog.routing.suppressor import Suppressor
from watchdog.rules.language.rule import OVERFLOW_LABELS, Condition, Severity


def read(text, rules=None):
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return read_suppression_rules(read_settings(document), rules).inhibitions, [str(one) for one in document.problems]


def inhibitions(text):
    found, problems = read(text)
    assert problems == []
    return found


def alert(rule, severity=Severity.WARNING, **labels):
    return factories.make_alert(rule=rule, severity=severity, labels=tuple(labels.items()))


def inhibited(known, *alerts):
    """Return the rules of the inhibited alerts with those of their sources."""
    firing = {one.fingerprint: one for one in alerts}
    return {firing[key].rule: source.rule for key, source in find_inhibited(known, firing).items()}


def test_source_inhibits_targets_with_equal_labels():
    known = inhibitions(
        '[[inhibit]]\nsource = { rule = "scan", severity = "critical" }\ntarget = { rule = "s*" }\nequal = ["unit"]\n'
    )
    scan = alert("scan", Severity.CRITICAL, unit="a.service")
    assert inhibited(known, scan, alert("storm", unit="a.service"), alert("spike", unit="b.service")) == {
        "storm": "scan"
    }
    assert inhibited(known, alert("scan", unit="a.service"), alert("storm", unit="a.service")) == {}
    assert inhibited(known, scan) == {}


def test_missing_label_counts_as_empty():
    known = inhibitions('[[inhibit]]\nsource = { rule = "scan" }\ntarget = { rule = "storm" }\nequal = ["unit"]\n')
    assert inhibited(known, alert("scan", process="x"), alert("storm", process="y")) == {"storm": "scan"}
    assert inhibited(known, alert("scan", process="x"), alert("storm", unit="a.service")) == {}


def test_alerts_on_both_sides_do_not_inhibit_each_other():
    known = inhibitions('[[inhibit]]\nsource = { severity = "*" }\ntarget = { severity = "*" }\n')
    assert inhibited(known, alert("scan"), alert("storm")) == {}
    known = inhibitions('[[inhibit]]\nsource = { severity = "critical" }\ntarget = { rule = "s*" }\n')
    both, source = alert("scan", Severity.CRITICAL), alert("load", Severity.CRITICAL)
    assert inhibited(known, both, alert("spike")) == {"spike": "scan"}
    assert inhibited(known, both, alert("storm", Severity.CRITICAL)) == {}
    assert inhibited(known, both, source, alert("storm", Severity.CRITICAL)) == {"scan": "load", "storm": "load"}


def test_rule_inhibits_others_on_the_labels_that_both_have():
    known = inhibitions_of_rules(
        [factories.make_rule("scan", inhibits=("storm", "spike")), factories.make_rule("storm")]
    )
    scan = alert("scan", process="crawler")
    assert inhibited(known, scan, alert("storm", process="crawler", unit="a.service"), alert("load")) == {
        "storm": "scan"
    }
    assert inhibited(known, scan, alert("storm", process="other")) == {}
    assert inhibited(known, scan, alert("spike", unit="a.service")) == {"spike": "scan"}


def test_instances_beyond_the_limit_are_inhibited_by_such_only():
    known = inhibitions_of_rules([factories.make_rule("scan", inhibits=("storm",))])
    overflow = dict(OVERFLOW_LABELS)
    assert inhibited(known, alert("scan", process="x"), alert("storm", **overflow)) == {}
    assert inhibited(known, alert("scan", **overflow), alert("storm", process="x")) == {}
    assert inhibited(known, alert("scan", **overflow), alert("storm", **overflow)) == {"storm": "scan"}


def test_inhibited_alert_inhibits_others():
    known = inhibitions_of_rules(
        [factories.make_rule("a", inhibits=("b",)), factories.make_rule("b", inhibits=("c",)), factories.make_rule("c")]
    )
    assert inhibited(known, alert("a"), alert("b"), alert("c")) == {"b": "a", "c": "b"}


def test_worst_alert_of_a_circle_is_notified():
    rules = [factories.make_rule(one, inhibits=(other,)) for one, other in ("ab", "bc", "ca")]
    known = inhibitions_of_rules([*rules, factories.make_rule("d"), factories.make_rule("e", inhibits=())])
    circle = alert("a"), alert("b", Severity.CRITICAL), alert("c")
    assert inhibited(known, *circle) == {"c": "b", "a": "c"}
    behind = (*known, Inhibition((Condition("rule", ("a",)),), (Condition("rule", ("d",)),)))
    assert inhibited(behind, *circle, alert("d", Severity.CRITICAL)).keys() == {"a", "c", "d"}


RULES = "abcdef"
edges = st.sets(st.tuples(st.sampled_from(RULES), st.sampled_from(RULES)).filter(lambda edge: edge[0] != edge[1]))


@settings(max_examples=300, deadline=None)
@given(edges, st.dictionaries(st.sampled_from(RULES), st.sampled_from(list(Severity))))
def test_each_inhibited_alert_has_a_cause_that_is_notified(graph, severities):
    known = [Inhibition((Condition("rule", (one,)),), (Condition("rule", (other,)),)) for one, other in sorted(graph)]
    found = inhibited(known, *(alert(rule, severity) for rule, severity in severities.items()))
    sources = {rule: {one for one, other in graph if other == rule and one in severities} for rule in severities}
    for rule in severities:
        if not sources[rule]:
            assert rule not in found
        elif rule in found:
            assert found[rule] in sources[rule]
            chain = [rule]
            while chain[-1] in found:
                assert found[chain[-1]] not in chain
                chain.append(found[chain[-1]])
        else:  # notified although it has a source: it is in a circle
            reached, pending = set(), [rule]
            while pending:
                new = sources[pending.pop()] - reached
                reached |= new
                pending += new
            assert rule in reached


def test_many_alerts_that_inhibit_each_other_do_not_hold_up_the_tick():
    known = inhibitions(
        '[[inhibit]]\nsource = { rule = "scan" }\ntarget = { rule = "storm" }\nequal = []\n'
        '[[inhibit]]\nsource = { rule = "storm" }\ntarget = { rule = "scan" }\nequal = []\n'
    )
    alerts = [alert(rule, process=str(number)) for rule in ("scan", "storm") for number in range(400)]
    firing = {one.fingerprint: one for one in alerts}
    began = time.process_time()
    assert len(find_inhibited(known, firing)) == len(alerts) - 1
    assert time.process_time() - began < 2


def test_suppression_follows_the_alerts_of_the_tick():
    suppressor, scan, storm = Suppressor(), alert("scan"), alert("storm")
    suppressor.configure(
        SuppressionRules((), inhibitions_of_rules([factories.make_rule("scan", inhibits=("storm",))])), ()
    )
    both = {scan.fingerprint: scan, storm.fingerprint: storm}
    for firing, causes in (
        (both, ["inhibition by scan"]),
        ({storm.fingerprint: storm}, []),
        (both, ["inhibition by scan"]),
    ):
        suppressor.update((), firing, Now(0, 0.0))
        assert [cause.describe() for cause in suppressor.find_all(storm)] == causes
        assert suppressor.is_active == bool(causes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('target = { rule = "x" }', "inhibit.source: needs at least one condition"),
        ('source = { rule = "x" }\ntarget = {}', "inhibit.target: needs at least one condition"),
        ('source = { rul = "x" }\ntarget = { rule = "x" }', 'did you mean "rule"'),
        ('source = { rule = "x" }\ntarget = { rule = "y" }\nequal = ["unti"]', 'did you mean "unit"'),
        ('source = { rule = "x" }\ntarget = { rule = "y" }\nequals = ["unit"]', 'did you mean "equal"'),
    ],
)
def test_problems_of_an_inhibition_are_reported(text, problem):
    _, problems = read(f"[[inhibit]]\n{text}\n", [])
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(("equal", "is_noted"), [("", True), ("equal = []\n", False), ('equal = ["unit"]\n', False)])
def test_missing_equal_is_noted(equal, is_noted):
    text = f'[[inhibit]]\nsource = {{ rule = "x" }}\ntarget = {{ rule = "y" }}\n{equal}'
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    read_suppression_rules(read_settings(document), None)
    assert document.problems == []
    assert [str(one).startswith("watchdog.toml:1: inhibit.equal: missing:") for one in document.notes] == [
        True
    ] * is_noted


def test_inhibited_rule_must_exist():
    rules = [factories.make_rule("scan", inhibits=("storm", "strom")), factories.make_rule("storm")]
    assert ["strom" in problem.message and "storm" in problem.message for problem in check_inhibits(rules)] == [True]
