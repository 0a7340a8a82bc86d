"""Windows above an hour in rule files."""

from __future__ import annotations

import pytest

from watchdog.alerts import wording
from watchdog.clock import SECOND_NS
from watchdog.config.settings import open_document
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment


@pytest.fixture
def read_document(tmp_path):
    """Return the document of one rule, and the rule, of its metric, stat, window and more keys."""

    def read_document(metric, stat, window, more):
        path = tmp_path / "rules.toml"
        head = f'[[rule]]\nid = "r"\nsummary = "{{unit}}: {{value}}"\nmetric = "{metric}"\nstat = "{stat}"\n'
        path.write_text(f'{head}window = "{window}"\nby = ["unit"]\n{more}\n')
        path.chmod(0o644)
        document = open_document(str(path))
        (rule,) = read_rules(document, RuleEnvironment((), SECOND_NS, {}))
        return document, rule

    return read_document


@pytest.fixture
def read(read_document):
    """Return the rule, and the problems of its document as texts."""

    def read(metric, stat, window, more='fire_above = "50GB"'):
        document, rule = read_document(metric, stat, window, more)
        return rule, [f"{one.line}: {one.key}: {one.message}" for one in document.problems]

    return read


@pytest.fixture
def notes(read_document):
    """Return the notes of the rule's document as texts."""

    def notes(metric, stat, window, more):
        document, _ = read_document(metric, stat, window, more)
        return [f"{one.key.removeprefix('rule.')}: {one.message}" for one in document.notes]

    return notes


@pytest.mark.parametrize(
    ("metric", "stat", "window"),
    [
        ("bytes_sent", "sum", "1d"),
        ("bytes_sent + bytes_received", "rate", "31d"),
        ("2 * bytes_sent", "mean", "2h"),
        ("bytes_sent", "max", "7d"),
        ("bytes_sent", "min", "61m"),
    ],
)
def test_stats_of_counters_can_have_a_long_window(read, metric, stat, window):
    rule, problems = read(metric, stat, window, "fire_above = 50e9" if "*" in metric else 'fire_above = "50GB"')
    assert problems == []
    assert rule.has_long_window
    wording.check_summary(rule)


@pytest.mark.parametrize(
    ("metric", "stat", "window", "message"),
    [
        ("bytes_sent", "sum", "32d", "must be at most 31d, not 32d"),
        (
            "bytes_sent",
            "last",
            "2h",
            "must be at most 1h: longer ones are for sum, rate, mean, max and min of counters",
        ),
        ("open", "mean", "2h", "must be at most 1h: longer ones are for sum, rate, mean, max and min of counters"),
        ("rtt", "p99", "2h", "must be at most 1h: longer ones are for sum, rate, mean, max and min of counters"),
        (
            "retransmits / packets_sent",
            "rate",
            "2h",
            "must be at most 1h: longer ones are for rate of sums of counters, not of quotients",
        ),
        (
            "connects - 5",
            "sum",
            "2h",
            "must be at most 1h: longer ones are for sum of sums of counters, not of quotients",
        ),
    ],
)
def test_others_cannot(read, metric, stat, window, message):
    _, problems = read(metric, stat, window, "fire_above = 0.5")
    assert problems == [f"6: rule.window: {message}"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            'only_if = "connects > 5"\nfire_above = "50GB"',
            "6: rule.window: must be at most 1h: longer ones cannot be combined with only_if",
        ),
        ("[rule.novelty]", "6: rule.window: must be at most 1h: longer ones cannot be combined with novelty"),
        (
            'absent = "fire"\nfire_above = "50GB"',
            "8: rule.absent: has no effect with a window above 1h: groups stay for the window",
        ),
    ],
)
def test_keys_that_do_not_go_with_it_are_problems(read, more, problem):
    assert read("bytes_sent", "sum", "1d", more)[1] == [problem]


@pytest.mark.parametrize(("window", "bucket"), [("2h", "50s"), ("61m", "26s"), ("7d", "1h10m")])
def test_the_author_of_a_rate_over_a_long_window_learns_of_its_buckets(notes, window, bucket):
    [note] = notes("connects", "rate", window, "fire_above = 5")
    assert note.startswith(f"window: above 1h values are kept in 144 buckets, here of {bucket}: ")
    assert notes("connects", "rate", "1h", "fire_above = 5") == []
    assert notes("connects", "sum", window, "fire_above = 5") == []
