"""`bpf-watchdog status`: one screen about the running daemon."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.terminal import age_text, print_facts, print_table
from watchdog.config.counts import format_count
from watchdog.kernel.quality import LOSS_WORDS
from watchdog.receivers.render.evidence_text import duration_text, utc_text
from watchdog.rules.language.rule_source import origin_text

_DESCRIPTION = """\
Show the running daemon: version, rules and their hash, newest reload, ticks, lost data, receivers, alerts.

Exit code: 0, or 1 if the daemon reports a problem: a refused reload, a receiver that is down, a lost notification."""
_NAME_WIDTH = 10


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("status", description=_DESCRIPTION)
    add_daemon_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the status; return 1 if the daemon reports a problem."""
    status = ask_daemon(args, "status")
    if args.json:
        print(json.dumps(status, indent=2))
    else:
        print_facts(_lines(status), _NAME_WIDTH)
        print()
        _print_receivers(status["receivers"])
    return 1 if status["problems"] else 0


def _lines(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rules, ticks, alerts = status["rules"], status["ticks"], status["alerts"]
    uptime = duration_text(status["uptime_seconds"])
    yield "daemon", f"bpf-watchdog {status['version']}, pid {status['pid']} as {status['account']}, up {uptime}"
    yield "host", f"{status['host']}, Linux {status['kernel']}"
    origin = origin_text(rules["origin"], rules["count"], rules["shipped"])
    yield "rules", f"{rules['count']} from {origin}, hash {rules['sha256'][:12]}"
    if rules["unknown"]:
        yield "unknown", f"losses leave without a sure verdict: {', '.join(rules['unknown'])}"
    yield "reload", _reload_text(status["reload"])
    yield "ticks", _ticks_text(ticks)
    for cause, count in sorted(status["quality"].items()):
        yield "lost data", f"{count:,} {LOSS_WORDS[cause]}: {cause}" if cause in LOSS_WORDS else f"{cause} {count:,}"
    if not status["quality"]:
        yield "lost data", "none since the start"
    firing = f"{alerts['critical']} critical, {format_count(alerts['warning'], 'warning')} firing"
    yield "alerts", f"{firing}; {alerts['pending']} pending"
    yield "suppressed", _suppression_text(status["suppression"])
    for problem in status["problems"]:
        yield "problem", problem


def _suppression_text(suppression: Mapping[str, Any]) -> str:
    silences, acknowledgements = suppression["silences"], suppression["acknowledgements"]
    in_force = [
        *([format_count(silences, "silence")] if silences else []),
        *([format_count(acknowledgements, "acknowledgement")] if acknowledgements else []),
        *(f"mute time {name}" for name in suppression["mute_times"]),
    ]
    alerts = format_count(suppression["suppressed_alerts"], "alert")
    withheld = format_count(sum(suppression["withheld"].values()), "notification")
    return f"{alerts}; in force: {', '.join(in_force) or 'nothing'}; {withheld} withheld since the start"


def _reload_text(reload: Mapping[str, Any]) -> str:
    # A line of the problems below has the reason of a refusal.
    if reload["at"] is None:
        return "none since the start" if reload["problem"] is None else "none; the files were refused at the start"
    return f"{reload['result']} {utc_text(reload['at'])}"


def _ticks_text(ticks: Mapping[str, Any]) -> str:
    text = f"every {ticks['interval_seconds']:g} s"
    if ticks["interval_seconds"] != ticks["configured_seconds"]:
        text += f" (configured: {ticks['configured_seconds']:g} s)"
    if ticks["duration_seconds"] is not None:
        text += f", the newest took {ticks['duration_seconds'] * 1000:.0f} ms"
    if ticks["age_seconds"] is not None:
        text += f", {ticks['age_seconds']:.1f} s ago"
    return text


def _print_receivers(receivers: list[Mapping[str, Any]]) -> None:
    rows = [
        (
            receiver["name"],
            receiver["state"],
            receiver["pending"],
            sum(receiver["lost"].values()),
            "-" if receiver["answered_at"] is None else f"{age_text(time.time() - receiver['answered_at'])} ago",
            _answer_text(receiver),
            receiver["destination"],
        )
        for receiver in receivers
    ]
    colours = [None if receiver["state"] == "ok" else "31" for receiver in receivers]
    print_table(("RECEIVER", "STATE", "QUEUED", "LOST", "ANSWERED", "ANSWER", "DESTINATION"), rows, colours)


def _answer_text(receiver: Mapping[str, Any]) -> str:
    lost = "; ".join(f"lost: {cause} {count}" for cause, count in sorted(receiver["lost"].items()))
    newest = receiver["reason"] or receiver["answer"] or "-"
    return f"{newest}; {lost}" if lost else str(newest)
