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
from watchdog.selftest.context import Stage, comes_true, notice_of, webhooks
from watchdog.selftest.result import Failed, demand
from watchdog.state.store import Store

NOTICES = 5
KILLS = 3

_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.05


class Post(http.server.HTTPServer):
    """Takes what a delivering child posts; kills the first `kills` children before it answers them."""

    def __init__(self, kills: int) -> None:
        """Serve on a free port, whenever it is asked to."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kills = kills
        self.child = 0
        self.ids: list[str] = []

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a child that was killed while it was answered."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Post
    timeout = 10

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.ids.append(str(self.headers["X-Notification-Id"]))
        if self.server.kills:
            self.server.kills -= 1
            os.kill(self.server.child, signal.SIGKILL)
            os.waitid(os.P_PID, self.server.child, os.WEXITED | os.WNOWAIT)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def rehearse(stage: Stage) -> str:
    """Kill what delivers, and let the next one go on; return what was seen.

    Raises:
        Failed: something was lost, came under another id, or came more often than the kills explain.
    """
    privileges.keep_only(())
    return kill_and_go_on(stage.folder)


def kill_and_go_on(folder: Path) -> str:
    """Fork one delivering child after the other on one state file."""
    notices = [notice_of(number, "rehearsal") for number in range(NOTICES)]
    store = Store(folder / "state", SystemClock(), boot_id())
    store.commit(alerts=[], groups=[], notices=notices)
    store.close()
    with Post(KILLS) as post:
        codes = [_live(folder, post) for _ in range(KILLS + 1)]
    killed = codes.count(-signal.SIGKILL)
    came = Counter(post.ids)
    copies = len(post.ids) - len(came)
    seen = (
        f"{killed} times killed before the answer was noted; {len(came.keys() & {notice.id for notice in notices})} of"
        f" {NOTICES} notices arrived, {copies} copies, each under its own id"
    )
    if came.keys() - {notice.id for notice in notices}:
        raise Failed("a notice came under an id that it never had")
    demand(codes[-1] == 0, f"{seen}; but the last one came to no good end")
    demand(codes == [-signal.SIGKILL] * KILLS + [0] and len(came) == NOTICES and copies == KILLS, seen)
    return seen


def _live(folder: Path, post: Post) -> int:
    """Let a child deliver until all is done or it is killed; return its exit code."""
    post.child = os.fork()
    if post.child == 0:
        with contextlib.suppress(BaseException):
            _deliver(folder, post)
            os._exit(0)
        os._exit(1)
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        if select.select([post], [], [], _LOOK_SECONDS)[0]:
            post.handle_request()
        found, status = os.waitpid(post.child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(post.child, signal.SIGKILL)
            os.waitpid(post.child, 0)
            raise Failed(f"after {KILLS - post.kills} kills, delivery did not come to an end")


def _deliver(folder: Path, post: Post) -> None:
    post.socket.close()
    store = Store(folder / "state", SystemClock(), boot_id())
    receivers = webhooks(folder, {"rehearsal": f"http://127.0.0.1:{post.server_port}/"})
    delivery = Delivery(store, receivers.values(), SystemClock(), logging.getLogger(__name__))
    delivery.start()
    demand(comes_true(lambda: not _waiting(delivery), _PATIENCE_SECONDS), "it waits")
    delivery.stop(1.0)
    store.close()


def _waiting(delivery: Delivery) -> bool:
    waiting = delivery.counters().waiting.get("rehearsal")
    return waiting is not None and waiting.pending > 0
