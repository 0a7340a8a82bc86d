"""The configuration is read as a whole or not at all."""

from __future__ import annotations

import gc
import os

import pytest

import watchdog.config.settings as config_module
import watchdog.daemon.configuration as setup_of_all
from watchdog.clock import SECOND_NS
from watchdog.config.document import Table
from watchdog.daemon.configuration import (
    ConfigurationSources,
    changed_restart_keys,
    changed_settings,
    format_rule_ids,
    read_configuration,
)
from watchdog.errors import ConfigError

RULE = """\
[[rule]]
id = "storm"
summary = "{value}"
metric = "connects"
stat = "rate"
window = "5s"
fire_above = 100
"""
HOOK = '[[receiver]]\nname = "hook"\ntype = "webhook"\nurl = "http://127.0.0.1:1/"\n'


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return str(path)

    return write


@pytest.fixture(autouse=True)
def usual_places(monkeypatch, tmp_path):
    """Keep this host's own files out."""
    monkeypatch.setattr(config_module, "DEFAULT_SETTINGS_FILE", str(tmp_path / "usual.toml"))
    monkeypatch.setattr(setup_of_all, "DEFAULT_RULES_FOLDER", str(tmp_path / "rules.d"))


EVERY_TABLE = (
    HOOK + '[[route]]\nwhere = { rule = "storm" }\nreceivers = ["hook"]\n[heartbeat]\nurl = "http://127.0.0.1:1/"\n'
    "[routing]\n[sampling]\n[evidence]\n"
)


def count_parse_tables():
    gc.collect()
    return sum(isinstance(value, Table) for value in gc.get_objects())


def test_no_parse_table_outlives_the_reading(write):
    settings, rules = write("all.toml", EVERY_TABLE), write("r.toml", RULE)
    before = count_parse_tables()
    configuration = read_configuration(ConfigurationSources(settings, rules))

    assert len(configuration.routes) == 1
    assert configuration.heartbeat is not None
    assert count_parse_tables() == before


def problems_of(sources):
    with pytest.raises(ConfigError) as caught:
        read_configuration(sources)
    return [(problem.file, problem.line, problem.key) for problem in caught.value.problems]


def test_without_any_file_the_shipped_rules_notify_the_console():
    setup = read_configuration(ConfigurationSources())

    assert setup.rules_origin.endswith("/rules")
    assert setup.shipped_rules == len(setup.rules)
    assert setup.rules_origin_text == f"{setup.rules_origin} (shipped)"
    assert "outbound-connection-storm" in {rule.id for rule in setup.rules}
    assert [receiver.type for receiver in setup.receivers.values()] == ["console"]
    assert setup.interval_ns == SECOND_NS


def test_without_own_rules_shipped_false_leaves_the_rules_about_the_watchdog_itself(write):
    setup = read_configuration(ConfigurationSources(write("all.toml", "[rules]\nshipped = false\n")))
    assert setup.rules
    assert all(rule.id.startswith("watchdog-") for rule in setup.rules)
    assert setup.shipped_rules == len(setup.rules)


def test_rules_in_the_default_folder_are_used_instead(write, tmp_path):
    write("rules.d/own.toml", RULE)
    setup = read_configuration(ConfigurationSources())

    assert (setup.rules_origin_text, [rule.id for rule in setup.rules]) == (
        f"{tmp_path / 'rules.d'} (6 of them shipped)",
        [
            "storm",
            "watchdog-lost-connections",
            "watchdog-late-bytes",
            "watchdog-late-bytes-by-user",
            "watchdog-missed-ticks",
            "watchdog-failed-ticks",
            "watchdog-long-interval",
        ],
    )


def test_a_default_folder_without_rule_files_counts_as_missing(write):
    write("rules.d/own.test.toml", "")

    assert read_configuration(ConfigurationSources()).rules_origin_text.endswith("(shipped)")


def test_the_interval_of_the_command_line_overrides_the_settings_and_windows_are_checked_against_it(write):
    sources = {
        "settings_file": write("c.toml", '[sampling]\ninterval = "100ms"\n'),
        "rules_path": write("r.toml", RULE),
    }

    assert read_configuration(ConfigurationSources(**sources)).interval_ns == SECOND_NS // 10
    assert read_configuration(ConfigurationSources(**sources, interval_ns=2 * SECOND_NS)).interval_ns == 2 * SECOND_NS
    assert problems_of(ConfigurationSources(**sources, interval_ns=3 * SECOND_NS)) == [
        (sources["rules_path"], 6, "rule.window")
    ]


