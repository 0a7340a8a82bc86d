"""The command `export`: exit codes, output and refusals."""

from __future__ import annotations

import json
import subprocess

import pytest

from watchdog.cli.main import main

RULES = """
[[rule]]
id = "storm"
summary = "{process}"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
fire_above = 100
"""
REFUSED = RULES.replace("storm", "by-user").replace("process", "user")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.toml"


def test_rules_are_printed_and_the_exit_code_is_0(file, capsys, tmp_path):
    file.write_text(RULES)
    assert main(["export", "prometheus-rules", str(file), "--scrape-interval", "1s"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"# Alerting rules made from {file} by bpf-watchdog" in out
    assert 'rate(bpf_watchdog_tcp_connects_total{process!="(other)"}[10s])' in out
    (tmp_path / "rules.yml").write_text(out)
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--skip"], 0)])
def test_a_refused_rule_is_named_and_the_others_are_exported(file, capsys, options, code):
    file.write_text(RULES + REFUSED)
    assert main(["export", "prometheus-rules", str(file), *options]) == code
    out, err = capsys.readouterr()
    reason = "by: bpf_watchdog_tcp_connects_total has no label user"
    assert err == f"not exported: {file}:11: by-user: {reason}\n"
    assert 'alert: "storm"' in out
    assert out.endswith(f"# Not exported:\n#   by-user: {reason}\n")


def test_json_has_rules_differences_and_refusals(file, capsys):
    file.write_text(RULES + REFUSED)
    assert main(["export", "prometheus-rules", str(file), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    [group] = shown["groups"]
    assert [(one["alert"], one["labels"]) for one in group["rules"]] == [("storm", {"severity": "warning"})]
    assert shown["notes"] == {"storm/warning": ["window 1m instead of 10s: 4 scrapes, one each 15s"]}
    assert shown["refused"][0] | {"reason": ""} == {"rule": "by-user", "file": str(file), "line": 11, "reason": ""}


def test_settings_give_shipped_rules_their_runbooks(tmp_path, file, capsys):
    settings = tmp_path / "watchdog.toml"
    settings.write_text('[docs]\nrunbook_base = "https://wiki.example.net/#"\n')
    file.write_text('[[override]]\nid = "outbound-connection-storm"\nfire_above = { warning = 400 }\n')
    assert main(["export", "prometheus-rules", str(file), "--config", str(settings)]) == 0
    out = capsys.readouterr().out
    assert "> 400" in out
    assert 'runbook_url: "https://wiki.example.net/#outbound-connection-storm"' in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prometheus-rules", "/nonexistent.toml"], 2, "no such file or folder: /nonexistent.toml"),
        (["prometheus-rules", "--config", "/nonexistent.toml"], 2, "no such file or folder: /nonexistent.toml"),
        (["prometheus-rules", "--scrape-interval", "15"], 2, "--scrape-interval: "),
        (["prometheus-rules", "--scrape-interval", "1h"], 2, "--scrape-interval: must be 1s to 5m, not 1h"),
    ],
)
def test_mistakes_of_the_command_line(capsys, arguments, code, message):
    assert main(["export", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_files_with_problems_are_reported_and_nothing_is_exported(file, capsys):
    file.write_text(RULES + "\nfier_above = 3\n")
    assert main(["export", "prometheus-rules", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert 'unknown key "fier_above"' in err
