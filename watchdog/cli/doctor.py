"""`bpf-watchdog doctor`: can this host be guarded, and if not, what to do about it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from watchdog.errors import KernelUnfit
from watchdog.kernel.kernel_support import examine_host


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="tell what this kernel offers, what is missing, and the remedy",
        description="Look at everything that the watchdog needs of this host, load its programs for real, and tell"
        " line by line: ok, note (works, with less) or missing, with the remedy. Exit code: 0, or 4 if anything is.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 0, or 4 when something is missing."""
    found = []
    for finding in examine_host():
        found.append(finding)
        if not args.json:
            print(f"{finding.verdict:<8}{finding.subject:<15}{finding.detail}", flush=True)
            if finding.remedy:
                print(f"{'':<8}{'':<15}-> {finding.remedy}", flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    return KernelUnfit.exit_code if any(finding.verdict == "missing" for finding in found) else 0
