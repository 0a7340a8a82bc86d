"""The JSON Schemas of both kinds of files against their readers, the pages, the shipped rules and broken files."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from watchdog.cli.main import main
from watchdog.clock import SECOND_NS
from watchdog.config.document import Document
from watchdog.config.settings import SETTINGS_TABLES
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment

CHECKOUT = Path(__file__).parents[3]
SCHEMAS = CHECKOUT / "watchdog" / "cli" / "schemas"
UNKNOWN = "unknown-to-every-reader"
RULE = 'id = "r"\nsummary = "x"\nmetric = "connects"\nstat = "rate"\nwindow = "1m"\nfire_above = 1\n'
BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)


def schema(kind: str) -> dict:
    return json.loads((SCHEMAS / f"{kind}.json").read_text())


VALIDATORS = {kind: jsonschema.Draft7Validator(schema(kind)) for kind in ("settings", "rules")}


def problems(kind: str, text: str) -> list[str]:
    # A day of TOML is a text in JSON.
    content = json.loads(json.dumps(tomllib.loads(text), default=dt.date.isoformat))
    return [error.message for error in VALIDATORS[kind].iter_errors(content)]


def examples() -> list:
    found = []
    for page in sorted((CHECKOUT / "docs").glob("*.md")):
        for number, block in enumerate(BLOCK.findall(page.read_text())):
            root = tomllib.loads(block)
            kind = "rules" if {"rule", "override", "lists"} & root.keys() else "settings"
            found.append(pytest.param(kind, block, id=f"{page.stem}-{number}"))
    return found


def test_the_command_prints_both(capsys):
    for kind in VALIDATORS:
        assert main(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out) == schema(kind)


@pytest.mark.parametrize("kind", VALIDATORS)
def test_the_files_are_those_that_the_pages_and_the_catalogue_make(kind):
    script = f"import schemas; print(schemas.schema_text({kind!r}), end='')"
    folder = CHECKOUT / "packaging" / "generate"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    assert (SCHEMAS / f"{kind}.json").read_text() == done.stdout, "run `make schemas`"
    jsonschema.Draft7Validator.check_schema(schema(kind))


@pytest.mark.parametrize("word", ["const", '"if"', "$dynamicRef", "unevaluated", "$defs"])
def test_only_words_that_editors_know_are_used(word):
    assert not any(word in (SCHEMAS / f"{kind}.json").read_text() for kind in VALIDATORS)


@pytest.mark.parametrize("file", sorted(shipped_rules_folder().glob("*.toml")), ids=lambda file: file.stem)
def test_the_shipped_rules_are_valid(file):
    assert problems("rules", file.read_text()) == []


@pytest.mark.parametrize(("kind", "text"), examples())
def test_the_examples_of_the_pages_are_valid(kind, text):
    assert problems(kind, text) == []


def accepted_keys(text: str, table: str) -> set[str]:
    document = Document(text, tomllib.loads(text), "r.toml")
    read_rules(document, RuleEnvironment(None, SECOND_NS, {}))
    [message] = [
        one.message for one in document.problems if one.key == f"{table}.{UNKNOWN}" and "known are" in one.message
    ]
    return set(message.partition(": known are ")[2].split(", "))


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("rule", f"[[rule]]\n{RULE}{UNKNOWN} = 1\n"),
        ("rule.baseline", f"[[rule]]\n{RULE}[rule.baseline]\nfloor = 1\n{UNKNOWN} = 1\n"),
        ("rule.novelty", f"[[rule]]\n{RULE}[rule.novelty]\n{UNKNOWN} = 1\n"),
        ("rule.except", f'[[rule]]\n{RULE}[[rule.except]]\nwhere = {{ process = "a" }}\n{UNKNOWN} = 1\n'),
    ],
)
def test_the_schema_has_each_key_that_the_reader_of_rules_accepts_and_no_other(table, text):
    node = schema("rules")
    for name in table.split("."):
        node = node["properties"][name]
        node = node.get("items", node)
    assert set(node["properties"]) == accepted_keys(text, table)
    assert all(one["description"].endswith(".") for one in node["properties"].values()), "a text to hover"


def test_a_file_of_settings_has_the_tables_of_its_reader():
    assert set(schema("settings")["properties"]) == set(SETTINGS_TABLES)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rules", f"[[rule]]\n{RULE}windw = 1\n"),
        ("rules", f"[[rule]]\n{RULE}".replace('"1m"', "60")),
        ("rules", f"[[rule]]\n{RULE}".replace('"rate"', '"rat"')),
        ("rules", f"[[rule]]\n{RULE}by = ['proces']\n"),
        ("rules", f"[[rule]]\n{RULE}where = {{ proces = 'a' }}\n"),
        ("rules", f"[[rule]]\n{RULE}for = '1 m'\n"),
        ("rules", f"[[rule]]\n{RULE}".replace('id = "r"', "")),
        ("rules", f"[[rule]]\n{RULE}".replace("fire_above = 1", "fire_above = { warn = 1 }")),
        ("rules", f"[[rule]]\n{RULE}[[rule.except]]\nwhere = {{ pid = 1 }}\nowner = 'a'\n"),
        ("rules", f"[[rule]]\n{RULE}[rule.baseline]\nseason = 'day'\n"),
        ("rules", "[[rules]]\n"),
        ("rules", "[lists]\na = 'b'\n"),
        ("rules", "[[override]]\nenabled = false\n"),
        ("settings", "[sampling]\nintervall = '1s'\n"),
        ("settings", "[sampling]\nledger = 1\n"),
        ("settings", "[[receiver]]\nname = 'a'\ntype = 'slak'\n"),
        ("settings", "[[receiver]]\nname = 'a'\ntype = 'webhook'\n"),
        ("settings", "[[receiver]]\nname = 'a'\ntype = 'webhook'\nurl = 'a'\nurl_file = 'b'\n"),
        ("settings", "[[receiver]]\nname = 'A b'\ntype = 'console'\n"),
        ("settings", "[[receiver]]\nname = 'a'\ntype = 'console'\nhost = 'b'\n"),
        ("settings", "[heartbeat]\ninterval = '1s'\n"),
        ("settings", "[[route]]\nwhere = {}\n"),
        ("settings", "[routing]\ngroup_wait = 5\n"),
    ],
)
def test_a_broken_file_is_not_valid(kind, text):
    assert problems(kind, text)
