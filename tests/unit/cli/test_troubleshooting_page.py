"""docs/troubleshooting.md against the code: every check and message of `doctor`, and messages of `check`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchdog.cli.check_files import CheckRequest, check_files

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
OF_DOCTOR, _, OF_CHECK = PAGE.partition("\n## Messages of doctor\n")[2].partition("\n## Messages of check\n")
SOURCES = [
    *sorted((ROOT / "watchdog" / "kernel").glob("*.py")),
    ROOT / "watchdog" / "cli" / "doctor.py",
    ROOT / "watchdog" / "config" / "trusted_files.py",
]
# Calls that make a message, and the place of the message among their arguments.
MESSAGES = {
    "Finding": 2,
    "Flaw": 1,
    **dict.fromkeys(("KernelUnfit", "NotPermitted", "TemporaryFailure", "HandoverError", "_bcc_error"), 0),
}


def literals(node: ast.AST) -> list[str]:
    """Return the fixed parts of a text."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return [part.value for part in parts if isinstance(part, ast.Constant)]
        case ast.BinOp(left=left, right=right):
            return literals(left) + literals(right)
    return []


def calls(name: str) -> Iterator[tuple[ast.Call, dict[str, list[ast.expr]]]]:
    """Yield the calls of a function, and the values that names have anywhere in its module."""
    for source in SOURCES:
        nodes = list(ast.walk(ast.parse(source.read_text())))
        assigned: dict[str, list[ast.expr]] = {}
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                assigned.setdefault(node.targets[0].id, []).append(node.value)
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield node, assigned


def messages() -> Iterator[str]:
    """Yield the longest fixed part of each message that `doctor` can print with a verdict other than ok."""
    for name, place in MESSAGES.items():
        for call, assigned in calls(name):
            if name == "Finding" and literals(call.args[0]) == ["ok"]:
                continue
            text = call.args[place]
            for value in assigned.get(text.id, []) if isinstance(text, ast.Name) else [text]:
                parts = [re.sub(r"\w+=$", "", part).strip(" \n:") for part in literals(value)]
                yield from [max(parts, key=len)] if any(parts) else []


def subjects() -> set[str]:
    """Return the checks of `doctor`: the texts in its second column."""
    found = {text for call, _ in calls("Finding") for text in literals(call.args[1])}
    found |= {text for call, _ in calls("_check") for text in literals(call.args[0])}
    tree = ast.parse((ROOT / "watchdog" / "kernel" / "kernel_support.py").read_text())
    for loop in (node for node in ast.walk(tree) if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple)):
        found |= {text for pair in loop.iter.elts if isinstance(pair, ast.Tuple) for text in literals(pair.elts[0])}
    return found


def test_each_check_of_doctor_has_its_chapter():
    assert {"BTF", "capabilities", "load", "files", "privileges"} <= subjects()  # the reader finds all three forms
    assert set(re.findall(r"^### (.+)$", OF_DOCTOR, re.MULTILINE)) == subjects()


def test_each_message_of_doctor_is_on_the_page():
    found = set(messages())
    assert len(found) > 40
    assert sorted(message for message in found if message not in PAGE) == []


# ------------------------------------------------------------------------------------------------- check

RULE = """\
[[rule]]
id = "storm"
summary = "{value}"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
fire_above = 100
"""
SHARE = RULE.replace('"connects"', '"connect_failures / closes"').replace("100", "5")
RECEIVERS = '[[receiver]]\nname = "oncall"\ntype = "console"\n'
EXCEPTION = '[[rule.except]]\nwhere = { process = "x" }\nowner = "a"\nreason = "b"\nuntil = 2020-01-01\n'
WEBHOOK = '[[receiver]]\nname = "oncall"\ntype = "webhook"\nurl_file = "/nowhere/secret"\n'
LOOP = """\
[[receiver]]
name = "a"
type = "console"
escalate_to = "b"
[[receiver]]
name = "b"
type = "console"
escalate_to = "a"
"""
ROUTES = """\
[[receiver]]
name = "a"
type = "console"
[[route]]
receivers = ["a"]
[[route]]
where = { severity = "critical" }
receivers = ["a"]
"""
# Rule files and settings; together they have each message of the page.
FILES = [
    RULE + "for = 10s\n",
    RULE + RULE,
    RULE + "fire_abve = 3\n",
    RULE.replace('"connects"', '"conects"'),
    RULE + 'where = { proces = "x" }\n',
    RULE + 'receivers = ["oncal"]\n',
    '[[override]]\nid = "inbound-conection-storm"\nenabled = false\n',
    RULE.replace('"10s"', "10"),
    RULE.replace("fire_above = 100\n", ""),
    RULE.replace('"rate"', '"p99"'),
    RULE.replace('"10s"', '"1s"'),
    RULE.replace('"10s"', '"2h"'),
    RULE + "clear_below = 200\n",
    RULE + "fire_below = 3\n",
    SHARE,
    RULE + 'where = { direction = "in" }\n',
    RULE + 'where = { process = "prometheus-node-exporter" }\n',
    RULE + 'where = { unit = "nginx" }\n',
    RULE.replace("{value}", "{unit}"),
    RULE + 'where = { remote_country = "DE" }\n',
    '[networks]\ncountry_file = "/nowhere.mmdb"\n',
    LOOP,
    RULE.replace('"connects"', '"bytes_sent"'),
    RULE.replace('["process"]', '["pid"]'),
    RULE + 'where = { process = "nginx,apache2" }\n',
    RULE.replace("{value}", "{{ $labels.process }}"),
    RULE + 'unless_firing = ["other"]\n',
    RULE + 'absent_for = "5m"\n',
    ROUTES,
    RULE + EXCEPTION,
    WEBHOOK,
    "# nothing yet\n",
]


@pytest.fixture
def reported(tmp_path):
    """Return the messages of `check` on all files, each with its kind; paths of this test are `…`."""
    (tmp_path / "watchdog.toml").write_text(RECEIVERS)
    found = set()
    for number, text in enumerate(FILES):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        has_rules = text.startswith(("[[rule", "[[override"))
        report = check_files(CheckRequest([path], tmp_path / "watchdog.toml" if has_rules else None))
        found |= {(problem.message, "problem") for problem in report.problems}
        found |= {(note.message, "note") for note in report.notes}
    return {(re.sub(rf"{re.escape(str(tmp_path))}\S*", "…", message), kind) for message, kind in found}


def test_the_messages_of_check_are_those_of_the_page(reported):
    rows = set(re.findall(r"^\| `(.+?)` \| (problem|note) \|", OF_CHECK, re.MULTILINE))
    assert len(rows) == len(FILES)
    assert rows - reported == set()
