"""The commands of bpf-watchdog with their options, from its own argument parsers: man page and completions."""

from __future__ import annotations

import argparse
import enum
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

# Where a package is built, these need not be there: a parser uses none of them.
_LIBRARIES = ("apscheduler", "certifi", "numpy", "prometheus_client", "requests", "tomli", "urllib3")


class _Placeholders(MetaPathFinder, Loader):
    """Finds a placeholder for each library that is missing."""

    missing = frozenset(name for name in _LIBRARIES if importlib.util.find_spec(name) is None)

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        if fullname.partition(".")[0] not in self.missing:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module: ModuleType = MagicMock(name=spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: a placeholder has no code."""


sys.meta_path.append(_Placeholders())

from watchdog.cli.commands import COMMANDS, overview_parser, parser_of  # noqa: E402
from watchdog.measure.catalogue import DIMENSIONS  # noqa: E402
from watchdog.selftest.runner import CHECK_MODULES  # noqa: E402


@dataclass(frozen=True)
class CommandSyntax:
    """A command line: `words` after the program, its summary and description, options and arguments.

    `choices`: of the word that follows, if it is a command with actions.
    """

    words: tuple[str, ...]
    summary: str
    description: str
    options: tuple[argparse.Action, ...]
    arguments: tuple[argparse.Action, ...]
    choices: tuple[str, ...]


def all_commands() -> Iterator[CommandSyntax]:
    """Yield the program itself, then each command, followed by its actions."""
    overview = overview_parser()
    yield _syntax((), "", overview, tuple(COMMANDS))
    for name, command in COMMANDS.items():
        parser = _subparsers(parser_of(name))[name]
        yield from _with_actions((name,), command.summary, parser)


def _with_actions(words: tuple[str, ...], summary: str, parser: argparse.ArgumentParser) -> Iterator[CommandSyntax]:
    actions = _subparsers(parser)
    yield _syntax(words, summary, parser, tuple(actions))
    group = _subparser_action(parser)
    summaries = {} if group is None else {one.dest: one.help or "" for one in group._choices_actions}  # noqa: SLF001
    for name, action in actions.items():
        yield from _with_actions((*words, name), summaries.get(name, ""), action)


def _subparser_action(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    found = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    return next(found, None)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    group = _subparser_action(parser)
    return {} if group is None else dict(group.choices)


def _syntax(
    words: tuple[str, ...], summary: str, parser: argparse.ArgumentParser, choices: Sequence[str]
) -> CommandSyntax:
    shown = [one for one in parser._actions if one.help != argparse.SUPPRESS]  # noqa: SLF001
    plain = [one for one in shown if not isinstance(one, argparse._SubParsersAction)]  # noqa: SLF001
    return CommandSyntax(
        words,
        summary,
        parser.description or "",
        tuple(one for one in plain if one.option_strings),
        tuple(one for one in plain if not one.option_strings),
        tuple(choices),
    )


def takes_value(option: argparse.Action) -> bool:
    """Return whether a value follows the option."""
    return option.nargs != 0


def value_name(option: argparse.Action) -> str:
    """Return the name of the value in the help: FILE."""
    return option.metavar if isinstance(option.metavar, str) else (option.dest or "").upper()


class ValueKind(enum.Enum):
    """Kind of the values that a shell can complete. `RECEIVER`, `RULE`: names from the files in /etc."""

    FILE = enum.auto()
    FOLDER = enum.auto()
    RECEIVER = enum.auto()
    RULE = enum.auto()
    MATCHER = enum.auto()  # begins with a name of `value_words` and "="
    WORD = enum.auto()  # one of `value_words`
    OTHER = enum.auto()


_KINDS = {
    **dict.fromkeys(("FILE", "PATH", "SOCKET", "CANDIDATE"), ValueKind.FILE),
    **dict.fromkeys(("NAME=PATTERN", "NAME=VALUE"), ValueKind.MATCHER),
    "DIR": ValueKind.FOLDER,
    "RECEIVER": ValueKind.RECEIVER,
    "RULE": ValueKind.RULE,
    "DIM,…": ValueKind.WORD,
}


def value_kind(action: argparse.Action) -> ValueKind:
    """Return the kind of the values of an option or argument."""
    if action.choices is not None or _is_check(action):
        return ValueKind.WORD
    return ValueKind.RECEIVER if action.dest == "receiver" else _KINDS.get(value_name(action), ValueKind.OTHER)


def value_words(action: argparse.Action) -> tuple[str, ...]:
    """Return the words that a value is, or begins with: choices, dimensions, checks of `selftest`."""
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if _is_check(action):
        return tuple(CHECK_MODULES)
    return tuple(sorted(DIMENSIONS)) if value_kind(action) in {ValueKind.MATCHER, ValueKind.WORD} else ()


def _is_check(action: argparse.Action) -> bool:
    return (
        not action.option_strings
        and action.dest == "names"
        and all(one in (action.help or "") for one in CHECK_MODULES)
    )


def shipped_rules() -> list[str]:
    """Return the ids of the shipped rules."""
    files = (Path(__file__).parents[2] / "rules").glob("*.toml")
    return sorted(one for file in files for one in re.findall(r'^id = "(.+?)"$', file.read_text(), re.MULTILINE))


def help_text(action: argparse.Action) -> str:
    """Return the help of an option or argument in one line."""
    text = (action.help or "") % {"default": action.default, "prog": "bpf-watchdog"} if action.help else ""
    return " ".join(text.split())
