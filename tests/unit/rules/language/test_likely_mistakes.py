"""Rules that cannot do as they are written, or most likely do not: each gets a problem or a note, its sibling none."""

from __future__ import annotations

import pytest

from watchdog.errors import ConfigError
from watchdog.rules.language.load import load_rules

RULE = """\
[[rule]]
id = "r"
summary = "{{value}}"
metric = "{metric}"
stat = "{stat}"
window = "10s"
{level}
where = {{ {where} }}
"""
CONNECTS = {"metric": "connects", "stat": "rate", "level": "fire_above = 1"}
SHARE = {"metric": "connect_failures / closes", "stat": "rate", "level": 'fire_above = "5%"'}
CONTAINER_NAME = "containers of Docker, containerd, CRI-O and Podman are the first 12 digits of their id"


@pytest.fixture
def remarks(tmp_path):
    """Return a function that returns the problems and notes of one rule, as (is_problem, line, key, message)."""

    def load(where="", **keys):
        path = tmp_path / "rules.toml"
        path.write_text(RULE.format(**CONNECTS | keys, where=where))
        try:
            found, is_problem = load_rules([path], receivers=None).notes, False
        except ConfigError as error:
            found, is_problem = error.problems, True
        return [(is_problem, one.line, one.key, one.message) for one in found]

    return load


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ('exe = "/usr/sbin/nginx"', 'never matches: exe is the name of the file without its folder; use "nginx"'),
        ('exe = "!/usr/sbin/nginx"', 'never matches: exe is the name of the file without its folder; use "nginx"'),
        (
            'unit = "/system.slice/nginx.service"',
            'never matches: unit is the name of a unit, not the path of a control group; use "nginx.service"',
        ),
        (
            'unit = "user.slice/user-1.slice/nginx.service"',
            'never matches: unit is the name of a unit, not the path of a control group; use "nginx.service"',
        ),
        ('unit = "nginx.service "', "never matches: a unit ends in "),
        ('unit = "nginx,apache2"', "never matches: a unit ends in "),
        ('user = "0"', 'never matches: user 0 is "root" everywhere'),
        ('process = ["a", "!a", "b"]', '"a" never matches: "!a" excludes it'),
        ('process = ["nginx-*", "!nginx*"]', '"nginx-*" never matches: "!nginx*" excludes it'),
        ('process = ["ngin?", "!ngin*"]', '"ngin?" never matches: "!ngin*" excludes it'),
        ('process = "!*"', 'never matches: "!*" excludes every process'),
        ('remote = ["10.0.0.0/8", "!10.0.0.0/8"]', '"10.0.0.0/8" never matches: "!10.0.0.0/8" excludes it'),
        ('remote = ["10.1.0.0/16", "!10.0.0.0/8"]', '"10.1.0.0/16" never matches: "!10.0.0.0/8" excludes it'),
        ('remote = ["10.0.0.1", "!::/0"]', '"10.0.0.1" never matches: "!::/0" excludes it'),
        (
            'remote = ["10.0.0.0/8", "!10.0.0.0/9", "!10.128.0.0/9"]',
            '"10.0.0.0/8" never matches: "!10.0.0.0/9", "!10.128.0.0/9" excludes it',
        ),
        ('remote_port = [443, "!1-1023"]', '"443" never matches: "!1-1023" excludes it'),
        ('remote_port = ["!0-1023", "!1000-65535"]', "never matches: "),
        ('family = ["ipv4", "!ipv4"]', '"ipv4" never matches: "!ipv4" excludes it'),
        ('family = "ipv6", remote = "10.0.0.0/8"', '"10.0.0.0/8" never matches: it is not of the family of this rule'),
        ('local = "fd00::/8", family = "!ipv6"', '"fd00::/8" never matches: it is not of the family of this rule'),
        ('remote = "db.example.net"', 'not an address or a CIDR block: "db.example.net"; host names are not looked up'),
    ],
)
def test_a_condition_that_nothing_can_meet_is_a_problem(remarks, where, message):
    [(is_problem, line, key, text)] = remarks(where)
    assert (is_problem, line) == (True, 8)
    assert key.startswith("rule.where.")
    assert text.startswith(message)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ('container = "web-1"', f'"web-1" is no id: {CONTAINER_NAME}'),
        ('container = "!web-1"', f'"web-1" is no id: {CONTAINER_NAME}'),
        ('container = "web*"', f'"web*" is no id: {CONTAINER_NAME}'),
        ('container = "3f4e8c"', f'"3f4e8c" is no id: {CONTAINER_NAME}'),
        ('container = "user@1000/web"', f'"user@1000/web" is no id: {CONTAINER_NAME}'),
        ('user = "33"', '"33" matches users of containers and users without a name'),
        ('user = "!33"', '"33" matches users of containers and users without a name'),
        ('process = "nginx|apache2"', '"nginx|apache2" is one name: for any of several write ["nginx", "apache2"]'),
        ('process = "nginx,apache2"', '"nginx,apache2" is one name: for any of several write ["nginx", "apache2"]'),
        ('process = "a, b, c"', '"a, b, c" is one name: for any of several write ["a", "b", "c"]'),
        ('user = "alice or bob"', '"alice or bob" is one name: for any of several write ["alice", "bob"]'),
        ('process = "nginx "', '"nginx " begins or ends with a blank, which is part of the name: use "nginx"'),
        ('process = "! nginx"', '" nginx" begins or ends with a blank, which is part of the name: use "nginx"'),
        ('process = "!!nginx"', '"!nginx" begins with a second "!", which is part of the name'),
        ('process = "^nginx"', '"^nginx" looks like a regular expression, but is a glob'),
        ('process = "nginx$"', '"nginx$" looks like a regular expression, but is a glob'),
        ('process = ".*nginx"', '".*nginx" looks like a regular expression, but is a glob'),
        ('process = "nginx.service"', '"nginx.service" is named like a unit, but process is the name of a program'),
        ('process = "/usr/bin/curl"', '"/usr/bin/curl" is a path, but process is a name: use exe = "curl"'),
    ],
)
def test_a_pattern_that_most_likely_means_something_else_is_noted(remarks, where, message):
    [(is_problem, line, key, text)] = remarks(where)
    assert (is_problem, line) == (False, 8)
    assert key.startswith("rule.where.")
    assert text.startswith(message)


