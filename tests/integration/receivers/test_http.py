"""Webhook and Slack against real HTTP servers, including servers that misbehave."""

from __future__ import annotations

import hashlib
import hmac
import json
import select
import socket
import ssl
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path

import pytest

from certificates import make_certificates
from watchdog.clock import SystemClock
from watchdog.config.document import Document
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, UncertainDeliveryError
from watchdog.receivers.slack.slack_receiver import Slack
from watchdog.receivers.transport.http import Endpoint, raise_for_status
from watchdog.receivers.webhook import Webhook

DEADLINE = 1.0
CERTIFICATE = Path(__file__).parent / "localhost.pem"
HEAD = b"HTTP/1.1 200 OK\r\n"


def webhook_to(url, key=None):
    return Webhook("hook", Endpoint(Secret(url)), key and Secret(key), SystemClock())


def failure_of(url, notification):
    """Deliver to `url`, which must fail and show no secret; return the error and its duration in seconds."""
    webhook = webhook_to(url)
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        webhook.send(notification, DEADLINE)
    took = time.monotonic() - began
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    return caught.value, took


# ------------------------------------------------------------------------------------------------- well-behaved servers


def test_a_webhook_gets_firing_and_resolved(server, firing, resolved):
    webhook = webhook_to(server.url)
    for notification in (firing, resolved):
        webhook.send(notification, DEADLINE)
    assert [path for path, _, _ in server.posts] == ["/in/secret-path?token=secret-token"] * 2
    assert [headers["X-Notification-Id"] for _, headers, _ in server.posts] == ["a" * 32, "b" * 32]
    assert [headers["Content-Type"] for _, headers, _ in server.posts] == ["application/json"] * 2
    assert [headers["Accept-Encoding"] for _, headers, _ in server.posts] == ["identity"] * 2
    assert [body for _, _, body in server.posts] == [webhook.render(firing), webhook.render(resolved)]
    assert [json.loads(body)["status"] for _, _, body in server.posts] == ["firing", "resolved"]


def test_a_receiver_with_the_key_can_check_the_signature(server, firing):
    webhook_to(server.url, "signing key").send(firing, DEADLINE)
    _, headers, body = server.posts[0]
    signed = headers["X-Watchdog-Timestamp"].encode() + b":" + body
    expected = hmac.new(b"signing key", signed, hashlib.sha256).hexdigest()
    assert headers["X-Watchdog-Signature"] == f"sha256={expected}"
    assert abs(int(headers["X-Watchdog-Timestamp"]) - time.time()) < 60


def test_slack_gets_firing_and_resolved(server, firing, resolved):
    slack = Slack("oncall", Endpoint(Secret(server.url)))
    for notification in (firing, resolved):
        slack.send(notification, 10.0)  # one message per second
    assert [json.loads(body)["text"] for _, _, body in server.posts] == [
        "🔴 [FIRING] critical: crawler opens 612/s connections (limit 500/s) on web-1",
        "🟢 [RESOLVED] critical: crawler opens 612/s connections (limit 500/s) on web-1",
    ]


