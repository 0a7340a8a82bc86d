"""`bpf-watchdog check`: all problems of rule files and settings, without starting anything."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchdog.config.counts import format_count
from watchdog.errors import Problem, UsageError
from watchdog.sanitize import for_log

if TYPE_CHECKING:
    from watchdog.cli.check_files import CheckReport

_DESCRIPTION = """\
Check rule files and settings, and print every problem as `file:line: key: message`.

PATH is a file of any name, or a folder with *.toml files. Rule files and settings are recognized by their content. A
file in a folder called rules.d is judged with its neighbours, and with the watchdog.toml beside that folder, and this
with the rules; such folders of several hosts are judged one by one. Without PATH: /etc/bpf-watchdog/watchdog.toml and
/etc/bpf-watchdog/rules.d, or the shipped rules if that has no files.

With --rules, each PATH is a candidate, judged as one file of the set that the daemon will read, in place of the file of
the same name: the validation hook of configuration management. Its copy has another name: give the right one by --as.

  bpf-watchdog check --rules /etc/bpf-watchdog/rules.d
      --config /etc/bpf-watchdog/watchdog.toml --as NAME.toml CANDIDATE

Needs no root, no network and no daemon. Facts that only the monitored host knows (receivers of a file that is not
given, secrets that this user cannot read) are reported as notes. With --here, on the monitored host and as root, the
files are judged as the daemon's account will read them: each refusal of a start or a reload is a problem.

Exit code: 0 no problem, 1 problems, 2 no such path, 4 --here without root."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("check", description=_DESCRIPTION)
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="a TOML file, or a folder of TOML files")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="also check this watchdog.toml, and the receivers of rules against it",
    )
    parser.add_argument(
        "--rules", metavar="DIR", type=Path, help="folder of the rules that the daemon will read, PATH among them"
    )
    parser.add_argument(
        "--as", dest="candidate_name", metavar="NAME", help="name that PATH will have in the folder of the rules"
    )
    parser.add_argument("--here", action="store_true", help="judge as the daemon's account on this host (needs root)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the files, print the report, and return the exit code.

    Raises:
        NotPermitted: `--here` without the rights to become the daemon's account.
        UsageError: a path does not exist, or `--as` does not fit the paths.
    """
    from watchdog.cli.check_files import CheckRequest, check_files  # imported late: the help needs no rules

    for path in filter(None, (args.config, args.rules, *args.paths)):
        if not os.path.lexists(path):
            raise UsageError(f"no such file or folder: {path}")
    _check_candidate_name(args.candidate_name, args.paths)
    report = check_files(CheckRequest(args.paths, args.config, args.rules, args.candidate_name, args.here))
    if args.json:
        print(json.dumps(_to_json(report), indent=2))
    else:
        _print(report)
    return 1 if report.problems else 0


def _check_candidate_name(name: str | None, paths: Sequence[Path]) -> None:
    if name is None:
        return
    if len(paths) != 1 or os.path.isdir(paths[0]):  # noqa: PTH112 - Path's raises without permission
        raise UsageError("--as names one file: give one PATH, a file")
    if "/" in name or not name.endswith(".toml"):
        raise UsageError(f"--as: must be the name of a file that ends in .toml, without a folder, not {name}")


def _to_json(report: CheckReport) -> dict[str, Any]:
    def rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
        return [{"file": one.file, "line": one.line, "key": one.key, "message": one.message} for one in problems]

    counts = {"files": report.files, "rules": report.rules}
    return {**counts, "problems": rows(report.problems), "notes": rows(report.notes)}


def _print(report: CheckReport) -> None:
    notes = [note.as_note() for note in report.notes]
    for line in sorted(report.problems + notes):
        print(for_log(str(line)))
    checked = f"{_format_count(report.files, 'file')}, {_format_count(report.rules, 'rule')}"
    found = f"{_format_count(len(report.problems), 'problem')}, {_format_count(len(report.notes), 'note')}"
    print(f"{checked}: {found}", file=sys.stderr)


def _format_count(number: int, noun: str) -> str:
    return format_count(number, noun) if number else f"no {noun}s"
