"""Evidence: its size is bounded for any process, and any saved document can be read or is ignored."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import factories
from watchdog.alerts.alert import Alert
from watchdog.alerts.evidence import (
    MAX_COMMAND_BYTES,
    MAX_EVIDENCE_BYTES,
    NOT_TAKEN,
    Evidence,
    TopProcess,
    build_evidence,
)
from watchdog.measure.catalogue import FAILURES, METRICS, TCP_STATES
from watchdog.measure.procfs import HIDDEN, CommandLine, Process, UnreadReason
from watchdog.measure.program_file import ProgramFile
from watchdog.receivers.render import evidence_text
from watchdog.rules.engine.contributor_values import (
    ContributingProcess,
    Contributors,
    LeftOutGroup,
    LeftOutGroups,
    Peer,
)
from watchdog.rules.engine.contributors import MAX_PEERS, MAX_PROCESSES
from watchdog.rules.language import template

WALL = 1_750_000_000.0
RULE = factories.make_rule(summary=template.parse_summary("{process}", ("process",)), above=1.0, window_seconds=5)
ALIVE = Process("crawler", ((640, "supervisor"), (1, "systemd")))
COMMAND = CommandLine(("/usr/bin/crawler", "--token=hunter2"))
PEER = Peer("192.0.2.7", 443, "out", 90.0, 90, 0, 0, (), (("refused", 90),))
CRAWLER = ContributingProcess(4711, 75.0, "crawler", "crawler", "www-data", "crawler.service", "")
HELPER = ContributingProcess(4712, 25.0, "crawler", "crawler", "www-data", "crawler.service", "")
CONTRIBUTORS = Contributors("connects", 100.0, (PEER,), 3, (CRAWLER, HELPER), 2, (0.0, math.nan, math.inf), 1.0, 3.0)


def evidence(contributors=CONTRIBUTORS, alive=(4711, 4712), process=ALIVE, with_command=True, found=COMMAND):
    """Return evidence with the answer `found` about the command line, if one is wanted."""

    def look_up_process(pid):
        return WALL - 60, process if pid in alive else None

    built = build_evidence(RULE, contributors, look_up_process, WALL, with_command=with_command)
    return built if built.unread_pid is None else built.with_command_line(built.unread_pid, found)


def test_evidence_has_the_process_with_the_largest_part_of_the_value():
    assert evidence().top_process == TopProcess(
        pid=4711,
        name="crawler",
        exe="crawler",
        user="www-data",
        unit="crawler.service",
        container="",
        share=0.75,
        other_process_count=1,
        started=WALL - 60,
        command="/usr/bin/crawler --token=***",
        parents=((640, "supervisor"), (1, "systemd")),
        has_exited=False,
    )


def test_an_exited_process_has_the_names_of_the_kernel_and_a_living_one_is_preferred():
    gone = evidence(alive=()).top_process
    assert (gone.pid, gone.has_exited, gone.exe, gone.user, gone.command, gone.parents) == (
        4711, True, "crawler", "www-data", None, (),
    )  # fmt: skip
    assert (evidence(alive=(4712,)).top_process.pid, evidence(alive=(4712,)).top_process.share) == (4712, 0.25)


def test_a_hidden_process_has_the_names_of_the_kernel_and_has_not_exited():
    hidden = evidence(process=HIDDEN).top_process
    assert (hidden.pid, hidden.has_exited, hidden.is_hidden) == (4711, False, True)
    assert (hidden.exe, hidden.command, hidden.parents) == ("crawler", None, ())


def test_the_path_of_a_program_is_shown_if_it_may_be_read():
    assert evidence(found=replace(COMMAND, exe="/opt/crawler")).top_process.exe == "/opt/crawler"
    assert evidence(found=replace(COMMAND, exe="/" + "x" * 500 + "/name")).top_process.exe.endswith("xx/name")


PROGRAM = ProgramFile("/var/tmp/x/sshd", "8:1", 77, ("deleted",))
LEFT_OUT = LeftOutGroups((LeftOutGroup((("process", "a"),), 9.0, "games", 7),), (("games", 12),), 3)


def test_a_living_process_has_its_program_as_the_kernel_knows_it():
    asked = []

    def find_program(pid, container):
        asked.append((pid, container))
        return PROGRAM

    def built(alive):
        def look_up(pid):
            return WALL - 60, ALIVE if alive else None

        found = build_evidence(RULE, CONTRIBUTORS, look_up, WALL, with_command=False, find_program=find_program)
        return found.top_process.program

    assert (built(alive=False), asked) == (None, [])
    assert (built(alive=True), asked) == (PROGRAM, [(4711, "")])


def test_programs_names_and_left_out_groups_are_saved():
    known = replace(
        evidence(replace(CONTRIBUTORS, name_count=7000, left_out=LEFT_OUT)),
        top_process=replace(evidence().top_process, program=PROGRAM),
    )
    assert (known.name_count, known.process_count, known.left_out) == (7000, 2, LEFT_OUT)
    assert Evidence.from_json(json.loads(json.dumps(known.to_json()))) == known
    former = known.to_json()
    for name in ("name_count", "process_count", "left_out"):
        del former[name]
    del former["top_process"]["program"]
    assert Evidence.from_json(json.loads(json.dumps(former))).top_process == evidence().top_process


def test_groups_left_out_with_long_names_fit_into_the_evidence():
    long = "\udcff" * 255
    groups = (LeftOutGroup((("process", long), ("unit", long)), 9.0, long, 7),) * MAX_PEERS
    found = evidence(replace(CONTRIBUTORS, left_out=LeftOutGroups(groups, ((long, 3),) * MAX_PEERS, 9)))
    assert len(json.dumps(found.to_json(), separators=(",", ":"))) <= MAX_EVIDENCE_BYTES


def test_command_lines_can_be_left_out():
    left_out = evidence(with_command=False)
    assert (left_out.top_process.command, left_out.unread_pid) == (None, None)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (UnreadReason.HELD, "(could not be read: the process holds it)"),
        (UnreadReason.LATE, "(not read in time)"),
        (UnreadReason.PAUSED, "(not read: too many processes hold theirs)"),
        (COMMAND, "/usr/bin/crawler --token=***"),
        (CommandLine(()), None),
    ],
)
def test_a_command_line_that_could_not_be_read_is_shown_as_such(found, text):
    known = evidence(found=found)
    assert evidence_text.evidence_sections(known).get("command") == text
    assert Evidence.from_json(json.loads(json.dumps(known.to_json()))) == known


def test_a_process_that_ends_before_its_command_line_is_read_has_exited():
    top_process = evidence(found=None).top_process
    assert (top_process.has_exited, top_process.command, top_process.unread) == (True, None, None)


def test_an_answer_about_another_process_changes_nothing():
    unread = evidence(found=UnreadReason.LATE)
    assert unread.with_command_line(4712, COMMAND) is unread
    assert evidence().with_command_line(4711, CommandLine(("other",))) == evidence()


def test_newer_evidence_keeps_a_command_line_that_it_does_not_have_yet():
    newer = evidence().updated_with(evidence(found=UnreadReason.LATE))
    assert newer == evidence()
    other = evidence(found=UnreadReason.LATE, alive=(4712,))
    assert evidence().updated_with(other).unread_pid == 4712


def test_values_that_do_not_add_up_have_no_share():
    assert evidence(replace(CONTRIBUTORS, metric="rtt", amount=math.nan)).top_process.share is None


def test_without_rows_there_is_only_history():
    found = evidence(replace(CONTRIBUTORS, amount=0.0, peers=(), peer_count=0, processes=(), process_count=0))
    assert (found.top_process, found.peers, found.history) == (None, (), (0.0, None, math.inf))


def test_evidence_survives_json():
    document = json.dumps(evidence().to_json(), allow_nan=False)
    assert Evidence.from_json(json.loads(document)) == evidence()


def test_an_alert_of_an_older_daemon_has_no_evidence():
    alert = factories.make_alert()
    document = alert.to_json()
    told = replace(alert, evidence=evidence(), duration_seconds=3.0)
    older = {name: value for name, value in document.items() if name not in {"evidence", "duration_seconds"}}

    assert Alert.from_json(json.loads(json.dumps(older))) == alert
    assert Alert.from_json(json.loads(json.dumps(told.to_json()))) == told
    assert Alert.from_json({**document, "evidence": {"of": "another version"}}) == alert


@pytest.mark.parametrize(
    "document",
    [None, {}, {"peers": 3}, [1], "x", evidence().to_json() | {"metric": "of another version"},
     evidence().to_json() | {"peers": [{"address": "x"}]}, evidence().to_json() | {"new": 1},
     evidence().to_json() | {"history_format": "of another version"}],
)  # fmt: skip
def test_unreadable_evidence_is_ignored_without_an_error(document):
    assert Evidence.from_json(document) is None


def test_new_evidence_keeps_the_parts_that_can_no_longer_be_read():
    before = evidence()
    nothing = evidence(replace(CONTRIBUTORS, peers=(), peer_count=0, processes=(), process_count=0, history=(1.0,)))
    after = before.updated_with(nothing)
    assert (after.top_process, after.peers, after.history) == (before.top_process, before.peers, (1.0,))
    calm = replace(CONTRIBUTORS, amount=0.0, peers=(replace(PEER, amount=0.0, failures=()),), processes=(HELPER,))
    assert before.updated_with(evidence(calm)) == before
    dead = before.updated_with(evidence(alive=()))
    assert dead.top_process == replace(before.top_process, has_exited=True)
    assert before.updated_with(Evidence(WALL, missing_reason=NOT_TAKEN)) == before
    assert Evidence(WALL, missing_reason=NOT_TAKEN).updated_with(before) == before


texts = st.text(st.characters(), max_size=300) | st.sampled_from(
    ["\x1b" * 300, "\udcff" * 300, "\ud800" * 300, "\U000e0041" * 300, "é" * 300, '"\\' * 150]
)
numbers = st.integers(0, 2**63)
peers = st.builds(
    Peer, st.sampled_from(["192.0.2.7", "2001:db8:1111:2222:3333:4444:5555:6666"]), st.integers(0, 65_535),
    st.sampled_from(["in", "out", "unknown"]), st.floats(0, 1e18), numbers, numbers, numbers,
    st.just(tuple((state, 2**31) for state in TCP_STATES[1:])), st.just(tuple((one, 2**31) for one in FAILURES[1:])),
)  # fmt: skip
contributing_processes = st.builds(
    ContributingProcess, st.integers(1, 2**22), st.floats(0, 1e18), texts, texts, texts, texts, texts
)
processes = st.builds(Process, texts, st.lists(st.tuples(st.integers(1, 2**22), texts), max_size=5).map(tuple))
command_lines = st.builds(CommandLine, st.lists(texts, max_size=5).map(tuple), st.none() | texts) | st.sampled_from(
    [*UnreadReason, None]
)
all_contributors = st.builds(
    Contributors, st.sampled_from(sorted(METRICS)), st.floats(0, 1e18), st.lists(peers, max_size=MAX_PEERS).map(tuple),
    numbers, st.lists(contributing_processes, max_size=MAX_PROCESSES).map(tuple), numbers,
    st.lists(st.floats(), max_size=20).map(tuple), st.floats(0, 1e9), st.floats(0, 1e9),
)  # fmt: skip


# The byte of a FIN is subtracted when its flag is seen: the sum of a tick may be less than its largest part.
@example(replace(CONTRIBUTORS, amount=1e-323), ALIVE, COMMAND)
@example(replace(CONTRIBUTORS, amount=10.0), ALIVE, COMMAND)
@settings(deadline=None)
@given(all_contributors, processes, command_lines)
def test_evidence_never_exceeds_its_size(contributors, process, command_line):
    found = build_evidence(RULE, contributors, lambda pid: (WALL, process), WALL, with_command=True)
    if found.unread_pid is not None:
        found = found.with_command_line(found.unread_pid, command_line)
    document = json.dumps(found.to_json(), allow_nan=False, separators=(",", ":"))

    assert len(document) <= MAX_EVIDENCE_BYTES
    assert found.top_process is None or len((found.top_process.command or "").encode("utf-8", "surrogatepass")) <= (
        MAX_COMMAND_BYTES
    )
    assert found.top_process is None or found.top_process.share is None or 0 <= found.top_process.share <= 1
    assert Evidence.from_json(json.loads(document)) == found
    assert all(len(line) <= 1_000 for line in evidence_text.evidence_lines(found, ()))
