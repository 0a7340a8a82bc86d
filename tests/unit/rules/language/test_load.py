import os
import re
from pathlib import Path

import pytest

from watchdog.errors import ConfigError
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.expression import Comparison, MetricReference
from watchdog.rules.language.load import MAX_FILES, MAX_RULES, load_rules, toml_files
from watchdog.rules.language.rule import Absent, Condition, Rule, Severity, Stat, StatKind, Thresholds
from watchdog.rules.language.template import Template, TemplateField

SECOND = 1_000_000_000
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL

FULL_RULE = """\
# a comment
[[rule]]
id = "outbound-connection-storm"
summary = "{process} opens {value} connections"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process", "unit"]
where = { direction = "out", remote = ["!10.0.0.0/8"], process = ["!chrom*", "c*"], remote_port = 443 }
only_if = "connects >= 50"
fire_above = { warning = 100, critical = 500 }
clear_below = { warning = 60, critical = 300 }
for = "10s"
keep_firing_for = "60s"
absent = "keep"
receivers = ["oncall"]
runbook = "https://wiki.example.net/storm"
"""

MINIMAL_RULE = 'id = "r"\nsummary = "s"\nmetric = "{metric}"\nstat = "{stat}"\nwindow = "10s"\n'


@pytest.fixture
def write(tmp_path):
    def write(text, name="rules.toml"):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


@pytest.fixture
def problems(write):
    """Return the problems of a rule file, without its name."""

    def problems(text, **options):
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            load_rules([path], **{"receivers": ("oncall",), **options})
        return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]

    return problems


@pytest.fixture
def load(write):
    """Return the rule of a text with one rule."""

    def load(text, **options):
        (rule,) = load_rules([write(text)], receivers=("oncall",), **options).rules
        return rule

    return load


def rule_text(metric="connects", stat="rate", **keys):
    return (
        "[[rule]]\n" + MINIMAL_RULE.format(metric=metric, stat=stat) + "".join(f"{k} = {v}\n" for k, v in keys.items())
    )


def test_a_rule_with_every_key(write):
    path = write(FULL_RULE)
    loaded = load_rules([path], receivers=("oncall",))
    assert loaded.notes == ()
    assert loaded.rules == (
        Rule(
            id="outbound-connection-storm",
            summary=Template(
                "{process} opens {value} connections",
                (TemplateField("process"), " opens ", TemplateField("value", "rate"), " connections"),
            ),
            metric=MetricReference("connects"),
            stat=Stat("rate", StatKind.RATE),
            window_ns=10 * SECOND,
            by=("process", "unit"),
            where=(
                Condition("direction", ("out",)),
                Condition("remote", (), ("10.0.0.0/8",)),
                Condition("process", ("c*",), ("chrom*",)),
                Condition("remote_port", ("443",)),
            ),
            only_if=Comparison(">=", MetricReference("connects"), 50.0),
            thresholds=Thresholds(
                above=True, fire={WARNING: 100.0, CRITICAL: 500.0}, clear={WARNING: 60.0, CRITICAL: 300.0}
            ),
            for_ns=10 * SECOND,
            keep_firing_for_ns=60 * SECOND,
            receivers=("oncall",),
            runbook="https://wiki.example.net/storm",
            file="",
            line=0,
            absent=Absent.KEEP,
            absent_for_ns=140 * SECOND,
        ),
    )
    assert (loaded.rules[0].file, loaded.rules[0].line) == (str(path), 2)


def test_a_rule_with_the_required_keys_only(load):
    rule = load(rule_text(fire_above="100"))
    assert (rule.by, rule.where, rule.only_if, rule.for_ns, rule.keep_firing_for_ns) == ((), (), None, 0, 0)
    assert (rule.receivers, rule.runbook) == (None, None)
    assert (rule.absent, rule.absent_for_ns) == (Absent.RESOLVE, 130 * SECOND)
    assert rule.thresholds.fire == {WARNING: 100.0}


