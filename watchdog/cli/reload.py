"""`bpf-watchdog reload`: the running daemon reads its files again, or shows what would change."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from watchdog.cli.alerts import labels_text
from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.terminal import print_table, print_wrapped
from watchdog.config.counts import format_count
from watchdog.errors import UsageError
from watchdog.rules.language.rule_source import origin_text
from watchdog.sanitize import escape_unprintable

_DESCRIPTION = """\
Let the running daemon read its settings, rules and secrets again. With a problem in any file nothing changes: every
problem is printed as `check` prints it, and the exit code is 1. Else the changes are printed: rules, and the firing
alerts that resolve, begin again, or change severity or receivers. With --dry-run, nothing is changed in any case;
with --exit-code too, the exit code is 1 if a reload is due: files differ from those in force, or the newest reload was
refused."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("reload", description=_DESCRIPTION)
    parser.add_argument("--dry-run", action="store_true", help="change nothing; show problems and changes")
    parser.add_argument("--exit-code", action="store_true", help="with --dry-run: exit with 1 if a reload is due")
    add_daemon_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reload; return 1 if the files were refused, or with `--exit-code` if a reload is due.

    Raises:
        UsageError: `--exit-code` without `--dry-run`.
    """
    if args.exit_code and not args.dry_run:
        raise UsageError("--exit-code needs --dry-run")
    answer = ask_daemon(args, "reload check" if args.dry_run else "reload", is_slow=True)
    if args.json:
        print(json.dumps(answer, indent=2))
    elif not answer["accepted"]:
        _print_problems(answer)
    else:
        _print_changes(answer)
    return 1 if not answer["accepted"] or (args.exit_code and answer["due"]) else 0


def _print_problems(answer: Mapping[str, Any]) -> None:
    for problem in answer["problems"]:
        print(escape_unprintable(problem))
    would = "would be " if answer["dry_run"] else ""
    count = format_count(len(answer["problems"]), "problem")
    print(f"bpf-watchdog: reload {would}refused, the former configuration stays in force: {count}", file=sys.stderr)


def _print_changes(answer: Mapping[str, Any]) -> None:
    verb = "would be accepted" if answer["dry_run"] else "reloaded"
    origin = origin_text(answer["origin"], answer["rules"], answer["shipped"])
    print(f"{verb}: {format_count(answer['rules'], 'rule')} from {escape_unprintable(origin)}")
    for line in _change_lines(answer):
        print_wrapped("", line, 2)
    for note in answer["notes"]:
        print(escape_unprintable(note))
    if answer["alerts"]:
        print()
        _print_effects(answer["alerts"])


def _change_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    for name in ("added", "changed", "removed"):
        if answer[name]:
            yield f"rules {name}: {', '.join(answer[name])}"
    if not (answer["added"] or answer["changed"] or answer["removed"]):
        yield "no rule changes"
    if answer["settings"]:
        yield f"settings changed: {', '.join(answer['settings'])}"
    if answer["restart_keys"]:
        yield f"need a restart: {', '.join(answer['restart_keys'])}"


def _print_effects(alerts: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            alert["fingerprint"][:8],
            alert["rule"],
            alert["effect"],
            alert["detail"],
            labels_text(alert["labels"]),
        )
        for alert in alerts
    ]
    print_table(("FINGERPRINT", "RULE", "EFFECT", "DETAIL", "LABELS"), rows)
