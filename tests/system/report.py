"""Results of the system test: as a table on the terminal, and as a page of the documentation."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one step. `problem`: the reason of its failure, or ""."""

    name: str
    seconds: float
    detail: str
    problem: str = ""


PAGE = """\
# System test

This page shows the trials of the package on whole systems before a release, and their results. `make test-system` boots
Debian with systemd as process 1 in an emulated machine and takes the package through its life on a host. It wrote this
page on {date}.

```
make test-system                                # both releases
make test-system SYSTEM="--suite trixie"        # one
make test-system SYSTEM="--no-kernel-tests"     # without the tests of the kernel's half, which run on Debian 12
```

{summary}

- One command installs it, and the service guards; `apt purge` leaves files and accounts as they were before.
- The running daemon has no capability, in no thread, writes no core dump, and cannot change its settings, its rules
  or its program.
- A firing alert survives SIGKILL, SIGTERM, a hanging process, clock steps, a reboot and an upgrade, and nobody is
  notified again.
- The role for [Ansible](configuration-management.md) configures it; a second run changes nothing, a broken rule
  changes nothing, a rotated credential is used at once.
- An upgrade converts the state file of the former version: alerts, silences, acknowledgements and pending
  notifications stay. The way back is refused with the reason
  ([installation.md](installation.md#going-back-to-an-older-version)).

## Results

{table}

The emulated machine is ten to fifty times slower than a real one: the times are no measure of the speed on a host.

## Steps

| step | meaning |
|---|---|
{meanings}

## Run it

The releases run side by side, and three steps of the role then run on one of them each; with `--suite` all run on the
one. The test needs root, 2 GB of memory for each, and 6 GB in `/var/tmp/bpf-watchdog-system`, where the images of the
systems are kept: a second run needs no network. The former version is the newest commit with one schema step less, so
the test runs in a clone of the repository with its history. Code: `tests/system/`.
"""


def table(results: Mapping[str, Sequence[StepResult]]) -> list[str]:
    """Return the lines of a Markdown table: a row for each step, two columns for each release."""
    names = list(dict.fromkeys(result.name for of_suite in results.values() for result in of_suite))
    by_suite = {suite: {result.name: result for result in of_suite} for suite, of_suite in results.items()}
    lines = [f"| step | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_cell(by_suite[suite].get(name)) for suite in results)} |" for name in names]
    totals = (f"{sum(result.seconds for result in of_suite) / 60:.1f} min" for of_suite in results.values())
    return [*lines, f"| all | {' | '.join(totals)} |"]


def _cell(result: StepResult | None) -> str:
    if result is None:
        return "–"
    verdict = "FAILED" if result.problem else result.detail.replace("|", "\\|")
    return f"{result.seconds:.0f} s: {verdict}"


def save(results: Sequence[StepResult], path: Path) -> None:
    """Keep the results of a suite for a page about all of them."""
    path.write_text(json.dumps([asdict(result) for result in results], indent=2), encoding="utf-8")


def load(path: Path) -> list[StepResult]:
    """Return the results that `save` kept, none if it did not."""
    return [StepResult(**result) for result in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def document(path: Path, results: Mapping[str, Sequence[StepResult]], meanings: Mapping[str, str]) -> None:
    """Write the page. `meanings`: meaning of each step, by name."""
    done = {result.name for of_suite in results.values() for result in of_suite}
    rows = "\n".join(f"| {name} | {meaning} |" for name, meaning in meanings.items() if name in done)
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    counts = " and ".join(f"{len(of_suite)} steps on {name}" for name, of_suite in results.items())
    summary = f"All passed: {counts}."
    text = PAGE.format(date=date, summary=summary, table="\n".join(table(results)), meanings=rows)
    path.write_text(text, encoding="utf-8")
