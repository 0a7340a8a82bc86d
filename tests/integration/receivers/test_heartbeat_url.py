"""Heartbeats to monitors that hold to the documented interfaces of the services."""

from __future__ import annotations

import http.server
import json
import threading
import tomllib
import urllib.parse

import pytest

from watchdog.config.document import Document
from watchdog.daemon.heartbeat_url import HeartbeatUrl
from watchdog.errors import DeliveryError

UUID = "5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"


class Monitor(http.server.ThreadingHTTPServer):
    """Answers by `service(method, path, query)`: status, body, and the state that the service records."""

    def __init__(self, service):
        self.service, self.states, self.requests = service, [], []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        status, text, state = self.server.service(self.command, parts.path, query)
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        if state is not None:
            self.server.states.append(state)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def log_message(self, *_):
        pass


def healthchecks(method, path, query):
    """HEAD, GET and POST; /fail; an unknown UUID is answered with 200 and a remark (Pinging API)."""
    check, _, action = path.strip("/").partition("/")
    if action not in ("", "fail"):
        return 400, "invalid url format", None
    if check != UUID:
        return 200, "OK (not found)", None
    return 200, "OK", "down" if action else "up"


def uptime_kuma(method, path, query):
    """GET alone; the state is in the query (push monitor of version 1)."""
    if method != "GET" or path != "/api/push/TOKEN1":
        return 404, '{"ok":false,"msg":"Monitor not found or not active."}', None
    return 200, '{"ok":true}', query.get("status", "up")


def dead_mans_snitch(method, path, query):
    """GET and POST; s other than 0 reports an error."""
    if path != "/c2354d53d2":
        return 404, "", None
    return 202, "Got it, thanks!", "up" if query.get("s", "0") in ("0", "") else "down"


def better_stack(method, path, query):
    """HEAD, GET and POST; /fail."""
    states = {"/api/v1/heartbeat/TOKEN1": "up", "/api/v1/heartbeat/TOKEN1/fail": "down"}
    return (200, "", states[path]) if path in states else (404, "", None)


def cronitor(method, path, query):
    """GET and POST; the state is in the query, complete or fail."""
    if path != "/p/APIKEY1/web-1":
        return 403, "", None
    return 200, "OK", {"complete": "up", "fail": "down"}.get(query.get("state", "complete"))


FORMS = {
    "healthchecks": (healthchecks, f'url = "{{base}}/{UUID}"'),
    "healthchecks by GET": (healthchecks, f'url = "{{base}}/{UUID}"\nmethod = "GET"'),
    "uptime kuma": (
        uptime_kuma,
        'method = "GET"\nurl = "{base}/api/push/TOKEN1?status=up"\nfail_url = "{base}/api/push/TOKEN1?status=down"',
    ),
    "dead man's snitch": (
        dead_mans_snitch,
        'method = "GET"\nurl = "{base}/c2354d53d2"\nfail_url = "{base}/c2354d53d2?s=1"',
    ),
    "better stack": (better_stack, 'url = "{base}/api/v1/heartbeat/TOKEN1"'),
    "cronitor": (
        cronitor,
        'method = "GET"\nurl = "{base}/p/APIKEY1/web-1?state=complete"\nfail_url = "{base}/p/APIKEY1/web-1?state=fail"',
    ),
}


@pytest.fixture
def start():
    running = []

    def start(service):
        running.append(Monitor(service))
        return running[-1]

    yield start
    for monitor in running:
        monitor.shutdown()
        monitor.server_close()


def target(keys):
    document = Document(keys, tomllib.loads(keys), "watchdog.toml")
    found = HeartbeatUrl.from_table(document.root)
    document.raise_problems()
    return found


@pytest.mark.parametrize(("service", "keys"), FORMS.values(), ids=FORMS)
def test_known_good_forms_reach_each_service(start, service, keys):
    monitor = start(service)
    heartbeat = target(keys.format(base=monitor.url("")))
    for is_healthy in (True, False, True):
        heartbeat.post(b"{}", 5.0, is_healthy=is_healthy)
    assert monitor.states == ["up", "down", "up"]


