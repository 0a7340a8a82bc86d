"""`bpf-watchdog export`: rules in the form of other programs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog import __version__
from watchdog.config.document import Document
from watchdog.config.durations import format_duration, parse_duration
from watchdog.config.settings import (
    BUILT_IN_SETTINGS,
    DEFAULT_SETTINGS_FILE,
    Settings,
    open_document,
    path_exists,
    read_settings,
)
from watchdog.errors import UsageError
from watchdog.sanitize import for_log

if TYPE_CHECKING:
    from watchdog.rules.language.rule import Rule

_DESCRIPTION = """\
Print rules as alerting rules of Prometheus, over the metrics that the daemon serves at /metrics ([web] of
watchdog.toml), for an evaluation over many hosts by Prometheus, Mimir or Thanos:

  bpf-watchdog export prometheus-rules --skip > bpf-watchdog.rules.yml && promtool check rules bpf-watchdog.rules.yml

PATH is a rule file, or a folder with *.toml files. Without PATH: the rules that the daemon would use. A rule that
PromQL cannot express over these metrics is not exported: its name and the reason are printed on stderr, and are
comments at the end of the output. Comments before a rule name the differences that remain.

Exit code: 0 all rules exported, or --skip; 1 rules not exported, or problems in the files; 2 no such path."""
_DEFAULT_SCRAPE = "15s"
_MIN_SCRAPE, _MAX_SCRAPE = "1s", "5m"
_ORIGIN = """\
Alerting rules made from {source} by bpf-watchdog {version}: change the rules there.
For a scrape interval of {scrape}: export prometheus-rules --scrape-interval.
Both severities of a rule fire at a time: let the critical one inhibit the warning in Alertmanager.
Rules by process or unit leave out "(other)", the processes beyond max_series of [web]."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("export", description="Export rules.")
    forms = parser.add_subparsers(title="forms", metavar="FORM", required=True)
    form = forms.add_parser(
        "prometheus-rules", help="print rules as alerting rules of Prometheus", description=_DESCRIPTION
    )
    form.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="a rule file, or a folder of rule files")
    form.add_argument("--config", metavar="FILE", help="settings: sampling interval, shipped rules, runbooks")
    form.add_argument(
        "--scrape-interval",
        metavar="DURATION",
        default=_DEFAULT_SCRAPE,
        help=f"interval in which Prometheus scrapes the hosts (default: {_DEFAULT_SCRAPE})",
    )
    form.add_argument("--skip", action="store_true", help="exit with 0 though rules are not exported")
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the rules; return the exit code.

    Raises:
        ConfigError: with every problem of the files.
        UsageError: a path does not exist, or the scrape interval is no duration or out of range.
    """
    # Imported here: the help of all commands needs none of it.
    from watchdog.web.alerting_rules import export_rules, to_yaml

    scrape_ns = _scrape_interval(args.scrape_interval)
    rules, source = _read_rules(args.paths, args.config)
    exported = export_rules(rules, scrape_ns)
    if args.json:
        print(json.dumps(exported.to_json(), indent=2))
    else:
        origin = _ORIGIN.format(source=source, version=__version__, scrape=format_duration(scrape_ns))
        for line in to_yaml(exported, origin):
            print(line)
    for problem in exported.refused.values():
        print(for_log(f"not exported: {problem}"), file=sys.stderr)
    return 1 if exported.refused and not args.skip else 0


def _scrape_interval(text: str) -> int:
    try:
        interval_ns = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--scrape-interval: {error}") from error
    if not parse_duration(_MIN_SCRAPE) <= interval_ns <= parse_duration(_MAX_SCRAPE):
        raise UsageError(f"--scrape-interval: must be {_MIN_SCRAPE} to {_MAX_SCRAPE}, not {text}")
    return interval_ns


def _read_rules(paths: list[Path], settings_file: str | None) -> tuple[tuple[Rule, ...], str]:
    """Return the rules of `paths`, without them those of the daemon, and their origin."""
    # Imported here, as above.
    from watchdog.daemon.configuration import load_rules_in_force, rules_folder, rules_origin, with_runbooks
    from watchdog.rules.language.load import load_rules
    from watchdog.rules.language.rule_source import count_shipped, origin_text

    for path in (*paths, *([Path(settings_file)] if settings_file else [])):
        if not os.path.lexists(path):
            raise UsageError(f"no such file or folder: {path}")
    settings = _read_settings(settings_file, is_default=not paths)
    interval_ns = settings.sampling.interval_ns
    if paths:
        loaded, source = load_rules(paths, receivers=None, interval_ns=interval_ns), ", ".join(map(str, paths))
    else:
        folder, is_shipped = rules_folder(None)
        loaded = load_rules_in_force(
            folder, receivers=None, interval_ns=interval_ns, shipped=settings.rules.shipped, is_shipped=is_shipped
        )
        shipped = count_shipped((rule.id for rule in loaded.rules), loaded.sources)
        source = origin_text(rules_origin(folder, is_shipped=is_shipped), len(loaded.rules), shipped)
    return with_runbooks(loaded, settings).rules, source


def _read_settings(file: str | None, *, is_default: bool) -> Settings:
    """Return the settings of `file`, else those of the default file if `is_default`; without secrets.

    Raises:
        ConfigError: the file cannot be read, or has problems.
    """
    if file is None and is_default and path_exists(DEFAULT_SETTINGS_FILE):
        file = DEFAULT_SETTINGS_FILE
    if file is None:
        return read_settings(Document("", {}, BUILT_IN_SETTINGS)).values
    document = open_document(file, require_secrets=False, is_in_service=False, require_trust=False)
    settings = read_settings(document).values
    document.raise_problems()
    return settings
