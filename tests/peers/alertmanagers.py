"""A cluster of two Alertmanager processes from Debian, on loopback.

Each has an address of its own: a port of 127.0.0.1 that was free a moment ago can be taken meanwhile by any connection
of the host, or belong to a former cluster, whose members go on trying to join it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import urllib.request

# The second process waits this long for the first one to notify. `group_interval` must be longer: otherwise a process
# that still waits sends "firing" after the other one has already sent "resolved".
PEER_TIMEOUT_SECONDS = 3
PORT, CLUSTER_PORT = 9093, 9094
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

    def __init__(self, folder, address, peer_address, peer_timeout_seconds):
        program = shutil.which("prometheus-alertmanager")
        assert program is not None, "these tests need Alertmanager: apt-get install prometheus-alertmanager"
        self.url = f"http://{address}:{PORT}"
        self._log = folder / f"log-{address}"
        self._command = [
            program,
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/data-{address}",
            f"--web.listen-address={address}:{PORT}",
            f"--cluster.listen-address={address}:{CLUSTER_PORT}",
            f"--cluster.advertise-address={address}:{CLUSTER_PORT}",
            f"--cluster.peer={peer_address}:{CLUSTER_PORT}",
            f"--cluster.peer-timeout={peer_timeout_seconds}s",
            "--cluster.settle-timeout=2s",
            "--cluster.reconnect-interval=1s",
        ]
        self.process = None

    def start(self):
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self):
        if self.process is None:
            return
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
        """Return whether it is ready and has joined the other process; it must run."""
        assert self.process.poll() is None, f"Alertmanager ended: {self._log.read_text()[-2_000:]}"
        cluster = self.get("/api/v2/status").get("cluster", {})
        return cluster.get("status") == "ready" and len(cluster["peers"]) == 2


def pair(folder, url, configuration=CONFIGURATION, peer_timeout_seconds=PEER_TIMEOUT_SECONDS):
    """Return two processes of one cluster that notify the webhook at `url`; the caller starts them."""
    (folder / "alertmanager.yml").write_text(configuration.format(url=url))
    network = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(256)}"
    addresses = f"{network}.1", f"{network}.2"
    return [
        AlertmanagerProcess(folder, addresses[index], addresses[1 - index], peer_timeout_seconds) for index in range(2)
    ]


def notified_alerts(bodies):
    """Return (host, severity, status) of each alert in the bodies of webhook calls, in order."""
    return [
        (alert["labels"]["host"], alert["labels"]["severity"], alert["status"])
        for body in bodies
        for alert in json.loads(body)["alerts"]
    ]