def test_without_clear_thresholds_the_fire_thresholds_are_used(load):
    above = load(rule_text(fire_above="0")).thresholds
    assert 0 < above.clear[WARNING] < 1e-300
    below = load(rule_text(fire_below="5")).thresholds
    assert not below.above
    assert 4.999 < below.clear[WARNING] < 5


@pytest.mark.parametrize(
    ("metric", "stat", "text", "level"),
    [
        ("bytes_sent", "rate", '"100MB"', 100_000_000.0),
        ("bytes_sent", "rate", '"100MB/s"', 100_000_000.0),
        ("bytes_sent", "max", '"1.5GiB/s"', 1_610_612_736.0),
        ("bytes_sent", "sum", '"1 kB"', 1_000.0),
        ("rtt", "p99", '"250ms"', 0.25),
        ("rtt", "p50", '"300us"', 0.0003),
        ("rtt", "max", '"2m"', 120.0),
        ("rtt", "max", "1", 1.0),
        ("retransmits / packets_sent", "rate", '"5%"', 0.05),
        ("connects", "rate", '"50/s"', 50.0),
        ("connects", "rate", '"50"', 50.0),
        ("connects", "rate", "0.5", 0.5),
    ],
)
def test_thresholds_have_units(load, metric, stat, text, level):
    assert load(rule_text(metric, stat, fire_above=text)).thresholds.fire == {WARNING: level}


@pytest.mark.parametrize(
    ("metric", "stat", "text", "message"),
    [
        ("bytes_sent", "sum", '"1MB/s"', '"1MB/s" is a rate, but the value of the metric is not'),
        (
            "bytes_sent",
            "rate",
            '"1mb"',
            'wrong unit "mb" in "1mb": bytes are written with B, kB, MB, GB, TB, KiB, MiB, GiB, TiB',
        ),
        ("rtt", "max", '"1MB"', 'wrong unit "MB" in "1MB": seconds are written with us, ms, s, m, h, d'),
        ("connects", "rate", '"5%"', 'wrong unit "%" in "5%": connections are written without a unit'),
        ("bytes_sent / connects", "rate", '"5MB"', 'wrong unit "MB" in "5MB": it is written without a unit'),
        ("connects", "rate", '"many"', 'not a number: "many"; write it like 100'),
        ("bytes_sent", "rate", '"many"', 'not a number: "many"; write it like "100MB"'),
        ("connects", "rate", "true", 'must be a number, or a string with a unit like "100MB"'),
        ("connects", "rate", "inf", "must be a finite number below 2^63"),
        ("connects", "rate", "{}", "names no severity: give warning, critical or both"),
    ],
)
def test_invalid_thresholds_are_reported(problems, metric, stat, text, message):
    assert problems(rule_text(metric, stat, fire_above=text)) == [f"7: rule.fire_above: {message}"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ["1: rule.fire_above: missing: give fire_above, fire_below, [rule.baseline] or [rule.novelty]"]),
        (
            {"fire_above": 5, "fire_below": 3},
            ["8: rule.fire_below: cannot be combined with fire_above: a rule fires either above or below"],
        ),
        (
            {"fire_above": 5, "clear_above": 3},
            ["8: rule.clear_above: belongs to fire_below; with fire_above use clear_below"],
        ),
        (
            {"fire_below": 5, "clear_below": 3},
            ["8: rule.clear_below: belongs to fire_above; with fire_below use clear_above"],
        ),
        (
            {"fire_above": 5, "clear_below": 6},
            ["8: rule.clear_below: must be at most the firing threshold 5, not 6: lower clear_below too"],
        ),
        (
            {"fire_below": 5, "clear_above": 4},
            ["8: rule.clear_above: must be at least the firing threshold 5, not 4: raise clear_above too"],
        ),
        ({"fire_above": 5, "clear_below": 0}, ["8: rule.clear_below: is never reached: no value is below 0"]),
        ({"fire_below": 0}, ["7: rule.fire_below: is never reached: no value is below 0"]),
        (
            {"fire_above": 5, "clear_below": "{ critical = 3 }"},
            ["8: rule.clear_below.critical: has no effect: the rule never fires as critical"],
        ),
        (
            {"fire_above": "{ critical = 3 }", "clear_below": 2},
            ["8: rule.clear_below: has no effect: the rule never fires as warning"],
        ),
        (
            {"fire_above": "{ warning = 5, critical = 5 }"},
            ["7: rule.fire_above.critical: must be above the warning's 5, not 5"],
        ),
        (
            {"fire_below": "{ warning = 5, critical = 6 }"},
            ["7: rule.fire_below.critical: must be below the warning's 5, not 6"],
        ),
        (
            {"fire_above": "{ warning = 5, crit = 6 }"},
            ['7: rule.fire_above.crit: unknown key "crit": did you mean "critical"?'],
        ),
    ],
)
def test_contradicting_thresholds_are_reported(problems, keys, expected):
    assert problems(rule_text(**keys)) == expected