def test_a_login_in_the_url_is_sent_and_netrc_is_not_used(server, firing, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login stored password stored\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    webhook_to(server.url).send(firing, DEADLINE)
    webhook_to(server.url.replace("http://", "http://user:word@")).send(firing, DEADLINE)
    assert [headers.get("Authorization") for _, headers, _ in server.posts] == [None, "Basic dXNlcjp3b3Jk"]


def test_a_proxy_of_the_environment_is_not_used(server, other_server, firing, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other_server.url)
    webhook_to(server.url).send(firing, DEADLINE)
    assert (len(server.posts), len(other_server.posts)) == (1, 0)


# ------------------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, other_server, firing, status):
    server.answer = (status, {"Location": other_server.url}, b"")
    error, _ = failure_of(server.url, firing)
    assert (error.reason, error.retryable) == ("redirect", False)
    assert other_server.posts == []


def test_retry_after_of_a_429_is_used(server, firing):
    server.answer = (429, {"Retry-After": "30"}, b"")
    error, _ = failure_of(server.url, firing)
    assert (error.reason, error.retryable, error.retry_after_seconds) == ("rate_limited", True, 30.0)


def test_the_body_of_a_response_is_not_part_of_the_error(server, firing):
    server.answer = (500, {}, b"<b>internal: secret</b>")
    error, _ = failure_of(server.url, firing)
    assert str(error) == "127.0.0.1 answered 500"


# -------------------------------------------------------------------------------------------------- misbehaving servers


def hang(connection, stopped):
    stopped.wait()


def drip_headers(connection, stopped):
    connection.sendall(HEAD)
    while not stopped.wait(0.1):
        connection.sendall(b"X-More: x\r\n")


def drip_status(connection, stopped):
    for byte in HEAD * 100:
        if stopped.wait(0.1):
            return
        connection.sendall(bytes([byte]))


@pytest.mark.parametrize("behave", [hang, drip_headers, drip_status])
def test_a_missing_response_ends_at_the_deadline(raw_server, firing, behave):
    error, took = failure_of(raw_server(behave).url, firing)
    assert (error.reason, error.retryable) == ("timeout", True)
    assert DEADLINE - 0.05 <= took <= DEADLINE + 0.5


def test_a_missing_tls_handshake_ends_at_the_deadline(raw_server, firing):
    error, took = failure_of(raw_server(hang).url.replace("http://", "https://"), firing)
    assert (error.reason, error.retryable) == ("timeout", True)
    assert DEADLINE - 0.05 <= took <= DEADLINE + 0.5


def test_a_connection_that_is_not_accepted_ends_at_the_deadline(firing):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:  # fill the accept queue: further connections are dropped
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            error, took = failure_of(f"http://127.0.0.1:{port}/", firing)
        finally:
            for one in waiting:
                one.close()
    assert (error.reason, error.retryable) == ("timeout", True)
    assert DEADLINE - 0.05 <= took <= DEADLINE + 0.5


def test_a_slow_body_does_not_undo_a_success_and_ends_at_the_deadline(raw_server, firing):
    def drip_body(connection, stopped):
        connection.sendall(HEAD + b"\r\n")
        while not stopped.wait(0.1):
            connection.sendall(b"x")

    began = time.monotonic()
    webhook_to(raw_server(drip_body).url).send(firing, DEADLINE)
    assert DEADLINE - 0.05 <= time.monotonic() - began <= DEADLINE + 0.5


def test_of_an_endless_body_64_kib_are_read(raw_server):
    def never_end(connection, stopped):
        connection.sendall(HEAD + b"Content-Encoding: gzip\r\n\r\n")
        while not stopped.is_set():
            connection.sendall(b"x" * 65_536)

    answer = Endpoint(Secret(raw_server(never_end).url)).post(b"{}", {}, DEADLINE)
    assert (answer.status, answer.body) == (200, b"x" * 65_536)


def test_a_body_cut_short_does_not_undo_a_success(raw_server):
    def cut(connection, stopped):
        connection.recv(65_536)
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nok")

    raise_for_status(Endpoint(Secret(raw_server(cut).url)).post(b"{}", {}, DEADLINE), "127.0.0.1")


# ---------------------------------------------------------------------------------------------------- interim responses

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "interim", [EARLY_HINTS, CONTINUE + EARLY_HINTS, b"HTTP/1.1 102 Processing\r\n\r\n" * 50, b"HTTP/1.1 199 X\r\n\r\n"]
)
@pytest.mark.parametrize("is_separate", [True, False])
def test_interim_responses_are_skipped(raw_server, interim, is_separate):
    def hint_first(connection, stopped):
        connection.recv(65_536)
        connection.sendall(interim)
        if is_separate:
            stopped.wait(0.1)
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\nok")

    answer = Endpoint(Secret(raw_server(hint_first).url)).post(b"{}", {}, DEADLINE)
    assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.parametrize(
    "endless", [CONTINUE * 4_000, EARLY_HINTS * 1_000, b"HTTP/1.1 100 X\r\n" + b"X: y\r\n" * 10_000]
)
def test_endless_interim_responses_end_the_attempt_early(raw_server, firing, endless):
    sent = []

    def flood(connection, stopped):
        connection.recv(65_536)
        while not stopped.is_set():
            sent.append(connection.send(endless))

    error, took = failure_of(raw_server(flood).url, firing)
    assert (error.reason, error.retryable) == ("connect", True)
    assert took < DEADLINE / 2
    assert sum(sent) < 8_000_000  # what was not read fills the buffers of the kernel


def test_a_switch_of_protocols_that_nobody_asked_for_is_no_delivery(raw_server, firing):
    def switch(connection, stopped):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")

    error, _ = failure_of(raw_server(switch).url, firing)
    assert (error.reason, error.retryable) == ("connect", True)


