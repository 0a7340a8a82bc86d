"""kill -9 at each step of a notification: nothing is lost, nothing is sent twice as new."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SMALL_DAEMON = Path(__file__).with_name("small_daemon.py")
RULES = ("spike", "storm")
POINTS = [f"{when} {step}" for step in ("commit", "begin", "send", "end") for when in ("before", "after")]


def arguments(state, inbox, receivers, condition, point=""):
    return [sys.executable, str(SMALL_DAEMON), str(state), str(inbox.port), receivers, condition, point]


def run(*where_and_what):
    finished = subprocess.run(arguments(*where_and_what), capture_output=True, text=True, timeout=170, check=False)
    assert finished.stderr == ""
    return finished.returncode


def take(inbox):
    """Return the notifications since the last call, each once, in order of arrival; and the number of copies."""
    once = {}
    for document in inbox.documents:
        assert once.setdefault(document["id"], document) == document  # copies are equal
    copies = len(inbox.documents) - len(once)
    inbox.documents.clear()
    return list(once.values()), copies


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_keeps_the_id_and_sends_one_resolved_notification(tmp_path, inbox, point):
    for condition, reason, state in (("on", "first notification", "firing"), ("off", "resolved", "resolved")):
        assert run(tmp_path, inbox, "oncall", condition, point) == -signal.SIGKILL
        assert run(tmp_path, inbox, "oncall", condition) == 0
        assert run(tmp_path, inbox, "oncall", condition) == 0
        notifications, copies = take(inbox)
        assert sorted((n["group"], n["reason"], [state for _, state, _ in n["alerts"]]) for n in notifications) == [
            (rule, reason, [state, state]) for rule in RULES
        ]
        # Only a delivery that was not recorded is repeated.
        assert copies == (1 if point in {"after send", "before end"} else 0)
