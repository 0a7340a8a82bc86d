"""Shipped rules beside the user's own: overrides, and the rules about the watchdog itself."""

from __future__ import annotations

import pytest

from watchdog.clock import SECOND_NS
from watchdog.errors import ConfigError
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.load import load_layered_rules, load_rules
from watchdog.rules.language.rule import Severity

OWN = """
[[rule]]
id = "own"
summary = "{value}"
metric = "connects"
stat = "rate"
window = "10s"
fire_above = 1
"""
SHIPPED = {rule.id: rule for rule in load_rules([shipped_rules_folder()], receivers=()).rules}
SELF = {identity for identity in SHIPPED if identity.startswith("watchdog-")}


@pytest.fixture
def load(tmp_path):
    def load(*texts, **options):
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        return {rule.id: rule for rule in load_layered_rules(tmp_path, receivers=(), **options).rules}

    return load


def problems(load, *texts, **options):
    with pytest.raises(ConfigError) as caught:
        load(*texts, **options)
    return [f"{one.file[-6:]}:{one.line}: {one.key}: {one.message}" for one in caught.value.problems]


def override(identity, text):
    return f'\n[[override]]\nid = "{identity}"\n{text}\n'


def test_rules_about_the_watchdog_itself_stay_in_force_beside_own_rules(load):
    assert load(OWN).keys() == {"own", *SELF}
    assert {"watchdog-missed-ticks", "watchdog-failed-ticks", "watchdog-lost-connections"} <= SELF


def test_a_rule_that_is_off_as_shipped_is_switched_on_by_one_line(load):
    assert "new-destination" not in SHIPPED
    found = load(override("new-destination", "enabled = true"))
    assert found.keys() == {"new-destination", *SHIPPED}
    found = load(override("new-destination", 'enabled = true\nkeep_firing_for = "5m"'))
    assert found["new-destination"].keep_firing_for_ns == 300 * SECOND_NS
    assert "new-destination" not in load(override("new-destination", "enabled = false"))


def test_a_change_of_a_rule_that_stays_off_is_a_problem(load):
    assert problems(load, override("new-destination", 'keep_firing_for = "5m"')) == [
        "0.toml:3: override.id: has no effect: the rule is off as shipped; add enabled = true"
    ]


def test_an_own_rule_that_is_off_keeps_the_shipped_one_out(load):
    off = OWN.replace('"own"', '"watchdog-missed-ticks"') + "enabled = false\n"
    assert load(OWN, off).keys() == {"own", *SELF} - {"watchdog-missed-ticks"}


def test_one_of_them_is_disabled_by_name(load):
    found = load(OWN, override("watchdog-missed-ticks", "enabled = false"))
    assert found.keys() == {"own", *SELF} - {"watchdog-missed-ticks"}


def test_an_own_rule_takes_the_place_of_the_shipped_one_with_its_id(load):
    found = load(OWN.replace('"own"', '"watchdog-missed-ticks"'))
    assert found.keys() == SELF
    assert found["watchdog-missed-ticks"].window_ns == 10 * SECOND_NS


def test_all_shipped_rules_stay_where_the_settings_keep_them(load):
    assert load(OWN, shipped=True).keys() == {"own", *SHIPPED}


def test_with_overrides_alone_the_shipped_rules_are_in_force_with_their_changes(load):
    found = load(override("inbound-connection-storm", "fire_above = { warning = 400 }"))
    assert found.keys() == SHIPPED.keys()
    changed, shipped = found["inbound-connection-storm"], SHIPPED["inbound-connection-storm"]
    assert changed.thresholds.fire == {**shipped.thresholds.fire, Severity.WARNING: 400}
    assert changed.thresholds.clear == shipped.thresholds.clear
    assert (changed.where, changed.window_ns) == (shipped.where, shipped.window_ns)
    assert {key: rule for key, rule in found.items() if key != changed.id} == {
        key: rule for key, rule in SHIPPED.items() if key != changed.id
    }


def test_an_override_adds_a_condition_and_a_key(load):
    found = load(
        override("inbound-connection-storm", 'where = { process = ["!haproxy"] }\nrunbook = "https://x.test/"')
    )
    rule = found["inbound-connection-storm"]
    assert {condition.dimension for condition in rule.where} == {"direction", "process"}
    assert rule.runbook == "https://x.test/"


def test_a_problem_of_an_override_has_its_line_and_key(load):
    text = override("inbound-connection-storm", 'window = "10"\ntypo = 1')
    assert [line.partition(": ")[0] for line in problems(load, text)] == ["0.toml:4", "0.toml:5"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((override("inbound-connection-strom", "window = '9s'"),), 'did you mean "inbound-connection-storm"?'),
        ((override("round-trip-time", ""),), "changes nothing"),
        ((override("round-trip-time", "enabled = false\nwindow = '9s'"),), "window"),
        ((override("round-trip-time", "enabled = 1"),), "true or false"),
        ((OWN, override("round-trip-time", "window = '9s'")), "not in force"),
        ((override("round-trip-time", "window = '9s'"),) * 2, "already overridden at"),
        (
            (OWN.replace('"own"', '"round-trip-time"'), override("round-trip-time", "window = '9s'")),
            "duplicate rule id",
        ),
    ],
    ids=["unknown", "nothing", "disabled and changed", "no boolean", "not in force", "twice", "own"],
)
def test_an_override_without_the_effect_that_its_author_means_is_a_problem(load, texts, message):
    [problem] = problems(load, *texts)
    assert message in problem


def test_a_long_interval_does_not_refuse_the_rules_about_the_watchdog(load):
    found = load(OWN.replace('"10s"', '"20m"'), interval_ns=300 * SECOND_NS)
    assert found["watchdog-missed-ticks"].window_ns == 600 * SECOND_NS
