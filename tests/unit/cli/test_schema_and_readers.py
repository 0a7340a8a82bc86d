"""The JSON Schemas and the readers of the files judge alike: keys, and the types and choices of their values."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from watchdog.cli import check_files
from watchdog.clock import SECOND_NS
from watchdog.config.document import Document
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment

CHECKOUT = Path(__file__).parents[3]
SCHEMAS = {
    kind: json.loads((CHECKOUT / "watchdog" / "cli" / "schemas" / f"{kind}.json").read_text())
    for kind in ("settings", "rules")
}
UNKNOWN = "unknown-to-every-reader"
WRONG = (7, -1.5, True, "zz", "", [], ["zz"], [1], {}, {"zz": 1})
# Problems of a type, a name or a choice; others need knowledge of the host, of other keys or of other files.
OF_TYPES = re.compile(r"must be (a|an) |must hold |must be \d|not a duration|unknown (key|value|metric|stat|severity)")
RULE = {"id": "r", "summary": "x", "metric": "connects", "stat": "rate", "window": "1m", "fire_above": 1}
RECEIVERS = {
    "alertmanager": {"urls": ["http://a"]},
    "apprise": {"urls": "json://a"},
    "command": {"command": ["/bin/true"]},
    "console": {},
    "email": {"host": "a", "from": "a@b", "to": ["a@b"]},
    "journald": {},
    "pagerduty": {"routing_key": "0123456789abcdef0123456789abcdef"},
    "slack": {"bot_token": "xoxb-1", "channel": "C0123ABCD"},
    "syslog": {},
    "webhook": {"url": "http://a"},
}

# Keys that a receiver has in place of others.
OTHER_FORMS = {"receiver:slack": {"webhook_url": "https://hooks.slack.com/services/x"}}


def settings_of(table: str, **keys: Any) -> dict[str, Any]:
    """Return a file of settings with `keys` in a table; "receiver:slack" is a receiver of a type."""
    name, _, kind = table.partition(":")
    if name == "receiver":
        return {"receiver": [{"name": "a", "type": kind, **RECEIVERS[kind], **keys}], "routing": {"default": ["a"]}}
    base = {
        "route": {"where": {"severity": "critical"}, "receivers": ["console"]},
        "mute": {"times": ["Mon-Fri 22:00-06:00"], "where": {"severity": "warning"}},
        "inhibit": {"source": {"severity": "critical"}, "target": {"severity": "warning"}, "equal": ["unit"]},
        "heartbeat": {"url": "http://a"},
    }.get(name, {})
    content = {**base, **keys}
    return {name: [content] if SCHEMAS["settings"]["properties"][name].get("type") == "array" else content}


def problems(kind: str, data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (key, message) of each problem that the reader finds in a file."""
    document = Document("", data, "x.toml", require_secrets=False)
    if kind == "rules":
        read_rules(document, RuleEnvironment(None, SECOND_NS, {}))
    else:
        check_files._read_routes(check_files._check_settings(document), None)
    return [(one.key, one.message) for one in document.problems]


