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

This page has the results of `make test-system`, which wrote it on {date}. The test boots Debian with systemd as process
1 in an emulated machine, installs the package, and tries its whole life on a host. Everything takes ten to fifty times
as long there as on real hardware: the times are no measure of its speed.

```
make test-system                                # both releases, under half an hour
make test-system SYSTEM="--suite trixie"        # one
make test-system SYSTEM="--kernel-tests"        # on Debian 12 also the tests of the kernel's half
```

{table}

| step | meaning |
|---|---|
{meanings}

Images are built once and kept in `/var/tmp/bpf-watchdog-system`; a second run needs no network. The test needs root,
6 GB there, and 2 GB of memory.
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
    rows = "\n".join(f"| {name} | {meaning} |" for name, meaning in meanings.items())
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    text = PAGE.format(date=date, table="\n".join(table(results)), meanings=rows)
    path.write_text(text, encoding="utf-8")
