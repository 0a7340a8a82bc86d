"""`bpf-watchdog selftest`: tests on this host, with its settings, that no alert is lost or falsified."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict

from watchdog.cli.terminal import print_wrapped
from watchdog.config import suggestions
from watchdog.config.counts import format_count
from watchdog.config.settings import DEFAULT_RULES_FOLDER, DEFAULT_SETTINGS_FILE
from watchdog.errors import UsageError
from watchdog.kernel.trusted_code import require_trusted_code
from watchdog.selftest import runner
from watchdog.selftest.result import CheckResult, CheckStatus

_DESCRIPTION = """\
Test conditions that could lose or falsify an alert, on this host and with its own settings and rules: a full disk, a
receiver that hangs, a full ledger map, clock steps, hostile process names, SIGKILL.

Each check runs in a process of its own and in a scratch folder. Nothing is sent to your receivers, your disks are not
filled, your clock is not set, and a running daemon is not affected. Takes half a minute and 50 MB of memory. Needs root
(or CAP_BPF and CAP_PERFMON; checks that need more are skipped).
Exit code: 0 all checks ok or skipped, 1 a check failed, 4 not permitted."""
_WIDTHS = (15, 15)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("selftest", description=_DESCRIPTION)
    names = ", ".join(runner.CHECK_MODULES)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"only these: {names}")
    parser.add_argument("--config", metavar="FILE", help=f"settings and receivers (default: {DEFAULT_SETTINGS_FILE})")
    parser.add_argument(
        "--rules", metavar="DIR", help=f"rule files (default: {DEFAULT_RULES_FOLDER}, else the shipped ones)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array, at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the checks, print each result when it is known, and return the exit code.

    Raises:
        UsageError: there is no such check.
        NotPermitted: this user may not load BPF programs.
        UntrustedCode: others can change the program.
        ConfigError: the settings or rules cannot be used.
    """
    # Imported late: the help needs no numpy.
    from watchdog.daemon.configuration import ConfigurationSources, read_configuration
    from watchdog.kernel.startup import require_privileges

    for name in args.names:
        if name not in runner.CHECK_MODULES:
            raise UsageError(suggestions.unknown_name("check", name, runner.CHECK_MODULES))
    require_privileges()
    require_trusted_code()
    sources = ConfigurationSources(args.config, args.rules)
    setup = read_configuration(sources)  # problems are reported once, not by each check
    if not args.json:
        rules = f"{format_count(len(setup.rules), 'rule')} of {setup.rules_origin_text}"
        print(f"{rules}, receivers of {setup.settings.file}", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up the running check first
    outcomes = []
    for name in dict.fromkeys(args.names or runner.CHECK_MODULES):
        outcomes.append(runner.run_in_process(name, sources))
        if not args.json:
            _print(outcomes[-1])
    if args.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    return 1 if any(outcome.status is CheckStatus.FAILED for outcome in outcomes) else 0


def _print(outcome: CheckResult) -> None:
    detail = f"{outcome.detail} ({outcome.seconds:.1f} s)".replace("\n", "; ")
    print_wrapped(f"{outcome.check:<{_WIDTHS[0]}}{outcome.status.value:<{_WIDTHS[1]}}", detail)
