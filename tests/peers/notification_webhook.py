"""A webhook that keeps the notifications of Alertmanagers, also of thousands at once."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class AlertmanagerNotification:
    """One request: its alerts as (alertname, host, process, status), and its length in bytes."""

    path: str
    alerts: tuple[tuple[str, str, str, str], ...]
    length: int


class NotificationWebhook(http.server.ThreadingHTTPServer):
    """Listens on a port of the loopback at once, and answers from `start` on."""

    daemon_threads = True
    request_queue_size = 4096

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _NotificationHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self._received = []
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        if self._thread.ident is not None:
            self.shutdown()
        self.server_close()

    def add(self, path, body):
        alerts = tuple(
            (labels["alertname"], labels["host"], labels.get("process", ""), alert["status"])
            for alert in json.loads(body)["alerts"]
            for labels in [alert["labels"]]
        )
        self._received.append(AlertmanagerNotification(path, alerts, len(body)))

    def notifications(self, path):
        """Return the notifications to one path, in order."""
        return [one for one in self._received[:] if one.path == path]

    def counts(self, rule):
        """Return the number of notifications at /hosts by (host, process, status) of the alerts of one rule."""
        alerts = (alert for one in self.notifications("/hosts") for alert in one.alerts)
        return Counter(tuple(labels) for alertname, *labels in alerts if alertname == rule)

    def rules(self):
        """Return the number of notifications at /hosts by rule and status."""
        found = defaultdict(Counter)
        for one in self.notifications("/hosts"):
            for alertname, _, _, status in one.alerts:
                found[alertname][status] += 1
        return found


class _NotificationHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Alertmanager keeps its connections

    def do_POST(self):
        self.server.add(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Log nothing."""