def test_the_threshold_of_a_difference_can_be_negative(load):
    rule = load(rule_text("connects - accepts", "sum", fire_below="-5", clear_above="0"))
    assert rule.thresholds == Thresholds(above=False, fire={WARNING: -5.0}, clear={WARNING: 0.0})


@pytest.mark.parametrize(
    ("text", "percentile"), [("p50", 50.0), ("p99", 99.0), ("p05", 5.0), ("p999", 99.9), ("p995", 99.5)]
)
def test_percentiles_are_parsed(load, text, percentile):
    assert load(rule_text("rtt", text, fire_above="1")).stat == Stat(text, StatKind.PERCENTILE, percentile)


@pytest.mark.parametrize(
    ("metric", "stat", "message"),
    [
        (
            "connects",
            "p99",
            '"p99" does not apply to a counter (connects); use last, max, mean, min, rate, sum, distinct:DIMENSION',
        ),
        ("open", "rate", '"rate" does not apply to a gauge (open); use last, max, mean, min, distinct:DIMENSION'),
        ("open", "sum", '"sum" does not apply to a gauge (open); use last, max, mean, min, distinct:DIMENSION'),
        (
            "rtt",
            "rate",
            (
                '"rate" does not apply to a distribution (rtt); '
                "use count, max, mean, min, sum, distinct:DIMENSION, p50 to p999"
            ),
        ),
        (
            "connects / open",
            "rate",
            '"rate" does not apply to a gauge (open); use last, max, mean, min, distinct:DIMENSION',
        ),
        ("connects", "rat", 'unknown stat "rat": did you mean "rate"?'),
        ("rtt", "p100", 'unknown stat "p100": did you mean "p50"?'),
        ("rtt", "p00", 'unknown stat "p00": did you mean "p90"?'),
        ("rtt", "percentile", 'unknown stat "percentile": did you mean "mean"?'),
    ],
)
def test_a_stat_that_does_not_apply_to_the_metric_is_reported(problems, metric, stat, message):
    (problem,) = problems(rule_text(metric, stat, fire_above="1"))
    assert problem.startswith(f"5: rule.stat: {message.split('did you mean')[0]}")


