"""The examples for Puppet, Salt and pre-commit: each is read by its own parser, and their content by `check`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
PUPPET = CHECKOUT / "packaging" / "puppet" / "manifests" / "init.pp"
SALT = CHECKOUT / "packaging" / "salt"
BIN = Path(sys.executable).parent


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [BIN / "bpf-watchdog", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@pytest.mark.timeout(300)
def test_the_manifest_of_puppet_is_valid(tmp_path):
    done = subprocess.run(["puppet", "parser", "validate", PUPPET], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = tmp_path / "init.pp"
    broken.write_text(PUPPET.read_text().replace("class bpf_watchdog (", "class bpf_watchdog {"))
    assert subprocess.run(["puppet", "parser", "validate", broken], capture_output=True, check=False).returncode == 1


def rendered(pillar: dict) -> dict:
    """Return the states of Salt, as its renderers jinja and yaml make them."""
    get = {"pillar.get": pillar.get}
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(
        (SALT / "bpf_watchdog" / "init.sls").read_text()
    )
    return yaml.safe_load(template.render(salt=get))


def options(states: dict, name: str, function: str) -> dict:
    return {key: value for one in states[name][function] for key, value in one.items()}


def test_the_states_of_salt_have_each_file_of_the_pillar():
    pillar = yaml.safe_load((SALT / "pillar.example").read_text())
    states = rendered(pillar)
    wanted = pillar["bpf_watchdog"]
    rule = options(states, "/etc/bpf-watchdog/rules.d/site.toml", "file.managed")
    assert rule["contents"] == wanted["rules"]["site.toml"]
    assert rule["check_cmd"].endswith(" --as site.toml")
    assert options(states, "/etc/bpf-watchdog/rules.d", "file.directory")["clean"] is True
    assert options(states, "/etc/bpf-watchdog/secrets/slack", "file.managed")["mode"] == "0640"
    assert "rules.d/site.toml" not in json.dumps(rendered({"bpf_watchdog": {"settings": "x"}}))


def test_the_states_of_salt_require_only_states_that_exist():
    states = rendered(yaml.safe_load((SALT / "pillar.example").read_text()))
    ids = {(function.partition(".")[0], name) for name, functions in states.items() for function in functions}
    required = {
        (kind, name)
        for functions in states.values()
        for entries in functions.values()
        for entry in entries
        for key in ("require", "require_in")
        for one in entry.get(key, [])
        for kind, name in one.items()
    }
    assert required <= ids


def test_the_files_of_the_pillar_are_right_together(tmp_path):
    wanted = yaml.safe_load((SALT / "pillar.example").read_text())["bpf_watchdog"]
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "watchdog.toml").write_text(wanted["settings"])
    for name, text in wanted["rules"].items():
        (tmp_path / "rules.d" / name).write_text(text)
    done = check("check", "--rules", tmp_path / "rules.d", "--config", tmp_path / "watchdog.toml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", [PUPPET, SALT / "bpf_watchdog" / "init.sls"], ids=["puppet", "salt"])
def test_the_commands_of_the_examples_exist_with_their_options(file):
    for command, options_text in re.findall(r"/usr/bin/bpf-watchdog ([a-z]+)((?: --[a-z-]+)*)", file.read_text()):
        shown = check(command, "--help").stdout
        assert all(option in shown for option in options_text.split()), command


def test_pre_commit_accepts_the_hook_and_it_finds_files_of_the_watchdog_only():
    manifest = CHECKOUT / ".pre-commit-hooks.yaml"
    done = subprocess.run(
        [BIN / "pre-commit", "validate-manifest", manifest], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    [hook] = yaml.safe_load(manifest.read_text())
    chosen = [file for file in FILES if re.search(hook["files"], file) and not re.search(hook["exclude"], file)]
    assert chosen == FILES[:4]
    assert check(*hook["entry"].split()[1:], "--help").returncode == 0


FILES = [
    "watchdog.toml",
    "hosts/web/watchdog.toml",
    "rules.d/a.toml",
    "roles/x/files/rules.d/site.toml",
    "pyproject.toml",
    "rules.d/sub/a.toml",
    "rules.d/a.test.toml",
    "rules.d/.draft.toml",
    "my-watchdog.toml.j2",
]
