"""kill -9 at every step of a firing alert's life, and at random times: nothing is lost, nothing is new twice."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

GUARD = Path(__file__).with_name("guard.py")
RULES = ("spike", "storm")
POINTS = [f"{when} {step}" for step in ("commit", "begin", "send", "end") for when in ("before", "after")]
RANDOM_KILLS = 20


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
        notices, copies = take(inbox)
        assert sorted((n["group"], n["reason"], [state for _, state, _ in n["alerts"]]) for n in notices) == [
            (rule, reason, [state, state]) for rule in RULES
        ]
        # Only what had arrived without being marked comes again.
        assert copies == (1 if point in {"after send", "before end"} else 0)


@pytest.mark.timeout(120)
def test_nothing_is_lost_or_ended_twice_when_killed_at_random_times(tmp_path, inbox):
    for _ in range(RANDOM_KILLS):
        process = subprocess.Popen(
            arguments(tmp_path, inbox, "oncall,log", "flapping"), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        process.stdout.close()
    assert run(tmp_path, inbox, "oncall,log", "off") == 0

    notices, copies = take(inbox)
    states = written(tmp_path)
    assert set(states.values()) <= {"done", "merged"}
    assert {notice["id"] for notice in notices} == {id_ for id_, state in states.items() if state == "done"}
    assert copies <= 2 * RANDOM_KILLS  # one under way per receiver and kill
    assert len(notices) > RANDOM_KILLS

    notices.sort(key=group_of)  # stable
    for _, of_group in groupby(notices, key=group_of):
        check_order_and_ends(list(of_group))


def group_of(document):
    return (document["receiver"], document["group"])


def check_order_and_ends(notices):
    assert [notice["created"] for notice in notices] == sorted(notice["created"] for notice in notices)
    last = {}
    ends = Counter()  # of one firing each
    for notice in notices:
        for alert, state, fired in notice["alerts"]:
            last[alert] = state
            ends[alert, fired] += state == "resolved"
    assert set(last.values()) == {"resolved"}
    assert max(ends.values()) == 1


def written(state):
    connection = sqlite3.connect(state / "state.sqlite3")
    try:
        return dict(connection.execute("SELECT id, state FROM notices"))
    finally:
        connection.close()
