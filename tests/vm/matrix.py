"""Run the kernel tests on stock Debian kernels, several guests at once, and print the results."""

import argparse
import os
import re
import shlex
import signal
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from guest import Guest, Outcome
from kernels import CACHE, KERNELS, Kernel, Unavailable

CHECKOUT = Path(__file__).parents[2]
PYTEST = (
    ".venv/bin/python -m pytest --verbose --color=no -p no:cacheprovider --junitxml=/run/share/results.xml"
    " --timeout=600"  # emulated, a test takes ten to fifty times as long
)
# The checkout is read-only in the guest. Bytecode is cached for the many short-lived processes of the tests.
ENVIRONMENT = (
    "PYTHONPYCACHEPREFIX=/tmp/bytecode HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis WATCHDOG_PATIENCE_SECONDS=300"
)
PROGRESS_SECONDS = 60
GUEST_BYTES = 4 << 30  # of the host's memory for each guest: twice what it has, for the host's own programs and cache


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one kernel. `trouble`: reason for missing figures, or ""."""

    series: str
    outcome: Outcome | None
    trouble: str
    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return bool(self.passed) and not self.failed and not self.trouble

    def line(self) -> tuple[str, ...]:
        """Return its row of the table."""
        release = self.outcome.release if self.outcome else ""
        times = (self.outcome.boot_seconds, self.outcome.seconds) if self.outcome else (0.0, 0.0)
        counts = (self.passed, len(self.failed), len(self.skipped))
        verdict = "ok" if self.good else "FAILED"
        return (self.series, release, *map(str, counts), *(f"{seconds:.0f} s" for seconds in times), verdict)


def main() -> int:
    """Return 0 when every requested kernel is good, else 1."""
    series = [kernel.series for kernel in KERNELS]
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"of {', '.join(series)} (default: all of them)")
    parser.add_argument("--pytest", default="", metavar="ARGUMENTS", help="more arguments for pytest, in one word")
    arguments = parser.parse_args()
    if unknown := set(arguments.series) - set(series):
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}: there are {', '.join(series)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the guest ends too
    wanted = [kernel for kernel in KERNELS if kernel.series in (arguments.series or series)]
    results = test_all(wanted, shlex.split(arguments.pytest))
    print_table(results)
    return 0 if all(result.good for result in results) else 1


def test_all(kernels: list[Kernel], pytest_arguments: list[str]) -> list[Result]:
    """Run the tests of the kernels, several at once; return the results in this order."""
    waiting, running, results = list(kernels), {}, {}
    print_at = time.monotonic() + PROGRESS_SECONDS
    try:
        while waiting or running:
            while waiting and len(running) < guests_at_once():
                start(waiting.pop(0), pytest_arguments, running, results)
            time.sleep(0.5)
            for kernel, guest in list(running.items()):
                if outcome := guest.poll():
                    del running[kernel]
                    results[kernel] = read_result(kernel, outcome)
                    print_problems(results[kernel])
            if running and time.monotonic() > print_at:
                print("at " + ", ".join(f"{progress(kernel)} on {kernel.series}" for kernel in running), flush=True)
                print_at += PROGRESS_SECONDS
    finally:
        for guest in running.values():
            guest.end()
    return [results[kernel] for kernel in kernels]


def guests_at_once() -> int:
    """Return the number of guests for which this host has memory, and a processor each: their tests rarely need two."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // GUEST_BYTES))


def share_of(kernel: Kernel) -> Path:
    """Return the folder with the logs and results of a kernel."""
    return CACHE / "results" / kernel.series


def start(
    kernel: Kernel, pytest_arguments: list[str], running: dict[Kernel, Guest], results: dict[Kernel, Result]
) -> None:
    """Start a kernel's tests in a guest, and add it to `running`; without the kernel, add its result."""
    print(f"== Linux {kernel.series}: {kernel.tests}", flush=True)
    tests = shlex.join([kernel.tests, *pytest_arguments])
    script = f"cd {shlex.quote(str(CHECKOUT))} && exec env {ENVIRONMENT} {PYTEST} {tests}\n"
    try:
        running[kernel] = Guest(kernel, script, share_of(kernel))
    except Unavailable as error:
        results[kernel] = Result(kernel.series, None, str(error))
        print_problems(results[kernel])


def progress(kernel: Kernel) -> str:
    """Return the share of a kernel's tests that are done, such as "54%"."""
    text = (share_of(kernel) / "console.log").read_text(encoding="utf-8", errors="replace")
    return (re.findall(r"\[ *(\d+%)\]", text) or ["0%"])[-1]


def read_result(kernel: Kernel, outcome: Outcome) -> Result:
    """Return the result of a guest that has ended."""
    share = share_of(kernel)
    if outcome.failure:
        return Result(kernel.series, outcome, outcome.failure)
    if not (share / "results.xml").exists():
        return Result(kernel.series, outcome, "pytest left no results\n" + (share / "console.log").read_text()[-4000:])
    return count_results(kernel.series, outcome, share / "results.xml")


def count_results(series: str, outcome: Outcome, path: Path) -> Result:
    """Count the outcomes of tests in a JUnit file."""
    passed, failed, skipped = 0, [], []
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        verdict = next((part for part in case if part.tag in {"failure", "error", "skipped"}), None)
        if verdict is None:
            passed += 1
        elif verdict.tag == "skipped":
            skipped.append(f"{name}: {verdict.get('message')}")
        else:
            failed.append(f"{name}\n{verdict.text}")
    return Result(series, outcome, "", passed, tuple(failed), tuple(skipped))


def print_problems(result: Result) -> None:
    """Print the end of a kernel's tests, failures and skipped tests, in one piece."""
    kernel = result.series
    lines = [f"== Linux {kernel}: {'ok' if result.good else f'FAILED; logs: {CACHE}/results/{kernel}/*.log'}"]
    if result.trouble:
        lines.append(f"trouble on {kernel}: {result.trouble}")
    for label, texts in (("failed", result.failed), ("skipped", result.skipped)):
        lines += [f"{label} on {kernel}: {text}" for text in texts]
    print("\n".join(lines), flush=True)


def print_table(results: list[Result]) -> None:
    """Print one line for each kernel."""
    head = ("kernel", "release", "passed", "failed", "skipped", "boot", "all", "")
    lines = [head, *(result.line() for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
