"""Error of the counts of each subject, relative to the generator's own counts.

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
GRACE_SECONDS = 2.5  # enough for the last reading of a subject that reads every second


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
            for subject_name, (subject, stop, read) in subjects.items():
                note(f"error: {subject_name}, {kind}")
                with subject() as watching:
                    traffic(program, kind, count, SIZE)
                    time.sleep(GRACE_SECONDS)
                    counted = read(watching.finish(stop))
                errors[subject_name] = ", ".join(
                    f"{name} {_error(counted, name, true)}" for name, true in truth.items()
                )
            yield Row(f"error of counts after {MESSAGES if kind == 'messages' else CONNECTIONS:,} {kind}", "0", errors)


def _error(counted: Counter, name: str, true: int) -> str:
    if name not in counted:
        return "not counted"
    return "exact" if counted[name] == true else f"{(counted[name] - true) / true:+.2%}"


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
    # Each connection is in both tables: counted by the sends of its client.
    found = {f"bytes {way}": counts["bytes"] for way, counts in counted.items()}
    return Counter({**found, "connections": counted["sent"]["connections"]})


def _of_bpftrace(text: str) -> Counter:
    counted = Counter({"bytes sent": 0, "bytes received": 0})
    for way, number in re.findall(r"^@(sent|received)\[traffic, \d+\]: (\d+)$", text, re.MULTILINE):
        counted[f"bytes {way}"] += int(number)
    return counted


if __name__ == "__main__":
    main()
