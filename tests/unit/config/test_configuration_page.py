"""docs/configuration.md against the code: every key that a reader accepts is on the page, and no other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from watchdog.config.document import Document, Table, secret_forms
from watchdog.config.settings import SETTINGS_TABLES, SettingsDocument, read_settings
from watchdog.daemon.heartbeat_url import HeartbeatUrl
from watchdog.receivers.base import VolatileReceiverState
from watchdog.receivers.registry import RECEIVER_TYPES, options_from_table, receiver_class
from watchdog.routing.routes import read_routes
from watchdog.routing.suppression_rules import read_suppression_rules

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
HEADER = "| key | type | default | meaning |\n"
UNKNOWN = "unknown-to-every-reader"
# A type with two ways of delivery reads other keys for each of them.
RECEIVER_VARIANTS = {
    "slack": ["", 'bot_token = "x"\n'],
    "syslog": ["", 'address = "tcp://log.example.net"\n', 'address = "tls://log.example.net"\n'],
}


def documented_keys(section: str) -> set[str]:
    """Return the keys in the table of a section; a secret counts as its four keys."""
    text = re.split(r"^#+ ", PAGE.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text.partition(HEADER)[2].partition("\n\n")[0], re.MULTILINE)
    return {key for name, kind in rows for key in (secret_forms(name) if kind == "secret" else (name,))}


def accepted_keys(document: Document) -> set[str]:
    """Return the keys that the table with the unknown key accepts, as the problem lists them."""
    [message] = [problem.message for problem in document.problems if UNKNOWN in problem.key]
    return set(message.partition(": known are ")[2].split(", "))


def settings_of(text: str) -> tuple[Document, SettingsDocument]:
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return document, read_settings(document)


@pytest.mark.parametrize("table", ["sampling", "docs", "evidence", "routing", "rules", "web"])
def test_a_table_of_settings_is_documented_completely(table):
    document, _ = settings_of(f"[{table}]\n{UNKNOWN} = 1\n")
    assert documented_keys(f"`[{table}]`") == accepted_keys(document)


def test_the_tables_of_the_file_are_documented_completely():
    document, _ = settings_of(f"{UNKNOWN} = 1\n")
    assert documented_keys("Tables of the file") == accepted_keys(document)


def test_check_recognizes_every_table_of_settings():
    assert documented_keys("Tables of the file") == set(SETTINGS_TABLES)


def test_a_route_is_documented_completely():
    document, settings = settings_of(f"[[route]]\n{UNKNOWN} = 1\n")
    read_routes(settings)
    assert documented_keys("`[[route]]`") == accepted_keys(document)


def test_a_mute_time_is_documented_completely():
    document, settings = settings_of(f"[[mute]]\n{UNKNOWN} = 1\n")
    read_suppression_rules(settings)
    assert documented_keys("`[[mute]]`") == accepted_keys(document)


def test_an_inhibition_is_documented_completely():
    document, settings = settings_of(f"[[inhibit]]\n{UNKNOWN} = 1\n")
    read_suppression_rules(settings)
    assert documented_keys("`[[inhibit]]`") == accepted_keys(document)


def test_the_heartbeat_is_documented_completely():
    document, settings = settings_of(f"[heartbeat]\n{UNKNOWN} = 1\n")
    HeartbeatUrl.from_table(settings.heartbeat)
    assert documented_keys("`[heartbeat]`") == accepted_keys(document)


def receiver_keys(receiver_type: str, more: str) -> set[str]:
    document, settings = settings_of(f'[[receiver]]\nname = "r"\ntype = "{receiver_type}"\n{more}{UNKNOWN} = 1\n')
    [(name, _, table)] = settings.receivers
    assert isinstance(table, Table)
    chosen = receiver_class(receiver_type)
    chosen.from_table(name, table, options_from_table(table, chosen, VolatileReceiverState()))
    table.reject_unknown_keys()
    return accepted_keys(document)


@pytest.mark.parametrize("receiver_type", RECEIVER_TYPES)
def test_a_receiver_type_is_documented_completely(receiver_type):
    common = documented_keys("`[[receiver]]`")
    assert len(common) == 9
    variants = RECEIVER_VARIANTS.get(receiver_type, [""])
    accepted = set.union(*(receiver_keys(receiver_type, more) for more in variants))
    assert documented_keys(f"Type `{receiver_type}`") | common == accepted


def test_every_type_has_a_section_and_every_section_a_type():
    assert re.findall(r"^### Type `(\w+)`$", PAGE, re.MULTILINE) == list(RECEIVER_TYPES)


def test_the_examples_have_no_problem_but_missing_files():
    for example in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        names = set(re.findall(r'"(oncall|second|network)"', example)) - set(re.findall(r'name = "(\w+)"', example))
        text = example + "".join(f'[[receiver]]\nname = "{name}"\ntype = "console"\n' for name in sorted(names))
        document, settings = settings_of(text)
        read_routes(settings)
        read_suppression_rules(settings)
        assert document.problems == []
