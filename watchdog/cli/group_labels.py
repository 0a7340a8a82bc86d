"""Arguments of commands on one group of a rule: the rule's id, and labels as NAME=VALUE."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from watchdog.errors import UsageError
from watchdog.sanitize import escape_unprintable


def add_group_arguments(parser: argparse.ArgumentParser, *, is_rule_optional: bool = False) -> None:
    """Add the rule and the labels of a group."""
    parser.add_argument("rule", metavar="RULE", nargs="?" if is_rule_optional else None, help="the rule's id")
    parser.add_argument(
        "labels", metavar="NAME=VALUE", nargs="*", help="labels of the group: dimensions of its `by`; NAME=- is empty"
    )


def parse_labels(given: Sequence[str]) -> dict[str, str]:
    """Return the labels in `given`, by name; "-" stands for an empty value, as in the tables of all commands.

    Raises:
        UsageError: a label has no value, or is given twice.
    """
    labels: dict[str, str] = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark:
            raise UsageError(f"not NAME=VALUE: {escape_unprintable(text)}")
        if name in labels:
            raise UsageError(f"{escape_unprintable(name)} is given twice")
        labels[name] = "" if value == "-" else value
    return labels
