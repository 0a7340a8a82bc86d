"""Names on the pages: targets of make and files of the code exist. Tables are aligned, files of docs/start.md right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from watchdog.cli.check_files import CheckRequest, check_files

CHECKOUT = Path(__file__).parents[3]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
CODE = re.compile(r"^```\w*\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
# Files of the checkout, by name or by the end of their path: "test_http.py", "integration/control/", "wire.py".
FILE = re.compile(r"(?:[a-z_.]+/)*[a-z_.]+(?:\.py|\.bpf\.[ch])|(?:[a-z_]+/)+")
FOLDERS = ("bpf", "packaging", "rules", "tests", "watchdog")


def codes(page: Path) -> list[str]:
    """Return the code of a page: its blocks, and the spans within sentences."""
    return [block or span for block, span in CODE.findall(page.read_text())]


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


def test_each_target_of_make_on_a_page_exists():
    named = {
        (page.name, target)
        for page in PAGES
        for code in codes(page)
        for target in re.findall(r"(?:^|&& |sudo )make ((?!a |the )[a-z-]+)", code, re.MULTILINE)
    }
    assert len(named) > 30
    assert {(page, target) for page, target in named if target not in targets()} == set()


@pytest.mark.parametrize("name", ["architecture.md", "security.md"])
def test_each_file_of_the_code_on_a_page_exists(name):
    found = [path for top in FOLDERS for path in (CHECKOUT / top, *(CHECKOUT / top).rglob("*"))]
    paths = [f"{path}/" if path.is_dir() else str(path) for path in found]
    spans = {span for span in codes(CHECKOUT / "docs" / name) if FILE.fullmatch(span)}
    assert len(spans) > 15
    assert {span for span in spans if not any(path.endswith(f"/{span}") for path in paths)} == set()


def test_the_table_of_threads_begins_with_main_and_has_the_names_of_the_code():
    table = (CHECKOUT / "docs" / "architecture.md").read_text().split("\n| thread |", 1)[1].split("\n\n", 1)[0]
    first, *rows = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    assert first == "main"
    code = "".join(path.read_text() for path in (CHECKOUT / "watchdog").rglob("*.py") if path.parent.name != "cli")
    patterns = re.findall(r'Thread\((?:[^()]|\([^()]*\))*name=f?"([^"]+)"', code)
    patterns = [re.sub(r"\{[^}]+\}", ".+", pattern) for pattern in patterns]
    names = [span for row in rows for span in re.findall(r"`([^`]+)`", row) if span != "APScheduler"]
    assert len(names) > 10
    assert [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in names)] == []


def test_check_accepts_the_files_that_the_first_pages_let_the_reader_write(tmp_path):
    page = (CHECKOUT / "docs" / "start.md").read_text()
    files = re.findall(r"^cat (>>?) /etc/bpf-watchdog/(\S+) <<'END'\n(.*?)^END$", page, re.MULTILINE | re.DOTALL)
    assert [name for _, name, _ in files] == ["rules.d/held.toml", "watchdog.toml", "watchdog.toml"]
    (tmp_path / "rules.d").mkdir()
    reports = []
    for redirection, name, text in files:
        with (tmp_path / name).open("a" if redirection == ">>" else "w") as file:
            file.write(text)
        if name == "watchdog.toml":
            reports.append(check_files(CheckRequest([tmp_path / "rules.d"], tmp_path / "watchdog.toml")))
    assert [list(map(str, report.problems)) for report in reports] == [[], []]


def is_aligned(lines: list[str]) -> bool:
    """Return whether lines are a table of the commands: each column as wide as its widest cell, two spaces between."""
    rows = [re.split(r" {2,}", line) for line in lines]
    if len({len(row) for row in rows}) > 1:
        return False
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for line, row in zip(lines, rows, strict=True):
        start = 0
        for cell, width in zip(row, widths, strict=True):
            if line[start : start + width].rstrip() not in (cell, cell.rjust(width)):
                return False
            start += width + 2
    return True


def tables(page: Path) -> list[list[str]]:
    """Return the tables in the output of commands on a page: lines from a head in capitals to the next command."""
    found = []
    for code in codes(page):
        for paragraph in re.split(r"\n\n|\n(?=\$ )", code):
            lines = paragraph.splitlines()
            heads = [number for number, line in enumerate(lines) if re.match(r"[A-Z]+(?: [A-Z() ]+)?  +[A-Z]", line)]
            found += [[line for line in lines[heads[0] :] if line != "…"]] if heads else []
    return found


def test_the_tables_on_the_pages_are_aligned_as_the_commands_align_them():
    found = {page.name: tables(page) for page in PAGES}
    assert len([table for of_page in found.values() for table in of_page]) >= 8
    assert [(name, table[0]) for name, of_page in found.items() for table in of_page if not is_aligned(table)] == []


def test_a_table_with_a_shifted_column_is_found():
    assert is_aligned(["RULE   GROUPS", "storm       1"])
    assert not is_aligned(["RULE    GROUPS", "storm       1"])
    assert not is_aligned(["RULE  GROUPS", "storm  1"])
