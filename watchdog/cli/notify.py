"""`bpf-watchdog notify`: try a receiver with the very messages that it would get."""

from __future__ import annotations

import argparse
import dataclasses
import json
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from watchdog import spelling
from watchdog.alerts.alert import Alert, State, fingerprint
from watchdog.alerts.evidence import Culprit, Evidence
from watchdog.alerts.notice import Notice
from watchdog.clock import SECOND_NS, SystemClock
from watchdog.config import load_config
from watchdog.errors import DeliveryError, UsageError
from watchdog.notify import sanitize
from watchdog.notify.receiver import Receiver
from watchdog.rules.schema import Severity
from watchdog.rules.trace import Peer

_DEADLINE_SECONDS = 10.0  # the delivery worker's

_REMEDIES = {
    "auth": "the receiver refuses us: check the secret",
    "client_error": "the receiver does not take the message: check the address",
    "command": "run it by hand, as the daemon's account, with what --dry-run prints on its standard input",
    "connect": "check that the receiver runs, the port, and any firewall between",
    "dns": "check the host name and this host's resolver",
    "forbidden_address": "link-local addresses are never posted to: give another address",
    "rate_limited": "the receiver asks for patience: try again later",
    "redirect": "give the final URL",
    "server_error": "the receiver has a problem of its own: look there",
    "socket": "check that the socket exists and that this user may write to it",
    "timeout": "check that the receiver runs and answers",
    "tls": "check the receiver's certificate and this host's authorities",
}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `notify` and what is below it."""
    parser = commands.add_parser("notify", help="try the receivers")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    test = actions.add_parser(
        "test",
        help="send a firing and a resolved notice, marked TEST",
        description="Send a sample alert to one receiver, firing and then resolved, both marked TEST.",
    )
    test.add_argument("receiver", metavar="RECEIVER", help="name of a [[receiver]] in the configuration")
    test.add_argument("--dry-run", action="store_true", help="send nothing, print the exact bytes instead")
    test.add_argument("--config", metavar="FILE", help="the daemon's configuration")
    test.add_argument("--json", action="store_true", help="one JSON object a line")
    test.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send or print both notices; 0 if the receiver took both, else 1.

    Raises:
        ConfigError: the configuration cannot be used.
        UsageError: there is no such receiver.
    """
    from watchdog.notify.registry import build_receivers  # requests takes its time to import: not for `--help`

    receivers = build_receivers(load_config(args.config))
    if args.receiver not in receivers:
        raise UsageError(spelling.unknown("receiver", args.receiver, receivers))
    receiver = receivers[args.receiver]
    attempt = _print_bytes if args.dry_run else _send
    if not args.json:
        print(f"{receiver.name}: {receiver.destination()}", flush=True)
    # A list, not a generator: the resolved notice is sent even if the firing one failed.
    results = [attempt(receiver, notice, as_json=args.json) for notice in _sample_pair(receiver.name)]
    receiver.close()
    return 0 if all(results) else 1


def _sample_pair(receiver: str) -> Iterator[Notice]:
    """Return the notices of a connection storm that began ten seconds ago, firing and then over."""
    now = SystemClock().wall()
    labels = (("process", "example"), ("unit", "example.service"))
    rule = "outbound-connection-storm"
    firing = Alert(
        rule=rule,
        labels=labels,
        fingerprint=fingerprint(rule, (*labels, ("test", "true"))),
        state=State.FIRING,
        severity=Severity.CRITICAL,
        summary="example opens 612/s connections (limit 500/s)",
        value=612.0,
        threshold=500.0,
        peak=640.0,
        started=now - 10,
        fired=now - 10,
        resolved=None,
        reason="value above 500/s",
        receivers=None,
        runbook=None,
        format="rate",
        evidence=_sample_evidence(now - 10),
    )
    over = dataclasses.replace(
        firing, state=State.RESOLVED, resolved=now, lasted=10.0, value=3.0, reason="value below 300/s for 10s"
    )
    for alert in (firing, over):
        yield Notice(
            id=uuid.uuid4().hex,
            receiver=receiver,
            group=rule,
            reason="test",
            alerts=(alert,),
            created=now,
            host=socket.gethostname(),
            test=True,
        )


def _sample_evidence(taken: float) -> Evidence:
    """Return what such a storm would show: addresses are of those kept for documentation (RFC 5737)."""
    culprit = Culprit(
        pid=4711,
        name="example",
        exe="/usr/bin/example",
        user="nobody",
        unit="example.service",
        container="",
        share=1.0,
        others=0,
        started=taken - 7_509,
        command="/usr/bin/example --config /etc/example.toml --token=***",
        parents=((640, "supervisor"), (1, "systemd")),
        gone=False,
    )
    refused = Peer("192.0.2.7", 443, "out", 580.0, 580, 0, 0, (), (("refused", 580),))
    other = Peer("198.51.100.20", 5432, "out", 32.0, 32, 41_000, 96_000, (("ESTABLISHED", 32),), ())
    return Evidence(
        taken=taken,
        metric="connects",
        amount=612.0,
        seconds=1.0,
        peers=(refused, other),
        peer_count=2,
        culprit=culprit,
        history=(2.0, 0.0, 4.0, 3.0, 120.0, 340.0, 610.0, 612.0),
        history_format="rate",
        history_seconds=8.0,
    )


def _send(receiver: Receiver, notice: Notice, *, as_json: bool) -> bool:
    began_ns = time.monotonic_ns()
    try:
        receiver.send(notice, _DEADLINE_SECONDS)
    except DeliveryError as error:
        result = {"ok": False, "reason": error.reason, "error": str(error), "remedy": _REMEDIES.get(error.reason)}
        words = f"failed: {error}\n    {_REMEDIES.get(error.reason, error.reason)}"
    else:
        taken = (time.monotonic_ns() - began_ns) * 1_000 // SECOND_NS
        result = {"ok": True, "milliseconds": taken}
        words = f"ok in {taken} ms"
    facts: dict[str, Any] = {"receiver": receiver.name, "notice": notice.status, "notification_id": notice.id, **result}
    print(json.dumps(facts) if as_json else f"{notice.status}: {words}", flush=True)
    return result["ok"] is True


def _print_bytes(receiver: Receiver, notice: Notice, *, as_json: bool) -> bool:
    body = receiver.render(notice)
    if as_json:
        facts = {"receiver": receiver.name, "notice": notice.status, "bytes": len(body), "body": body.decode()}
        print(json.dumps(facts))
        return True
    print(f"{notice.status}, {len(body)} bytes:", flush=True)
    if sys.stdout.isatty():
        # What a terminal would take for a command is shown, not obeyed: the console's own colours.
        print("\n".join(sanitize.visible(line) for line in body.decode().splitlines()))
    else:
        sys.stdout.buffer.write(body + b"\n")
        sys.stdout.flush()
    return True
