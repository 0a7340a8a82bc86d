"""Examples of the pages, followed to the letter: files in TOML through `check`, command lines through their parsers."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import netaddr
import pytest
from mmdb_writer import MMDBWriter

from watchdog.cli.check_files import CheckRequest, check_files
from watchdog.cli.commands import COMMANDS, parser_of
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.load import load_rules

CHECKOUT = Path(__file__).parents[3]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
TABLES_OF_RULES = {"rule", "override", "lists"}
COUNTRY_FILE = "/var/lib/GeoIP/GeoLite2-Country.mmdb"  # as the pages have it
# Facts that only the reader's host knows: secrets, certificates, programs.
OF_ANOTHER_HOST = re.compile(r"(not checked: )?cannot read '/etc/bpf-watchdog/|cannot run '/usr/local/bin/")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Placeholders on the pages, each with a value of its kind.
PLACEHOLDERS = {
    "NAME=PATTERN…": "process=nginx",
    "NAME=PATTERN": "process=nginx",
    "NAME=VALUE": "process=nginx",
    "DURATION": "2h",
}


def toml_blocks() -> list:
    """Return the blocks of TOML of all pages, with page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in FENCE.finditer(text):
            if block[1] == "toml":
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(block[2], id=f"{page.name}:{line}"))
    return found


def named_receivers(root: dict) -> set[str]:
    """Return the receivers that a file names and does not have."""
    named = {name for kind in ("rule", "route") for table in root.get(kind, []) for name in table.get("receivers", [])}
    named |= set(root.get("routing", {}).get("default", []))
    named |= {table["escalate_to"] for table in root.get("receiver", []) if "escalate_to" in table}
    return named - {table["name"] for table in root.get("receiver", [])}


@pytest.fixture(scope="module")
def country_file(tmp_path_factory):
    """Return the path of a file of countries."""
    path = tmp_path_factory.mktemp("countries") / "country.mmdb"
    writer = MMDBWriter(6, "Test", ipv4_compatible=True)
    writer.insert_network(netaddr.IPSet(["192.0.2.0/24"]), {"country": {"iso_code": "DE"}})
    writer.to_db_file(str(path))
    return str(path)


@pytest.fixture
def check(tmp_path, country_file):
    """Return a function that runs `check` on a text, beside receivers of the names in it, and returns its report."""

    def check(text):
        root = tomllib.loads(text)
        receivers = "".join(
            f'[[receiver]]\nname = "{name}"\ntype = "console"\n' for name in sorted(named_receivers(root))
        )
        settings = tmp_path / "watchdog.toml"
        if not TABLES_OF_RULES & root.keys():
            settings.write_text(text.replace(COUNTRY_FILE, country_file) + receivers)
            return check_files(CheckRequest([settings]))
        settings.write_text(f'[rules]\nshipped = true\n[networks]\ncountry_file = "{country_file}"\n{receivers}')
        (tmp_path / "rules.d").mkdir()
        (tmp_path / "rules.d" / "page.toml").write_text(text)
        return check_files(CheckRequest([tmp_path / "rules.d"], settings))

    return check


@pytest.mark.parametrize("text", toml_blocks())
def test_check_accepts_each_file_of_a_page(check, text):
    report = check(text)
    assert list(map(str, report.problems)) == []
    assert [str(note) for note in report.notes if not OF_ANOTHER_HOST.search(note.message)] == []


def inline_keys(text: str) -> list[str]:
    """Return the entries of rule files within the sentences of a text, such as `where = { unit = "a.service" }`."""
    return [code for code in re.findall(r"`([^`\n]+)`", text) if re.match(r"[a-z_]+ = ", code)]


def test_check_accepts_each_change_of_a_shipped_rule_in_the_runbooks(check):
    page = (CHECKOUT / "docs" / "runbooks.md").read_text()
    shipped = {rule.id for rule in load_rules([shipped_rules_folder()], receivers=()).rules}
    overrides = []
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        rule = section.partition("\n")[0]
        if rule in shipped and (entries := inline_keys(section)):
            overrides.append("\n".join(["[[override]]", f'id = "{rule}"', *entries]))
    assert len(overrides) >= 3
    report = check("\n".join(overrides))
    assert list(map(str, report.problems)) == []
    assert list(map(str, report.notes)) == []


# ------------------------------------------------------------------------------------------------ command lines


def lines_of_fences(text: str) -> Iterator[str]:
    """Yield the command lines in the blocks of a page, one for each `bpf-watchdog`; continued lines are joined."""
    for language, block in FENCE.findall(text):
        if language in {"toml", "text"}:
            continue
        for line in block.splitlines():
            start = "^ +|: |'" if language else r"^(?:\$ )?(?:sudo )?|&& |\|\| "
            for found in re.finditer(rf"(?:{start})(?:[\w./-]*/)?bpf-watchdog (?=[a-z])(.*)", line):
                yield found[1].partition("'")[0] if language else found[1]


def words(line: str) -> list[str]:
    """Return the arguments of a command line, up to a comment or an operator of the shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="><|&;")
    lexer.whitespace_split = True
    found = []
    for word in lexer:
        if word[0] in "><|&;":
            break
        found.append(PLACEHOLDERS.get(word, word))
    return found


def refusal(arguments: list[str], capsys) -> str:
    """Return the reason why a command line is refused, or an empty text."""
    if arguments[0] not in COMMANDS:
        return "no such command"
    try:
        parser_of(arguments[0]).parse_args(arguments)
    except SystemExit as end:
        return capsys.readouterr().err.strip().rpartition("\n")[2] if end.code else ""
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_line_of_a_page_is_accepted(page, capsys):
    lines = [line for line in lines_of_fences(page.read_text()) if not re.search(r" \[|…| \|(?!\|)", line)]
    assert {line: why for line in lines if (why := refusal(words(line), capsys))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_within_a_sentence_exists_with_its_options(page, capsys):
    text = FENCE.sub("", page.read_text())
    spans = re.findall(r"`(?:sudo )?bpf-watchdog ([a-z][^`]*)`", text)
    wrong = {}
    for span in spans:
        why = refusal(words(span.replace("\\|", "|")), capsys)
        if why and "are required" not in why:  # the name of a command, without its arguments
            wrong[span] = why
    assert wrong == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("sampel --for 5s", "no such command"),
        ("sample --four 5s", "unrecognized arguments: --four 5s"),
        ("notifications", "are required: ACTION"),
        ("silence add process=nginx --for 2h | cat", "are required: --comment"),
    ],
)
def test_a_wrong_command_line_is_found(line, why, capsys):
    assert refusal(words(line), capsys).endswith(why)


# -------------------------------------------------------------------------------------------------- Prometheus


def test_promtool_reads_each_query_of_the_page_on_prometheus(tmp_path):
    page = (CHECKOUT / "docs" / "prometheus.md").read_text()
    queries = [
        line
        for language, block in FENCE.findall(page)
        for line in block.splitlines()
        if not language and block.startswith("# ") and not line.startswith("#")
    ]
    assert len(queries) >= 3
    rules = "".join(f"  - record: r{number}\n    expr: >-\n      {query}\n" for number, query in enumerate(queries))
    (tmp_path / "rules.yml").write_text(f"groups:\n- name: page\n  rules:\n{rules}")
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
