"""`bpf-watchdog doctor`: requirements of this host that are met or missing, with remedies."""

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
        help="check the requirements on this host, with remedies",
        description="Check all requirements on this host, load the BPF programs, print one line each: ok, note (works"
        " with restrictions) or missing, with the remedy. Exit code: 0, or 4 if a requirement is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 0, or 4 if a requirement is missing."""
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
