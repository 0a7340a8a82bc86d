"""Attack the web server of a daemon, and compare its ticks and memory with those before. Root.

Arguments: malformed requests (default 100000), slow clients (default 1000), seed of the requests (default 1). Exit code
1 when p99 of the ticks' delay reaches 100 ms more than at rest, memory grows by more than 10 MB, or anything is served
that should not be. Memory is compared with that after the same requests to another server, which the daemon watches
too. Traffic of other programs adds to delay and memory.
"""

import contextlib
import os
import pwd
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peers"))

from web_flood import (  # noqa: E402
    TickTimes,
    ask,
    p99,
    resident_bytes,
    send_body,
    send_foreign_hosts,
    send_malformed,
    send_slowly,
)

COMMAND = Path(sys.executable).with_name("bpf-watchdog")
INTERVAL_SECONDS = 1.0
REST_SECONDS = 20
MAX_DELAY_SECONDS = 0.1
MAX_GROWTH_BYTES = 10_000_000
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def main():
    """Run the attacks; return the exit code."""
    given = [int(word) for word in sys.argv[1:]]
    requests, clients, seed = [*given, *[100_000, 1_000, 1][len(given) :]]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        times = TickTimes(Path(folder) / "notify")
        daemon = start(Path(folder), port, times.environment)
        try:
            return attack(daemon, port, times, requests, clients, seed)
        finally:
            daemon.terminate()
            daemon.wait(60)
            times.close()


def start(folder, port, environment):
    """Start the daemon, and return once it serves."""
    folder.chmod(0o755)
    config = folder / "watchdog.toml"
    config.write_text(
        f'[sampling]\ninterval = "{INTERVAL_SECONDS * 1000:g}ms"\n[web]\nlisten = "127.0.0.1:{port}"\n'
        '[[receiver]]\nname = "out"\ntype = "console"\n'
    )
    os.chown(config, 0, pwd.getpwnam("bpf-watchdog").pw_gid)
    config.chmod(0o640)
    command = [COMMAND, "run", "--config", config, "--state-dir", folder / "state"]
    daemon = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not ask(port, GET):
        if daemon.poll() is not None:
            raise SystemExit("the daemon has not started")
        time.sleep(0.5)
    return daemon


@contextlib.contextmanager
def another_server():
    """Serve on a port of its own: each connection is read once, answered and closed. Yield the port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OneAnswer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class OneAnswer(socketserver.BaseRequestHandler):
    """Reads a request and refuses it."""

    def handle(self):
        with contextlib.suppress(OSError):
            self.request.settimeout(5)
            self.request.recv(65_536)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def attack(daemon, port, times, requests, clients, seed):
    """Run each attack, print its figures, return the exit code."""
    for _ in range(3):  # the first pages take their memory
        for path in (b"/", b"/metrics"):
            ask(port, GET.replace(b"/", path, 1))
        time.sleep(4)
    with another_server() as other:  # the memory that watching so many connections takes is not the web server's
        send_malformed(other, requests, seed=seed)
    time.sleep(REST_SECONDS)
    times.take_delays(INTERVAL_SECONDS)
    time.sleep(REST_SECONDS)
    rest, memory = p99(times.take_delays(INTERVAL_SECONDS)), resident_bytes(daemon.pid)
    print(f"at rest: p99 of the ticks' delay {rest * 1000:.1f} ms, {memory / 1e6:.1f} MB")
    attacks = {
        f"{requests:,} malformed requests": lambda: send_malformed(port, requests, seed=seed),
        f"{clients:,} slow clients": lambda: send_slowly(port, clients, 20.0),
        "400 foreign hosts": lambda: send_foreign_hosts(port, 400),
        "a body of 1 GB": lambda: send_body(port),
    }
    print("| attack | seconds | ticks | p99 delay | longest | growth | result |\n|---|---|---|---|---|---|---|")
    is_good = True
    for name, run in attacks.items():
        began = time.monotonic()
        result = run()
        seconds = time.monotonic() - began
        if seconds < REST_SECONDS:
            time.sleep(REST_SECONDS - seconds)
        delays, grown = times.take_delays(INTERVAL_SECONDS), resident_bytes(daemon.pid) - memory
        leaks = getattr(result, "leaks", [])
        shown = dict(result.counts) if hasattr(result, "counts") else f"{result:,}"
        print(
            f"| {name} | {seconds:.0f} | {len(delays)} | {p99(delays) * 1000:.1f} ms | {max(delays) * 1000:.1f} ms"
            f" | {grown / 1e6:.1f} MB | {shown} |"
        )
        for leak in leaks[:5]:
            print(f"  served: {leak!r}")
        is_good &= p99(delays) < rest + MAX_DELAY_SECONDS and grown < MAX_GROWTH_BYTES and not leaks
        is_good &= ask(port, GET).startswith(b"HTTP/1.1 200 ")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