def test_a_proxy_cannot_send_header_fields_without_end(raw_server, firing):
    def flood(connection, stopped):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.0 200 Connection established\r\n")
        while not stopped.is_set():
            connection.sendall(b"X-More: x\r\n" * 1_000)

    webhook = webhook_of(url="https://alerts.invalid/in", proxy=f"http://127.0.0.1:{raw_server(flood).port}")
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        webhook.send(firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("connect", True)
    assert time.monotonic() - began < DEADLINE / 2


# ------------------------------------------------------------------------------------------------- unknown outcomes


def test_the_outcome_is_unknown_only_after_everything_was_sent(raw_server, firing, unused_port):
    def read_all(connection, stopped):
        connection.recv(65_536)
        stopped.wait()

    for behave in (read_all, close_at_once):
        assert isinstance(failure_of(raw_server(behave).url, firing)[0], UncertainDeliveryError)
    assert isinstance(failure_of(raw_server(gateway_timeout).url, firing)[0], UncertainDeliveryError)
    urls = [f"http://127.0.0.1:{unused_port(socket.SOCK_STREAM)}/", raw_server(hang).url.replace("http://", "https://")]
    for url in urls:
        assert not isinstance(failure_of(url, firing)[0], UncertainDeliveryError)


def test_the_outcome_of_a_request_that_was_cut_short_is_known(raw_server):
    big = b"x" * 50_000_000
    with pytest.raises(DeliveryError) as caught:
        Endpoint(Secret(raw_server(hang).url)).post(big, {}, DEADLINE)
    assert caught.value.reason == "timeout"
    assert not isinstance(caught.value, UncertainDeliveryError)


def gateway_timeout(connection, stopped):
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n")


def close_at_once(connection, stopped):
    connection.recv(65_536)


def reset_at_once(connection, stopped):
    connection.recv(1)  # with the rest unread, closing resets


def talk_nonsense(connection, stopped):
    connection.recv(65_536)
    connection.sendall(b"220 mail.example ESMTP\r\n" * 10)


def overflow_with_headers(connection, stopped):
    connection.recv(65_536)
    connection.sendall(HEAD + b"X-More: x\r\n" * 1_000 + b"\r\n")


@pytest.mark.parametrize("behave", [close_at_once, reset_at_once, talk_nonsense, overflow_with_headers])
def test_a_broken_response_is_retryable(raw_server, firing, behave):
    error, _ = failure_of(raw_server(behave).url, firing)
    assert (error.reason, error.retryable) == ("connect", True)


def test_a_refused_connection_is_retryable(firing):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error, _ = failure_of(f"http://127.0.0.1:{port}/in/secret-path", firing)
    assert (error.reason, error.retryable) == ("connect", True)
    assert str(error) == "127.0.0.1: cannot connect: Connection refused"


# ----------------------------------------------------------------------------------------------------- names, addresses


def test_an_unknown_host_name_is_retryable(firing, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error, _ = failure_of("http://alerts.example/in/secret-path", firing)
    assert (error.reason, error.retryable) == ("dns", True)
    assert str(error) == "alerts.example: name resolution failed"


def test_a_name_server_that_does_not_answer_ends_at_the_deadline(firing, monkeypatch):
    look_up = socket.getaddrinfo

    def slowly(*args, **options):
        time.sleep(DEADLINE + 1)
        return look_up("127.0.0.1", *args[1:], **options)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    error, took = failure_of("http://alerts.example/in/secret-path", firing)
    assert (error.reason, error.retryable) == ("timeout", True)
    assert DEADLINE - 0.05 <= took <= DEADLINE + 0.5


def test_every_address_of_a_name_is_tried(server, firing, monkeypatch):
    def two(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    webhook_to(server.url.replace("127.0.0.1", "alerts.example")).send(firing, DEADLINE)
    assert server.posts[0][1]["Host"] == f"alerts.example:{server.server_port}"


def test_posts_to_an_ipv6_address(raw_server, firing):
    received = []

    def take(connection, stopped):
        received.append(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = raw_server(take, host="::1")
    webhook_to(f"http://[::1]:{server.port}/in").send(firing, DEADLINE)
    assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in received[0]


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ],
)
def test_link_local_addresses_are_refused_in_every_spelling(firing, host):
    error, took = failure_of(f"http://{host}/latest/meta-data/secret", firing)
    assert (error.reason, error.retryable) == ("forbidden_address", False)
    assert took < DEADLINE / 2


def test_the_check_uses_the_address_that_is_connected_to(server, firing, monkeypatch):
    answers = iter(["169.254.169.254", "127.0.0.1"])

    def rebinding(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = server.url.replace("127.0.0.1", "alerts.example")
    error, _ = failure_of(url, firing)
    assert error.reason is DeliveryErrorReason.FORBIDDEN_ADDRESS
    webhook_to(url).send(firing, DEADLINE)
    with pytest.raises(StopIteration):
        next(answers)  # one query per attempt: no second query between check and use


# ------------------------------------------------------------------------------------------------------------------ TLS


def test_a_certificate_that_the_host_trusts_is_accepted(tls_server, firing, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    webhook_to(f"https://localhost:{tls_server.server_port}/in").send(firing, DEADLINE)
    assert len(tls_server.posts) == 1


def test_a_certificate_of_an_unknown_authority_is_refused(tls_server, firing):
    error, _ = failure_of(f"https://localhost:{tls_server.server_port}/in/secret-path", firing)
    assert (error.reason, error.retryable) == ("tls", True)
    assert str(error) == "localhost: certificate refused: self-signed certificate"
    assert tls_server.posts == []


def test_a_certificate_for_another_name_is_refused(tls_server, firing, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    error, _ = failure_of(f"https://127.0.0.1:{tls_server.server_port}/in/secret-path", firing)
    assert (error.reason, error.retryable) == ("tls", True)
    assert tls_server.posts == []


def test_a_server_without_tls_is_a_tls_failure(raw_server, firing):
    error, _ = failure_of(raw_server(talk_nonsense).url.replace("http://", "https://"), firing)
    assert (error.reason, error.retryable) == ("tls", True)


# ------------------------------------------------------------------------- client certificates, proxies, header fields


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make an authority, and certificates for a server, a client and a stranger."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def webhook_of(**keys):
    document = Document("", keys, "watchdog.toml")
    webhook = Webhook.from_table("hook", document.root)
    document.root.reject_unknown_keys()
    document.raise_problems()
    return webhook


@pytest.fixture
def client_certificate_server(start_server, certificates):
    """Serve HTTPS; clients need a certificate of the test authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return start_server(context=context)


def test_a_server_that_requires_a_client_certificate_gets_it(client_certificate_server, certificates, firing):
    keys = {
        "url": f"https://localhost:{client_certificate_server.server_port}/in/secret-path",
        "ca_file": f"{certificates}/ca.pem",
        "cert_file": f"{certificates}/client.pem",
        "key_file": f"{certificates}/client.key",
    }
    webhook_of(**keys).send(firing, DEADLINE)
    without_certificate = {name: text for name, text in keys.items() if name not in {"cert_file", "key_file"}}
    stranger = {"cert_file": f"{certificates}/stranger.pem", "key_file": f"{certificates}/stranger.key"}
    for refused in (without_certificate, {**keys, **stranger}):
        with pytest.raises(DeliveryError) as caught:
            webhook_of(**refused).send(firing, DEADLINE)
        assert caught.value.reason in {"tls", "connect"}
        assert caught.value.retryable
    assert len(client_certificate_server.posts) == 1


class ForwardingProxy:
    """An HTTP proxy: tunnels CONNECT, forwards requests with a whole URL; keeps the head of each request."""

    def __init__(self, start, refusal=None):
        self.requests = []
        self.refusal = refusal
        self.port = start(self.serve).port

    def serve(self, connection, stopped):
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        lines = head.split(b"\r\n\r\n")[0].decode().split("\r\n")
        self.requests.append(lines)
        if self.refusal is not None:
            connection.sendall(f"HTTP/1.1 {self.refusal}\r\n\r\n".encode())
            return
        method, target, _ = lines[0].split()
        host, port = (target if method == "CONNECT" else target.split("/")[2]).rsplit(":", 1)
        with socket.create_connection(("127.0.0.1", int(port))) as upstream:
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.0 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(head.replace(f"http://{host}:{port}".encode(), b"", 1))
            self.pump(connection, upstream)

    def pump(self, one, other):
        while True:
            for source in select.select([one, other], [], [], 10.0)[0]:
                chunk = source.recv(65_536)
                if not chunk:
                    return
                (other if source is one else one).sendall(chunk)


def test_a_configured_proxy_forwards_http_and_tunnels_https(raw_server, server, tls_server, firing, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    proxy = ForwardingProxy(raw_server)
    keys = {"proxy": f"http://user:proxy-secret@127.0.0.1:{proxy.port}"}
    # The proxy resolves the names: .invalid does not resolve on this host.
    plain = f"http://user:word@alerts.invalid:{server.server_port}/in?token=x"
    webhook_of(url=plain, **keys).send(firing, DEADLINE)
    webhook_of(url=f"https://localhost:{tls_server.server_port}/in/secret-path", **keys).send(firing, DEADLINE)
    assert [lines[0] for lines in proxy.requests] == [
        f"POST http://alerts.invalid:{server.server_port}/in?token=x HTTP/1.1",
        f"CONNECT localhost:{tls_server.server_port} HTTP/1.1",
    ]
    login = "Proxy-Authorization: Basic dXNlcjpwcm94eS1zZWNyZXQ="
    assert [login in lines for lines in proxy.requests] == [True, True]
    assert f"Host: localhost:{tls_server.server_port}" in proxy.requests[1]
    assert not any("secret-path" in line for line in proxy.requests[1])
    assert [path for path, _, _ in (*server.posts, *tls_server.posts)] == ["/in?token=x", "/in/secret-path"]
    assert "Proxy-Authorization" not in tls_server.posts[0][1]


def test_a_refusal_by_a_proxy_is_retryable_and_names_the_proxy(raw_server, firing):
    proxy = ForwardingProxy(raw_server, refusal="407 secret words")
    with pytest.raises(DeliveryError) as caught:
        webhook_of(url="https://alerts.invalid/in", proxy=f"http://127.0.0.1:{proxy.port}").send(firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("connect", True)
    assert str(caught.value) == "alerts.invalid: the proxy 127.0.0.1 answered 407"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_hangs_ends_at_the_deadline(raw_server, firing, scheme):
    webhook = webhook_of(url=f"{scheme}://alerts.invalid/in", proxy=f"http://127.0.0.1:{raw_server(hang).port}")
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        webhook.send(firing, DEADLINE)
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)
    assert time.monotonic() - began <= DEADLINE + 0.5


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[fe80::1]", "metadata.google.internal"])
def test_link_local_addresses_are_refused_behind_a_proxy_too(raw_server, firing, host):
    proxy = ForwardingProxy(raw_server)
    for scheme in ("http", "https"):
        with pytest.raises(DeliveryError) as caught:
            webhook_of(url=f"{scheme}://{host}/latest", proxy=f"http://127.0.0.1:{proxy.port}").send(firing, DEADLINE)
        assert (caught.value.reason, caught.value.retryable) == ("forbidden_address", False)
    assert proxy.requests == []


def test_a_proxy_at_a_link_local_address_is_refused(firing):
    with pytest.raises(DeliveryError) as caught:
        webhook_of(url="http://alerts.invalid/", proxy="http://169.254.169.254").send(firing, DEADLINE)
    assert caught.value.reason == "forbidden_address"


def test_header_fields_login_and_body_are_as_configured(server, firing, resolved):
    webhook = webhook_of(
        url=server.url,
        bearer_token="abc",
        headers={"X-Team": "network"},
        template={"text": "{title}", "host": "{host}"},
        hmac_secret="key",
    )
    for notification in (firing, resolved):
        webhook.send(notification, DEADLINE)
    (_, headers, body), (_, _, last) = server.posts
    assert (headers["Authorization"], headers["X-Team"]) == ("Bearer abc", "network")
    assert headers["Content-Type"] == "application/json"
    signed = headers["X-Watchdog-Timestamp"].encode() + b":" + body
    assert headers["X-Watchdog-Signature"] == "sha256=" + hmac.new(b"key", signed, hashlib.sha256).hexdigest()
    assert [json.loads(each) for each in (body, last)] == [
        {"text": "[FIRING] critical: crawler opens 612/s connections (limit 500/s) on web-1", "host": "web-1"},
        {"text": "[RESOLVED] critical: crawler opens 612/s connections (limit 500/s) on web-1", "host": "web-1"},
    ]


# ------------------------------------------------------------------------------------------- after giving up privileges


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_sending_imports_nothing(request, scheme):
    server = request.getfixturevalue("server" if scheme == "http" else "tls_server")
    script = f"""
        import sys
        from watchdog.receivers.transport.http import Endpoint
        from watchdog.config.secrets import Secret

        class ImportReporter:
            def find_spec(self, name, *_):
                print("imported while sending:", name)

        endpoint = Endpoint(Secret("{scheme}://localhost:{server.server_port}/in"))
        sys.meta_path.insert(0, ImportReporter())
        answer = endpoint.post(b"{{}}", {{}}, 5.0)
        del sys.meta_path[0]  # the end of Python 3.13 imports, too
        print(answer.status)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"SSL_CERT_FILE": str(CERTIFICATE)},
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "200\n"