def test_problems_of_settings_receivers_and_rules_come_in_one_go(write):
    config = write("c.toml", '[sampling]\nintervall = "1s"\n' + HOOK + 'urll = "x"\n[routing]\ndefault = ["hok"]\n')
    rules = write("r.toml", RULE + 'receivers = ["hok"]\nruns = 1\n')

    assert problems_of(ConfigurationSources(settings_file=config, rules_path=rules)) == [
        (config, 2, "sampling.intervall"),
        (config, 7, "receiver.urll"),
        (config, 9, "routing.default"),
        (rules, 8, "rule.receivers"),
        (rules, 9, "rule.runs"),
    ]


def test_a_url_in_settings_that_everyone_can_read_is_reported(write):
    config = write("c.toml", HOOK.replace('/"', '/in/T0"'))
    notes = read_configuration(ConfigurationSources(settings_file=config, rules_path=write("r.toml", RULE))).notes

    assert [(note.line, note.key) for note in notes] == [(4, "receiver.url")]


def test_a_heartbeat_is_read_from_the_settings_and_there_is_none_without(write):
    rules = write("r.toml", RULE)
    config = write("c.toml", '[heartbeat]\nurl = "http://127.0.0.1:1"\n')
    assert (
        read_configuration(ConfigurationSources(settings_file=config, rules_path=rules)).heartbeat.interval_ns
        == 60 * SECOND_NS
    )
    config = write("c.toml", '[heartbeat]\nurl = "http://127.0.0.1:1"\ninterval = "5m"\n')
    assert (
        read_configuration(ConfigurationSources(settings_file=config, rules_path=rules)).heartbeat.interval_ns
        == 300 * SECOND_NS
    )
    assert (
        read_configuration(ConfigurationSources(settings_file=write("c.toml", ""), rules_path=rules)).heartbeat is None
    )


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("", 1, "heartbeat.url"),
        ('url = "hc.example.net"', 2, "heartbeat.url"),
        ('url = "http://x/"\ninterval = "0s"', 3, "heartbeat.interval"),
        ('url = "http://x/"\nfail_url = "ftp://x/"', 3, "heartbeat.fail_url"),
        ('url = "http://x/"\nmethod = "HEAD"', 3, "heartbeat.method"),
    ],
)
def test_problems_of_a_heartbeat_are_reported(write, text, line, key):
    config = write("c.toml", f"[heartbeat]\n{text}\n")
    assert problems_of(ConfigurationSources(settings_file=config, rules_path=write("r.toml", RULE))) == [
        (config, line, key)
    ]


def test_problems_are_reported_without_any_receiver(write):
    config = write("c.toml", "receiver = 3\n")

    assert (config, 1, "receiver") in problems_of(ConfigurationSources(settings_file=config))


def test_settings_that_cannot_be_read_hide_no_problem_of_rules_and_make_none(write):
    config = write("c.toml", "[sampling\n")
    rules = write("r.toml", RULE.replace('"5s"', '"200ms"') + 'receivers = ["hook"]\n')

    assert problems_of(ConfigurationSources(settings_file=config, rules_path=rules)) == [(config, 1, "file")]
    rules = write("r.toml", RULE + "runs = 1\n")
    assert problems_of(ConfigurationSources(settings_file=config, rules_path=rules)) == [
        (config, 1, "file"),
        (rules, 8, "rule.runs"),
    ]


def test_missing_rules_hide_no_problem_of_settings(write, tmp_path):
    config = write("c.toml", "x = 1\n")
    missing = str(tmp_path / "none")

    assert problems_of(ConfigurationSources(settings_file=config, rules_path=missing)) == [
        (config, 1, "x"),
        (missing, 1, "rules"),
    ]


def test_a_folder_without_rules_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()

    assert problems_of(ConfigurationSources(rules_path=str(tmp_path / "empty"))) == [
        (str(tmp_path / "empty"), 1, "rule")
    ]