@pytest.mark.parametrize(
    "where",
    [
        'process = ["nginx", "!sshd"]',
        'process = ["nginx*", "!nginx-debug"]',
        'process = ["a*", "!a?"]',
        'process = ["(unattributed)", "(sd-pam)", "kworker/0:1", "tokio-rt-worker"]',
        'process = ""',
        'process = "!"',
        'exe = "python3.*"',
        'unit = ["user@1000/nginx.service", "*.service", "dev-disk-by\\\\x2dlabel.mount"]',
        'container = ["abababababab", "3f4e*", "*", "", "?*", "user@1000/abababababab", "0b6a1c2d.web"]',
        'user = "33", container = "3f4e8c1b3f4e"',
        'user = ["www-data", "HOST$"]',
        'remote = ["10.0.0.0/8", "!10.1.0.0/16"]',
        'remote = ["!10.0.0.0/8", "!fd00::/8"]',
        'remote = "::ffff:10.0.0.1", family = "ipv4"',
        'remote = "fd00::/8", local = "10.0.0.1"',
        'remote_port = ["1-1023", "!443"]',
        'remote_port = ["!0-1023", "!1025-65535"]',
        'state = ["*", "!CLOSE"]',
    ],
)
def test_a_sound_condition_has_no_remark(remarks, where):
    assert remarks(where) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (SHARE | {"level": "fire_above = 5"}, "is never reached: no value is above 1 (100 %)"),
        (SHARE | {"level": 'fire_above = "100%"'}, "is never reached: no value is above 1 (100 %)"),
        (
            SHARE | {"metric": "connect_failures / (connect_failures + established)", "level": "fire_above = 2"},
            "is never reached: no value is above 1 (100 %)",
        ),
        (SHARE | {"level": "fire_below = 5"}, "holds always: no value is above 1 (100 %)"),
        (
            {"metric": "accept_queue", "stat": "p99", "level": "fire_above = 80"},
            "is never reached: no value is above 1 (100 %)",
        ),
        (CONNECTS | {"level": 'fire_above = 1\nonly_if = "closes < 0"'}, "never holds: no value is below 0"),
        (CONNECTS | {"level": 'fire_above = 1\nonly_if = "closes >= 0"'}, "holds always: no value is below 0"),
    ],
)
def test_a_limit_beyond_every_value_is_a_problem(remarks, keys, message):
    [(is_problem, _, _, text)] = remarks(**keys)
    assert (is_problem, text) == (True, message)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            SHARE | {"metric": "listen_drops / accepts", "level": "fire_above = 5"},
            'is 500 %: write "5%" for a share, or "500%" if it is meant',
        ),
        (
            {"metric": "connect_latency", "stat": "p95", "level": "fire_above = 250"},
            'is 250 s: write "250ms" for milliseconds, or "250s" if it is meant',
        ),
        (
            {"metric": "rtt", "stat": "p50", "level": "fire_above = { warning = 0.4, critical = 400 }"},
            'is 400 s: write "400ms" for milliseconds, or "400s" if it is meant',
        ),
        (
            {"metric": "connect_latency", "stat": "p95", "level": 'fire_above = "250m"'},
            'is 250 minutes: write "250ms" for milliseconds',
        ),
        (
            {"metric": "bytes_sent", "stat": "rate", "level": "fire_above = 100"},
            'is 100 bytes: write "100MB" for megabytes, or "100B" if it is meant',
        ),
    ],
)
def test_a_plain_number_that_is_likely_in_another_unit_is_noted(remarks, keys, message):
    [(is_problem, line, _, text)] = remarks(**keys)
    assert (is_problem, line, text) == (False, 7, message)


