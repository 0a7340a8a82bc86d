"""Many reloads of the running daemon: of files that are broken, and of files that are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RELOADS, WARM_UP = 500, 50
MOST_GROWTH_KIB = 5 * 1024

# By key: the broken line that replaces the right one, and the key that the error must name.
BROKEN_SETTINGS = [
    *(("interval", f"interval = {value}", "sampling.interval") for value in (
        '"1"', '"fast"', "5", "true", '"1ms"', '"2h"', "[]", '"-1s"', '""',
    )),
    *(("group_interval", f"group_interval = {value}", "routing.group_interval") for value in ('"x"', "1", '"2d"')),
    ("group_interval", 'group_wiat = "1s"', "routing.group_wiat"),
    *(("name", f"name = {value}", "receiver.name") for value in ('"Hook"', "5", '""', '"a b"')),
    *(("type", f"type = {value}", "receiver.type") for value in ('"webhok"', "7", '""')),
    *(("url", f"url = {value}", "receiver.url") for value in ('"ftp://127.0.0.1/"', '"http://"', "5", '""')),
    *(("url", f"url_{form}", f"receiver.url_{form.split()[0]}") for form in (
        'env = "NOT_SET_ANYWHERE"', 'file = "/nonexistent"', 'file = "relative"',
    )),
    *(("interval", line, "file") for line in ("interval =", '= "1s"', 'interval = "1s', "interval = 1s", "[sampling")),
]  # fmt: skip
BROKEN_RULES = [
    *(("id", f"id = {value}", "rule.id") for value in ('"Storm"', '""', "5", '"missed"')),
    *(("summary", f"summary = {value}", "rule.summary") for value in ('"{nothing}"', '"{"', "5")),
    *(("metric", f"metric = {value}", "rule.metric") for value in ('"opn"', "1")),
    *(("stat", f"stat = {value}", "rule.stat") for value in ('"avg"', "3")),
    *(("window", f"window = {value}", "rule.window") for value in ('"soon"', "1", '"1ms"')),
    *(("by", f"by = {value}", "rule.by") for value in ('"process"', '["proces"]', "[1]")),
    *(("where", f"where = {value}", "rule.where") for value in ("5", '{ proces = "x" }')),
    *(("fire_above", f"fire_above = {value}", "rule.fire_above") for value in ('"many"', "true", "[]")),
    ("fire_above", "fire_abov = 5", "rule.fire_abov"),
    ("clear_below", 'receivers = ["nobody"]', "rule.receivers"),
    *(("window", line, "file") for line in ("window =", '= "1s"', 'window = "1s', "window = 1s")),
]  # fmt: skip
MISSED = {
    "summary": "{value} ticks missed", "metric": "missed_ticks", "stat": "sum", "window": "60s", "fire_above": 0,
}  # fmt: skip


def test_sixty_broken_files_change_nothing_and_each_error_has_file_line_and_key(watchdog, server, storm, notified):
    rules = {"missed": MISSED, "storm": storm.crowd_rule(window="4s")}
    watchdog.configure({"hook": server.as_receiver()}, rules, interval="2s")
    watchdog.start()
    settings_and_rules = [(watchdog.config, BROKEN_SETTINGS), (watchdog.rules / "test.toml", BROKEN_RULES)]
    for file, variants in settings_and_rules:
        right = file.read_text()
        lines = right.splitlines()
        for key, line, blamed in variants:
            number = max(index for index, one in enumerate(lines) if one.startswith(f"{key} = "))
            file.write_text("\n".join([*lines[:number], line, *lines[number + 1 :]]))
            refusal = watchdog.reload()
            assert "reload refused, the former configuration stays in force:\n" in refusal
            assert re.search(rf"^  {re.escape(str(file))}:{number + 1}: {blamed}\b.*: .", refusal, re.MULTILINE), (
                line,
                refusal,
            )
            assert "Traceback" not in refusal
        file.write_text(right)
    assert len(BROKEN_SETTINGS) + len(BROKEN_RULES) == 60
    storm.hold()
    documents = notified("firing", "firing")  # and no tick was missed
    assert {document["groupLabels"]["alertname"] for document in documents} == {"watchdog-reload-refused", "storm"}


def held(process):
    """Return descriptors, threads and resident memory of a process."""
    status = (Path("/proc") / str(process.pid) / "status").read_text()
    fds = sum(1 for _ in (Path("/proc") / str(process.pid) / "fd").iterdir())
    return fds, *(int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("Threads", "VmRSS"))


@pytest.mark.timeout(300)
def test_five_hundred_reloads_under_load_leak_nothing_and_forget_no_alert(
    watchdog, server, other_server, storm, start_storm, notified, wait_for
):
    hook, rules = {"hook": server.as_receiver()}, {"storm": storm.crowd_rule()}
    more = {f"other-{number}": storm.rule(fire_above=10_000 + number) for number in range(20)}
    variants = [
        (hook, rules),
        ({**hook, "other": other_server.as_receiver()}, {"storm": storm.crowd_rule(receivers=["hook"]), **more}),
        (hook, {"storm": storm.crowd_rule(summary="{process} holds too many", window="2s")}),
    ]
    watchdog.configure(*variants[0])
    watchdog.start()
    raging = start_storm("raging")
    raging.rage(200)
    storm.hold()
    [first] = notified("firing")

    def reload(count):
        for number in range(count):
            watchdog.configure(*variants[number % len(variants)])
            assert "reloaded: " in watchdog.reload()
        watchdog.configure(*variants[0])
        assert "reloaded: " in watchdog.reload()

    reload(WARM_UP)
    fds, threads, kib = held(watchdog.process)
    reload(RELOADS)
    # A receiver of the last warm-up can have been ending when they were counted: fewer are right too.
    wait_for(
        lambda: all(now <= then for now, then in zip(held(watchdog.process), (fds, threads), strict=False)),
        f"at most {fds} descriptors and {threads} threads",
    )
    growth = held(watchdog.process)[2] - kib
    print(f"resident memory: {kib} KiB, {growth:+} after {RELOADS} reloads")
    assert growth < MOST_GROWTH_KIB
    assert len(server.posts) == 1
    storm.release()
    _, last = notified("firing", "resolved")
    assert first["alerts"][0]["startsAt"] == last["alerts"][0]["startsAt"]
    assert other_server.posts == []
