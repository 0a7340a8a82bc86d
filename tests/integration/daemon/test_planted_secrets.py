"""Twenty secrets and more, planted wherever one can be given, in every way that reading and delivery can fail.

They must be in nothing that the program writes. A new type of receiver, or a new way to give it a secret, is one more
line of `KINDS`.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import pwd
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from watchdog.config.permissions import ACCOUNT

CERTIFICATE = Path(__file__).parents[1] / "receivers/localhost.pem"

# Table of a receiver, made from the garden of secrets and the receiver's address.
KINDS = {
    "file": lambda g, at: hook(url_file=g.file(g.url(at)), hmac_secret_file=g.file(g.secret())),
    "env": lambda g, at: hook(url_env=g.variable(g.url(at)), hmac_secret_env=g.variable(g.secret())),
    "cred": lambda g, at: hook(url_credential=g.credential(g.url(at)), hmac_secret_credential=g.credential(g.secret())),
    "inline": lambda g, at: hook(url=g.url(at), hmac_secret=g.secret()),
    "slack-file": lambda g, at: {"type": "slack", "webhook_url_file": g.file(g.url(at))},
    "slack-inline": lambda g, at: {"type": "slack", "webhook_url": g.url(at)},
    "proxy": lambda g, at: hook(url="http://alerts.invalid/", proxy_file=g.file(login(g, at).replace("https", "http"))),
    "alertmanager": lambda g, at: {"type": "alertmanager", "urls": [login(g, at)]},
    "pagerduty": lambda g, at: {"type": "pagerduty", "url": at, "routing_key_file": g.file(g.secret())},
    "email": lambda g, at: mail(at, password_file=g.file(g.secret())),
}


def hook(**keys):
    return {"type": "webhook", **keys}


def login(garden, at):
    scheme, _, place = at.partition("://")
    return f"{scheme}://{garden.login()}@{place}"


def mail(at, **keys):
    host, _, port = at.partition("://")[2].partition(":")
    sender, recipient = "watchdog@example.net", "oncall@example.net"
    place = {"host": host, "port": int(port or 587), "username": "watchdog", "from": sender, "to": [recipient]}
    return {"type": "email", "timeout": "10s", **place, **keys}


class Garden:
    """Makes secrets and gives them in every form; each type of receiver has its own, the same at every address."""

    def __init__(self, folder: Path) -> None:
        self.environment: dict[str, str] = {}
        self._folder = folder
        self._numbers = itertools.count()
        self._kind, self._used = "", 0
        self._secrets: dict[str, str] = {}
        self._logins: dict[str, bytes] = {}
        for made in (folder, folder / "credentials"):
            made.mkdir()
            made.chmod(0o755)
        self.environment["CREDENTIALS_DIRECTORY"] = str(folder / "credentials")

    def begin(self, kind: str) -> None:
        self._kind, self._used = kind, 0

    def secret(self) -> str:
        """Return the type's next secret: a word that no encoding of URLs, JSON or TOML changes."""
        self._used += 1
        return self._secrets.setdefault(f"{self._kind} {self._used}", f"planted{secrets.token_hex(13)[:25]}")

    def login(self) -> str:
        user, word = self.secret(), self.secret()
        self._logins[self._kind] = base64.b64encode(f"{user}:{word}".encode())
        return f"{user}:{word}"

    def url(self, base: str) -> str:
        """Return a URL to `base` with a secret in every part that can have one."""
        scheme, _, place = base.partition("://")
        login, path, query, mark = self.login(), self.secret(), self.secret(), self.secret()
        return f"{scheme}://{login}@{place}/services/{path}?token={query}#{mark}"

    def file(self, content: str, mode: int = 0o600) -> str:
        return str(self._write(self._folder / f"s{next(self._numbers)}", content, mode))

    def variable(self, content: str) -> str:
        name = f"PLANTED_{next(self._numbers)}"
        self.environment[name] = content
        return name

    def credential(self, content: str) -> str:
        """Give it as systemd does, with the file mode that an access list shows."""
        return self._write(self._folder / "credentials" / f"c{next(self._numbers)}", content, 0o440).name

    def __len__(self) -> int:
        return len(self._secrets)

    def harvest(self) -> str:
        """Return all secrets, for a peer that sends them back."""
        return ".".join([*self._secrets.values(), *(login.decode() for login in self._logins.values())])

    def found_in(self, *texts: bytes | str) -> list[str]:
        """Return the secrets in the texts, in plain text or encoded as a login."""
        whole = b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts)
        plain = [name for name, secret in self._secrets.items() if secret.encode() in whole]
        return plain + [f"login of {kind}" for kind, login in self._logins.items() if login in whole]

    def _write(self, path: Path, content: str, mode: int) -> Path:
        account = pwd.getpwnam(ACCOUNT)
        path.write_text(content)
        os.chown(path, account.pw_uid, account.pw_gid if mode == 0o440 else 0)
        path.chmod(mode)
        return path


@pytest.fixture
def garden(open_folder):
    return Garden(open_folder / "garden")


