"""`bpf-watchdog notify`: test a receiver with example notifications in its own format."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from watchdog import sanitize
from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.settings import BUILT_IN_SETTINGS, DEFAULT_SETTINGS_FILE, Settings, load_settings
from watchdog.errors import ConfigError, DeliveryError, DeliveryErrorReason, UsageError
from watchdog.kernel import privileges
from watchdog.systemd import machine_id

if TYPE_CHECKING:
    from watchdog.alerts.identity import HostIdentity
    from watchdog.receivers.base import Receiver
    from watchdog.routing.notification import Notification

_REMEDIES = {
    DeliveryErrorReason.AUTH: "the receiver refuses the secret: check it",
    DeliveryErrorReason.CLIENT_ERROR: "the receiver refuses the message: check the address",
    DeliveryErrorReason.COMMAND: "run it by hand as the daemon's account, with the output of --dry-run as its input",
    DeliveryErrorReason.CONNECT: "check that the receiver runs, its port, and firewalls on the way",
    DeliveryErrorReason.DNS: "check the host name and this host's resolver",
    DeliveryErrorReason.FORBIDDEN_ADDRESS: "use another address: link-local and metadata addresses are never contacted",
    DeliveryErrorReason.RATE_LIMITED: "the receiver limits the rate: try again later",
    DeliveryErrorReason.REDIRECT: "configure the URL that the redirect leads to",
    DeliveryErrorReason.SERVER_ERROR: "the receiver failed: check its logs",
    DeliveryErrorReason.SOCKET: "check that the socket exists and that the account may write to it",
    DeliveryErrorReason.TIMEOUT: "check that the receiver runs and answers",
    DeliveryErrorReason.TLS: "check the receiver's certificate and this host's authorities",
}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `notify` and its actions."""
    parser = commands.add_parser("notify", description="Test receivers.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    test = actions.add_parser(
        "test",
        help="send a firing and a resolved notification, both marked TEST",
        description="Send an example alert to one receiver, first firing, then resolved, both marked TEST. Started by"
        " root, it sends as the daemon's account, as the daemon does.",
    )
    test.add_argument("receiver", metavar="RECEIVER", help="name of a [[receiver]] in the configuration")
    test.add_argument("--dry-run", action="store_true", help="send nothing; print the exact bytes and their sizes")
    test.add_argument("--config", metavar="FILE", help="the daemon's configuration")
    test.add_argument("--json", action="store_true", help="one JSON object a line")
    test.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send or print both notifications; return 0 if the receiver accepted both, else 1.

    Raises:
        ConfigError: the configuration cannot be used.
        NotPermitted: root cannot change to the daemon's account.
        UsageError: the receiver is not configured.
    """
    # Imported late: the help needs no receivers.
    from watchdog.receivers.registry import build_receivers
    from watchdog.receivers.render.example import example_notifications

    privileges.forbid_core_files()
    settings = load_settings(args.config)
    receivers = build_receivers(settings)
    if args.receiver not in receivers:
        raise UsageError(_unknown_receiver(args.receiver, receivers, settings.values.file))
    receiver = receivers[args.receiver]
    attempt = _print_bytes if args.dry_run else _send
    # As the daemon does: root reads the configuration; an action that the account may not do must fail here.
    is_root = os.geteuid() == 0
    privileges.keep_only_capabilities(())
    if is_root:
        _note_unreadable_files(args.config)
    account = "" if args.dry_run else f" (as {privileges.current_account_name()})"
    if not args.json:
        print(f"{receiver.name}: {receiver.destination()}{account}", flush=True)
    # A list, not a generator: the resolved notification is sent even if the firing one failed.
    results = [
        attempt(receiver, notification, as_json=args.json)
        for notification in example_notifications(receiver.name, _identity(settings.values))
        if receiver.send_resolved or notification.status == "firing"
    ]
    receiver.close()
    return 0 if all(results) else 1


def _identity(settings: Settings) -> HostIdentity:
    from watchdog.alerts.identity import HostIdentity

    host = settings.host or socket.gethostname()
    return HostIdentity.of(host, machine_id(), settings.labels, (), settings.generator_url)


def _note_unreadable_files(file: str | None) -> None:
    """Report files that root could read just now, and that the daemon's account cannot read at a reload."""
    from watchdog.receivers.registry import build_receivers

    try:
        build_receivers(load_settings(file))
    except ConfigError as error:
        problems = sanitize.for_log_lines(str(error))
        print(f"bpf-watchdog: note: a reload of the daemon would be refused:\n{problems}", file=sys.stderr)


def _unknown_receiver(name: str, known: Iterable[str], file: str) -> str:
    message = suggestions.unknown_name("receiver", name, known)
    return f"{message}: {DEFAULT_SETTINGS_FILE} is not there" if file == BUILT_IN_SETTINGS else message


def _send(receiver: Receiver, notification: Notification, *, as_json: bool) -> bool:
    began_ns = time.monotonic_ns()
    try:
        receiver.send(notification, receiver.timeout_seconds)
    except DeliveryError as error:
        result = {"ok": False, "reason": error.reason, "error": str(error), "remedy": _REMEDIES.get(error.reason)}
        text = f"failed: {error}\n    {_REMEDIES.get(error.reason, error.reason)}"
    else:
        milliseconds = (time.monotonic_ns() - began_ns) * 1_000 // SECOND_NS
        result = {"ok": True, "duration_milliseconds": milliseconds}
        text = f"ok in {milliseconds} ms"
    facts: dict[str, Any] = {
        "receiver": receiver.name,
        "status": notification.status,
        "notification_id": notification.id,
        "account": privileges.current_account_name(),
        **result,
    }
    print(json.dumps(facts) if as_json else f"{notification.status}: {text}", flush=True)
    return result["ok"] is True


def _print_bytes(receiver: Receiver, notification: Notification, *, as_json: bool) -> bool:
    body, limits = receiver.render(notification), receiver.limit_usage(notification)
    shown = body.decode("utf-8", "backslashreplace")  # the journal's format contains binary lengths
    if as_json:
        facts = {
            "receiver": receiver.name,
            "status": notification.status,
            "bytes": len(body),
            "limits": limits,
            "body": shown,
        }
        print(json.dumps(facts))
        return True
    print(f"{notification.status}, {len(body)} bytes:")
    print("".join(f"    {limit}\n" for limit in limits if limit != f"{len(body):,} bytes"), end="", flush=True)
    if sys.stdout.isatty():
        # Control sequences, such as the colours of the console receiver, are shown and not executed.
        print("\n".join(sanitize.escape_unprintable(line) for line in shown.splitlines()))
    else:
        sys.stdout.buffer.write(body + b"\n")
        sys.stdout.flush()
    return True
