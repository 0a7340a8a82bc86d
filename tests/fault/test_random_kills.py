"""kill -9 at random times: nothing is lost, nothing is sent twice as new, and a start takes no long time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPEATED_KILLS = Path(__file__).with_name("repeated_kills.py")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_hundred_kills_at_random_times_cause_no_loss_no_disorder_and_no_second_end(tmp_path, seed):
    finished = subprocess.run(
        [sys.executable, str(REPEATED_KILLS), str(tmp_path), "200", str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.stderr, finished.returncode) == ("", 0)
    figures = json.loads(finished.stdout)
    assert figures["kills"] == 200
    assert min(figures["ready"], figures["arrived"]) > 100  # the daemons ran, and had notifications
    assert figures["repeated"] > figures["refused"]  # some were killed before the response
    assert {kind: figures[kind] for kind in ("missing", "copies", "disorder", "ends")} == {
        "missing": 0,
        "copies": 0,  # except the one per receiver that was in flight at a kill
        "disorder": 0,
        "ends": 0,
    }
    assert figures["start_seconds"]["p99"] < 2
