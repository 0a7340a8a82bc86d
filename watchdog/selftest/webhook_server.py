"""A webhook server on loopback that records the notifications it gets, and answers or hangs."""

from __future__ import annotations

import http.server
import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival of one notification, at a time of CLOCK_MONOTONIC."""

    notification_id: str
    monotonic_seconds: float


class WebhookServer:
    """Accepts every POST. While it hangs it answers none; it later closes these connections without an answer."""

    def __init__(self, *, hangs: bool = False) -> None:
        """Serve on a free port."""
        self.arrivals: list[Arrival] = []
        self.is_answering = threading.Event()
        if not hangs:
            self.is_answering.set()
        server = self

        class WebhookHandler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                server.arrivals.append(Arrival(str(self.headers["X-Notification-Id"]), time.monotonic()))
                if server.is_answering.is_set():
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    server.is_answering.wait()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebhookHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def notification_ids(self) -> list[str]:
        """Return the ids of all notifications in the order of arrival, copies included."""
        return [arrival.notification_id for arrival in list(self.arrivals)]

    def close(self) -> None:
        """Stop serving."""
        self.is_answering.set()
        self._server.shutdown()
        self._server.server_close()
