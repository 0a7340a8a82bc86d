"""`bpf-watchdog baseline`: show the limits that a rule has learnt, and correct them by hand."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from watchdog.cli.alerts import labels_text
from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.group_labels import add_group_arguments, parse_labels
from watchdog.cli.readable_numbers import hours_text, learning_text
from watchdog.cli.terminal import print_table
from watchdog.config.counts import format_count
from watchdog.sanitize import escape_unprintable

_DESCRIPTION = """\
Show the limits that rules with a baseline have learnt, and correct them by hand.

RULE alone means all its groups; with a NAME=VALUE for each dimension of its `by`, one group. The running daemon
answers, saves changes in its state file and logs them."""
_ACTIONS: Mapping[str, tuple[str, str]] = {
    "accept": (
        "take the present level for the usual one",
        'Take the present level of a group for its usual one now: its alert ends with the reason "new normal".',
    ),
    "hold": (
        "never adopt a new level by itself",
        "Report a level above the usual one for as long as it lasts: the group does not adopt it after a day.",
    ),
    "release": ("adopt new levels again", "End a hold: a new level is adopted again after a day."),
    "forget": (
        "learn anew",
        "Forget what was learnt, and learn anew: a whole rule is silent meanwhile, a group has the limit of newcomers.",
    ),
}
_DONE = {"accept": "accepted the present level of", "hold": "held", "release": "released", "forget": "forgot"}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `baseline` and its actions."""
    parser = commands.add_parser("baseline", description=_DESCRIPTION)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    showing = actions.add_parser(
        "show",
        help="show what was learnt",
        description="Show the rules with a baseline; with RULE, its groups, those with the highest levels first.",
    )
    add_group_arguments(showing, is_rule_optional=True)
    showing.set_defaults(run=_show)
    add_daemon_options(showing)
    for action, (summary, description) in _ACTIONS.items():
        changing = actions.add_parser(action, help=summary, description=description)
        add_group_arguments(changing)
        changing.set_defaults(run=_change, action=action)
        add_daemon_options(changing)


def _show(args: argparse.Namespace) -> int:
    found = ask_daemon(args, "baseline show", rule=args.rule, labels=parse_labels(args.labels))
    if args.json:
        print(json.dumps(found, indent=2))
    elif args.rule is None:
        _print_rules(found["rules"])
    else:
        _print_groups(found)
    return 0


def _change(args: argparse.Namespace) -> int:
    changed = ask_daemon(args, f"baseline {args.action}", rule=args.rule, labels=parse_labels(args.labels))
    if args.json:
        print(json.dumps(changed, indent=2))
        return 0
    group = labels_text(changed["labels"]) or format_count(changed["groups"], "group")
    print(escape_unprintable(f"{changed['rule']}: {_DONE[args.action]} {group}"))
    return 0


def _print_rules(rules: Sequence[Mapping[str, Any]]) -> None:
    if not rules:
        print("no rule has a baseline", file=sys.stderr)
        return
    rows = [(one["rule"], learning_text(one), one["groups"], one["held"]) for one in rules]
    print_table(("RULE", "STATE", "GROUPS", "HELD"), rows)


def _print_groups(found: Mapping[str, Any]) -> None:
    rule, groups = found["rule"], found["groups"]
    count = format_count(rule["groups"], "known group")
    print(escape_unprintable(f"{rule['rule']}: {learning_text(rule)}, {count}"))
    if not groups:
        print("no group has connections now", file=sys.stderr)
        return
    severities = list(groups[0]["limits"])
    rows = [
        (
            one["usual_text"],
            one["highest_text"],
            *(one["limit_texts"][severity] for severity in severities),
            hours_text(one["learnt_hours"]),
            _group_state(one),
            labels_text(one["labels"]) or "the host",
        )
        for one in groups
    ]
    print_table(("USUAL", "HIGHEST", *(each.upper() for each in severities), "LEARNT", "STATE", "GROUP"), rows)
    if found["matching"] > len(groups):
        print(
            f"{len(groups)} of {format_count(found['matching'], 'group')}: give NAME=VALUE for others", file=sys.stderr
        )


def _group_state(group: Mapping[str, Any]) -> str:
    if group["is_held"]:
        return "held"
    if group["record_hours"]:
        return f"above for {hours_text(group['record_hours'])}"
    return "new" if group["is_new"] else "-"
