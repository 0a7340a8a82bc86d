"""The far end of webhooks: a server on the loopback that notes which notices came, and answers or hangs."""

from __future__ import annotations

import http.server
import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """`at`: seconds of CLOCK_MONOTONIC."""

    notification_id: str
    monotonic_seconds: float


class WebhookServer:
    """Takes every POST. While it hangs it says nothing to those who post, and hangs up on them when it is let go."""

    def __init__(self, *, hangs: bool = False) -> None:
        """Serve on a free port."""
        self.arrivals: list[Arrival] = []
        self.is_answering = threading.Event()
        if not hangs:
            self.is_answering.set()
        far_end = self

        class WebhookHandler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                far_end.arrivals.append(Arrival(str(self.headers["X-Notification-Id"]), time.monotonic()))
                if far_end.is_answering.is_set():
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    far_end.is_answering.wait()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebhookHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def notification_ids(self) -> list[str]:
        """Return the ids of all that came, copies included, in the order of arrival."""
        return [arrival.notification_id for arrival in list(self.arrivals)]

    def close(self) -> None:
        """End."""
        self.is_answering.set()
        self._server.shutdown()
        self._server.server_close()
