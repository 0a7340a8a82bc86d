"""Posts to a name whose address changes with each query, through the resolver of the C library; see test_rebinding.py.

Runs as root in new network and mount namespaces. Prints one JSON object: `results` of the attempts to post, the number
of requests `accepted` by the server at 127.0.0.1, the number of `metadata_connections` to the metadata addresses, and
the number of `queries` by type of address.
"""

from __future__ import annotations

import http.server
import ipaddress
import json
import socket
import socketserver
import subprocess
import tempfile
import threading
from pathlib import Path

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.transport.http import Endpoint

NAME = "alerts.example"
METADATA = ("169.254.169.254", "fd00:ec2::254")
A, AAAA = 1, 28
ANSWERS = (
    {A: ["127.0.0.1"]},
    {A: ["169.254.169.254"], AAAA: ["fd00:ec2::254"]},
    {AAAA: ["::ffff:169.254.169.254"]},
    {A: ["169.254.169.254", "127.0.0.1"]},
)
ROUNDS = 5


class NameServer(socketserver.BaseRequestHandler):
    """Answers the nth query for each type of address with the nth element of ANSWERS, in a cycle."""

    queries = {A: 0, AAAA: 0}  # noqa: RUF012 - there is one name server

    def handle(self):
        query, endpoint = self.request
        end = query.index(b"\0", 12) + 5
        record_type = int.from_bytes(query[end - 4 : end - 2], "big")
        addresses = []
        if record_type in self.queries:
            addresses = ANSWERS[self.queries[record_type] % len(ANSWERS)].get(record_type, [])
            self.queries[record_type] += 1
        packed = [ipaddress.ip_address(address).packed for address in addresses]
        records = b"".join(
            b"\xc0\x0c" + record_type.to_bytes(2, "big") + b"\0\x01\0\0\0\0" + len(one).to_bytes(2, "big") + one
            for one in packed
        )
        counts = b"\0\x01" + len(packed).to_bytes(2, "big") + b"\0\0\0\0"
        endpoint.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + records, self.client_address)


class Hook(http.server.BaseHTTPRequestHandler):
    hosts: list[str] = []  # noqa: RUF012 - there is one server

    def do_POST(self):
        self.hosts.append(self.headers["Host"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


def count_connections(address, port, connections):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)

    def accept():
        while True:
            connections.append(listener.accept())

    threading.Thread(target=accept, daemon=True).start()


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in METADATA:
        mode = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", "lo", *mode], check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: dns\n")):
            (Path(folder) / name).write_text(text)
            subprocess.run(["mount", "--bind", Path(folder) / name, f"/etc/{name}"], check=True)
        serve(socketserver.UDPServer(("127.0.0.1", 53), NameServer))
        hook = http.server.HTTPServer(("127.0.0.1", 0), Hook)
        serve(hook)
        metadata_connections = []
        for address in METADATA:
            count_connections(address, hook.server_port, metadata_connections)
        endpoint = Endpoint(Secret(f"http://{NAME}:{hook.server_port}/in"))
        results = [attempt(endpoint) for _ in range(ROUNDS * len(ANSWERS))]
    counts = {"accepted": len(Hook.hosts), "metadata_connections": len(metadata_connections)}
    print(json.dumps({"results": results, **counts, "queries": list(NameServer.queries.values())}))


def attempt(endpoint):
    try:
        return endpoint.post(b"{}", {}, 5.0).status
    except DeliveryError as error:
        return error.reason


if __name__ == "__main__":
    main()
