"""A cluster of two Alertmanager processes from Debian, on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request

# The second process waits this long for the first one to notify. `group_interval` must be longer: otherwise a process
# that still waits sends "firing" after the other one has already sent "resolved".
PEER_TIMEOUT_SECONDS = 3
CONFIGURATION = """
route:
  receiver: webhook
  group_by: [alertname, host]
  group_wait: 1s
  group_interval: 5s
  repeat_interval: 1h
receivers:
  - name: webhook
    webhook_configs:
      - url: {url}
        send_resolved: true
"""


class AlertmanagerProcess:
    """One Alertmanager; its files are in one folder."""

    def __init__(self, folder, port, cluster_port, peer_port, peer_timeout_seconds):
        program = shutil.which("prometheus-alertmanager")
        assert program is not None, "these tests need Alertmanager: apt-get install prometheus-alertmanager"
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"log-{port}"
        self._command = [
            program,
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/data-{port}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--cluster.listen-address=127.0.0.1:{cluster_port}",
            f"--cluster.advertise-address=127.0.0.1:{cluster_port}",
            f"--cluster.peer=127.0.0.1:{peer_port}",
            f"--cluster.peer-timeout={peer_timeout_seconds}s",
            "--cluster.settle-timeout=2s",
            "--cluster.reconnect-interval=1s",
        ]
        self.process = None

    def start(self):
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait(60)

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return {}

    def alerts(self):
        """Return its firing alerts, sorted, as (host, severity)."""
        return sorted((alert["labels"]["host"], alert["labels"]["severity"]) for alert in self.get("/api/v2/alerts"))

    def count_alerts(self, rule):
        """Return the number of its firing alerts of one rule."""
        return len(self.get(f"/api/v2/alerts?filter=alertname%3D{rule}"))

    def metric(self, name):
        """Return the value of one of its own metrics, `name` with its labels; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def is_joined(self):
        """Return whether it is ready and has joined the other process."""
        cluster = self.get("/api/v2/status").get("cluster", {})
        return cluster.get("status") == "ready" and len(cluster["peers"]) == 2


def pair(folder, url, configuration=CONFIGURATION, peer_timeout_seconds=PEER_TIMEOUT_SECONDS):
    """Return two processes of one cluster that notify the webhook at `url`; the caller starts them."""
    (folder / "alertmanager.yml").write_text(configuration.format(url=url))
    ports = [_free_port() for _ in range(4)]
    return [
        AlertmanagerProcess(folder, ports[index], ports[2 + index], ports[3 - index], peer_timeout_seconds)
        for index in range(2)
    ]


def notified_alerts(bodies):
    """Return (host, severity, status) of each alert in the bodies of webhook calls, in order."""
    return [
        (alert["labels"]["host"], alert["labels"]["severity"], alert["status"])
        for body in bodies
        for alert in json.loads(body)["alerts"]
    ]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
