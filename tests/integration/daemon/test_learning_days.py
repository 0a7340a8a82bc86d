"""A daemon learns from real connections for a week of fast hours, then sees a storm and a deploy."""

from __future__ import annotations

import json
import random
import sys
import time
from datetime import datetime
from pathlib import Path

import fast_hours
import pytest

USUAL, STORM = 20, 60  # connections held
PATIENCE = 300.0
TICKS_A_DAY = 86_400 / fast_hours.STEP


@pytest.fixture
def fast(watchdog, open_folder, monkeypatch):
    """Return the daemon with fast hours."""
    monkeypatch.setenv("TZ", "UTC")
    ticks = open_folder / "ticks"
    ticks.write_text("0")
    ticks.chmod(0o666)  # the daemon is not root any more when it opens it
    monkeypatch.setenv("FAST_HOURS_FILE", str(ticks))
    watchdog.before, watchdog.command = [Path(fast_hours.__file__)], Path(sys.executable)
    return watchdog


@pytest.mark.timeout(400)
def test_a_week_is_quiet_a_storm_is_reported_after_kill_9_and_a_deploy_is_adopted(
    fast, server, storm, open_folder, wait_for
):
    levels = random.Random(7)

    def ticks():
        return int((open_folder / "ticks").read_text())

    def notified():
        documents = server.notifications().values()
        return [one for one in documents if one["alerts"][0]["labels"]["alertname"] == "unusual"]

    def statuses():
        return [one["status"] for one in notified()]

    def explained():
        code, out, err = fast.ask("-m", "watchdog.cli.main", "explain", "unusual", f"process={storm.name}", "--json")
        assert code == 0, err
        return json.loads(out)

    def live(days):
        end, patience = ticks() + days * TICKS_A_DAY, time.monotonic() + PATIENCE
        while ticks() < end:
            assert time.monotonic() < patience, fast.log()
            storm.release()
            storm.hold(levels.randint(USUAL // 2, USUAL))
            time.sleep(0.2)

    rule = {
        "summary": "{process} holds {value}, usually {highest}",
        "metric": "open",
        "stat": "last",
        "window": "1s",
        "by": ["process"],
        "where": {"process": storm.name, "direction": "out"},
        "keep_firing_for": "1s",
        "baseline": {"floor": 5, "rarity": {"warning": "30d"}},  # one severity: its changes are no part of this
    }
    fast.configure({"hook": server.as_receiver()}, {"unusual": rule}, interval="25ms")
    fast.start()
    live(7)
    before = explained()
    assert notified() == []
    assert before["baseline"]["learnt_hours"] > 6.5 * 24
    assert USUAL < before["thresholds"][0]["fire"] < STORM

    fast.kill()
    fast.start()
    live(0.1)
    after = explained()
    assert after["baseline"]["learnt_hours"] >= before["baseline"]["learnt_hours"]
    assert after["thresholds"][0]["fire"] == pytest.approx(before["thresholds"][0]["fire"], rel=0.2)

    storm.release()
    assert notified() == []
    storm.hold(STORM)
    held_at = ticks()
    wait_for(lambda: statuses() == ["firing"], "the storm")
    [notification] = notified()
    [alert] = notification["alerts"]
    assert alert["labels"]["process"] == storm.name
    fired_at = (datetime.fromisoformat(alert["startsAt"]).timestamp() - fast_hours.START) / fast_hours.STEP
    assert fired_at <= held_at + 2

    # It stays at this level, as after a deploy.
    wait_for(lambda: len(statuses()) > 1, "the new normal")
    assert statuses() == ["firing", "resolved"], [
        (one["status"], one["notification_reason"], one["alerts"][0]["labels"]["severity"]) for one in notified()
    ]
    assert "new normal" in json.dumps(notified()[-1])
    assert ticks() - held_at < 27 / 24 * TICKS_A_DAY
    live_on = ticks() + TICKS_A_DAY / 4
    wait_for(lambda: ticks() > live_on, "the next hours")
    assert statuses() == ["firing", "resolved"]
