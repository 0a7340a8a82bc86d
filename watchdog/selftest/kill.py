"""Check: a daemon killed between delivery and its record on disk sends the same notification again."""

from __future__ import annotations

import contextlib
import http.server
import logging
import os
import select
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from watchdog.clock import SystemClock, boot_id
from watchdog.delivery.delivery import Delivery
from watchdog.kernel import privileges
from watchdog.selftest.context import CheckContext, make_notification, wait_until, webhook_receivers
from watchdog.selftest.result import CheckFailed, require
from watchdog.state.store import Store

NOTIFICATION_COUNT = 5
KILL_COUNT = 3

_PATIENCE_SECONDS = 15.0
_POLL_SECONDS = 0.05


class KillingWebhookServer(http.server.HTTPServer):
    """Gets the notifications of a delivering child; kills the first `kills` children before it answers them."""

    def __init__(self, kills: int) -> None:
        """Listen on a free port; `handle_request` serves one request."""
        super().__init__(("127.0.0.1", 0), _KillingWebhookHandler)
        self.kills_left = kills
        self.child_pid = 0
        self.notification_ids: list[str] = []

    def handle_error(self, *_: Any) -> None:
        """Log nothing about a child that was killed before its answer."""


class _KillingWebhookHandler(http.server.BaseHTTPRequestHandler):
    server: KillingWebhookServer
    timeout = 10

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.notification_ids.append(str(self.headers["X-Notification-Id"]))
        if self.server.kills_left:
            self.server.kills_left -= 1
            os.kill(self.server.child_pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.server.child_pid, os.WEXITED | os.WNOWAIT)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def run_check(context: CheckContext) -> str:
    """Kill delivering processes, and let the next ones continue; return the figures.

    Raises:
        CheckFailed: a notification was lost, had another id, or came more often than the kills explain.
    """
    privileges.keep_only_capabilities(())
    return kill_and_resume(context.folder)


def kill_and_resume(folder: Path) -> str:
    """Fork delivering children on one state file, one after the other; return the figures."""
    notifications = [make_notification(number, "selftest") for number in range(NOTIFICATION_COUNT)]
    store = Store(folder / "state", SystemClock(), boot_id())
    store.commit(alerts=[], groups=[], notifications=notifications)
    store.close()
    with KillingWebhookServer(KILL_COUNT) as server:
        codes = [_run_child(folder, server) for _ in range(KILL_COUNT + 1)]
    killed = codes.count(-signal.SIGKILL)
    arrived = Counter(server.notification_ids)
    copies = len(server.notification_ids) - len(arrived)
    detail = (
        f"killed {killed} times before the answer was recorded;"
        f" {len(arrived.keys() & {notification.id for notification in notifications})} of"
        f" {NOTIFICATION_COUNT} notifications arrived, {copies} copies, recognisable by their id"
    )
    if arrived.keys() - {notification.id for notification in notifications}:
        raise CheckFailed("a notification arrived with an id that none has")
    require(codes[-1] == 0, f"{detail}; but the last child failed")
    require(
        codes == [-signal.SIGKILL] * KILL_COUNT + [0] and len(arrived) == NOTIFICATION_COUNT and copies == KILL_COUNT,
        detail,
    )
    return detail


def _run_child(folder: Path, server: KillingWebhookServer) -> int:
    """Let a child deliver until nothing is pending or it is killed; return its exit code."""
    server.child_pid = os.fork()
    if server.child_pid == 0:
        with contextlib.suppress(BaseException):
            _deliver(folder, server)
            os._exit(0)
        os._exit(1)
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        if select.select([server], [], [], _POLL_SECONDS)[0]:
            server.handle_request()
        ended, status = os.waitpid(server.child_pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(server.child_pid, signal.SIGKILL)
            os.waitpid(server.child_pid, 0)
            raise CheckFailed(f"delivery did not end after {KILL_COUNT - server.kills_left} kills")


def _deliver(folder: Path, server: KillingWebhookServer) -> None:
    server.socket.close()
    store = Store(folder / "state", SystemClock(), boot_id())
    receivers = webhook_receivers(folder, {"selftest": f"http://127.0.0.1:{server.server_port}/"})
    delivery = Delivery(store, receivers.values(), SystemClock(), logging.getLogger(__name__))
    delivery.start()
    require(wait_until(lambda: not _has_pending(delivery), _PATIENCE_SECONDS), "notifications are still pending")
    delivery.stop(1.0)
    store.close()


def _has_pending(delivery: Delivery) -> bool:
    queue = delivery.counters().queues.get("selftest")
    return queue is not None and queue.pending > 0
