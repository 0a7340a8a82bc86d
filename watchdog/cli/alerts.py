"""`bpf-watchdog alerts`: the pending and firing alerts of the running daemon."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from watchdog.alerts.evidence import Evidence
from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.terminal import SEVERITY_COLOURS, age_text, print_facts, print_table, print_wrapped
from watchdog.control.alert_texts import delivery_mark, format_timer
from watchdog.receivers.render.evidence_text import duration_text, evidence_lines, utc_text

_DESCRIPTION = """\
List the pending and firing alerts, the worst first.

STATE is the severity of a firing alert. RECEIVERS have taken a notification; "(queued)" follows one whose notification
is to be delivered, "(waits)" one without a notification yet. FINGERPRINT is the begin of the alert's fingerprint, which
other commands take."""

_NAME_WIDTH = 12
_SHORT_FINGERPRINT = 8  # characters that identify an alert in practice; commands take any unambiguous begin


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `alerts` and its action `show`."""
    parser = commands.add_parser("alerts", description=_DESCRIPTION)
    add_daemon_options(parser)
    parser.set_defaults(run=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", help="list pending and firing alerts (the default)", description=_DESCRIPTION)
    add_daemon_options(listing)
    showing = actions.add_parser(
        "show", help="show one alert", description="Show one alert with its timers, receivers and evidence."
    )
    showing.add_argument("fingerprint", metavar="FINGERPRINT", help="the alert's fingerprint, or its first characters")
    add_daemon_options(showing)
    showing.set_defaults(run=_show)


def _list(args: argparse.Namespace) -> int:
    alerts = ask_daemon(args, "alerts list")
    if args.json:
        print(json.dumps(alerts, indent=2))
    elif not alerts:
        print("no alert is pending or firing", file=sys.stderr)
    else:
        _print_alerts(alerts)
    return 0


def _show(args: argparse.Namespace) -> int:
    detail = ask_daemon(args, "alerts show", fingerprint=args.fingerprint)
    if args.json:
        print(json.dumps(detail, indent=2))
    else:
        print_facts(_facts(detail), _NAME_WIDTH, commands=("explain",))
        _print_evidence(detail)
    return 0


def _print_alerts(alerts: Sequence[Mapping[str, Any]]) -> None:
    head = ("FINGERPRINT", "SINCE", "STATE", "RULE", "LABELS", "VALUE", "LIMIT", "RECEIVERS")
    rows = [
        (
            alert["fingerprint"][:_SHORT_FINGERPRINT],
            age_text(time.time() - alert["since"]),
            _state_text(alert),
            alert["rule"],
            labels_text(alert["labels"]),
            alert["value_text"],
            alert["limit_text"],
            receivers_text(alert),
        )
        for alert in alerts
    ]
    colours = [SEVERITY_COLOURS.get(alert["severity"]) if alert["state"] == "firing" else None for alert in alerts]
    print_table(head, rows, colours)


def _state_text(alert: Mapping[str, Any]) -> str:
    """Return the severity of a firing alert, with a timer that runs: "critical", "warning, clearing 3s of 10s"."""
    if alert["state"] == "pending":
        return next((timer_text(timer) for timer in reversed(alert["timers"])), "pending")
    running = [timer for timer in alert["timers"] if timer["severity"] == alert["severity"]]
    clearing = [timer_text(timer) for timer in running if timer["state"] == "clearing"]
    return ", ".join([alert["severity"], *clearing])


def timer_text(timer: Mapping[str, Any]) -> str:
    """Return the state of a timer, with the part of its time that has passed."""
    return format_timer(timer["state"], timer["hits"], timer["elapsed_seconds"], timer["duration_seconds"])


def labels_text(labels: Mapping[str, str]) -> str:
    """Return the labels in one line: "process=nginx unit=nginx.service"."""
    return " ".join(f"{name}={value or '-'}" for name, value in labels.items())


def receivers_text(alert: Mapping[str, Any]) -> str:
    """Return the receivers of an alert, and the cause that withholds notifications: "oncall, chat (queued)"."""
    receivers = ", ".join(one["receiver"] + delivery_mark(one["notified"], one["queued"]) for one in alert["receivers"])
    return "; ".join(filter(None, (*alert["suppressed_by"], receivers)))


def delivery_text(receiver: Mapping[str, Any]) -> str:
    """Return the newest delivery to a receiver, and its queue: "delivered 2026-11-29 05:02:11 UTC as warning".

    "" for a receiver without a notification.
    """
    at = "" if receiver["notified_at"] is None else f" {utc_text(receiver['notified_at'])}"
    parts = [
        *([f"delivered{at} as {receiver['notified']}"] if receiver["notified"] else []),
        *([f"queued as {receiver['queued']}"] if receiver["queued"] else []),
    ]
    return ", ".join(parts)


def _facts(detail: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    alert = detail["active"]
    yield "fingerprint", alert["fingerprint"]
    if alert["summary"]:
        yield "summary", alert["summary"]
    file = f" ({detail['rule_file']}:{detail['rule_line']})" if detail["rule_file"] else ""
    yield "rule", f"{alert['rule']}{file}"
    yield "labels", labels_text(alert["labels"]) or "-"
    yield "state", f"{alert['state']}: {_state_text(alert)}"
    yield "since", f"{utc_text(alert['since'])}, for {duration_text(time.time() - alert['since'])}"
    share = "" if alert["share"] is None else f", {alert['share']:.0%} of it"
    yield "value", f"{alert['value_text']}, limit {alert['limit_text']}{share}"
    if alert["reason"]:
        yield "why", alert["reason"]
    for timer in alert["timers"]:
        yield "timer", f"{timer['severity']}: {timer_text(timer)}"
    for cause in alert["suppressed_by"]:
        yield "withheld", f"by {cause}"
    for receiver in alert["receivers"]:
        yield "receiver", f"{receiver['receiver']}: {delivery_text(receiver) or 'waits for its notification'}"
    if not alert["receivers"]:
        yield "receiver", "-"
    if detail["rule_file"]:  # the daemon's alerts about itself have no rule
        labels = (shlex.quote(f"{name}={value}") for name, value in alert["labels"].items())
        yield "explain", " ".join(["bpf-watchdog", "explain", alert["rule"], *labels])
    if detail["runbook"]:
        yield "runbook", detail["runbook"]


def _print_evidence(detail: Mapping[str, Any]) -> None:
    evidence = Evidence.from_json(detail["evidence"])
    if evidence is None:
        return
    print(f"\nevidence of {utc_text(evidence.taken)}:")
    for line in evidence_lines(evidence, tuple(detail["active"]["labels"].items())):
        print_wrapped("  ", line, 4)
