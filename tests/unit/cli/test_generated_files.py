"""Man pages and completions against the argument parsers and the schemas."""

from __future__ import annotations

import json
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
    subprocess.run([sys.executable, GENERATORS / "man_pages.py", folder / "man"], check=True)
    subprocess.run([sys.executable, GENERATORS / "completions.py", folder], check=True)
    return folder


def paths(parser, words=()):
    """Yield the words of each command below a parser, with its options."""
    group = next((one for one in parser._actions if hasattr(one, "choices") and isinstance(one.choices, dict)), None)
    yield words, [name for one in parser._actions if one.help != "==SUPPRESS==" for name in one.option_strings]
    for name, action in (group.choices if group else {}).items():
        yield from paths(action, (*words, name))


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


@pytest.mark.parametrize(("kind", "place"), [("settings", "bpf-watchdog.toml.5"), ("rules", "bpf-watchdog-rules.5")])
def test_the_pages_of_the_files_have_each_key(made, kind, place):
    page = rendered(made, f"man5/{place}")

    def descriptions(node):
        if isinstance(node, dict):
            for key, one in node.get("properties", {}).items():
                yield f"{key} {one.get('description', '')}"
                yield from descriptions(one)
            yield from descriptions(node.get("items"))
            for one in node.get("oneOf", []):
                yield from descriptions(one)

    wanted = set(descriptions(json.loads((SCHEMAS / f"{kind}.json").read_text())))
    missing = [one for one in wanted if " ".join(one.replace("`", "").replace("…", "...").split()) not in page]
    tables = {"lists", "rule", "override"}  # with brackets on the page; the keys of an override are those of a rule
    assert [one for one in missing if one.split()[0] not in tables and "shipped rule is not" not in one] == []