def test_arithmetic_with_distributions_is_reported(problems):
    assert problems(rule_text("rtt * 2", "p99", fire_above="1")) == [
        "4: rule.metric: rtt has one value per connection: it cannot be part of arithmetic"
    ]
    assert problems(rule_text(fire_above="1", only_if='"rtt > 1"')) == [
        "8: rule.only_if: rtt has one value per connection: use counters, gauges or count"
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('process = "curl"', Condition("process", ("curl",))),
        ('unit = ["", "!ssh*"]', Condition("unit", ("",), ("ssh*",))),
        ('state = ["FIN_*", "!TIME_WAIT"]', Condition("state", ("FIN_*",), ("TIME_WAIT",))),
        ('remote_port = [80, "443", "!1024-65535"]', Condition("remote_port", ("80", "443"), ("1024-65535",))),
        ('remote = ["10.0.0.0/8", "::1", "!10.1.2.3"]', Condition("remote", ("10.0.0.0/8", "::1"), ("10.1.2.3",))),
        ("pid = 4194304", Condition("pid", ("4194304",))),
    ],
)
def test_conditions_are_parsed(load, condition, expected):
    assert load(rule_text(fire_above="1", where=f"{{ {condition} }}")).where == (expected,)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('proces = "x"', 'proces: unknown dimension "proces": did you mean "process"?'),
        ('direction = "outbound"', 'direction: unknown direction "outbound": did you mean "out"?'),
        ('state = "established"', 'state: unknown state "established": did you mean "ESTABLISHED"?'),
        ("remote_port = 65536", "remote_port: 65536 is not a remote_port: the maximum is 65535"),
        ("pid = 4194305", "pid: 4194305 is not a pid: the maximum is 4194304"),
        ("netns = 1", "netns: 1 is not a netns: the minimum is 4026531824"),
        ('remote_port = "90-80"', 'remote_port: the range "90-80" is empty'),
        ('remote_port = "https"', 'remote_port: not a number or a range like "1024-65535": "https"'),
        ("remote_port = -1", 'remote_port: not a number or a range like "1024-65535": "-1"'),
        ("remote_port = true", "remote_port: must hold numbers or strings only, not true"),
        ("pid = 0x" + "f" * 4000, "pid: must hold numbers or strings only, not a very large number"),
        ('remote = "10.0.0.0/33"', 'remote: not an address or a CIDR block: "10.0.0.0/33"'),
        ('remote = "10.0.0.1/8"', 'remote: "10.0.0.1/8" has bits set after its prefix: did you mean "10.0.0.0/8"?'),
        ('remote = "fe80::1%eth0"', 'remote: "fe80::1%eth0" names an interface; use the address without it'),
        ("process = 3", "process: must hold strings only, not 3"),
        ("process = []", "process: must not be empty"),
    ],
)
def test_conditions_that_no_row_can_meet_are_reported(problems, condition, message):
    assert problems(rule_text(fire_above="1", where=f"{{ {condition} }}")) == [f"8: rule.where.{message}"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"by": '["unti"]'}, 'by: unknown dimension "unti": did you mean "unit"?'),
        ({"by": '["unit", "unit"]'}, 'by: duplicate entry "unit"'),
        ({"only_if": '"connects"'}, 'only_if: must be one comparison, like "connects >= 50"'),
        ({"only_if": "3"}, "only_if: must be a text, not a number"),
        ({"for": '"8d"'}, "for: must be at most 7d, not 8d"),
        ({"receivers": '["oncal"]'}, 'receivers: unknown receiver "oncal": did you mean "oncall"?'),
        ({"receivers": '["oncall", "oncall"]'}, 'receivers: duplicate entry "oncall"'),
        (
            {"receivers": "[]"},
            "receivers: must name at least one receiver, or leave the key out to use the default of [routing]",
        ),
        ({"runbook": '"ftp://x/y"'}, 'runbook: must be an http or https address, not "ftp://x/y"'),
        ({"runbook": '"https://"'}, 'runbook: must be an http or https address, not "https://"'),
        ({"runbook": '"https://[x/"'}, 'runbook: must be an http or https address, not "https://[x/"'),
        ({"colour": '"red"'}, 'colour: unknown key "colour": known are '),
    ],
)
def test_other_mistakes_are_reported(problems, keys, expected):
    (problem,) = problems(rule_text(fire_above="1", **keys))
    assert problem.startswith(f"8: rule.{expected}")


@pytest.mark.parametrize("identity", ["Storm", "-a", "a b", "a_b", "ü", "x" * 65])
def test_an_invalid_id_is_reported(problems, identity):
    text = rule_text(fire_above="1").replace('"r"', f'"{identity}"')
    assert problems(text) == [f'2: rule.id: "{identity}": use a to z, 0 to 9 and -, with a letter or digit first']


