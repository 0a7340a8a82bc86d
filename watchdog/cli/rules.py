"""`bpf-watchdog rules`: the rules of the running daemon, their states, and the TOML in force."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from watchdog.cli.alerts import labels_text, timer_text
from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.terminal import age_text, duration_text, print_table
from watchdog.sanitize import escape_unprintable

_DESCRIPTION = """\
List the rules in force: state, worst group with its share of the limit, and how often the rule fired within 7 days.

SHARE is that of the limit of the least severity: above 100% the limit is breached. "-": the rule has no value, or no
limit. "never matched": no row has met `where` since the start. "5s of 60s": the window has data of 5 s so far.
"learning": a baseline or novelty does not fire yet, and has no limit. --effective prints the TOML in force, with the
file of each value."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("rules", description=_DESCRIPTION)
    parser.add_argument("--effective", action="store_true", help="print the TOML in force, with the file of each value")
    add_daemon_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the rules."""
    rules = ask_daemon(args, "rules effective" if args.effective else "rules list")
    if args.json:
        print(json.dumps(rules, indent=2))
    elif args.effective:
        for line in _effective_lines(rules):
            print(escape_unprintable(line))
    else:
        _print_rules(rules)
    return 0


def _print_rules(rules: Sequence[Mapping[str, Any]]) -> None:
    head = (
        "RULE",
        "STATE",
        "SHARE",
        "VALUE",
        "LIMIT",
        "WORST GROUP",
        "GROUPS",
        "7 DAYS",
        "LAST FIRED",
        "ORIGIN",
        "FILE",
    )
    rows = []
    for rule in rules:
        worst = rule["worst"] or {"labels": {}, "value_text": "-", "share": None}
        fired = rule["last_fired"]
        rows.append(
            (
                rule["id"],
                _state_text(rule),
                _share_text(rule, worst["share"]),
                worst["value_text"],
                rule["limit_text"],
                labels_text(worst["labels"]),
                rule["groups"],
                rule["fired_in_7_days"],
                "-" if fired is None else f"{age_text(time.time() - fired)} ago",
                rule["origin"],
                f"{rule['file']}:{rule['line']}",
            )
        )
    colours = [{"firing": "31", "unknown": "33"}.get(rule["state"]) for rule in rules]
    print_table(head, rows, colours)


def _share_text(rule: Mapping[str, Any], share: float | None) -> str:
    if share is not None:
        return f"{share:.0%}"
    return "learning" if rule["learning_seconds"] else "-"


def _state_text(rule: Mapping[str, Any]) -> str:
    match rule["state"]:
        case "firing":
            return f"firing {rule['firing']}" + (f", pending {rule['pending']}" if rule["pending"] else "")
        case "pending":
            return str(rule["state"]) if rule["timer"] is None else timer_text(rule["timer"])
        case "unknown":
            return f"unknown: {rule['reason']}"
    if rule["learning_seconds"]:
        return f"learning, {age_text(rule['learning_seconds'])} left"
    if rule["reason"]:
        return str(rule["reason"])
    if rule["filled_seconds"] < rule["window_seconds"] and rule["filled_seconds"] > 0:
        return f"inactive, {duration_text(round(rule['filled_seconds']))} of {duration_text(rule['window_seconds'])}"
    return "inactive" if rule["has_matched"] else "inactive, never matched"


def _effective_lines(rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for number, rule in enumerate(rules):
        if number:
            yield ""
        texts = [f"{value['key']} = {value['toml']}" for value in rule["values"]]
        width = min(max((len(text) for text in texts), default=0), 60)
        yield f"[[rule]]  # {rule['origin']}"
        for text, value in zip(texts, rule["values"], strict=True):
            yield f"{text:<{width}}  # {value['file']}"
