"""The Nth write and the Nth sync fail, for many N: the failed step is repeated, and nothing is missing at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

COMMIT_CYCLES = Path(__file__).with_name("commit_cycles.py")
TICKS = 20  # of commit_cycles.py, which makes some 1,000 writes and 80 syncs
FAILING = [(number, number) for number in range(1, 51)] + [(number, None) for number in range(75, 1_000, 25)]


def run(folder, write, sync):
    """Run the commit cycles; one write and one sync fail with EIO. Return the output and the number of failed calls."""
    trace = folder / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=pwrite64,fsync,fdatasync"]
    for call, number in (("pwrite64", write), ("fdatasync", sync)):
        if number is not None:
            command += ["-e", f"inject={call}:error=EIO:when={number}"]
    finished = subprocess.run(
        [*command, sys.executable, str(COMMIT_CYCLES), str(folder / "state")], capture_output=True, text=True,
        timeout=170, check=False,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    return json.loads(finished.stdout), trace.read_text(encoding="ascii").count("(INJECTED)")


@pytest.mark.timeout(300)
def test_nothing_is_missing_at_the_end_for_any_failed_write_or_sync(tmp_path):
    folders = [tmp_path / str(number) for number in range(len(FAILING))]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, folders, *zip(*FAILING, strict=True)))

    failed = 0
    for (found, injected), (_, sync) in zip(results, FAILING, strict=True):
        assert injected == (1 if sync is None else 2)
        assert found["alerts"] == [{"n": TICKS - 2}, {"n": TICKS - 1}]
        assert sorted(group["n"] for group in found["groups"]) == [TICKS - 3, TICKS - 2, TICKS - 1]
        assert found["delivered"] == [f"n{tick}" for tick in range(TICKS)]
        assert found["quarantined"] == 0
        failed += found["failed"]
    assert failed >= len(FAILING)
    print(f"{failed} operations failed in {len(FAILING)} runs")
