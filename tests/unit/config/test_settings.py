import os
from pathlib import Path

import pytest

from watchdog.config import settings as settings_module
from watchdog.config.map_sizes import MapSizes
from watchdog.config.settings import (
    BUILT_IN_SETTINGS,
    EscalationSettings,
    RoutingSettings,
    SamplingSettings,
    load_settings,
    open_document,
)
from watchdog.errors import ConfigError

SECOND = 1_000_000_000

WHOLE = """\
[sampling]
interval = "500ms"

[[receiver]]
name = "oncall"
type = "slack"
webhook_url_file = "/etc/bpf-watchdog/secrets/slack"

[[receiver]]
name = "log"
type = "syslog"
address = "unix:///dev/log"

[routing]
default = ["oncall", "log"]
group_wait = "5s"
group_interval = "2m"
repeat_interval = "1h"
jitter = "2s"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "watchdog.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o644)
        return str(path)

    return write


def problems(path):
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def test_reads_the_whole_file_and_leaves_the_receivers_keys_to_their_types(write):
    path = write(WHOLE)
    config = load_settings(path)
    assert config.values.file == path
    assert config.values.sampling == SamplingSettings(SECOND // 2)
    assert config.values.routing == RoutingSettings(
        ("oncall", "log"), 5 * SECOND, 120 * SECOND, 3_600 * SECOND, jitter_ns=2 * SECOND
    )
    assert [(name, kind) for name, kind, _ in config.receivers] == [("oncall", "slack"), ("log", "syslog")]
    assert config.values.receiver_names == ("oncall", "log")
    syslog = config.receivers[1][2]
    assert syslog.text("address") == "unix:///dev/log"
    syslog.reject_unknown_keys()
    syslog.document.raise_problems()


def test_the_sizes_of_the_maps_can_be_set(write):
    assert load_settings(write("")).values.sampling.map_sizes == MapSizes(65_536, 131_072, 4_096)
    text = "[sampling]\nledger = 8\nresponses = 16\nprocesses = 4_000_000\n"
    assert load_settings(write(text)).values.sampling.map_sizes == MapSizes(8, 16, 4_000_000)
    assert problems(write("[sampling]\nledger = 7\nprocesses = 4_000_001\n")) == [
        "2: sampling.ledger: must be at least 8, not 7",
        "3: sampling.processes: must be at most 4000000, not 4000001",
    ]


def test_evidence_has_command_lines_unless_switched_off(write):
    assert load_settings(write("")).values.evidence.command_line
    assert not load_settings(write("[evidence]\ncommand_line = false\n")).values.evidence.command_line
    assert problems(write("[evidence]\ncommand_line = 0\nexe = true\n")) == [
        "2: evidence.command_line: must be true or false, not a number",
        '3: evidence.exe: unknown key "exe": known are command_line',
    ]


def test_an_empty_file_means_the_defaults_and_a_console(write):
    config = load_settings(write(""))
    assert config.values.sampling == SamplingSettings(SECOND)
    assert config.values.routing == RoutingSettings(("console",), 0, 60 * SECOND, 14_400 * SECOND)
    ((name, kind, table),) = config.receivers
    assert (name, kind) == ("console", "console")
    table.reject_unknown_keys()
    table.document.raise_problems()


def test_no_file_at_the_default_place_means_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(settings_module, "DEFAULT_SETTINGS_FILE", str(tmp_path / "none.toml"))
    config = load_settings()
    assert config.values.file == BUILT_IN_SETTINGS
    assert config.values.routing.default == ("console",)


def test_a_file_at_the_default_place_is_read(monkeypatch, write):
    monkeypatch.setattr(settings_module, "DEFAULT_SETTINGS_FILE", write(WHOLE))
    assert load_settings().values.receiver_names == ("oncall", "log")


def test_a_dangling_link_at_the_default_place_is_no_reason_to_use_defaults(monkeypatch, tmp_path):
    (tmp_path / "watchdog.toml").symlink_to(tmp_path / "gone")
    monkeypatch.setattr(settings_module, "DEFAULT_SETTINGS_FILE", str(tmp_path / "watchdog.toml"))
    assert problems(None)[0].endswith(":1: file: cannot read: No such file or directory")


def test_rules_without_receivers_go_to_all_receivers_unless_routing_says_otherwise(write):
    config = load_settings(write('[[receiver]]\nname = "a"\ntype = "x"\n[[receiver]]\nname = "b"\ntype = "x"\n'))
    assert config.values.routing.default == ("a", "b")


def test_hosts_spread_their_first_notifications_if_receivers_are_configured(write):
    receiver = '[[receiver]]\nname = "a"\ntype = "x"\n'
    assert load_settings(write(receiver)).values.routing.jitter_ns == 10 * SECOND
    assert load_settings(write(receiver + '[routing]\njitter = "0s"')).values.routing.jitter_ns == 0
    assert problems(write('[routing]\njitter = "1h"')) == ["2: routing.jitter: must be at most 10m, not 1h"]


def test_routes_are_left_as_tables_for_the_routing_package(write):
    config = load_settings(write('[[route]]\nreceivers = ["console"]\n[[route]]\nwhere = {}\n'))
    assert [table.line for table in config.routes] == [1, 3]


def test_reports_all_problems_at_once(write):
    text = """\
