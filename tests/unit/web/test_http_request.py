"""Requests to the server of the metrics: those that are answered, and all others."""

from __future__ import annotations

import random

import pytest

from watchdog.web.http_request import HostCheck, respond
from watchdog.web.web_page import WebPage

LOOPBACK = HostCheck(("web-1.example.net",), only_loopback=True)
REMOTE = HostCheck(("web-1.example.net",), only_loopback=False)
PAGES = {
    "/metrics": lambda request: WebPage("x", b"page"),
    "/query": lambda request: WebPage("x", repr((request.query, request.accept)).encode(), (("More", "1"),)),
}


def ask(head, hosts=LOOPBACK):
    """Return status, headers and body."""
    response = respond(head.encode() if isinstance(head, str) else head, hosts, PAGES)
    top, _, body = response.partition(b"\r\n\r\n")
    line, *headers = top.decode().split("\r\n")
    return int(line.split()[1]), dict(header.split(": ", 1) for header in headers), body


def get(*headers, line="GET /metrics HTTP/1.1", host="Host: 127.0.0.1:9464"):
    return "\r\n".join([line, *([host] if host else []), *headers])


def test_get_and_head_are_answered():
    status, headers, body = ask(get())
    assert (status, headers["Content-Length"], body) == (200, "4", b"page")
    status, headers, body = ask(get(line="HEAD /metrics HTTP/1.0"))
    assert (status, headers["Content-Length"], body) == (200, "4", b"")
    assert ask(get(line="GET /metrics?name=x HTTP/1.1"))[0] == 200


def test_a_page_gets_query_and_accept_and_adds_its_headers():
    status, headers, body = ask(get("Accept: a", "Accept: b", line="GET /query?x=1&y=? HTTP/1.1"))
    assert (status, body, headers["More"]) == (200, b"('x=1&y=?', 'a,b')", "1")
    assert "More" not in ask(get())[1]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (get(line="POST /metrics HTTP/1.1"), 405),
        (get(line="get /metrics HTTP/1.1"), 405),
        (get(line="GET / HTTP/1.1"), 404),
        (get(line="GET /metrics/../etc/passwd HTTP/1.1"), 404),
        (get(line="GET http://127.0.0.1/metrics HTTP/1.1"), 404),
        (get(line="GET /metrics"), 400),
        (get(line="GET /metrics HTTP/2.0"), 400),
        (get(line="GET  /metrics HTTP/1.1"), 400),
        (get(line=" GET /metrics HTTP/1.1"), 400),
        (get("no colon"), 400),
        (get("Folded: a", " b"), 400),
        (get("Nul: a\0b"), 400),
        (get("Space : a"), 400),
        (get("Content-Length: 1"), 413),
        (get("Content-Length: 1000000000"), 413),
        (get("Content-Length: x"), 413),
        (get("Content-Length: 0", "Content-Length: 5"), 413),
        (get("Transfer-Encoding: chunked"), 413),
        (get("Content-Length: 0"), 200),
        (get(*["X: y"] * 200), 431),
        ("", 400),
    ],
)
def test_other_requests_get_an_error_and_nothing_else(request_head, status):
    found, headers, body = ask(request_head)
    assert found == status
    assert (body == b"page") == (status == 200)
    assert headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("host", "on_loopback", "on_remote"),
    [
        ("127.0.0.1:9464", 200, 200),
        ("127.0.0.1", 200, 200),
        ("[::1]:9464", 200, 200),
        ("LOCALHOST:9464", 200, 200),
        ("web-1.example.net", 200, 200),
        ("WEB-1.example.net:9464", 200, 200),
        ("10.0.0.1:9464", 421, 200),
        ("evil.example", 421, 421),
        ("127.0.0.1.evil.example", 421, 421),
        ("localhost.evil.example", 421, 421),
        ("evil.example:9464@127.0.0.1", 421, 421),
        ("127.0.0.1:port", 421, 421),
        ("", 421, 421),
    ],
)
def test_a_host_that_is_not_this_server_gets_nothing(host, on_loopback, on_remote):
    assert ask(get(host=f"Host: {host}"))[0] == on_loopback
    assert ask(get(host=f"Host: {host}"), REMOTE)[0] == on_remote


def test_a_missing_or_second_host_is_refused():
    assert ask(get(host=""))[0] == 421
    assert ask(get("Host: 127.0.0.1"))[0] == 421


def test_mutated_requests_get_the_page_or_an_error():
    random.seed(5)
    good = get("Accept: text/plain", "User-Agent: Prometheus/2.42.0").encode()
    for _ in range(5_000):
        head = bytearray(good)
        for _ in range(random.randint(1, 8)):
            at = random.randrange(len(head))
            head[at : at + random.randint(0, 3)] = random.randbytes(random.randint(0, 3))
        status, _, body = ask(bytes(head))
        assert status in {200, 400, 404, 405, 413, 421, 431}
        assert (body == b"page") == (status == 200) or head.startswith(b"HEAD ")
