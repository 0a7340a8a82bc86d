"""Run the kernel tests on stock Debian kernels, one guest after another, and print the results."""

import argparse
import shlex
import signal
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from guest import Outcome, run_in_guest
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
    results = []
    for kernel in KERNELS:
        if kernel.series in (arguments.series or series):
            print(f"== Linux {kernel.series}: {kernel.tests}", flush=True)
            results.append(test(kernel, shlex.split(arguments.pytest)))
            print_problems(results[-1])
    print_table(results)
    return 0 if all(result.good for result in results) else 1


def test(kernel: Kernel, pytest_arguments: list[str]) -> Result:
    """Run a kernel's tests in a guest."""
    share = CACHE / "results" / kernel.series
    tests = shlex.join([kernel.tests, *pytest_arguments])
    script = f"cd {shlex.quote(str(CHECKOUT))} && exec env {ENVIRONMENT} {PYTEST} {tests}\n"
    try:
        outcome = run_in_guest(kernel, script, share)
    except Unavailable as error:
        return Result(kernel.series, None, str(error))
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
    """Print failures and skipped tests."""
    if result.trouble:
        print(f"trouble on {result.series}: {result.trouble}", flush=True)
    for label, texts in (("failed", result.failed), ("skipped", result.skipped)):
        for text in texts:
            print(f"{label} on {result.series}: {text}", flush=True)


def print_table(results: list[Result]) -> None:
    """Print one line for each kernel."""
    head = ("kernel", "release", "passed", "failed", "skipped", "boot", "all", "")
    lines = [head, *(result.line() for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
