"""Throughput and rates with a subject, relative to no subject: pairs of runs without and with it, as ratios.

Run with `python tests/bench/bench_rates.py [PAIRS]`, as root. Each pair starts and stops the subject; every second pair
runs in reverse order. The generator's two ends are one thread on one CPU, so that scheduling adds no noise; iperf3 and
redis-benchmark are well known, and noisier.
"""

import contextlib
import csv
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import Row, note, print_table, ratio
from subjects import SUBJECTS, built, traffic

PAIRS = 7
MESSAGES, CONNECTIONS, REQUESTS = 100_000, 15_000, 40_000
TRANSFER_SECONDS = 1
TARGETS = {
    "messages of 64 bytes": "≥ 0.995",
    "connections": "≥ 0.98",
    "iperf3": "≥ 0.995",
    "redis-benchmark GET": "",
}


def main() -> None:
    """Print the table."""
    print_table(rows(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS))


def rows(pairs: int = PAIRS) -> Iterator[Row]:
    """Yield the rows."""
    figures: dict[str, dict[str, str]] = {kind: {} for kind in TARGETS}
    with built() as program, _servers() as ports:
        for name, subject in SUBJECTS.items():
            ratios: dict[str, list[float]] = {kind: [] for kind in TARGETS}
            for number in range(pairs):
                note(f"rates: {name}, pair {number + 1} of {pairs}")
                without = {} if number % 2 else _rates(program, *ports)
                with subject():
                    watched = _rates(program, *ports)
                without = without or _rates(program, *ports)
                for kind, values in ratios.items():
                    values.append(watched[kind] / without[kind])
            for kind, values in ratios.items():
                figures[kind][name] = ratio(values)
    for kind, target in TARGETS.items():
        yield Row(f"rate, relative to no program: {kind}", target, figures[kind])


def _rates(program: Path, iperf_port: int, redis_port: int) -> dict[str, float]:
    messages, connections = traffic(program, "messages", MESSAGES), traffic(program, "connections", CONNECTIONS)
    command = ["iperf3", "-c", "127.0.0.1", "-p", str(iperf_port), "-t", str(TRANSFER_SECONDS), "-J"]
    iperf = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    command = ["redis-benchmark", "-p", str(redis_port), "-t", "get", "-n", str(REQUESTS), "-P", "1", "--csv"]
    redis = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        "messages of 64 bytes": messages["count"] / messages["seconds"],
        "connections": connections["count"] / connections["seconds"],
        "iperf3": iperf["end"]["sum_received"]["bits_per_second"],
        "redis-benchmark GET": float(next(iter(csv.DictReader(io.StringIO(redis))))["rps"]),
    }


@contextlib.contextmanager
def _servers() -> Iterator[tuple[int, int]]:
    ports = _free_port(), _free_port()
    # Debian's redis-tools contains the server under this name; the package redis-server would start a service.
    redis = ["redis-server", "--port", str(ports[1]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    started = [
        subprocess.Popen(["iperf3", "-s", "-p", str(ports[0])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        subprocess.Popen(redis, executable="/usr/bin/redis-check-rdb", stdout=subprocess.DEVNULL, cwd="/"),
    ]
    try:
        for port in ports:
            _wait_for(port)
        yield ports
    finally:
        for process in started:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
