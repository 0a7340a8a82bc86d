"""The costs of a fleet: memory and CPU of Alertmanagers and of a Prometheus, sizes of bodies and pages.

Bodies and pages are those of a real daemon with replayed measurements, with other names of hosts. Needs root.
Arguments: parts to measure, of `alerts` and `metrics` (default: both).
"""

import argparse
import gzip
import http.client
import http.server
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "peers"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process with threads cannot be forked

import alertmanagers  # noqa: E402
import replaying_daemon  # noqa: E402
from notification_webhook import NotificationWebhook  # noqa: E402
from ports import free_port  # noqa: E402

PATIENCE_SECONDS = 240
REFRESH_SECONDS, EXPIRY_SECONDS = 60, 240
ALERTS = (0, 1_000, 3_000, 10_000, 30_000)
MAX_SINGLE_POSTS = 3_000  # a minute
SENDERS = 8
STORMS = 2  # of the daemon whose alert is sent again
BUSY_STORMS = 44  # with the services 50 pairs of process and unit
SCRAPE_SECONDS, SCRAPES = 15, 6
PAGES = 3  # of one host, at different times
ACCEPT = {
    "text": "text/plain;version=0.0.4",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}
TARGETS = {"at rest": 100, "busy": 20}
ALERTMANAGER = """
route: {{receiver: people, group_by: [alertname], group_wait: 30s, group_interval: 5m, repeat_interval: 4h}}
receivers:
  - name: people
    webhook_configs: [{{url: "{url}people", send_resolved: true}}]
"""
RECEIVED = 'alertmanager_alerts_received_total{status="firing",version="v2"}'
SETTINGS = """
[web]
listen = "127.0.0.1:{port}"
[routing]
jitter = "0s"
[[receiver]]
name = "fleet"
type = "alertmanager"
urls = ["{url}"]
"""
PROMETHEUS = """
global: {{scrape_interval: {seconds}s}}
scrape_configs:
  - job_name: bpf-watchdog
    metric_relabel_configs: [{relabel}]
    static_configs:
"""
PROMETHEUS_TARGET = (
    '      - {{targets: ["127.0.0.1:{port}"], labels: {{instance: host-{number}, __metrics_path__: /{number}}}}}\n'
)
WITHOUT_BUCKETS = "{source_labels: [__name__], regex: .*_bucket, action: drop}"


class CannedServer(http.server.ThreadingHTTPServer):
    """Keeps the bodies that are posted; answers a GET with one of `pages`, another one at each time."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self):
        super().__init__(("127.0.0.1", 0), CannedHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.posted = queue.SimpleQueue()
        self.pages = [b""]
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self.shutdown()
        self.server_close()


class CannedHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")

    def do_GET(self):
        pages = self.server.pages
        self._answer(pages[int(time.time() / SCRAPE_SECONDS) % len(pages)])

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Log nothing."""


class Host:
    """One daemon with replayed measurements: the bodies that it posts, and its pages of metrics."""

    def __init__(self, folder, server):
        self._server = server
        self._storms = replaying_daemon.Storms(1)
        self._port = free_port()
        settings, log = folder / "watchdog.toml", folder / "log"
        settings.write_text(SETTINGS.format(port=self._port, url=server.url))
        settings.chmod(0o644)
        arguments = ["--config", settings, "--state-dir", folder / "state"]
        self._pid = replaying_daemon.fork_daemon("host-0", arguments, log, self._storms, 0)
        wait_for(lambda: replaying_daemon.READY in log.read_text(), "the daemon")

    def posted_alerts(self):
        """Return the alert of a storm as the daemon posts it, and the bodies for one and for two alerts."""
        self._storms[0] = 1
        one = self._server.posted.get(timeout=PATIENCE_SECONDS)
        self._storms[0] = STORMS
        bodies = [one]
        while len(json.loads(bodies[-1])) < STORMS:
            bodies.append(self._server.posted.get(timeout=PATIENCE_SECONDS))
        return json.loads(one)[0], one, bodies[-1]

    def pages(self, storms):
        """Return pages of metrics in text, some seconds apart, and one in protobuf."""
        self._storms[0] = storms
        time.sleep(SCRAPE_SECONDS)
        pages = [self._page("text") for _ in range(PAGES) if not time.sleep(SCRAPE_SECONDS / 3)]
        self._page("protobuf")  # from now on it counts for native histograms
        time.sleep(SCRAPE_SECONDS)
        return pages, self._page("protobuf")

    def stop(self):
        os.kill(self._pid, 15)
        os.waitpid(self._pid, 0)

    def _page(self, kind):
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/metrics", headers={"Accept": ACCEPT[kind]})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.read()


