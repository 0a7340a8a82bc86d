"""Sends by every transport to metadata services that exist here; see test_metadata_services.py.

Runs as root in new network and mount namespaces. Prints one JSON object: the number of `connections` to metadata
services, the `results` of attempts to reach them, and the `ordinary` results of attempts to reach their neighbours.
"""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path

import factories
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.apprise.apprise_receiver import Apprise
from watchdog.receivers.email import Email
from watchdog.receivers.syslog.wires import TlsSettings, wire_from_address
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint, HttpTransport
from watchdog.receivers.transport.proxy import Proxy
from watchdog.receivers.transport.smtp import SmtpServer

METADATA = ("169.254.169.254", "fd20:ce::254", "100.100.100.200", "fd00:a9fe:a9fe::1")
NEIGHBOURS = ("fd20:ce::253", "100.100.100.201")
NAME = "alerts.example"  # leads to the first of METADATA
PORT, MAIL_PORT = 80, 25
DEADLINE = 20.0


class Hook(http.server.BaseHTTPRequestHandler):
    """Answers with a redirect to a metadata service."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(307)
        self.send_header("Location", f"http://[{METADATA[1]}]/")
        self.end_headers()

    def log_message(self, *_):
        pass


class Listener:
    """Counts connections to, and datagrams for, an address; closes each connection."""

    def __init__(self, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._stream = socket.create_server((address, port), family=family)
        self._datagrams = socket.socket(family, socket.SOCK_DGRAM)
        self._datagrams.bind((address, port))
        self.count = 0
        for take in (self._accept, self._receive):
            threading.Thread(target=take, daemon=True).start()

    def _accept(self):
        while True:
            self._stream.accept()[0].close()
            self.count += 1

    def _receive(self):
        while True:
            self._datagrams.recv(65_536)
            self.count += 1


def bracket(address):
    return f"[{address}]" if ":" in address else address


def attempts(host):
    """Return a call for each transport to `host`."""
    at, context = bracket(host), ssl.create_default_context()
    notification = factories.make_notification()
    mail = Email("mail", SmtpServer(host, MAIL_PORT, "none", context), "a@example.net", ("b@example.net",))
    transport = HttpTransport(context)
    wires = [
        wire_from_address(f"{scheme}://{at}:{PORT}", tls_settings=TlsSettings(context))
        for scheme in ("udp", "tcp", "tls")
    ]
    return {
        "http": lambda: Endpoint(Secret(f"http://{at}/"), transport).post(b"{}", {}, DEADLINE),
        "https": lambda: Endpoint(Secret(f"https://{at}:{PORT}/"), transport).post(b"{}", {}, DEADLINE),
        "mail": lambda: mail.send(notification, DEADLINE),
        **{str(wire): lambda wire=wire: wire.send_records([b"x"], Deadline(DEADLINE)) for wire in wires},
    }


def behind_proxy(host, proxy):
    transport = HttpTransport(ssl.create_default_context(), Proxy("127.0.0.1", proxy, {}))
    return {
        f"{scheme} proxy": lambda scheme=scheme: Endpoint(Secret(f"{scheme}://{bracket(host)}/"), transport).post(
            b"{}", {}, DEADLINE
        )
        for scheme in ("http", "https")
    }


def with_apprise(url):
    receiver = Apprise("all", (Secret(url),))
    return {"Apprise": lambda: receiver.send(factories.make_notification(), 3 * DEADLINE)}


def result_of(call):
    try:
        call()
    except DeliveryError as error:
        return error.reason
    return "sent"


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (*METADATA, *NEIGHBOURS):
        mode = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", "lo", *mode], check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("hosts", f"{METADATA[0]} {NAME}\n"), ("nsswitch.conf", "hosts: files\n")):
            (Path(folder) / name).write_text(text)
            subprocess.run(["mount", "--bind", Path(folder) / name, f"/etc/{name}"], check=True)
        forbidden = [Listener(address, port) for address in METADATA for port in (PORT, MAIL_PORT)]
        allowed = [Listener(address, port) for address in NEIGHBOURS for port in (PORT, MAIL_PORT)]
        hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        proxy = Listener("127.0.0.1", 3_128)
        results = {
            f"{host} {name}": result_of(call)
            for host in (*METADATA, NAME)
            for name, call in {**attempts(host), **behind_proxy(host, 3_128)}.items()
        }
        through_apprise = [
            result_of(with_apprise(url)["Apprise"])
            for url in (f"json://{METADATA[2]}/", f"json://{NAME}/", f"json://127.0.0.1:{hook.server_port}/")
        ]
        ordinary = {f"{host} {name}": result_of(call) for host in NEIGHBOURS for name, call in attempts(host).items()}
    print(
        json.dumps(
            {
                "connections": sum(each.count for each in (*forbidden, proxy)),
                "results": results,
                "apprise": through_apprise,
                "ordinary": ordinary,
                "ordinary connections": sum(each.count for each in allowed),
            }
        )
    )


if __name__ == "__main__":
    main()
