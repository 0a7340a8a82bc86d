"""Evidence as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from watchdog.alerts.evidence import NOT_TAKEN, Evidence
from watchdog.measure.program_file import ProgramFile
from watchdog.receivers.render import evidence_text
from watchdog.rules.engine.contributor_values import LeftOutGroup, LeftOutGroups

STARTED = "started 2025-06-15 13:01:31 UTC, 2 h 5 min before"
LABELS = (("process", "crawler"), ("unit", "crawler.service"))


def test_evidence_has_process_command_parents_peers_and_history(evidence):
    assert evidence_text.evidence_lines(evidence, LABELS) == [
        "process: pid 4711 (75 % of it, the rest by 2 other processes), exe /usr/bin/crawler, user www-data, "
        + STARTED,
        "command: /usr/bin/crawler --token=***",
        "parents: supervisor (640), systemd (1)",
        "peers: within 1 s: to 192.0.2.7:443: 580 connects (95 %), 580 refused; and 32 more",
        "history: ▁·▄█ 0/s to 612/s in 4 s",
    ]


def test_a_program_file_is_shown_with_its_notes_in_place_of_its_name(evidence):
    notes = ("user nobody can replace it", "not the host's /usr/sbin/sshd")
    top = replace(evidence.top_process, program=ProgramFile("/var/tmp/x/sshd", "8:1", 77, notes))
    lines = evidence_text.evidence_lines(replace(evidence, top_process=top), LABELS)
    assert "exe" not in lines[0]
    assert lines[1] == (
        "program: /var/tmp/x/sshd (device 8:1, inode 77): user nobody can replace it; not the host's /usr/sbin/sshd"
    )
    assert evidence_text.program_text(ProgramFile("", "0:34", 5)) == "path too long (device 0:34, inode 5)"


def test_the_number_of_names_is_shown_where_there_are_several(evidence):
    several = replace(evidence, name_count=7000, process_count=1)
    assert "names: 7,000 names, 1 process within 1 s" in evidence_text.evidence_lines(several, LABELS)
    assert "names" not in evidence_text.evidence_sections(replace(evidence, name_count=1, process_count=2))


def test_an_overflow_shows_its_largest_groups_with_user_and_pid(evidence):
    groups = (
        LeftOutGroup((("process", "a"), ("unit", "")), 900.0, "games", 7),
        LeftOutGroup((("process", "b"), ("unit", "b.service")), 30.0, "", 0),
    )
    shown = replace(evidence, left_out=LeftOutGroups(groups, (("games", 12),), 1))
    assert (
        "left_out: within 1 s: process=a unit=-: 900 connects, user games, pid 7; process=b unit=b.service: 30 connects"
        in evidence_text.evidence_lines(shown, LABELS)
    )


def test_an_end_of_a_connection_that_worked_does_not_read_as_a_failed_connect(evidence):
    peer = replace(evidence.peers[0], failures=(("reset", 580), ("refused", 3)))
    shown = evidence_text.peers_text(replace(evidence, peers=(peer,)))
    assert "580 connects (95 %), 580 ended by a reset, 3 refused;" in shown


def test_facts_missing_in_the_labels_are_in_the_evidence(evidence):
    assert evidence_text.evidence_lines(evidence, ())[0].startswith("process: crawler, pid 4711 (")
    assert ", unit crawler.service, " in evidence_text.evidence_lines(evidence, ())[0]


def test_an_exited_process_is_marked(evidence):
    dead = replace(
        evidence,
        top_process=replace(evidence.top_process, has_exited=True, other_process_count=0, command=None, parents=()),
    )
    assert [line.partition(":")[0] for line in evidence_text.evidence_lines(dead, LABELS)] == [
        "process",
        "peers",
        "history",
    ]
    assert evidence_text.evidence_lines(dead, LABELS)[0].startswith("process: pid 4711 (exited), exe /usr/bin/crawler")


def test_a_process_that_proc_does_not_show_is_not_called_exited(evidence):
    hidden = replace(evidence.top_process, is_hidden=True, other_process_count=0, command=None, parents=())
    (first, *_) = evidence_text.evidence_lines(replace(evidence, top_process=hidden), LABELS)
    assert first.startswith("process: pid 4711 (not visible in /proc), exe /usr/bin/crawler")


@pytest.mark.parametrize(
    ("share", "others", "words"),
    [
        (1.0, 0, "pid 4711,"),
        (0.996, 1, "pid 4711 (100 % of it, the rest by 1 other process),"),
        (0.001, 869, "pid 4711 (one of 870 processes),"),
        (None, 2, "pid 4711 (one of 3 processes),"),
    ],
)
def test_the_share_of_the_process_is_shown(evidence, share, others, words):
    shown = replace(evidence, top_process=replace(evidence.top_process, share=share, other_process_count=others))
    assert evidence_text.evidence_lines(shown, LABELS)[0].startswith(f"process: {words}")


def test_short_ticks_are_shown_and_one_tick_is_no_history(evidence):
    shown = replace(evidence, tick_seconds=0.0204, history=(1.0,))
    assert evidence_text.peers_text(shown).startswith("within 20.4 ms: ")
    assert [line.partition(":")[0] for line in evidence_text.evidence_lines(shown, LABELS)][-1] == "peers"


def test_missing_evidence_has_a_reason():
    assert evidence_text.evidence_lines(Evidence(0.0, missing_reason=NOT_TAKEN), LABELS) == [f"evidence: {NOT_TAKEN}"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"direction": "in", "port": 8080}, "from 192.0.2.7 to port 8080: 580 connects"),
        ({"address": "2001:db8::1"}, "to [2001:db8::1]:443: 580 connects"),
        ({"states": (("SYN_SENT", 9), ("ESTABLISHED", 2), ("LISTEN", 1))}, "580 refused, 9 SYN_SENT, 2 ESTABLISHED"),
        ({"bytes_sent": 1_500_000, "bytes_received": 20}, "1.5 MB sent, 20 B received"),
    ],
)  # fmt: skip
def test_a_peer_is_shown_with_direction_failures_and_states(evidence, changes, words):
    shown = replace(evidence, peers=(replace(evidence.peers[0], **changes),))
    assert words in evidence_text.peers_text(shown)


@pytest.mark.parametrize(
    ("metric", "form", "amount", "words"),
    [
        ("bytes_sent", "bytes", 4e8, "to 192.0.2.7:443: 400 MB sent, 580 refused, 580 connections"),
        ("connect_latency", "seconds", 2.5, "to 192.0.2.7:443: 2.5 s connect latency"),
        ("accept_queue", "percent", 1.0, "at 192.0.2.7:443: 100 % accept queue"),
        ("open", "count", 51.0, "to 192.0.2.7:443: 51 open"),
        ("connects", "count", 1.0, "to 192.0.2.7:443: 1 connect, "),
    ],
)
def test_amounts_have_the_name_of_the_metric(evidence, metric, form, amount, words):
    peer = replace(evidence.peers[0], amount=amount)
    shown = replace(evidence, metric=metric, format=form, amount=None, peers=(peer,))
    assert words in evidence_text.peers_text(shown)


def test_peers_beyond_the_line_length_are_counted(evidence):
    peer = replace(
        evidence.peers[0], address="2001:db8:1111:2222:3333:4444:5555:6666", states=(("ESTABLISHED", 2**40),)
    )
    line = evidence_text.peers_text(replace(evidence, peers=(peer,) * 5, peer_count=1_000_000))
    assert len(line) <= 480
    shown = line.count("2001:")
    assert 1 <= shown < 5
    assert line.endswith(f"; and {1_000_000 - shown:,} more")


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ((), ""),
        ((None,), "·"),
        ((0.0, 0.0), "▁▁"),
        ((5.0, 5.0), "██"),
        ((99.0, 101.0, 100.0), "███"),
        ((0.0, 7.0), "▁█"),
        (tuple(float(value) for value in range(8)), "▁▂▃▄▅▆▇█"),
        ((-1.0, 1.0, None, float("inf")), "▁█·█"),
    ],
)
def test_a_sparkline_reaches_from_zero_to_the_maximum(values, bars):
    assert evidence_text.sparkline(values) == bars
