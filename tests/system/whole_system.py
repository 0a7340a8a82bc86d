"""Boot Debian with systemd in an emulated machine, and try the whole life of the package in it. As root.

usage: whole_system.py PACKAGE.deb [--suite bookworm|trixie]… [--no-kernel-tests] [--document FILE]
"""

import argparse
import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from former import NoFormerVersion, former_package
from guarding import install
from host import SHARE, Host, StepFailure
from images import CACHE, GUEST, dependencies, image
from kernel_tests import CHECKOUT, kernel_tests
from machine import GuestError, Machine, booted
from report import StepResult, document, load, save, table
from steps import STEPS, Step, steps_of

SUITES = {"bookworm": "Debian 12", "trixie": "Debian 13"}


def main() -> int:
    """Return 0 when every step succeeds on every suite, 2 without the git history, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("package", type=Path, help="the .deb")
    parser.add_argument("--suite", action="append", choices=SUITES, help="default: all of them")
    parser.add_argument(
        "--kernel-tests", action=argparse.BooleanOptionalAction, default=True, help="run kernel tests on Debian 12"
    )
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the newest results to this page")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in the processes of the suites too: the guests end
    suites = arguments.suite or list(SUITES)
    with tempfile.TemporaryDirectory() as scratch:
        former = Path(scratch) / "former.deb"
        try:
            former_package(CHECKOUT, arguments.package, former)
        except NoFormerVersion as error:
            print(error, file=sys.stderr)
            return 2
        run_side_by_side(suites, arguments.package, former, with_kernel_tests=arguments.kernel_tests)
    results = {suite: load(CACHE / f"{suite}.json") for suite in suites}
    print("\n".join(table({SUITES[suite]: of_suite for suite, of_suite in results.items()})))
    if not all(passed(of_suite) for of_suite in results.values()):
        return 1
    if arguments.document:
        saved = {name: load(CACHE / f"{suite}.json") for suite, name in SUITES.items()}
        meanings = {step_name(step): first_line(step) for step in (*STEPS, kernel_tests)}
        document(arguments.document, {name: of_suite for name, of_suite in saved.items() if passed(of_suite)}, meanings)
    return 0


def run_side_by_side(suites: list[str], package: Path, former: Path, *, with_kernel_tests: bool) -> None:
    """Run each suite in a process of its own: an emulated machine keeps hardly more than one CPU busy."""
    processes = []
    for suite in suites:
        (CACHE / f"{suite}.json").unlink(missing_ok=True)
        tests_kernel = with_kernel_tests and suite == "bookworm"
        steps = [*steps_of(suite, suites), *([kernel_tests] if tests_kernel else [])]
        processes.append(multiprocessing.Process(target=run_suite, args=(suite, package, former, steps)))
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def run_suite(suite: str, package: Path, former: Path, steps: list[Step]) -> None:
    """Run the steps in one guest, as long as it answers and the package could be installed; save the results."""
    booting = image(suite, dependencies(package), with_kernel_tests=kernel_tests in steps)
    with tempfile.TemporaryDirectory(prefix=".run-", dir=CACHE) as scratch:
        folder, share = Path(scratch), Path(scratch) / "share"
        shutil.copytree(GUEST, share)
        shutil.copytree(CHECKOUT / "packaging/ansible", share / "ansible")
        shutil.copy(package, share / "present.deb")
        shutil.copy(former, share / "former.deb")
        with booted(booting, {"share": share, "checkout": CHECKOUT}, folder) as machine:
            host = Host(machine, f"{SHARE}/former.deb", f"{SHARE}/present.deb")
            results = [StepResult("boot", machine.boot_seconds, machine.output("uname -r"))]
            print_result(suite, results[-1])
            for step in steps:
                results.append(run_step(step, host))
                print_result(suite, results[-1])
                if results[-1].problem:
                    print_journal(machine)
                    if step is install or not machine.answers():
                        break
    save(results, CACHE / f"{suite}.json")


def passed(results: list[StepResult]) -> bool:
    """Return whether a suite was run and no step of it failed."""
    return bool(results) and not any(result.problem for result in results)


def run_step(step: Step, host: Host) -> StepResult:
    """Run one step."""
    began = time.monotonic()
    try:
        detail, problem = step(host), ""
    except (StepFailure, GuestError) as error:
        detail, problem = "", str(error)
    return StepResult(step_name(step), time.monotonic() - began, detail, problem)


def step_name(step: Step) -> str:
    """Return the name of a step for people."""
    return step.__name__.replace("_", " ")


def first_line(step: Step) -> str:
    """Return the first line of the documentation of a step."""
    return (step.__doc__ or "").splitlines()[0]


def print_result(suite: str, result: StepResult) -> None:
    """Print one line, and the reason of a failure below it."""
    verdict = "FAILED" if result.problem else "ok"
    print(f"{SUITES[suite]}  {result.name:<14} {verdict:<7} {result.seconds:5.0f} s  {result.detail}", flush=True)
    if result.problem:
        print(result.problem, flush=True)


def print_journal(machine: Machine) -> None:
    """Print the end of the daemon's journal."""
    try:
        print(machine.run("journalctl -q --no-pager -n 60 -u bpf-watchdog; systemctl --failed --no-pager").output)
    except GuestError as error:
        print(error)


if __name__ == "__main__":
    sys.exit(main())
