"""Man pages and completions against the argument parsers and the schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from watchdog.cli.commands import COMMANDS, parser_of

CHECKOUT = Path(__file__).parents[3]
GENERATORS = CHECKOUT / "packaging" / "generate"
SCHEMAS = CHECKOUT / "watchdog" / "cli" / "schemas"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("share")
    at = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000"}
    subprocess.run([sys.executable, GENERATORS / "man_pages.py", folder / "man"], check=True, env=at)
    subprocess.run([sys.executable, GENERATORS / "completions.py", folder], check=True)
    return folder


def paths(parser, words=()):
    """Yield the words of each command below a parser, with its options."""
    group = next((one for one in parser._actions if hasattr(one, "choices") and isinstance(one.choices, dict)), None)
    yield words, [name for one in parser._actions if one.help != "==SUPPRESS==" for name in one.option_strings]
    for name, action in (group.choices if group else {}).items():
        yield from paths(action, (*words, name))


def actions_of(words):
    """Return the options and arguments of a command that its help shows."""
    parser = parser_of(words[0])
    for word in words:
        parser = next(one for one in parser._actions if isinstance(one.choices, dict)).choices[word]
    return [one for one in parser._actions if one.help != "==SUPPRESS==" and not isinstance(one.choices, dict)]


COMMAND_LINES = [line for name in COMMANDS for line in paths(parser_of(name)) if line[0]]
BASH = """\
source {file}
compopt() {{ :; }}
complete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bpf_watchdog; echo "${{COMPREPLY[*]}}"; }}
"""


def complete(made, lines):
    """Return the completions of the last word of each line, in bash."""
    file = made / "bash-completion" / "completions" / "bpf-watchdog"
    script = BASH.format(file=file) + "".join(f"complete_words bpf-watchdog {line}\n" for line in lines)
    done = subprocess.run(["bash", "-euc", script], stdout=subprocess.PIPE, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_bash_completes_each_command_with_each_of_its_options(made):
    found = complete(made, [f"{' '.join(words)} -" for words, _ in COMMAND_LINES])
    assert found == [set(options) for _, options in COMMAND_LINES]
    assert complete(made, ["''", "not"]) == [set(COMMANDS), {"notify", "notifications"}]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("notifications ''", {"list", "show", "retry"}),
        ("notifications list --state ''", {"pending", "delivered", "merged", "failed"}),
        ("notifications list --receiver list --l", {"--limit", "--lost"}),
        ("alerts --state-dir show --json ''", {"list", "show"}),
        ("schema s", {"settings"}),
        ("alerts show x ''", set()),
        ("silence add --comment ''", set()),
        ("check /etc/hostnam", {"/etc/hostname"}),
        ("run --state-dir /et", {"/etc"}),
        ("no-such-command -", set()),
    ],
)
def test_bash_completes_values(made, line, found):
    shown = complete(made, [line])
    assert shown == [found] or (line.startswith("no-such") and shown == [{"-h", "--help", "--version"}])


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completions_for_other_shells_are_taken_by_them(made, shell):
    [file] = [one for one in (made / shell).rglob("*bpf-watchdog*") if one.is_file()]
    subprocess.run([shell, "-n", file], check=True, stdin=subprocess.DEVNULL)


def test_fish_completes_commands_actions_options_and_values(made):
    file = made / "fish" / "vendor_completions.d" / "bpf-watchdog.fish"

    def shown(line):
        script = f"source {file}; complete -C 'bpf-watchdog {line}'"
        done = subprocess.run(["fish", "--no-config", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
        return {one.split("\t")[0] for one in done.stdout.splitlines()}

    assert shown("") == set(COMMANDS)
    assert shown("notifications ") == {"list", "show", "retry"}
    assert shown("notifications list --state ") == {"pending", "delivered", "merged", "failed"}
    assert shown("schema ") == {"settings", "rules"}
    assert {"--dry-run", "--json", "--control"} <= shown("reload --")


def test_zsh_has_a_function_for_each_command_with_each_of_its_options(made):
    text = (made / "zsh" / "site-functions" / "_bpf-watchdog").read_text()
    assert text.startswith("#compdef bpf-watchdog\n")
    for words, options in COMMAND_LINES:
        name = "_".join(("_bpf_watchdog", *(word.replace("-", "_") for word in words)))
        body = text.partition(f"\n{name}() {{\n")[2].partition("\n}\n")[0]
        assert all(option in body for option in options), words


def rendered(made, place):
    """Return a page as man(1) shows it, in one line; a warning of the formatter fails."""
    command = ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=1000n", made / "man" / place]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return " ".join(done.stdout.replace("‐", "-").replace("−", "-").split())


def test_the_man_page_has_each_command_with_each_of_its_options(made):
    page = rendered(made, "man1/bpf-watchdog.1")
    for words, options in COMMAND_LINES:
        section = page.partition(f" {' '.join(words).upper()} bpf-watchdog {' '.join(words)}")[2]
        assert section, words
        assert all(option in section for option in options), words
    assert re.search(r"EXIT STATUS 0 ok 1 problem found 2 usage 3 daemon not reachable 4 not permitted or .* 75 ", page)


@pytest.mark.parametrize("place", ["man1/bpf-watchdog.1", "man5/bpf-watchdog.toml.5", "man5/bpf-watchdog-rules.5"])
def test_the_pages_are_clean(made, place):
    linted = subprocess.run(
        ["mandoc", "-T", "lint", made / "man" / place], stdout=subprocess.PIPE, text=True, check=False
    )
    long_words = re.compile(
        r".*STYLE: input text line longer than 80 bytes: .*"
    )  # an address, or a list without blanks
    assert [line for line in linted.stdout.splitlines() if not long_words.fullmatch(line)] == []
    shown = subprocess.run(
        ["man", "--warnings", "-l", made / "man" / place],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
    )
    assert (shown.stderr, "2025-06-15" in shown.stdout) == ("", True)


def test_the_man_page_has_each_choice_of_values(made):
    page = rendered(made, "man1/bpf-watchdog.1")
    for words, _ in COMMAND_LINES:
        _, _, section = page.partition(f" {' '.join(words).upper()} bpf-watchdog {' '.join(words)}")
        for action in actions_of(words):
            named = action.option_strings[0] if action.option_strings else action.metavar
            found = re.search(rf" {re.escape(named)}[ ,].{{0,600}}", section)
            assert found, (words, named)
            assert all(str(value) in found[0] for value in action.choices or ()), (words, named)


def described(node):
    """Yield each key below a node of a schema, with its own node."""
    for key, one in {**node.get("properties", {}), **node.get("definitions", {})}.items():
        if "$ref" not in one:
            yield key, one
        yield from described(one)
    for one in (*node.get("oneOf", ()), *([node["items"]] if isinstance(node.get("items"), dict) else [])):
        yield from described(one)


TYPES = {
    "string": "text|duration",
    "integer": "integer",
    "boolean": "true or false",
    "array": "list",
    "object": "table",
}
WITH_BRACKETS = {"lists", "rule", "override"}  # tables on a page; the keys of an override are those of a rule


@pytest.mark.parametrize(("kind", "place"), [("settings", "bpf-watchdog.toml.5"), ("rules", "bpf-watchdog-rules.5")])
def test_the_pages_of_the_files_have_each_key_with_its_type_meaning_default_and_values(made, kind, place):
    page = rendered(made, f"man5/{place}").replace("\\", "")
    missing, count = [], 0
    for key, node in described(json.loads((SCHEMAS / f"{kind}.json").read_text())):
        if key in WITH_BRACKETS or "shipped rule is not in force" in node["description"]:
            continue
        meaning = re.escape(
            " ".join(node["description"].replace("`", "").replace("…", "...").replace("\\", "").split())
        )
        types = TYPES.get(node.get("type"), "[a-z, ]+")
        found = re.search(
            rf"{key} \(({types})\) {meaning}(?: One of: ([^.]+)\.)?(?: From ([\d,]+) to ([\d,]+)\.)?", page
        )
        values = node.get("enum", [])
        wrong = found is None or (len(values) > 1 and set(found[2].split(", ")) != {*values})
        limits = None if "minimum" not in node else (f"{node['minimum']:,}", f"{node['maximum']:,}")
        missing += [key] if wrong or (limits and found.groups()[2:] != limits) else []
        count += 1
    assert count > 50
    assert missing == []