@pytest.mark.parametrize(
    "keys",
    [
        SHARE,
        SHARE | {"level": "fire_above = 0.05"},
        SHARE | {"metric": "bytes_sent / bytes_received", "level": 'fire_above = "1000%"'},
        {"metric": "connect_latency", "stat": "p95", "level": 'fire_above = "250s"'},
        {"metric": "connect_latency", "stat": "p95", "level": "fire_above = 2"},
        {"metric": "lifetime", "stat": "p95", "level": "fire_above = 3600"},
        {"metric": "bytes_sent", "stat": "sum", "level": "fire_above = 0"},
        {"metric": "bytes_sent", "stat": "rate", "level": "fire_above = 100_000"},
        {"metric": "accept_queue", "stat": "max", "level": 'fire_above = "80%"'},
        {"metric": "connects", "stat": "rate", "level": "fire_above = 250"},
        CONNECTS | {"level": 'fire_above = 1\nonly_if = "closes > 0"'},
    ],
)
def test_a_sound_limit_has_no_remark(remarks, keys):
    assert remarks(**keys) == []


def test_a_process_that_a_count_of_the_watchdog_never_has_is_a_problem(remarks):
    keys = {"metric": "missed_ticks", "stat": "sum", "level": "fire_above = 1"}
    [(is_problem, _, _, text)] = remarks('process = "nginx"', **keys)
    assert (is_problem, text) == (True, 'missed_ticks is in one row, of process "bpf-watchdog"')
    assert remarks('process = "bpf-*"', **keys) == []


def test_several_mistakes_in_one_summary_are_all_reported(tmp_path):
    path = tmp_path / "rules.toml"
    rule = RULE.format(**CONNECTS, where="").replace("{value}", "{severty} {valu} {window:bytes} {{unit}}")
    path.write_text(rule)
    with pytest.raises(ConfigError) as caught:
        load_rules([path], receivers=None)
    assert [str(problem).removeprefix(f"{path}:3: rule.summary: ") for problem in caught.value.problems] == [
        'unknown field "severty": did you mean "severity"?',
        'unknown field "valu": did you mean "value"?',
        "{window} is a time: use seconds or ago",
    ]


def test_files_that_are_passed_over_are_named(tmp_path):
    good = RULE.format(**CONNECTS, where="")
    (tmp_path / "good.toml").write_text(good)
    for name in (
        "UPPER.TOML",
        "net.tml",
        "other.yaml",
        "a.toml.new",
        "README.md",
        ".hidden",
        "b.toml~",
        "c.toml.dpkg-old",
    ):
        (tmp_path / name).write_text(good)
    (tmp_path / "good.test.toml").write_text("")
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "net.toml").write_text(good)
    notes = load_rules([tmp_path], receivers=None).notes
    assert [(note.file.rpartition("/")[2], note.message) for note in notes] == [
        ("UPPER.TOML", "not read: only files whose name ends in .toml are"),
        ("a.toml.new", "not read: only files whose name ends in .toml are"),
        ("net.tml", "not read: only files whose name ends in .toml are"),
        ("other.yaml", "not read: only files whose name ends in .toml are"),
        ("team", "not read: folders in the folder of the rules are passed over"),
    ]