def is_valid(kind: str, data: Any, node: dict[str, Any] | None = None) -> bool:
    """Return whether `data` is a valid file, or a valid value of `node`."""
    schema = SCHEMAS[kind] if node is None else {**node, "definitions": SCHEMAS[kind]["definitions"]}
    return bool(jsonschema.Draft7Validator(schema).is_valid(json.loads(json.dumps(data, default=str))))


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each table of settings, and the schemas of its keys."""
    for name, node in SCHEMAS["settings"]["properties"].items():
        table = node.get("items", node)
        for one in table.get("oneOf", []):
            yield f"{name}:{one['title']}", one["properties"]
        if "properties" in table:
            yield name, table["properties"]


TABLES = dict(tables())
RULE_KEYS = SCHEMAS["rules"]["properties"]["rule"]["items"]["properties"]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_settings_has_the_keys_that_its_reader_accepts_and_no_other(table):
    name = table.partition(":")[0]
    known: set[str] = set()
    for more in ({}, OTHER_FORMS.get(table, {})):
        data = settings_of(table, **{UNKNOWN: 1})
        if more:
            data[name] = [{"name": "a", "type": "slack", **more, UNKNOWN: 1}]
        [message] = [text for key, text in problems("settings", data) if key == f"{name}.{UNKNOWN}"]
        known |= set(message.partition(": known are ")[2].split(", "))
    bases = {key for key in TABLES[table] if not re.search(r"_(file|env|credential)$", key)}
    assert known - {*TABLES[table]} == set()
    # The reader names a secret by its four forms or by its first one.
    assert bases - known == set()


@pytest.mark.parametrize("table", TABLES)
def test_each_key_of_settings_has_the_types_and_choices_of_its_reader(table):
    name = table.partition(":")[0]
    differences = []
    for key, node in TABLES[table].items():
        for value in WRONG:
            data = settings_of(table, **{key: value})
            if re.search(r"_(file|env|credential)$", key):  # one form of a secret at a time
                for one in data[name] if isinstance(data[name], list) else [data[name]]:
                    one.pop(key.rpartition("_")[0], None)
            found = [text for one, text in problems("settings", data) if one.startswith(f"{name}.{key}")]
            differences += compare("settings", node, key, value, found)
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("key", RULE_KEYS)
def test_each_key_of_a_rule_has_the_types_and_choices_of_its_reader(key):
    differences = []
    for value in WRONG:
        found = [
            text for one, text in problems("rules", {"rule": [{**RULE, key: value}]}) if one.startswith(f"rule.{key}")
        ]
        differences += compare("rules", RULE_KEYS[key], key, value, found)
    assert not differences, "\n".join(differences)


def compare(kind: str, node: dict[str, Any], key: str, value: Any, found: list[str]) -> list[str]:
    """Return the difference between the verdicts on a value; `found`: problems of the reader."""
    valid = is_valid(kind, value, node)
    if not valid and not found:
        return [f"the schema refuses {key} = {value!r}, the reader does not"]
    if valid and any(map(OF_TYPES.match, found)):
        return [f"the reader refuses {key} = {value!r}, the schema does not: {found}"]
    return []


# ---------------------------------------------------------------------------------------------------------- whole files


def files() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and the content of each rule and example that a user gets, one rule a file."""
    for file in sorted(shipped_rules_folder().glob("*.toml")):
        yield from (("rules", {"rule": [rule]}) for rule in tomllib.loads(file.read_text())["rule"][:2])
    yield "settings", tomllib.loads((CHECKOUT / "packaging" / "watchdog.toml").read_text())
    for page in sorted((CHECKOUT / "docs").glob("*.md")):
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
            content = tomllib.loads(block)
            yield "rules" if {"rule", "override", "lists"} & content.keys() else "settings", content


def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each key in a file."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(key, str):
            yield (*path, key)
        yield from paths(value, (*path, key))


def mutations(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a file with each key gone, misspelled, and with another type of value; before it, a name of the change."""
    for path in paths(content):
        place = ".".join(part for part in path if isinstance(part, str))
        for value in ("gone", "misspelled", 7, "zz", ["zz"], {"zz": 1}):
            changed = copy.deepcopy(content)
            table: Any = changed
            for part in path[:-1]:
                table = table[part]
            former = table.pop(path[-1])
            if value == "misspelled":
                table[f"{path[-1]}_x"] = former
            elif value != "gone":
                table[path[-1]] = value
            yield f"{place} {value}", changed


def test_no_file_that_a_reader_accepts_is_invalid_and_no_unknown_key_is_valid():
    seen: set[tuple[str, str]] = set()
    differences = []
    for number, (kind, content) in enumerate(files()):
        for change, changed in ((f"{number}", content), *mutations(content)):
            if (kind, change) in seen:
                continue
            seen.add((kind, change))
            found = problems(kind, changed)
            if is_valid(kind, changed):
                unknown = [text for _, text in found if "unknown key" in text]
                differences += [f"{kind}, {change}: valid, but {unknown}"] if unknown else []
            elif not found:
                differences.append(f"{kind}, {change}: not valid, and accepted")
    assert len(seen) > 500
    assert not differences, "\n".join(differences)