@pytest.mark.parametrize(("service", "keys"), FORMS.values(), ids=FORMS)
def test_a_wrong_token_is_a_failure(start, service, keys):
    monitor = start(service)
    for token in (UUID, "TOKEN1", "c2354d53d2", "APIKEY1"):
        keys = keys.replace(token, "0" + token[1:])
    for is_healthy in (True, False):
        with pytest.raises(DeliveryError):
            target(keys.format(base=monitor.url(""))).post(b"{}", 5.0, is_healthy=is_healthy)
    assert monitor.states == []


def test_a_refusal_with_status_200_is_a_failure(start):
    monitor = start(lambda *_: (200, "OK (rate limited)", None))
    with pytest.raises(DeliveryError, match=r"answered 200: rate limited$"):
        target(f'url = "{monitor.url("/x")}"').post(b"{}", 5.0, is_healthy=True)


def test_a_get_has_no_body_and_a_post_has_the_document(start):
    monitor = start(lambda *_: (200, "", None))
    document = json.dumps({"status": "ok"}).encode()
    for method in ("GET", "POST"):
        target(f'method = "{method}"\nurl = "{monitor.url("/x")}"').post(document, 5.0, is_healthy=True)
    (_, _, headers, body), (_, _, post_headers, post_body) = monitor.requests
    assert (body, "Content-Type" in headers, "Content-Length" in headers) == (b"", False, False)
    assert (post_body, post_headers["Content-Type"]) == (document, "application/json")


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ('bearer_token = "token1"', "Authorization", "Bearer token1"),
        ('username = "user"\npassword = "word"', "Authorization", "Basic dXNlcjp3b3Jk"),
        ('[headers]\nX-Api-Key = "key1"', "X-Api-Key", "key1"),
    ],
)
@pytest.mark.parametrize("is_healthy", [True, False])
def test_logins_and_header_fields_are_sent(start, keys, field, value, is_healthy):
    monitor = start(lambda *_: (200, "", None))
    target(f'url = "{monitor.url("/x")}"\nfail_url = "{monitor.url("/y")}"\n{keys}').post(
        b"{}", 5.0, is_healthy=is_healthy
    )
    assert monitor.requests[0][2][field] == value


def test_it_goes_through_the_configured_proxy(start):
    proxy = start(lambda *_: (200, "", None))
    target(f'url = "http://monitor.invalid/x"\nproxy = "{proxy.url("")}"').post(b"{}", 5.0, is_healthy=True)
    assert proxy.requests[0][1] == "http://monitor.invalid/x"


def test_a_changed_file_is_read_before_the_next_heartbeat(start, tmp_path):
    monitor = start(lambda *_: (200, "", None))
    path = tmp_path / "token"

    def write(text):
        fresh = tmp_path / "new"
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.rename(path)

    write("old")
    heartbeat = target(f'url = "{monitor.url("/x")}"\nbearer_token_file = "{path}"')
    for content in ("old", "new", " ", "newest"):
        write(content)
        heartbeat.post(b"{}", 5.0, is_healthy=True)
    sent = [headers["Authorization"] for _, _, headers, _ in monitor.requests]
    assert sent == ["Bearer old", "Bearer new", "Bearer new", "Bearer newest"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ('method = "PUT"', "method: "),
        ('fail_url = "ftp://x"', "fail_url: must begin with https:// or http:// and a host name"),
        ('fail_url = "http://user:word@h.example/"\nbearer_token = "token1"', "fail_url: give only one of a login"),
        ('proxy = "socks://x"', "proxy: write it like"),
        ('ca_file = "ca.pem"', "ca_file: must be an absolute path"),
        ('colour = "red"', "colour: unknown key"),
    ],
)
def test_problems_name_their_key(keys, problem):
    text = f'url = "http://h.example/x"\n{keys}'
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    assert HeartbeatUrl.from_table(document.root) is None
    [found] = document.problems
    assert f"{found.key}: {found.message}".startswith(problem)
