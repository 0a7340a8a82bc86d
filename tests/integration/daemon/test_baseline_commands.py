"""The commands on baselines at a real daemon: shown, changed, logged with the user, and kept over kill -9."""

from __future__ import annotations

import json
import os


def answer(watchdog, *arguments):
    code, out, err = watchdog.ask("baseline", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_hold_is_shown_logged_and_kept_over_kill_9(watchdog, server, storm, wait_for):
    rule = {
        "summary": "{process} holds {value}",
        "metric": "open",
        "stat": "max",
        "window": "2s",
        "by": ["process"],
        "where": {"process": storm.name},
        "baseline": {"floor": 10},
    }
    watchdog.configure({"hook": server.as_receiver()}, {"unusual": rule})
    watchdog.start()
    storm.hold()
    wait_for(lambda: answer(watchdog, "show", "unusual")["groups"], "the group")
    group = f"process={storm.name}"

    assert answer(watchdog, "hold", "unusual", group)["groups"] == 1
    code, out, err = watchdog.ask("baseline", "show", "unusual", group)
    assert code == 0, err
    assert "unusual: learning: 0 h of 1 d, 1 known group\n" in out
    assert f"held   {group}\n" in out
    log = watchdog.log()
    assert f'control request: request="baseline hold" uid={os.getuid()}\n' in log
    assert f'baseline changed by hand: action=hold rule=unusual group="{group}" count=1\n' in log
    code, out, err = watchdog.ask("explain", "unusual")
    assert "baseline   learning: 0 h of 1 d\nwarning    not learnt yet\n" in out
    wait_for(lambda: watchdog.saved("SELECT rule FROM baselines") == ["unusual"], "the state file to have the hold")

    watchdog.kill()
    watchdog.start()
    assert [one["is_held"] for one in answer(watchdog, "show", "unusual", group)["groups"]] == [True]
    assert watchdog.ask("baseline", "accept", "unusual", "process=nobody")[0] == 1
    assert watchdog.ask("baseline", "accept", "unusul")[0] == 2
    assert answer(watchdog, "forget", "unusual")["groups"] == 1
    assert answer(watchdog, "show")["rules"][0]["held"] == 0
