"""The origin of each value of a rule, and its TOML."""

from __future__ import annotations

from dataclasses import replace

import tomli
from hypothesis import given
from hypothesis import strategies as st

from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.load import load_layered_rules, load_rules
from watchdog.rules.language.rule_source import RuleOrigin, format_toml

SURROGATES = st.characters(exclude_categories=("Cs",))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(SURROGATES) | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(SURROGATES), inner, max_size=3),
)  # fmt: skip
OVERRIDE = """\
[[override]]
id = "outbound-connection-storm"
fire_above = { critical = 900 }
where = { process = ["!crawler"] }
runbook = "https://wiki.example.net/storm"
"""


@given(VALUES)
def test_a_value_comes_back_from_its_toml(value):
    text = format_toml(value)
    assert "\n" not in text
    assert tomli.loads(f"value = {text}")["value"] == value


def test_an_overridden_rule_has_values_of_both_files(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(OVERRIDE)
    loaded = load_layered_rules(tmp_path, receivers=None)
    source = loaded.sources["outbound-connection-storm"]
    files = {one.key: (one.value, one.file.rpartition(":")[0]) for one in source.values}
    assert source.origin is RuleOrigin.OVERRIDDEN
    assert files["fire_above.critical"] == (900, str(file))
    assert files["where.process"] == (["!crawler"], str(file))
    assert files["runbook"] == ("https://wiki.example.net/storm", str(file))
    shipped = {name for name, (_, path) in files.items() if path.startswith(str(shipped_rules_folder()))}
    assert {"id", "metric", "summary", "fire_above.warning"} <= shipped
    lines = {one.key: one.file.rpartition(":")[2] for one in source.values}
    assert (lines["fire_above.critical"], lines["runbook"]) == ("3", "5")


def test_every_rule_in_force_has_a_source_whose_toml_is_the_rule(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(OVERRIDE + 'window = "10m"\n')
    loaded = load_layered_rules(tmp_path, receivers=None, interval_ns=120_000_000_000)
    assert loaded.sources.keys() == {rule.id for rule in loaded.rules}
    texts = ["[[rule]]\n" + "\n".join(f"{one.key} = {format_toml(one.value)}" for one in source.values)
             for source in loaded.sources.values()]  # fmt: skip
    (tmp_path / "effective").mkdir()
    effective = tmp_path / "effective" / "all.toml"
    effective.write_text("\n\n".join(texts))
    again = load_rules([effective], receivers=None).rules
    # The default of `absent_for` depends on the window, which was raised after it was read.
    meant = sorted((replace(rule, absent_for_ns=0) for rule in loaded.rules), key=lambda rule: rule.id)
    assert sorted((replace(rule, absent_for_ns=0) for rule in again), key=lambda rule: rule.id) == meant
    assert {source.origin for source in loaded.sources.values()} == {RuleOrigin.SHIPPED, RuleOrigin.OVERRIDDEN}


def test_shipped_rules_alone_are_shipped():
    loaded = load_rules([shipped_rules_folder()], receivers=None)
    assert {source.origin for source in loaded.sources.values()} == {RuleOrigin.SHIPPED}
