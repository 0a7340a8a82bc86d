"""Groups in an overflow are named in the log, several in a line."""

from __future__ import annotations

import logging

from watchdog.daemon.left_out_log import log_dropped, log_left_out


def test_groups_are_named_several_in_a_line(caplog):
    groups = [(("process", f"p{number}"), ("unit", "")) for number in range(25)]
    log_left_out(logging.getLogger("watchdog"), [("storm", groups), ("other", [(("user", "a\nb"),)])])
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(": process=")[0] for line in lines[:2]] == [
        "fires in the overflow alert, without one of its own: rule=storm groups=20",
        "fires in the overflow alert, without one of its own: rule=storm groups=5",
    ]
    assert lines[1].endswith("process=p23 unit=-; process=p24 unit=-")
    assert lines[2].endswith("user=a\\x0ab")


def test_rules_whose_memory_is_full_are_logged_with_the_number_of_entries(caplog):
    log_dropped(logging.getLogger("watchdog"), {"new-peer": 1024, "daily": 128})
    assert caplog.messages == [
        "memory of a rule is full, entries dropped: rule=new-peer entries=1024",
        "memory of a rule is full, entries dropped: rule=daily entries=128",
    ]
