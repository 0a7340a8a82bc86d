"""The last good configuration: saved as it was read, and read again under the rights of its owner."""

from __future__ import annotations

import json
import os
import stat

import pytest

from watchdog.daemon.configuration import ConfigurationSources, read_configuration
from watchdog.daemon.last_good import LastGood
from watchdog.kernel import privileges
from watchdog.receivers.base import open_volatile_state

SETTINGS = """\
[sampling]
interval = "2s"
[[receiver]]
name = "log"
type = "console"
"""
RULE = """\
[[rule]]
id = "storm"
summary = "{process}: {value}"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
fire_above = 5
"""


@pytest.fixture
def files(open_folder):
    (open_folder / "watchdog.toml").write_text(SETTINGS)
    (open_folder / "rules.d").mkdir()
    (open_folder / "rules.d" / "a.toml").write_text(RULE)
    (open_folder / "rules.d" / "b.toml").write_text(RULE.replace("storm", "other"))
    (open_folder / "state").mkdir(0o700)
    account = privileges.service_account()
    os.chown(open_folder / "state", account.pw_uid, account.pw_gid)
    return open_folder


@pytest.fixture
def sources(files):
    return ConfigurationSources(str(files / "watchdog.toml"), str(files / "rules.d"))


@pytest.fixture
def saved(files, sources):
    """Return the last good configuration of the files, saved by the account that owns the state folder."""
    last_good = LastGood(files / "state", sources)
    with privileges.acting_as(privileges.service_account()):
        last_good.save(read_configuration(sources).texts)
    return last_good


def test_the_files_come_back_as_they_were_although_they_are_broken_now(files, sources, saved):
    before = read_configuration(sources)
    (files / "watchdog.toml").write_text("[[")
    (files / "rules.d" / "a.toml").unlink()
    read = saved.read(open_volatile_state)
    assert read.rules == before.rules
    assert read.interval_ns == before.interval_ns
    assert list(read.receivers) == ["log"]
    assert (read.rules_origin, read.shipped_rules) == (str(files / "state" / "last-good" / "rules.d"), 6)
    assert os.geteuid() == 0


def test_the_file_is_private_and_belongs_to_the_account(files, saved):
    status = (files / "state" / "last-good.json").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == privileges.service_account().pw_uid


def test_other_files_and_no_files_have_no_last_good(files, sources, saved):
    other = ConfigurationSources(str(files / "else.toml"), sources.rules_path)
    assert LastGood(files / "state", other).read(open_volatile_state) is None
    assert LastGood(files, sources).read(open_volatile_state) is None


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"sources": [null, null]}', "\xff"])
def test_a_damaged_file_is_none(files, sources, saved, content):
    (files / "state" / "last-good.json").write_text(content)
    assert saved.read(open_volatile_state) is None


def test_a_file_of_the_account_cannot_make_root_read_what_the_account_cannot(files, sources, saved):
    secret = files / "secret"
    secret.write_text("https://example.net/hook")
    secret.chmod(0o600)
    file = files / "state" / "last-good.json"
    document = json.loads(file.read_text())
    document["settings"] = {"receiver": [{"name": "hook", "type": "webhook", "url_file": str(secret)}]}
    file.write_text(json.dumps(document))
    assert saved.read(open_volatile_state) is None
    os.chown(secret, privileges.service_account().pw_uid, -1)
    assert list(saved.read(open_volatile_state).receivers) == ["hook"]


def test_secrets_in_the_settings_are_never_saved_and_come_from_the_present_file(files, sources):
    settings = files / "watchdog.toml"
    secret = "https://hooks.example.net/T0/b3-secret"
    settings.write_text(
        '[[receiver]]\nname = "log"\ntype = "console"\n[[receiver]]\nname = "hook"\ntype = "webhook"\n'
        f'url = "{secret}"\n'
        '[receiver.headers]\n"X-Key" = "a-plain-value"\n[labels]\nteam = "net"\n'
    )
    os.chown(settings, privileges.service_account().pw_uid, -1)
    settings.chmod(0o600)
    last_good = LastGood(files / "state", sources)
    with privileges.acting_as(privileges.service_account()):
        last_good.save(read_configuration(sources).texts)
    assert "b3-secret" not in (files / "state" / "last-good.json").read_text()
    settings.write_text(settings.read_text() + "[nonsense]\n")
    read = last_good.read(open_volatile_state)
    assert list(read.receivers) == ["log", "hook"]
    assert read.receivers["hook"].destination() == "webhook hooks.example.net"
    assert read.settings.labels == (("team", "net"),)
    assert not [one for one in (files / "state").rglob("*") if one.is_file() and "b3-secret" in one.read_text()]
    settings.write_text("[[")
    assert last_good.read(open_volatile_state) is None


def test_names_of_files_cannot_leave_the_folder(files, sources, saved):
    file = files / "state" / "last-good.json"
    document = json.loads(file.read_text())
    document["rules"] = {"../../../escaped.toml": RULE}
    file.write_text(json.dumps(document))
    saved.read(open_volatile_state)
    assert [path.name for path in files.glob("**/escaped.toml")] == ["escaped.toml"]


def test_shipped_rules_are_read_from_the_program(files):
    sources = ConfigurationSources(str(files / "watchdog.toml"), None)
    configuration = read_configuration(sources)
    if configuration.texts.rules is not None:
        pytest.fail("this host has rules of its own in /etc/bpf-watchdog/rules.d")
    last_good = LastGood(files / "state", sources)
    with privileges.acting_as(privileges.service_account()):
        last_good.save(configuration.texts)
    assert last_good.read(open_volatile_state).rules == configuration.rules
