"""`bpf-watchdog doctor`: requirements of this host that are met or missing, with remedies."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from watchdog.cli.terminal import print_wrapped
from watchdog.config.settings import DEFAULT_RULES_FOLDER, DEFAULT_SETTINGS_FILE
from watchdog.config.trusted_files import data_owners, flaws_on_path, sudo_caller
from watchdog.errors import ConfigError, KernelUnfit
from watchdog.kernel.finding import Finding
from watchdog.kernel.python_modules import examine_modules
from watchdog.sanitize import for_log_lines


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        description="Check all requirements on this host, load the BPF programs, print one line each: ok, note (works"
        " with restrictions) or missing, with the remedy. Exit code: 0, or 4 if a requirement is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 0, or 4 if a requirement is missing."""
    found = []
    for finding in _examine():
        found.append(finding)
        if not args.json:
            print_wrapped(f"{finding.verdict:<8}{finding.subject:<15}", finding.detail)
            if finding.remedy:  # whole: it can be a command to copy
                print(f"{'':<8}{'':<15}-> {for_log_lines(finding.remedy)}", flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    return KernelUnfit.exit_code if any(finding.verdict == "missing" for finding in found) else 0


def _examine() -> Iterator[Finding]:
    modules = examine_modules()
    yield modules
    if modules.verdict == "ok":
        from watchdog.kernel.kernel_support import examine_host

        yield from _examine_files()  # before `examine_host` gives up root
        yield from examine_host()


def _examine_files() -> Iterator[Finding]:
    """Yield a finding for each file and folder of the configuration that others can change."""
    from watchdog.rules.language.load import toml_files

    folder = os.path.dirname(DEFAULT_SETTINGS_FILE)  # noqa: PTH120
    paths = [folder]
    for place, folders, files in os.walk(folder):
        paths += [os.path.join(place, name) for name in (*folders, *files)]  # noqa: PTH118
    with contextlib.suppress(ConfigError):  # the folder of the rules can be a link; an unreadable one is for `check`
        paths += toml_files(Path(DEFAULT_RULES_FOLDER))
    owners = data_owners() - (sudo_caller() - {0})
    flaws = sorted({flaw for path in paths for flaw in flaws_on_path(path, owners)})
    for flaw in flaws:
        yield Finding("missing", "files", f"{flaw.path}: {flaw.reason}", flaw.remedy)
    if not flaws:
        missing = "" if os.path.isdir(folder) else ", which does not exist"  # noqa: PTH112
        yield Finding("ok", "files", f"nobody but root and the daemon's account can change {folder}{missing}")
