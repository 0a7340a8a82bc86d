"""The commands by name, and their parsers: a module is imported only for its own command."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from watchdog import __version__
from watchdog.cli.argument_parser import ArgumentParser


@dataclass(frozen=True, slots=True)
class CommandModule:
    """A command: `module` has its functions `register` and `run`, `summary` is its line in the list of all commands."""

    module: str
    summary: str


COMMANDS: Final[Mapping[str, CommandModule]] = {
    "run": CommandModule("watchdog.cli.run", "monitor this host, in the foreground"),
    "sample": CommandModule("watchdog.cli.sample", "show the connections of the next seconds"),
    "top": CommandModule("watchdog.cli.top", "show the traffic of this host in a live view"),
    "check": CommandModule("watchdog.cli.check", "check rule files and settings without starting anything"),
    "status": CommandModule("watchdog.cli.status", "show the running daemon on one screen"),
    "alerts": CommandModule("watchdog.cli.alerts", "list pending and firing alerts; show one with its evidence"),
    "rules": CommandModule("watchdog.cli.rules", "list the rules in force with their states"),
    "explain": CommandModule("watchdog.cli.explain", "show why a rule fires, or why not"),
    "baseline": CommandModule("watchdog.cli.baseline", "show and correct the limits that rules learn"),
    "reload": CommandModule("watchdog.cli.reload", "let the daemon read its files again"),
    "notify": CommandModule("watchdog.cli.notify", "test receivers"),
    "notifications": CommandModule("watchdog.cli.notifications", "show sent, pending, failed and lost notifications"),
    "silence": CommandModule("watchdog.cli.silence", "withhold notifications of matching alerts for a while"),
    "ack": CommandModule("watchdog.cli.ack", "silence one alert until it resolves"),
    "metrics": CommandModule("watchdog.cli.metrics", "list the metrics and dimensions that rules can use"),
    "schema": CommandModule("watchdog.cli.editor_schema", "print the JSON Schema of settings or rules, for editors"),
    "export": CommandModule("watchdog.cli.export", "print rules in the form of Prometheus"),
    "doctor": CommandModule("watchdog.cli.doctor", "check the requirements on this host, with remedies"),
    "selftest": CommandModule("watchdog.cli.selftest", "test this host for losses, with its own settings and rules"),
}
_EPILOG = """\
start here:
  bpf-watchdog doctor              check the requirements on this host
  bpf-watchdog sample              show the connections of the next 5 seconds
  bpf-watchdog run                 monitor this host, notify on this terminal
  bpf-watchdog check FILE          check a rule file

exit codes: 0 ok, 1 problem found, 2 usage, 3 daemon not reachable, 4 not
permitted or kernel unfit, 75 memory, disk space or processes are used up"""
USAGE: Final = f"usage: bpf-watchdog COMMAND …; --help lists all commands\n\n{_EPILOG}"


def parser_of(command: str) -> ArgumentParser:
    """Return the parser of a command line with `command`, one of `COMMANDS`; its result has the function `run`."""
    parser, commands = _empty_parser()
    importlib.import_module(COMMANDS[command].module).register(commands)
    return parser


def overview_parser() -> ArgumentParser:
    """Return the parser that lists all commands in its help; no module is imported, and no command can be run."""
    parser, commands = _empty_parser()
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary)
    return parser


def _empty_parser() -> tuple[ArgumentParser, argparse._SubParsersAction[ArgumentParser]]:
    parser = ArgumentParser(
        prog="bpf-watchdog",
        description="Monitor every TCP connection of this host in the kernel, evaluate rules, notify people on call.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"bpf-watchdog {__version__}")
    return parser, parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