@pytest.fixture
def unprivileged():
    """Be an ordinary user: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("place", ["usual.toml", "rules.d"])
def test_default_paths_that_cannot_be_read_are_a_problem_and_never_count_as_missing(
    tmp_path, monkeypatch, request, place
):
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(config_module, "DEFAULT_SETTINGS_FILE", str(tmp_path / "usual.toml"))
    module, name = {
        "usual.toml": (config_module, "DEFAULT_SETTINGS_FILE"),
        "rules.d": (setup_of_all, "DEFAULT_RULES_FOLDER"),
    }[place]
    monkeypatch.setattr(module, name, str(closed / place))
    closed.chmod(0)
    request.getfixturevalue("unprivileged")

    with pytest.raises(ConfigError) as caught:
        read_configuration(ConfigurationSources())
    told = {problem.file: problem.message for problem in caught.value.problems}
    assert told[str(closed / place)].startswith("cannot read: Permission denied: the account ")


def test_many_rules_are_named_in_part(write):
    rules = read_configuration(
        ConfigurationSources(rules_path=write("r.toml", "".join(RULE.replace("storm", f"r{n}") for n in range(14))))
    ).rules

    assert format_rule_ids(rules[:4]) == "r0, r1, r2, r3"
    assert format_rule_ids(rules) == "r0, r1, r2, r3 and 16 more"


def test_shipped_rules_get_the_address_of_their_runbook_and_own_rules_keep_theirs(write):
    base = "https://wiki.example.net/watchdog#"
    override = '[[override]]\nid = "connect-latency"\nrunbook = "https://wiki.example.net/own"\n'
    rules = write("r.toml", RULE + override)
    settings = write("all.toml", f'[docs]\nrunbook_base = "{base}"\n[rules]\nshipped = true\n')
    configuration = read_configuration(ConfigurationSources(settings, rules))
    runbooks = {rule.id: rule.runbook for rule in configuration.rules}
    assert runbooks.pop("storm") is None
    assert runbooks.pop("connect-latency") == "https://wiki.example.net/own"
    assert runbooks == {name: base + name for name in runbooks}
    values = {one.key: one for one in configuration.sources["outbound-connection-storm"].values}
    assert values["runbook"].value == base + "outbound-connection-storm"


def test_a_base_of_runbooks_that_is_no_address_is_a_problem(write):
    settings = write("all.toml", '[docs]\nrunbook_base = "wiki"\n')
    assert problems_of(ConfigurationSources(settings)) == [(settings, 2, "docs.runbook_base")]


def test_a_change_of_the_web_table_needs_a_restart(write):
    rules = write("rules/a.toml", RULE)

    def settings(text):
        return read_configuration(ConfigurationSources(write("watchdog.toml", text), rules)).settings

    without, first = settings(HOOK), settings(HOOK + '[web]\nlisten = "127.0.0.1:9464"\n')
    other = settings(HOOK + '[web]\nlisten = "127.0.0.1:9464"\nmax_series = 50\n')
    assert changed_restart_keys(without, first) == changed_restart_keys(first, other) == ["web"]
    assert changed_restart_keys(first, without) == ["web"]
    assert changed_restart_keys(first, first) == []


def test_each_changed_table_of_settings_is_named_and_an_order_of_keys_is_no_change(write):
    rules = write("rules/a.toml", RULE)

    def read(text):
        return read_configuration(ConfigurationSources(write("watchdog.toml", text), rules))

    first = read('host = "a"\n[sampling]\nledger = 100\ninterval = "2s"\n[[receiver]]\nname = "c"\ntype = "console"\n')
    same = read('[[receiver]]\ntype = "console"\nname = "c"\n[sampling]\ninterval = "2s"\nledger = 100\n').settings
    assert same.sampling == first.settings.sampling
    other = read('[sampling]\ninterval = "2s"\nledger = 100\n[[receiver]]\nname = "d"\ntype = "console"\n[docs]\n')
    assert changed_settings(first, other) == ["docs", "host", "receiver"]
    assert changed_settings(first, first) == []


def test_a_secret_in_the_settings_that_was_rotated_is_a_change_and_is_not_shown(write):
    rules = write("rules/a.toml", RULE)

    def read(token):
        text = f'[heartbeat]\nurl = "https://a.example/"\nbearer_token = "{token}"\n'
        settings = write("watchdog.toml", text)
        os.chmod(settings, 0o600)  # noqa: PTH101
        return read_configuration(ConfigurationSources(settings, rules))

    former, new = read("old-t0ken"), read("new-t0ken")
    assert changed_settings(former, new) == ["heartbeat"]
    assert "t0ken" not in repr(new)
