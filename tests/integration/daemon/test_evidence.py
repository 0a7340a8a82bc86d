"""Evidence in a notification about a process that no longer exists."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

SECRET = "hunter2-hunter2"


def test_evidence_has_process_command_parents_peer_and_history_of_a_process_that_has_ended(
    watchdog, server, start_storm, wait_for
):
    storm = start_storm(f"storm-{os.getpid()}", f"--token={SECRET}")
    pid, own_name = storm.process.pid, Path("/proc/self/comm").read_text().strip()
    watchdog.configure(
        {"hook": server.as_receiver(), "terminal": {"type": "console"}},
        {"storm": storm.rule(window="2s", receivers=["hook", "terminal"])},
    )
    watchdog.start()
    server.answering.clear()
    storm.rage()
    wait_for(lambda: server.posts, "the storm to be told")
    storm.process.kill()
    storm.process.wait()
    server.answering.set()
    [notification, *_] = server.notifications().values()
    [alert] = notification["alerts"]
    document = alert["annotations"]

    assert not Path(f"/proc/{pid}").exists()
    who = rf"{storm.name}, pid {pid}, user root,.* started \S+ \S+ UTC, .* before"
    assert re.fullmatch(who, document["process"])
    assert document["program"].startswith(f"{Path(sys.executable).resolve()} (device ")
    assert document["command"] == f"{sys.executable} {storm.script} {storm.name} --token=***"
    assert document["parents"].startswith(f"{own_name} ({os.getpid()}), ")
    assert re.match(r"within [0-9.]+ (ms|s): to 127\.0\.0\.1:\d+: \d+ connects", document["peers"])
    assert re.fullmatch(r"[▁▂▃▄▅▆▇█]{2,20} [0-9.]+/s to [0-9.]+/s in [0-9.]+ (ms|s)", document["history"])
    for line in ("process", "command", "parents", "peers", "history"):
        wait_for(lambda line=line: f"\n    {line}: " in watchdog.output(), f"{line} on the terminal")
    saved = "".join(
        map(str, watchdog.saved("SELECT document FROM alerts") + watchdog.saved("SELECT body FROM notifications"))
    )
    assert SECRET not in saved + watchdog.output() + watchdog.log()