def test_a_window_has_at_least_two_samples(problems, load):
    text = rule_text(fire_above="1")
    assert load(text, interval_ns=5 * SECOND).window_ns == 10 * SECOND
    assert problems(text, interval_ns=5 * SECOND + 1_000) == [
        "6: rule.window: must hold two samples, so at least 10s2us with a sampling interval of 5s1us"
    ]


def test_a_window_is_at_most_as_long_as_names_are_retained(problems, load):
    text = rule_text("rtt", "p99", fire_above="1").replace('"10s"', '"{}"')
    assert load(text.format("1h")).window_ns == 3600 * SECOND
    (problem,) = problems(text.format("61m"))
    assert problem.startswith("6: rule.window: must be at most 1h: ")


@pytest.mark.parametrize(
    ("metric", "dimension", "value"),
    [
        ("udp_bytes_sent", "remote", "!10.0.0.0/8"),
        ("udp_datagrams_received", "remote_port", "53"),
        ("udp_bytes_received", "state", "ESTABLISHED"),
        ("listen_drops", "remote", "10.0.0.0/8"),
        ("lost_connections", "remote_port", "53"),
        ("missed_ticks", "pid", "1"),
    ],
)
def test_a_dimension_that_the_metric_does_not_have_is_reported(problems, metric, dimension, value):
    text = rule_text(metric=metric, stat="sum", fire_above="1", where=f'{{ {dimension} = "{value}" }}')
    assert problems(text) == [f"8: rule.where.{dimension}: {metric} has no {dimension}"]
    text = rule_text(metric=metric, stat="sum", fire_above="1", by=f'["process", "{dimension}"]')
    assert f"8: rule.by: {metric} has no {dimension}" in problems(text)


def test_the_metric_of_only_if_must_have_the_dimensions_too(problems):
    text = rule_text(fire_above="1", by='["remote"]', only_if='"udp_bytes_sent > 5"')
    assert problems(text) == ["8: rule.by: udp_bytes_sent has no remote"]


def test_a_duplicate_id_is_reported_with_file_and_line_of_the_first(write):
    first = write(rule_text(fire_above="1"), "a.toml")
    second = write("\n\n" + rule_text(fire_above="1"), "b.toml")
    with pytest.raises(ConfigError) as caught:
        load_rules([first, second], receivers=())
    assert str(caught.value) == f'{second}:4: rule.id: duplicate rule id "r": already used at {first}:1'


def test_unwise_and_unknown_settings_are_noted(write):
    path = write(rule_text(fire_above="1", by='["process", "pid"]', receivers='["oncall"]'))
    assert [str(note).removeprefix(f"{path}:") for note in load_rules([path], receivers=None).notes] == [
        '8: rule.by: "pid" has ever new values: each value is an alert of its own',
        '9: rule.receivers: not checked: "oncall" is defined in another file',
    ]
    assert len(load_rules([path], receivers=("oncall",)).notes) == 1


def test_twelve_mistakes_of_one_file_are_reported_each_with_its_line(problems):
    text = """\
# rules of team blue

[[rule]]
id = "Storm"
summary = "{proces} opens {value:rate}"
metric = "conects"
stat = "rate"
window = "10"
fire_above = { warning = 100,
  critical = 50 }

[[rule]]
id = "storm"
summary = \"""{process} is \\
  slow\"""
metric = "rtt"
stat = "rate"
window = "1s"
by = [
  "process",
  "unti",  # a comment with "quotes" and [brackets]
]
where.remote = [ "10.0.0.0/8",
  "10.0.0.1/8" ]
fire_above = "5MB"
keep_firing_for = 60

[[rule]]
id = "storm"
sumary = "x"
metric = "connects"
stat = "rate"
window = "10s"
fire_above = 1
"""
    assert [":".join(problem.split(":")[:2]) for problem in problems(text)] == [
        "4: rule.id",
        "5: rule.summary",
        "6: rule.metric",
        "8: rule.window",
        "10: rule.fire_above.critical",
        "17: rule.stat",
        "18: rule.window",
        "21: rule.by",
        "24: rule.where.remote",
        "25: rule.fire_above",
        "26: rule.keep_firing_for",
        "28: rule.summary",
        "29: rule.id",
        "30: rule.sumary",
    ]