@pytest.fixture
def echo():
    """Return a function that starts a peer that answers with bytes made from the request, and then closes."""
    listeners, threads = [], []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threads.append(threading.Thread(target=serve, args=(listener, answer)))
        threads[-1].start()
        return listener.getsockname()[1]

    def serve(listener, answer):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(5.0)
                try:
                    peer.sendall(answer(peer.recv(65_536)))
                except OSError:
                    continue

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
    for thread, listener in zip(threads, listeners, strict=True):
        thread.join()
        listener.close()


@pytest.fixture
def places(garden, echo, start_server, unused_port):
    """Return the addresses of failing receivers, by kind of failure."""
    hanging = socket.create_server(("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def back(status, headers=""):
        # The request and all secrets: a peer may know more secrets than this request has.
        def answer(request):
            body = request + garden.harvest().encode()
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers.format(garden.harvest())}\r\n"
            return head.encode() + body

        return f"http://127.0.0.1:{echo(answer)}"

    yield {
        "refused": f"http://127.0.0.1:{unused_port(socket.SOCK_STREAM)}",
        "dns": "https://planted.invalid",
        "tls": f"https://127.0.0.1:{start_server().server_port}",
        "cert": f"https://localhost:{start_server(context=context).server_port}",
        "hang": f"http://127.0.0.1:{hanging.getsockname()[1]}",
        "taken": back("200 OK"),
        "auth": back("401 Unauthorized", 'WWW-Authenticate: Basic realm="{}"\r\n'),
        "client": back("400 Bad", "X-Echo: {}\r\n"),
        "server": back("500 Oh", "Retry-After: {}\r\n"),
        "redirect": back("302 Found", "Location: http://127.0.0.1:1/{}\r\n"),
        "banana": f"http://127.0.0.1:{echo(lambda request: b'HTTP/1.1 banana ' + request)}",
        "garbage": f"http://127.0.0.1:{echo(lambda request: request * 3)}",
    }
    hanging.close()


@pytest.fixture
def plant(garden, places, watchdog, storm):
    """Return a function that writes settings with a receiver of each type at the given addresses."""

    def plant(*wanted, kinds=KINDS):
        receivers = {}
        for place in wanted:
            for kind in kinds:
                garden.begin(kind)
                receivers[f"{place}-{kind}"] = KINDS[kind](garden, places[place])
        receivers["log"] = {"type": "syslog", "address": "unix:///nowhere"}
        receivers["terminal"] = {"type": "console"}
        watchdog.configure(receivers, {"storm": storm.crowd_rule()})
        garden.begin("heartbeat")
        watchdog.configure_more(f'[heartbeat]\nurl_file = "{garden.file(garden.url(places["auth"]))}"\ninterval = "1s"')
        return list(receivers)

    return plant


# Typing errors in a webhook's settings: functions from the garden to the lines.
SLIPS = {
    "no TOML": lambda g: f'url = "{g.secret()}',
    "twice": lambda g: f'url = "{g.secret()}"\nurl = "{g.secret()}"',
    "no URL": lambda g: f'url = "{g.secret()}"',
    "another scheme": lambda g: f'url = "ftp://{g.secret()}"',
    "a port": lambda g: f'url = "http://x:{g.secret()}/"',
    "a bracket": lambda g: f'url = "http://[{g.secret()}/"',
    "two forms": lambda g: f'url = "{g.secret()}"\nurl_env = "{g.secret()}"',
    "a list": lambda g: f'url = ["{g.secret()}"]',
    "a wrong key": lambda g: f'url = "http://x/"\nhmac_secrte = "{g.secret()}"',
    "for its file": lambda g: f'url_file = "{g.secret()}"',
    "for its variable": lambda g: f'url_env = "{g.url("https://x")}"',
    "for its credential": lambda g: f'url_credential = "{g.url("https://x")}"',
    "an open file": lambda g: f'url_file = "{g.file(g.secret(), 0o644)}"',
    "two lines": lambda g: f'url_file = "{g.file(g.url("https://x") + chr(10) + g.secret())}"',
    "a heartbeat": lambda g: f'url = "http://x/"\n[heartbeats]\nurl = "{g.secret()}"',
}


def slipped(slip, garden):
    garden.begin(slip)
    return f'\n[[receiver]]\nname = "slip"\ntype = "webhook"\n{SLIPS[slip](garden)}\n'


def run(watchdog, garden, *arguments):
    """Run a command with the environment of the daemon; return its whole output."""
    environment = {**os.environ, **garden.environment}
    done = subprocess.run([watchdog.command, *arguments], capture_output=True, check=False, timeout=60, env=environment)
    return done.stdout + done.stderr


# Kinds of failure, each with the reason that some attempts must have: connection failures, then answers.
FAILURES = (
    {"refused": "connect", "dns": "dns", "tls": "tls", "cert": "tls", "hang": "timeout", "taken": "ok"},
    {
        "auth": "auth",
        "client": "client_error",
        "server": "server_error",
        "redirect": "redirect",
        "banana": "connect",
        "garbage": "connect",
    },
)


@pytest.mark.parametrize("failures", FAILURES, ids=["wire", "answer"])
def test_no_secret_shows_in_failing_deliveries_or_their_listing(garden, plant, watchdog, storm, wait_for, failures):
    planted = plant(*failures)
    assert len(garden) >= 20
    watchdog.start(**garden.environment)
    storm.hold()
    attempted = "SELECT DISTINCT notification_id FROM attempts"
    wait_for(lambda: len(watchdog.saved(attempted)) >= len(planted), "every receiver to be tried", patience=60.0)
    wait_for(
        lambda: re.search('heartbeat failed.*reason="auth: 127.0.0.1 answered 401', watchdog.log()), "the heartbeat"
    )
    results = {line.split(":")[0] for line in watchdog.saved("SELECT result FROM attempts")}
    assert results >= set(failures.values())
    listed = watchdog.ask("notifications", "list", "--json", "--limit", "1000")[1]
    ids = [notification["notification_id"] for notification in json.loads(listed)]
    some = [*ids[:: len(KINDS) + 1]]
    shown = [watchdog.ask("notifications", "show", id_, "--json")[1] for id_ in some]
    state = [file.read_bytes() for file in watchdog.state.iterdir() if file.is_file()]
    assert watchdog.terminate()[0] == 0
    state += [file.read_bytes() for file in watchdog.state.iterdir()]

    assert all(any(id_.encode() in part for part in state) for id_ in ids)
    assert garden.found_in(watchdog.log(), watchdog.output(), listed, *shown, *state) == []


def test_no_secret_shows_when_settings_are_checked(garden, plant, watchdog):
    plant("auth", "taken")
    watchdog.config.chmod(0o644)
    usual = ["--config", watchdog.config]
    notified = [run(watchdog, garden, "check", watchdog.config), run(watchdog, garden, "run", *usual)]
    assert all(b"is written in a file that is open to everyone on this host" in words for words in notified)
    watchdog.config.chmod(0o600)
    notified.append(run(watchdog, garden, "check", *usual, watchdog.rules, "--json"))

    assert garden.found_in(*notified) == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_shows_when_a_receiver_is_tried(garden, plant, watchdog, kind):
    names = plant("auth", "taken", kinds=[kind])[:2]
    watchdog.config.chmod(0o600)
    for name, more in itertools.product(names, (["--json"], ["--dry-run"])):
        notified = run(watchdog, garden, "notify", "test", name, "--config", watchdog.config, *more)
        assert b"firing" in notified
        assert garden.found_in(notified) == []


@pytest.mark.parametrize("slip", SLIPS)
def test_no_secret_shows_when_it_is_in_the_wrong_place(garden, watchdog, slip):
    watchdog.config.write_text(slipped(slip, garden))
    watchdog.config.chmod(0o600)
    notified = [
        run(watchdog, garden, "check", watchdog.config, "--json"),
        run(watchdog, garden, "notify", "test", "slip", "--config", watchdog.config),
    ]

    assert all(str(watchdog.config).encode() in words for words in notified)
    assert garden.found_in(*notified) == []


def test_no_secret_shows_when_a_reload_is_refused(garden, plant, watchdog):
    plant("refused")
    watchdog.start(**garden.environment)
    right = watchdog.config.read_text()
    for slip in SLIPS:
        watchdog.config.write_text(right + slipped(slip, garden))
        assert "reload refused" in watchdog.reload()
    assert garden.found_in(watchdog.log(), watchdog.output()) == []


# Defects of bpf-watchdog near secrets: in the main thread; in those of receivers and of the heartbeat.
DEFECTS = {
    "main": """
from watchdog.daemon.pipeline import Pipeline
def start(self):
    held = [receiver for thread in self._delivery._threads for receiver in [thread.worker._receiver]]
    raise KeyError(held, [vars(receiver) for receiver in held])
Pipeline.start = start
""",
    "threads": """
from watchdog.receivers.transport.http import Endpoint
def post(self, body, headers, deadline_seconds):
    raise ValueError(self._url, headers)
Endpoint.post = post
""",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_no_secret_shows_in_the_traceback_of_a_defect(garden, plant, watchdog, storm, wait_for, open_folder, defect):
    program = open_folder / "defect.py"
    program.write_text(f"import sys\nfrom watchdog.cli.main import main\n{DEFECTS[defect]}\nsys.exit(main())\n")
    watchdog.command, watchdog.before = sys.executable, [program]
    plant("taken")
    watchdog.launch(**garden.environment, PYTHONFAULTHANDLER="1")
    if defect == "main":
        assert watchdog.process.wait(60) == 1
        assert "Traceback" in watchdog.log()
        assert "<secret>" in watchdog.log()
    else:
        failed = 'heartbeat failed.*reason="ValueError in defect.py'
        wait_for(lambda: re.search(failed, watchdog.log()), "the heartbeat")
        storm.hold()
        wait_for(lambda: watchdog.log().count("internal: ValueError in defect.py") >= len(KINDS), "the receivers")
        watchdog.end()
    assert garden.found_in(watchdog.log(), watchdog.output()) == []
