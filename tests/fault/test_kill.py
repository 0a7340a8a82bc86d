"""kill -9 at every step of a firing alert's life, and at random times: nothing is lost, nothing is new twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).with_name("guard.py")
KILLING = Path(__file__).with_name("killing.py")
RULES = ("spike", "storm")
POINTS = [f"{when} {step}" for step in ("commit", "begin", "send", "end") for when in ("before", "after")]


def arguments(state, inbox, receivers, condition, point=""):
    return [sys.executable, str(GUARD), str(state), str(inbox.port), receivers, condition, point]


def run(*where_and_what):
    finished = subprocess.run(arguments(*where_and_what), capture_output=True, text=True, timeout=30, check=False)
    assert finished.stderr == ""
    return finished.returncode


def take(inbox):
    """Return what arrived since the last time: each notice once, by first arrival; and how many were copies."""
    once = {}
    for document in inbox.documents:
        assert once.setdefault(document["id"], document) == document  # copies say the same
    copies = len(inbox.documents) - len(once)
    inbox.documents.clear()
    return list(once.values()), copies


@pytest.mark.parametrize("point", POINTS)
def test_alert_is_told_under_one_id_and_ended_once_when_killed(tmp_path, inbox, point):
    for condition, reason, state in (("on", "first notification", "firing"), ("off", "resolved", "resolved")):
        assert run(tmp_path, inbox, "oncall", condition, point) == -signal.SIGKILL
        assert run(tmp_path, inbox, "oncall", condition) == 0
        assert run(tmp_path, inbox, "oncall", condition) == 0
        notifications, copies = take(inbox)
        assert sorted((n["group"], n["reason"], [state for _, state, _ in n["alerts"]]) for n in notifications) == [
            (rule, reason, [state, state]) for rule in RULES
        ]
        # Only what had arrived without being marked comes again.
        assert copies == (1 if point in {"after send", "before end"} else 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_disordered_or_ended_twice_by_two_hundred_kills_at_random_times(tmp_path, seed):
    finished = subprocess.run(
        [sys.executable, str(KILLING), str(tmp_path), "200", str(seed)], capture_output=True, text=True, check=False
    )
    assert (finished.stderr, finished.returncode) == ("", 0)
    figures = json.loads(finished.stdout)
    assert figures["kills"] == 200
    assert min(figures["ready"], figures["arrived"]) > 100  # they did live, and had news
    assert figures["repeated"] > figures["refused"]  # some were killed with an answer outstanding
    assert {kind: figures[kind] for kind in ("missing", "copies", "disorder", "ends")} == {
        "missing": 0,
        "copies": 0,  # beyond the one notice per receiver that was under way when its guard was killed
        "disorder": 0,
        "ends": 0,
    }
    assert figures["start_seconds"]["p99"] < 2
