"""The hash of a ruleset depends on the meaning of the rules, not on their notation."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from watchdog.rules.language.load import load_rules
from watchdog.rules.language.ruleset_hash import ruleset_hash

STORM = """\
[[rule]]
id = "storm"
summary = "{process} opens {value}"
metric = "resets_received / closes"
stat = "rate"
window = "5s"
by = ["process"]
where = { direction = "out", remote = ["!10.0.0.0/8", "!127.0.0.0/8"] }
fire_above = { warning = 100, critical = 500 }
only_if = "closes >= 50"
"""
OTHER = '[[rule]]\nid = "other"\nsummary = "x"\nmetric = "open"\nstat = "last"\nfire_above = 1\nwindow = "5s"\n'


@pytest.fixture
def hash_of(tmp_path):
    def hash_of(*texts):
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        found = ruleset_hash(load_rules([tmp_path], receivers=None).rules)
        for file in tmp_path.iterdir():
            file.unlink()
        return found

    return hash_of


@pytest.mark.parametrize(
    "same",
    [
        ("# a comment\n\n" + STORM + OTHER,),
        (OTHER + STORM,),
        (OTHER, STORM),
        (STORM.replace('"5s"', '"5000ms"') + OTHER,),
        (STORM.replace("{ warning = 100, critical = 500 }", "{ critical = 500.0, warning = 100 }") + OTHER,),
        (STORM.replace("resets_received / closes", "resets_received/closes") + OTHER,),
        (STORM + 'for = "0s"\n' + OTHER,),
        (STORM.replace('"!10.0.0.0/8", "!127.0.0.0/8"', '"!127.0.0.0/8", "!10.0.0.0/8", "!127.0.0.0/8"') + OTHER,),
        (
            STORM.replace("{ direction", '{ remote = ["!127.0.0.0/8", "!10.0.0.0/8"], direction').replace(
                ', remote = ["!10.0.0.0/8", "!127.0.0.0/8"] }', " }"
            )
            + OTHER,
        ),
    ],
)
def test_notation_and_files_do_not_change_the_hash(hash_of, same):
    assert hash_of(*same) == hash_of(STORM + OTHER)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("storm", "storn"),
        ("opens", "open"),
        ("resets_received / closes", "closes / resets_received"),
        ('"rate"', '"sum"'),
        ('"5s"', '"6s"'),
        ('by = ["process"]', 'by = ["process", "unit"]'),
        ('"out"', '"in"'),
        ("!10.0", "10.0"),
        ("warning = 100", "warning = 101"),
        (", critical = 500", ""),
        (">= 50", "> 50"),
        (">= 50", ">= 51"),
    ],
)
def test_a_changed_rule_changes_the_hash(hash_of, old, new):
    assert old in STORM
    assert hash_of(STORM.replace(old, new)) != hash_of(STORM)


def test_the_hash_is_the_same_in_every_process():
    program = (
        "from watchdog.resources import shipped_rules_folder\n"
        "from watchdog.rules.language.ruleset_hash import ruleset_hash\n"
        "from watchdog.rules.language.load import load_rules\n"
        "print(ruleset_hash(load_rules([shipped_rules_folder()], receivers=None).rules))"
    )
    told = {
        subprocess.check_output([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    }
    assert [re.fullmatch(r"[0-9a-f]{64}\n", line) is not None for line in told] == [True]
