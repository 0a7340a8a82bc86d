"""The server of the metrics over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import time
from types import SimpleNamespace

import pytest
from ports import free_port

from watchdog.config.web_settings import WebSettings
from watchdog.web import web_server
from watchdog.web.web_page import WebPage
from watchdog.web.web_server import MAX_CLIENTS, WebError, WebServer

PATIENCE = 60.0
PAGE = b"x" * 3_000_000  # more than the buffers of a connection hold


class Served:
    def __init__(self, settings, body=PAGE):
        self.settings, self.made = settings, 0
        self.body = body
        self.pages = {"/metrics": self._make}
        self.server = WebServer(settings, lambda: ("web-1",), self.pages)
        self.server.start()

    def _make(self, request):
        self.made += 1
        if self.body is None:
            raise ZeroDivisionError
        return WebPage("text/plain", self.body)

    def connect(self):
        if self.settings.port is None:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(self.settings.listen)
        else:
            peer = socket.create_connection((self.settings.listen, self.settings.port))
        peer.settimeout(PATIENCE)
        return peer

    def ask(self, request=b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with self.connect() as peer:
            peer.sendall(request)
            response = http.client.HTTPResponse(peer)
            response.begin()
            if request.startswith(b"HEAD"):
                return response.status, b""
            return response.status, response.read()


@pytest.fixture
def serve(monkeypatch):  # the servers stop before the test's patches are undone
    with contextlib.ExitStack() as stack:

        def start(settings=None, body=PAGE):
            served = Served(settings or WebSettings("127.0.0.1", free_port()), body)
            stack.callback(served.server.stop)
            return served

        yield start


def test_the_page_is_served_whole_also_over_a_unix_socket(serve, tmp_path):
    assert serve().ask() == (200, PAGE)
    path = tmp_path / "metrics.sock"
    served = serve(WebSettings(str(path), None))
    assert served.ask() == (200, PAGE)
    assert path.stat().st_mode & 0o777 == 0o660
    served.server.stop()
    assert not path.exists()


def test_a_unix_socket_that_somebody_removes_is_created_again(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(web_server, "RENEWAL_SECONDS", 0.05)
    path = tmp_path / "metrics.sock"
    served = serve(WebSettings(str(path), None))
    for _ in range(2):
        path.unlink()
        end = time.monotonic() + PATIENCE
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert served.ask() == (200, PAGE)
    served.server.stop()
    assert not path.exists()


def test_a_request_in_pieces_and_requests_one_after_another(serve):
    served = serve(body=b"page")
    with served.connect() as peer:
        for piece in (b"GET /met", b"rics HTTP/1.1\r\nHost: web-1\r\n", b"\r\n"):
            peer.sendall(piece)
            time.sleep(0.05)
        assert peer.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert [served.ask() for _ in range(5)] == [(200, b"page")] * 5


def test_slow_clients_hold_nobody_up_however_many_they_are(serve, monkeypatch):
    monkeypatch.setattr(web_server, "REQUEST_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(web_server, "RESPONSE_SECONDS", 10 * PATIENCE)
    served = serve()
    with contextlib.ExitStack() as stack:
        for number in range(300):
            peer = stack.enter_context(served.connect())
            peer.sendall(b"GET " if number % 3 else b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert len(served.server._clients) <= MAX_CLIENTS
        assert served.ask() == (200, PAGE)


def test_a_request_must_be_complete_in_time(serve, monkeypatch):
    monkeypatch.setattr(web_server, "REQUEST_SECONDS", 0.3)
    served = serve(body=b"page")
    with served.connect() as peer:
        peer.sendall(b"GET ")
        assert peer.recv(100).startswith(b"HTTP/1.1 408 ")
    assert served.made == 0


def test_a_client_that_does_not_read_is_dropped(serve, monkeypatch):
    monkeypatch.setattr(web_server, "RESPONSE_SECONDS", 0.3)
    served = serve(body=b"x" * 30_000_000)  # more than any buffer
    with served.connect() as peer:
        peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.6)
        assert served.ask(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := peer.recv(1 << 20):
                received += len(chunk)
        assert 0 < received < len(served.body)


def test_a_head_without_end_and_a_body_are_refused_without_reading_them(serve):
    served = serve(body=b"page")
    assert served.ask(b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * 20_000)[0] == 431
    assert served.ask(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nbody")[0] == 413
    assert served.made == 0


def test_a_client_that_sends_for_ever_is_dropped(serve):
    served = serve(body=b"page")
    sent, end = 0, time.monotonic() + PATIENCE
    with served.connect() as peer, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while time.monotonic() < end:
            sent += peer.send(b"y" * 65_536)
    assert time.monotonic() < end, f"{sent:,} bytes were taken"
    assert served.ask() == (200, b"page")


def test_after_its_work_the_thread_rests_for_twice_as_long_a_tenth_of_a_second_at_most(serve, monkeypatch):
    pauses, used = [], itertools.count()
    fake = SimpleNamespace(
        monotonic=time.monotonic, sleep=pauses.append, thread_time=lambda: next(used) * seconds_of_a_round
    )
    monkeypatch.setattr(web_server, "time", fake)
    seconds_of_a_round = 0.01
    served = serve(body=b"page")
    served.ask()
    assert pauses[0] == pytest.approx(0.02)
    seconds_of_a_round = 7.0
    served.ask()
    assert max(pauses) == 0.1


def test_a_defect_in_a_page_is_logged_and_the_server_goes_on(serve, caplog):
    served = serve(body=None)
    assert served.ask()[0] == 500
    assert "page not served" in caplog.text
    served.body = b"page"
    assert served.ask() == (200, b"page")


def test_an_address_in_use_is_reported(serve):
    served = serve()
    with pytest.raises(WebError, match="Address already in use"):
        WebServer(served.settings, tuple, served.pages)
    with pytest.raises(WebError, match="socket of the metrics /nonexistent/x"):
        WebServer(WebSettings("/nonexistent/x", None), tuple, served.pages)