[sampling]
interval = "50ms"
intervall = "1s"
[[receiver]]
name = "2nd line"
type = "slack"
[[receiver]]
name = "log"
[[receiver]]
name = "log"
type = "syslog"
[routing]
default = ["log", "oncal",
  "log"]
group_wait = 5
[rooting]
"""
    assert problems(write(text)) == [
        "2: sampling.interval: must be at least 100ms, not 50ms",
        '3: sampling.intervall: unknown key "intervall": did you mean "interval"?',
        '5: receiver.name: "2nd line": use a to z, 0 to 9, _ and -, beginning with a letter',
        "7: receiver.type: missing",
        '10: receiver.name: "log" is already the receiver of line 7',
        '13: routing.default: unknown receiver "oncal": known are 2nd line, log',
        '14: routing.default: duplicate entry "log"',
        '15: routing.group_wait: needs a unit: "5s"?',
        '16: rooting: unknown key "rooting": did you mean "routing"?',
    ]


def test_refuses_a_default_without_receivers(write):
    assert problems(write("[routing]\ndefault = []\n")) == [
        "2: routing.default: must name at least one receiver: no notification would be sent"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = \n", "2: file: not TOML: Invalid value (column 5)"),
        ("a = 1\n\na = 2\n", "3: file: not TOML: this key is given twice (column 6)"),
        (b"a = 1\nb = '\xff'\n", "2: file: is not UTF-8 text: byte 0xff"),
        ("a = " + "[" * 5_000, "1: file: nested too deeply"),
        ("a = " + "1" * 5_000, "1: file: contains a number that is too long"),
        ("#" * 1_000_001, "1: file: is over 1000000 bytes"),
    ],
)
def test_reports_files_that_are_not_toml(write, text, message):
    assert problems(write(text)) == [message]


def test_takes_a_byte_order_mark(write):
    assert load_settings(write("\ufeff" + WHOLE)).values.receiver_names == ("oncall", "log")


def test_refuses_a_file_that_everyone_can_write(write):
    path = write(WHOLE)
    Path(path).chmod(0o666)
    assert problems(path) == [f"1: file: writable by everyone on this host (mode 0666): chmod go-w {path}"]


def test_refuses_folders_fifos_and_missing_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, message in (
        ("", "cannot read: Is a directory"),
        ("fifo", "is not a regular file"),
        ("none", "cannot read: No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=f"1: file: {message}$"):
            open_document(str(tmp_path / name))


def tables(**keys):
    return "".join(f'[[receiver]]\nname = "{name}"\ntype = "x"\n{lines}\n' for name, lines in keys.items())


def test_reads_escalations_and_the_time_until_a_receiver_is_down(write):
    config = load_settings(
        write(
            tables(a='escalate_to = "b"\nescalate_after = "2m"', b='escalate_to = "c"', c="")
            + '[routing]\nreceiver_down_after = "3m"\n'
        )
    )
    assert config.values.escalations == {
        "a": EscalationSettings("b", 120 * 10**9),
        "b": EscalationSettings("c", 300 * 10**9),
    }
    assert config.values.routing.receiver_down_after_ns == 180 * 10**9


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (tables(a='escalate_to = "a"'), "4: receiver.escalate_to: must name another receiver"),
        (
            tables(a='escalate_to = "backups"', b=""),
            '4: receiver.escalate_to: unknown receiver "backups": known are a, b',
        ),
        (
            tables(a='escalate_to = "b"', b='escalate_to = "c"', c='escalate_to = "a"'),
            "12: receiver.escalate_to: escalation loop: c -> a -> b -> c",
        ),
        (
            tables(a='escalate_after = "1m"'),
            "4: receiver.escalate_after: needs escalate_to, the second receiver",
        ),
        (
            tables(a='escalate_unacknowledged = "15m"'),
            "4: receiver.escalate_unacknowledged: needs escalate_to, the second receiver",
        ),
        (
            tables(a='escalate_to = "b"\nescalate_after = 5', b=""),
            '5: receiver.escalate_after: needs a unit: "5s"?',
        ),
        (
            tables(a="") + '[routing]\nreceiver_down_after = "1s"',
            "6: routing.receiver_down_after: must be at least 1m, not 1s",
        ),
    ],
)
def test_reports_wrong_escalations(write, written, problem):
    assert problems(write(written)) == [problem]


def test_a_misspelled_heartbeat_gets_a_suggestion(write):
    assert problems(write('[heartbeet]\nurl = "http://127.0.0.1/"\n')) == [
        '1: heartbeet: unknown key "heartbeet": did you mean "heartbeat"?'
    ]


@pytest.mark.parametrize(
    ("table", "limit"),
    [
        ('[[receiver]]\nname = "r{}"\ntype = "console"\n', 100),
        ('[[route]]\nreceivers = ["console"]\n', 200),
    ],
)
def test_the_number_of_tables_has_a_limit(write, table, limit):
    key = table[2 : table.index("]")]
    load_settings(write("".join(table.format(number) for number in range(limit))))
    with pytest.raises(ConfigError) as caught:
        load_settings(write("".join(table.format(number) for number in range(limit + 1))))
    assert [problem.message for problem in caught.value.problems] == [f"at most {limit} are possible, not {limit + 1}"]
    assert caught.value.problems[0].key == key