def test_problems_of_one_file_do_not_hide_those_of_another(write, tmp_path):
    first = write("[[rule]\n", "a.toml")
    second = write(rule_text(), "b.toml")
    with pytest.raises(ConfigError) as caught:
        load_rules([tmp_path, tmp_path / "none.toml"], receivers=())
    assert [problem.file for problem in caught.value.problems] == [str(first), str(second), str(tmp_path / "none.toml")]


def test_the_toml_files_of_a_folder_are_read_in_byte_order_and_other_files_ignored(tmp_path):
    for name in (
        "b.toml", "a.toml", "B.toml", "é.toml", "z.toml", "a.test.toml", ".hidden.toml", "a.toml~", "#a.toml#",
        ".#a.toml", "a.toml.rpmnew", "a.toml.rpmsave", "a.toml.dpkg-dist", "a.toml.ucf-old", "README.md", "a.toml.swp",
    ):  # fmt: skip
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    assert toml_files(tmp_path) == [f"{tmp_path}/{name}.toml" for name in ("B", "a", "b", "z", "é")]
    assert toml_files(tmp_path / "a.toml~") == [f"{tmp_path}/a.toml~"]


def test_a_dangling_link_in_a_folder_is_reported(tmp_path):
    (tmp_path / "a.toml").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"a\.toml:1: file: cannot read: No such file or directory"):
        load_rules([tmp_path], receivers=())


def test_files_that_cannot_be_read_do_not_hide_the_problems_of_others(tmp_path):
    kinds = {
        "a": (lambda path: path.symlink_to("/proc/self/mem"), "cannot read: Input/output error"),
        "b": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        "c": (os.mkfifo, "is not a regular file"),
        "d": (lambda path: path.mkdir(), "cannot read: Is a directory"),
        "e": (lambda path: path.symlink_to(path), "cannot read: Too many levels of symbolic links"),
        "f": (lambda path: path.write_bytes(b"") or os.truncate(path, 1 << 40), "is over 1000000 bytes"),
    }
    for name, (make, _) in kinds.items():
        make(tmp_path / f"{name}.toml")
    (tmp_path / "z.toml").write_text('[[rule]]\nid = "z"\nmetric = "conects"\n')
    with pytest.raises(ConfigError) as caught:
        load_rules([tmp_path], receivers=None)
    found = {(Path(problem.file).stem, problem.message) for problem in caught.value.problems}

    assert {(name, message) for name, (_, message) in kinds.items()} < found
    assert any(name == "z" and message.startswith('unknown metric "conects"') for name, message in found)


def test_an_unreadable_folder_is_reported(monkeypatch, tmp_path):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)  # root can read every folder
    with pytest.raises(ConfigError, match=r":1: file: cannot read: Permission denied$"):
        load_rules([tmp_path], receivers=())


def test_a_rule_file_writable_by_everyone_is_refused(write, tmp_path):
    path = write(FULL_RULE)
    path.chmod(0o646)
    with pytest.raises(ConfigError, match=r"writable by everyone on this host \(mode 0646\): chmod o-w"):
        load_rules([tmp_path], receivers=("oncall",))


def test_a_file_without_rules_is_noted(write):
    path = write("# nothing yet\n")
    loaded = load_rules([path], receivers=())
    assert loaded.rules == ()
    assert [str(note) for note in loaded.notes] == [f"{path}:1: rule: this file holds no rules"]


