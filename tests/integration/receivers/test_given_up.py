"""Without privileges the daemon may not read some files: receivers read all they need with the configuration."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import textwrap
import threading

import pytest

from certificates import make_certificates
from slack_server import TOKEN, SlackServer, Workspace

SCRIPT = """
    import json, sys
    from watchdog.routing.notification import Notification
    from watchdog.config.document import Document
    from watchdog.receivers.registry import receiver_class

    kind, keys, notifications = json.loads(sys.stdin.read())
    table = Document("", keys, "watchdog.toml")
    receiver = receiver_class(kind).from_table("r", table.root)
    table.raise_problems()

    def report(event, arguments):
        if event in ("import", "open"):
            print(event, arguments[0])

    sys.addaudithook(report)
    for notification in notifications:
        receiver.send(Notification.from_json(notification), 10.0)
    print("sent")
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Create certificates: an authority, a server, a client and an untrusted one."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_sink(certificates):
    """Accept all data over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            for _ in range(2):
                with context.wrap_socket(listener.accept()[0], server_side=True) as session:
                    while session.recv(65_536):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


@pytest.fixture
def journal(tmp_path):
    """Bind a datagram socket that is never read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(f"{tmp_path}/socket")
        yield f"unix://{tmp_path}/socket"


@pytest.fixture
def slack():
    """Serve a Slack workspace."""
    server = SlackServer(Workspace())
    yield server
    server.stop()


@pytest.fixture
def keys_of(request, certificates):
    """Return a function that starts a server and returns the keys of its receiver."""

    def of(case):
        if case == "syslog":
            port = request.getfixturevalue("tls_sink")
            client = {"cert_file": f"{certificates}/client.pem", "key_file": f"{certificates}/client.key"}
            return "syslog", {"address": f"tls://localhost:{port}", "ca_file": f"{certificates}/ca.pem", **client}
        if case == "journald":
            return "journald", {"address": request.getfixturevalue("journal")}
        if case == "slack":
            url = request.getfixturevalue("slack").url
            return "slack", {"bot_token": TOKEN, "channel": "#oncall", "api_url": f"{url}/api"}
        server = request.getfixturevalue("server")
        proxy = request.getfixturevalue("other_server")  # answers like a forwarding proxy
        template = {"text": "{title}", "lines": "{details}"}
        return "webhook", {
            "url": server.url,
            "proxy": f"http://u:p@127.0.0.1:{proxy.server_port}",
            "template": template,
            "username": "u",
            "password": "p",
            "hmac_secret": "key",
        }

    return of


@pytest.mark.parametrize("case", ["syslog", "journald", "slack", "webhook"])
def test_sending_imports_nothing_and_opens_no_file(keys_of, case, firing, resolved):
    kind, keys = keys_of(case)
    given = json.dumps([kind, keys, [firing.to_json(), resolved.to_json()]])
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=170, check=False)
    assert (done.stdout, done.stderr) == ("sent\n", "")
