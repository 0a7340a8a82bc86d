"""`bpf-watchdog schema`: JSON Schemas of the files, for editors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_DESCRIPTION = """\
Print the JSON Schema of a kind of files: watchdog.toml (settings) or rule files (rules). With it, an editor completes
keys, shows their meaning and marks mistakes. Taplo and its kin, such as Even Better TOML, read it where the first line
of a file names it:

  bpf-watchdog schema rules >/etc/bpf-watchdog/rules.schema.json
  #:schema /etc/bpf-watchdog/rules.schema.json

A schema does not know receivers, lists and rules of other files: `bpf-watchdog check` finds more mistakes."""

_FOLDER = Path(__file__).parent / "schemas"
KINDS = ("settings", "rules")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("schema", description=_DESCRIPTION)
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help="settings or rules")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    sys.stdout.write((_FOLDER / f"{args.kind}.json").read_text(encoding="utf-8"))
    return 0