def main():
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["alerts", "metrics"], choices=["alerts", "metrics"])
    parts = parser.parse_args().parts
    replaying_daemon.enter_own_network()
    replaying_daemon.import_everything()
    with tempfile.TemporaryDirectory(prefix="bpf-watchdog-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the daemon gives up root
        server = CannedServer()
        host = Host(folder, server)  # while this process has no thread
        server.start()
        try:
            if "alerts" in parts:
                measure_alertmanagers(folder, host)
            if "metrics" in parts:
                measure_metrics(folder, host, server)
        finally:
            host.stop()
            server.stop()
    return 0


def measure_alertmanagers(folder, host):
    """Print memory and CPU of two Alertmanagers by the number of active alerts, each sent again every minute."""
    alert, one, two = host.posted_alerts()
    print(f"body of one alert {len(one):,} bytes, of two {len(two):,}\n")
    print("| active alerts | posts a second to each | memory, MiB | CPU of one core | notifications to people |")
    print("|---|---|---|---|---|")
    webhook = NotificationWebhook()
    webhook.start()
    members = alertmanagers.pair(folder, webhook.url, ALERTMANAGER)
    try:
        for member in members:
            member.start()
        wait_for(lambda: all(member.is_joined() for member in members), "cluster")
        for count in ALERTS:
            print(
                f"| {count:,} | {alertmanager_row(members, alert, count)} | {len(webhook.notifications('/people'))} |",
                flush=True,
            )
    finally:
        for member in members:
            member.kill()
        webhook.stop()


def alertmanager_row(members, alert, count):
    """Send `count` alerts, one of each host, twice, evenly over the interval of refreshes; return the figures."""
    send_evenly(members, alert, count)
    received = [member.metric(RECEIVED) for member in members]
    before, began = [member.metric("process_cpu_seconds_total") for member in members], time.monotonic()
    late = send_evenly(members, alert, count)
    seconds = time.monotonic() - began
    used = [member.metric("process_cpu_seconds_total") - then for member, then in zip(members, before, strict=True)]
    memory = [member.metric("process_resident_memory_bytes") / 2**20 for member in members]
    assert [member.metric(RECEIVED) for member in members] == [count + then for then in received], "posts were lost"
    posts = count / alerts_per_post(count) / max(seconds, REFRESH_SECONDS)
    note = f" (sent within {seconds:.0f} s)" if late else ""
    shown = [" and ".join(f"{number:.0f}" for number in memory), " and ".join(f"{cpu / seconds:.1%}" for cpu in used)]
    return f"{posts:.0f}{note} | {' | '.join(shown)}"


def send_evenly(members, alert, count):
    """Post one alert of each of `count` hosts to all members, evenly over a minute; return whether it took longer."""
    began = time.monotonic()
    threads = [
        threading.Thread(
            target=send_share,
            args=(members, alert, range(first, count // alerts_per_post(count), SENDERS), began, count),
        )
        for first in range(SENDERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = began + REFRESH_SECONDS - time.monotonic()
    time.sleep(max(0, left))
    return left < 0


def send_share(members, alert, numbers, began, count):
    """Post the alerts of some hosts, each at its time, on a new connection, as daemons do."""
    size = alerts_per_post(count)
    for number in numbers:
        time.sleep(max(0, began + number * size / count * REFRESH_SECONDS - time.monotonic()))
        body = json.dumps([relabelled(alert, host) for host in range(number * size, (number + 1) * size)])
        for member in members:
            connection = http.client.HTTPConnection(member.url.removeprefix("http://"), timeout=60)
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", "/api/v2/alerts", body, headers)
            assert connection.getresponse().status == http.HTTPStatus.OK
            connection.close()


def alerts_per_post(count):
    """Return the number of alerts in a post: 1 as of a daemon, more where this benchmark would be too slow."""
    return 1 if count <= MAX_SINGLE_POSTS else 20


def relabelled(alert, number):
    """Return `alert` on another host, firing until its expiry."""
    host = f"host-{number:05}.example.net"
    ends = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + EXPIRY_SECONDS))
    return {**alert, "labels": {**alert["labels"], "host": host, "instance": host}, "endsAt": ends}


def measure_metrics(folder, host, server):
    """Print the sizes of pages, and memory and CPU of a Prometheus that scrapes many of them."""
    pages = {"at rest": host.pages(0), "busy": host.pages(BUSY_STORMS)}
    print("\n| host | series | text, kB | gzip, kB | protobuf, kB |\n|---|---|---|---|---|")
    for kind, (texts, binary) in pages.items():
        series = sum(not line.startswith(b"#") for line in texts[-1].splitlines())
        sizes = (len(texts[-1]), len(gzip.compress(texts[-1], 6)), len(binary))
        print(f"| {kind} | {series:,} | {' | '.join(f'{size / 1000:.0f}' for size in sizes)} |")
    print("\n| hosts | relabelling | series | samples a second | memory, MiB | bytes per series | CPU of one core |")
    print("|---|---|---|---|---|---|---|")
    for kind, (texts, _) in pages.items():
        server.pages = texts
        for name, relabel in (("none", ""), ("without buckets", WITHOUT_BUCKETS)):
            row = prometheus_row(folder / f"{kind}-{name}", server.server_port, TARGETS[kind], relabel)
            print(f"| {TARGETS[kind]} {kind} | {name} | {row} |", flush=True)


def prometheus_row(folder, port, targets, relabel):
    """Let a Prometheus scrape `targets` hosts for some intervals; return the figures."""
    folder.mkdir()
    settings, own_port = folder / "prometheus.yml", free_port()
    lines = [PROMETHEUS_TARGET.format(port=port, number=number) for number in range(targets)]
    settings.write_text(PROMETHEUS.format(seconds=SCRAPE_SECONDS, relabel=relabel) + "".join(lines))
    options = [
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{own_port}",
    ]
    process = subprocess.Popen(["prometheus", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{own_port}/metrics"
    try:
        wait_for(lambda: read_metrics(url).get("prometheus_ready", 0) == 1, "Prometheus")
        time.sleep(2 * SCRAPE_SECONDS)  # each target has been scraped
        before, began = read_metrics(url), time.monotonic()
        time.sleep(SCRAPES * SCRAPE_SECONDS)
        after, seconds = read_metrics(url), time.monotonic() - began
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
    series, memory = after["prometheus_tsdb_head_series"], after["process_resident_memory_bytes"]
    grown = {name: (after[name] - before[name]) / seconds for name in (APPENDED, "process_cpu_seconds_total")}
    return (
        f"{series:,.0f} | {grown[APPENDED]:,.0f} | {memory / 2**20:.0f} | {memory / series:,.0f}"
        f" | {grown['process_cpu_seconds_total']:.1%}"
    )


APPENDED = 'prometheus_tsdb_head_samples_appended_total{type="float"}'


def read_metrics(url):
    """Return the metrics of a server, by name with labels; none while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def wait_for(condition, awaited):
    """Wait until `condition` holds, for a bounded time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"timeout: no {awaited}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
