"""Log lines on baselines."""

from __future__ import annotations

from watchdog.daemon.baseline_log import baseline_lines
from watchdog.rules.engine.baselines import BaselineEvent, BaselineNote, Baselines
from watchdog.rules.language.load import load_rules, shipped_rules_folder


def test_a_fresh_start_with_the_shipped_rules_logs_one_line():
    baselines = Baselines(load_rules([shipped_rules_folder()], receivers=()).rules)
    notes = baselines.take_notes()
    assert len(notes) > 1
    names = ",".join(note.rule for note in notes)
    assert baseline_lines(notes) == [
        f"baseline: learning, silent until it has learnt: rules={names} learnt_hours=0",
    ]


def test_different_events_and_counts_have_lines_of_their_own_and_many_names_are_cut():
    notes = [BaselineNote(BaselineEvent.DROPPED, "a", 3), BaselineNote(BaselineEvent.DROPPED, "b", 4)]
    notes += [BaselineNote(BaselineEvent.STARTED_ANEW, f"r{number}") for number in range(12)]
    assert baseline_lines(notes) == [
        "baseline: groups dropped: rules=a groups=3",
        "baseline: groups dropped: rules=b groups=4",
        "baseline: definition changed, learning starts anew: rules=r0,r1,r2,r3,r4,r5,r6,r7,r8,r9 and 2 more",
    ]
