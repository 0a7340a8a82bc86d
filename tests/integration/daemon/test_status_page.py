"""The status page of a real daemon, and its ticks while its web server is attacked."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys

import html5lib
import pytest
from web_flood import ask, resident_bytes, send_body, send_foreign_hosts, send_malformed, send_slowly

pytestmark = pytest.mark.timeout(300)  # a loaded machine takes long to load the programs
RULE = {
    "summary": "{process} opens {value} connections",
    "metric": "connects",
    "stat": "sum",
    "window": "60s",
    "by": ["process"],
    "where": {"process": "*marquee*"},
    "fire_above": 5,
}
NAME = "<marquee>\u202e"
LOAD = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
listener = socket.create_server(("127.0.0.1", 0))
for _ in range(20):
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
        client.sendall(b"x" * 1000)
"""
MAX_GROWTH_BYTES = 50_000_000  # the daemon watches all traffic of a busy host; `make soak-web` allows a fifth


class Page:
    """The page of a daemon."""

    def __init__(self, port):
        self.port = port

    def get(self, path="/"):
        """Return the response, with its body as `text`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        response.text = response.read().decode()
        connection.close()
        return response


def start(watchdog, more=""):
    """Start a daemon with one rule, and with `more` in its table `[web]`; return its page."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    watchdog.configure({"out": {"type": "console"}}, {"hostile-load": RULE})
    watchdog.configure_more(f'[web]\nlisten = "127.0.0.1:{port}"\n{more}')
    watchdog.start()
    watchdog.wait_for(lambda: "metrics for Prometheus at" in watchdog.log(), "the web server")
    return Page(port)


def test_the_page_shows_a_hostile_process_and_outlasts_attacks_on_the_server(watchdog):
    page = start(watchdog)
    subprocess.run([sys.executable, "-c", LOAD, NAME], check=True)
    shown = re.escape(r"&lt;marquee&gt;\u202e") + " opens 20 connections"
    watchdog.wait_for(lambda: re.search(shown, page.get().text), "the alert on the page")
    response = page.get()
    assert "script-src" not in response.headers["Content-Security-Policy"]
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "\u202e" not in response.text
    assert "--token" not in response.text
    html5lib.HTMLParser(strict=True).parse(response.text)
    watchdog.wait_for(lambda: "polyline" in page.get().text, "the chart of the rule")
    _attack(watchdog, page)


def _attack(watchdog, page):
    def ticks():
        counts = re.findall(r'tick_duration_seconds_bucket\{le="(1|1\.0|\+Inf)"\} ([\d.]+)', page.get("/metrics").text)
        return {"all" if bound == "+Inf" else "quick": float(count) for bound, count in counts}

    pid = watchdog.process.pid
    before, memory = ticks(), resident_bytes(pid)
    malformed, foreign = send_malformed(page.port, 2_000), send_foreign_hosts(page.port, 40)
    assert (malformed.leaks, foreign.leaks) == ([], [])
    assert set(foreign.counts) == {421}
    assert malformed.counts[400] > 500
    assert send_slowly(page.port, 100, 3.0) >= 0
    assert send_body(page.port) < 100_000_000
    assert resident_bytes(pid) - memory < MAX_GROWTH_BYTES
    after = ticks()
    assert after["all"] > before["all"]
    quick = (after["quick"] - before["quick"]) / (after["all"] - before["all"])
    assert quick >= 0.5, "ticks waited for the web server"
    assert ask(page.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 OK")


def test_without_the_page_nothing_of_it_is_loaded(watchdog):
    response = start(watchdog, "status_page = false\n").get()
    assert (response.status, response.text) == (404, "not here; here is /metrics\n")
    names = "[name for name in sys.modules if 'page' in name or 'chart' in name or 'status_source' in name]"
    probe = f"import sys, watchdog.daemon.metrics_endpoint; print({names})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "['watchdog.web.web_page']\n"
