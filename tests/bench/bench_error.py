"""How wrong each one's counts are, against what the generator knows it did.

Run with `python tests/bench/bench_error.py`, as root.
"""

import contextlib
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

from measuring import Row, note, print_table
from subjects import COMMAND, PATIENCE_SECONDS, Subject, bpftrace, built, obvious, started, traffic

MESSAGES, CONNECTIONS, SIZE = 1_000_000, 100_000, 64
GRACE_SECONDS = 2.5  # what a counter that looks each second may need for its last look


def main() -> None:
    """Print the table."""
    print_table(rows())


def rows() -> Iterator[Row]:
    """Yield the rows."""
    subjects: dict[str, tuple[Callable[[], contextlib.AbstractContextManager[Subject]], int, Callable[[str], Counter]]]
    subjects = {
        "bpf-watchdog": (_sample, signal.SIGINT, _of_sample),
        "with --messages": (lambda: _sample("--messages"), signal.SIGINT, _of_sample),
        "obvious program": (obvious, signal.SIGTERM, _of_obvious),
        "bpftrace": (bpftrace, signal.SIGINT, _of_bpftrace),
    }
    kinds = {
        "messages": (MESSAGES // 2, {"bytes sent": MESSAGES // 2 * SIZE, "bytes received": MESSAGES // 2 * SIZE}),
        "connections": (
            CONNECTIONS,
            {"connections": CONNECTIONS, "bytes sent": CONNECTIONS * SIZE, "bytes received": CONNECTIONS * SIZE},
        ),
    }
    with built() as program:
        for kind, (count, truth) in kinds.items():
            errors = {}
            for name, (subject, stop, read) in subjects.items():
                note(f"error: {name}, {kind}")
                with subject() as watching:
                    traffic(program, kind, count, SIZE)
                    time.sleep(GRACE_SECONDS)
                    counted = read(watching.finish(stop))
                errors[name] = ", ".join(f"{what} {_error(counted, what, true)}" for what, true in truth.items())
            yield Row(f"error of counts after {MESSAGES if kind == 'messages' else CONNECTIONS:,} {kind}", "0", errors)


def _error(counted: Counter, what: str, true: int) -> str:
    if what not in counted:
        return "not told"
    return "exact" if counted[what] == true else f"{(counted[what] - true) / true:+.2%}"


@contextlib.contextmanager
def _sample(*options: str) -> Iterator[Subject]:
    command = (COMMAND, "sample", "--for", f"{PATIENCE_SECONDS * 2}s", "--by", "process", "--json", *options)
    with started(*command, stderr=subprocess.STDOUT) as subject:
        subject.wait_for("watching every TCP connection")
        yield subject


def _of_sample(text: str) -> Counter:
    found = json.loads(text[text.index("[") : text.rindex("]") + 1])
    row = next(row for row in found if row["process"] == "traffic")
    counts = {"bytes sent": row["bytes_sent"], "bytes received": row["bytes_received"], "connections": row["connects"]}
    return Counter(counts)


def _of_obvious(text: str) -> Counter:
    counted = json.loads(text[text.index("{") :])
    # Each connection stands in each table: told by what its client sent.
    found = {f"bytes {way}": counts["bytes"] for way, counts in counted.items()}
    return Counter({**found, "connections": counted["sent"]["connections"]})


def _of_bpftrace(text: str) -> Counter:
    counted = Counter({"bytes sent": 0, "bytes received": 0})
    for way, number in re.findall(r"^@(sent|received)\[traffic, \d+\]: (\d+)$", text, re.MULTILINE):
        counted[f"bytes {way}"] += int(number)
    return counted


if __name__ == "__main__":
    main()
