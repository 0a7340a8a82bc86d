"""A daemon that is killed once the receiver has a notice, and before that could be noted: it comes again, as itself."""

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

NOTICES = 5
KILL_COUNT = 3

_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.05


class KillingWebhookServer(http.server.HTTPServer):
    """Takes what a delivering child posts; kills the first `kills` children before it answers them."""

    def __init__(self, kills: int) -> None:
        """Serve on a free port, whenever it is asked to."""
        super().__init__(("127.0.0.1", 0), _KillingWebhookHandler)
        self.kills_left = kills
        self.child_pid = 0
        self.notification_ids: list[str] = []

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a child that was killed while it was answered."""


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
        """Say nothing."""


def run_check(stage: CheckContext) -> str:
    """Kill what delivers, and let the next one go on; return what was seen.

    Raises:
        Failed: something was lost, came under another id, or came more often than the kills explain.
    """
    privileges.keep_only_capabilities(())
    return kill_and_resume(stage.folder)


def kill_and_resume(folder: Path) -> str:
    """Fork one delivering child after the other on one state file."""
    notifications = [make_notification(number, "rehearsal") for number in range(NOTICES)]
    store = Store(folder / "state", SystemClock(), boot_id())
    store.commit(alerts=[], groups=[], notifications=notifications)
    store.close()
    with KillingWebhookServer(KILL_COUNT) as post:
        codes = [_live(folder, post) for _ in range(KILL_COUNT + 1)]
    killed = codes.count(-signal.SIGKILL)
    came = Counter(post.notification_ids)
    copies = len(post.notification_ids) - len(came)
    seen = (
        f"{killed} times killed before the answer was noted;"
        f" {len(came.keys() & {notification.id for notification in notifications})} of"
        f" {NOTICES} notices arrived, {copies} copies, each under its own id"
    )
    if came.keys() - {notification.id for notification in notifications}:
        raise CheckFailed("a notice came under an id that it never had")
    require(codes[-1] == 0, f"{seen}; but the last one came to no good end")
    require(codes == [-signal.SIGKILL] * KILL_COUNT + [0] and len(came) == NOTICES and copies == KILL_COUNT, seen)
    return seen


def _live(folder: Path, post: KillingWebhookServer) -> int:
    """Let a child deliver until all is done or it is killed; return its exit code."""
    post.child_pid = os.fork()
    if post.child_pid == 0:
        with contextlib.suppress(BaseException):
            _deliver(folder, post)
            os._exit(0)
        os._exit(1)
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        if select.select([post], [], [], _LOOK_SECONDS)[0]:
            post.handle_request()
        found, status = os.waitpid(post.child_pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(post.child_pid, signal.SIGKILL)
            os.waitpid(post.child_pid, 0)
            raise CheckFailed(f"after {KILL_COUNT - post.kills_left} kills, delivery did not come to an end")


def _deliver(folder: Path, post: KillingWebhookServer) -> None:
    post.socket.close()
    store = Store(folder / "state", SystemClock(), boot_id())
    receivers = webhook_receivers(folder, {"rehearsal": f"http://127.0.0.1:{post.server_port}/"})
    delivery = Delivery(store, receivers.values(), SystemClock(), logging.getLogger(__name__))
    delivery.start()
    require(wait_until(lambda: not _waiting(delivery), _PATIENCE_SECONDS), "it waits")
    delivery.stop(1.0)
    store.close()


def _waiting(delivery: Delivery) -> bool:
    waiting = delivery.counters().queues.get("rehearsal")
    return waiting is not None and waiting.pending > 0
