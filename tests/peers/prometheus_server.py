"""A real Prometheus that scrapes one daemon, and the queries of the dashboard and of the alerting rules for it."""

from __future__ import annotations

import http
import json
import math
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

PACKAGING = Path(__file__).parents[2] / "packaging"
RULES = PACKAGING / "prometheus/bpf-watchdog.rules.yml"
JOB = "bpf-watchdog"
PATIENCE_SECONDS = 60
_CONFIGURATION = """
global:
  scrape_interval: {interval}
  evaluation_interval: {interval}
rule_files: [{rules}]
scrape_configs:
  - job_name: {job}
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class PrometheusServer:
    """Runs in `folder` and scrapes `port` of the loopback; it evaluates the alerting rules of the packaging."""

    def __init__(self, folder: Path, port: int, interval: str = "1s") -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            own_port = server.getsockname()[1]
        configuration = folder / "prometheus.yml"
        configuration.write_text(_CONFIGURATION.format(interval=interval, rules=RULES, job=JOB, port=port))
        self._url = f"http://127.0.0.1:{own_port}/api/v1"
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{own_port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """Return `data` of an answer.

        Raises:
            urllib.error.HTTPError: the query is wrong.
            urllib.error.URLError: it does not answer.
        """
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}", timeout=60) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now, none while the server does not answer."""
        try:
            return self.ask("query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:  # it still starts
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        except urllib.error.URLError:
            return []

    def value(self, expression: str) -> float | None:
        """Return the value of an expression with one sample, None without."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def values_by(self, label: str, expression: str) -> dict[str, float]:
        """Return the values of an expression by one label."""
        return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in self.query(expression)}

    def has_numbers(self, expression: str) -> bool:
        """Return whether a sample of an expression is a number."""
        return any(not math.isnan(float(sample["value"][1])) for sample in self.query(expression))

    def wait_for_scrape(self) -> None:
        """Wait until a scrape that began from now on has succeeded."""
        since, end = time.time(), time.monotonic() + PATIENCE_SECONDS
        while (self.value("timestamp(bpf_watchdog_ticks_total)") or 0) < since:
            assert time.monotonic() < end, "no scrape"
            time.sleep(0.2)

    def rules(self) -> list[dict[str, Any]]:
        """Return the alerting rules with their health."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that have queries."""
    return [panel for panel in panels_and_rows() if panel["type"] != "row"]


def panels_and_rows() -> list[dict[str, Any]]:
    """Return all panels of the dashboard, the headings of rows among them."""
    return json.loads((PACKAGING / "grafana/bpf-watchdog.json").read_text())["panels"]


def filled_in(expression: str, window: str, pattern: str = ".*") -> str:
    """Return a query of the dashboard as Grafana sends it: all hosts, and processes by a pattern."""
    texts = {
        "job": JOB,
        "instance": ".*",
        "unit": ".*",
        "process": pattern,
        "__rate_interval": window,
        "__range": window,
    }
    return re.sub(r"\$(\w+)", lambda found: texts[found[1]], expression)


def selectors(expression: str) -> list[str]:
    """Return the selectors of series in an expression of the alerting rules."""
    return re.findall(r"\b(?:up|process_\w+|bpf_watchdog_\w+)(?:\{[^}]*\})", expression)