def test_the_keys_that_an_unknown_one_is_compared_with_are_all_that_the_page_has(problems):
    page = (Path(__file__).parents[4] / "docs" / "rules.md").read_text()
    table = page.partition("## Keys\n")[2].partition("\n\nDurations")[0]
    documented = {
        key for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    (problem,) = problems(rule_text(fire_above="1", xyzzy="1"))
    assert set(problem.partition(": known are ")[2].split(", ")) == documented
    assert len(documented) > 15


def test_unknown_tables_in_a_rule_file_are_reported(problems):
    assert problems('[sampling]\ninterval = "1s"\n[[rules]]\n') == [
        "1: sampling: this is a settings file: give it by --config, and keep it out of the folder of the rules",
        '3: rules: unknown key "rules": did you mean "rule"?',
    ]


def test_a_rule_that_is_not_enabled_is_checked_and_not_in_force(write, problems):
    text = rule_text(fire_above="5")
    path = write(text + "enabled = false\n" + text.replace('"r"', '"other"'))
    assert [rule.id for rule in load_rules([path], receivers=()).rules] == ["other"]
    assert problems(rule_text(fire_above='"x"') + "enabled = false\n") != []
    assert problems(text + "enabled = 0\n") == ["8: rule.enabled: must be true or false, not a number"]


def test_the_shipped_rules_are_valid():
    loaded = load_rules([shipped_rules_folder()], receivers=())
    assert loaded.notes == ()
    assert loaded.rules


def test_the_example_in_the_reference_is_valid(load):
    page = Path(__file__).parents[4].joinpath("docs", "rules.md").read_text(encoding="utf-8")
    rule = load(page.partition("```toml\n")[2].partition("```")[0])
    assert rule.id == "payments-connect-failures"


def test_a_relative_path_is_reported_as_given(write, monkeypatch, tmp_path):
    write(rule_text(), "a.toml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^a\.toml:1: rule\.fire_above: missing"):
        load_rules([os.curdir], receivers=())


MANY = '[[rule]]\nid = "{id}"\nsummary = "a"\nmetric = "connects"\nstat = "rate"\nwindow = "10s"\nfire_above = 9\n'


def write_rules(folder, *counts):
    """Write a file with so many rules for each of `counts`."""
    folder.chmod(0o755)
    for file, count in enumerate(counts):
        (folder / f"{file}.toml").write_text("".join(MANY.format(id=f"r{file}-{number}") for number in range(count)))


def refusal(folder):
    with pytest.raises(ConfigError) as caught:
        load_rules([folder], receivers=None)
    return [str(problem).removeprefix(f"{folder}") for problem in caught.value.problems]


def test_as_many_rules_as_the_limit_are_loaded(tmp_path):
    write_rules(tmp_path, 600, MAX_RULES - 600)
    assert len(load_rules([tmp_path], receivers=None).rules) == MAX_RULES


def test_more_rules_than_the_limit_are_one_problem_and_later_files_are_not_read(tmp_path):
    write_rules(tmp_path, 600, MAX_RULES - 599)
    (tmp_path / "2.toml").write_text("no TOML")
    assert refusal(tmp_path) == ["/1.toml:1: rule: more than 1,000 rules in all files: join some by `by`"]


def test_overrides_count_as_rules(tmp_path):
    write_rules(tmp_path, MAX_RULES)
    (tmp_path / "1.toml").write_text('[[override]]\nid = "watchdog-missed-ticks"\nenabled = false\n')
    assert refusal(tmp_path) == ["/1.toml:1: rule: more than 1,000 rules in all files: join some by `by`"]


def test_a_folder_with_too_many_files_or_bytes_is_refused_before_they_are_read(tmp_path):
    folder = tmp_path / "bytes"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.toml").write_text("#" * 900_000)
    assert refusal(folder) == [":1: file: holds 4,500,000 bytes of rules: at most 4,000,000 are read"]
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(MAX_FILES + 1):
        (folder / f"{number}.txt").touch()
    assert refusal(folder) == [":1: file: holds more than 1,000 files: join them"]
