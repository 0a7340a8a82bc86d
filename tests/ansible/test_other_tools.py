"""The examples for Puppet, Salt and pre-commit: applied by the real tools, and their content read by `check`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pytest
import yaml
from isolated_host import IsolatedHost

CHECKOUT = Path(__file__).parents[2]
PUPPET = CHECKOUT / "packaging" / "puppet" / "manifests" / "init.pp"
SALT = CHECKOUT / "packaging" / "salt"
BIN = Path(sys.executable).parent
SALT_CALL = Path(sys.prefix) / "salt" / "bin" / "salt-call"
SETTINGS = '[[receiver]]\nname = "oncall"\ntype = "command"\ncommand = ["/bin/true"]\n'
RULE = """\
[[rule]]
id = "{id}"
summary = "Größe {{value}}"
{metric} = "open"
stat = "last"
window = "10s"
fire_above = 1000000
receivers = ["oncall"]
"""
RULES = "/etc/bpf-watchdog/rules.d"
# The package and systemd are the test's own; the files, checks, reloads and their order are those of the class.
MANIFEST = """\
class {{ 'bpf_watchdog':
  settings    => file('/run/settings.toml'),
  rules       => {{ '{name}' => file('/run/rule.toml') }},
  secrets     => {{ 'hook' => Sensitive('http://127.0.0.1:9/s3cret') }},
  purge_rules => true,
}}
Package <| title == 'bpf-watchdog' |> {{ noop => true }}
Service <| title == 'bpf-watchdog' |> {{
  provider => 'base', enable => undef, stop => 'systemctl stop bpf-watchdog',
  start => 'systemctl start bpf-watchdog', status => 'systemctl is-active bpf-watchdog',
}}
"""
MINION = """\
root_dir: /run/salt
id: test
file_client: local
file_roots: {{base: [{states}]}}
pillar_roots: {{base: [/run/salt/pillar]}}
module_dirs: [/run/salt/modules]
providers: {{pkg: installed_package}}
enable_fqdns_grains: false
systemd.scope: false
"""
PACKAGE_MODULE = """\
def __virtual__():
    return "pkg"


def list_pkgs(*args, purge_desired=False, **kwargs):
    return {} if purge_desired else {"bpf-watchdog": "1"}
"""


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


class Puppet:
    """The class, applied in the host."""

    def __init__(self, host: IsolatedHost, folder: Path) -> None:
        self._host, self._modules = host, folder / "modules"
        self._modules.mkdir()
        (self._modules / "bpf_watchdog").symlink_to(PUPPET.parents[1])

    def apply(self, settings: str, name: str, rule: str) -> tuple[bool, bool, str]:
        """Return whether all resources were right at the end, whether any was changed, and the output."""
        self._host.write("/run/settings.toml", settings)
        self._host.write("/run/rule.toml", rule)
        self._host.write("/run/site.pp", MANIFEST.format(name=name))
        flags = ("--detailed-exitcodes", "--color=false", f"--modulepath={self._modules}")
        done = self._host.run("puppet", "apply", *flags, "/run/site.pp")
        return done.returncode in (0, 2), done.returncode in (2, 6), done.stdout


class Salt:
    """The states, applied in the host."""

    def __init__(self, host: IsolatedHost, folder: Path) -> None:
        self._host = host
        host.write("/run/salt/minion", MINION.format(states=SALT))
        host.write("/run/salt/modules/installed_package.py", PACKAGE_MODULE)
        host.write("/run/salt/pillar/top.sls", "base: {'*': [watchdog]}")

    def apply(self, settings: str, name: str, rule: str) -> tuple[bool, bool, str]:
        """Return whether all states were right at the end, whether any changed, and the output."""
        secrets = {"hook": "http://127.0.0.1:9/s3cret"}
        pillar = {"purge_rules": True, "settings": settings, "rules": {name: rule}, "secrets": secrets}
        self._host.write("/run/salt/pillar/watchdog.sls", json.dumps({"bpf_watchdog": pillar}))
        flags = ("--local", "--config-dir=/run/salt", "--retcode-passthrough", "--no-color", "--log-level=quiet")
        done = self._host.run(SALT_CALL, *flags, "state.apply", "bpf_watchdog")
        return done.returncode == 0, "changed=" in done.stdout, done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="the namespace and the daemon need root")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", [Puppet, Salt])
def test_the_tool_brings_files_into_force_and_keeps_those_before_a_broken_one(tmp_path, kind):
    mounted = tmp_path / "host"
    mounted.mkdir()
    with IsolatedHost(mounted, BIN / "bpf-watchdog") as host:
        tool = kind(host, tmp_path)
        good = RULE.format(id="first", metric="metric")
        is_right, _, output = tool.apply(SETTINGS, "a.toml", good)
        assert is_right, output
        assert host.rules_in_force() == {"first"}
        assert "s3cret" not in output

        is_right, is_changed, output = tool.apply(SETTINGS, "a.toml", good)
        assert (is_right, is_changed) == (True, False), output

        is_right, _, output = tool.apply(SETTINGS, "a.toml", good.replace("metric", "metrik"))
        assert not is_right
        assert "did you mean" in output
        assert host.read(f"{RULES}/a.toml") == good
        assert host.rules_in_force() == {"first"}

        pid = host.read("/run/watchdog.pid")
        is_right, _, output = tool.apply(SETTINGS + "[sampling]\nledger = 1_000\n", "b.toml", good)
        assert is_right, output
        assert host.run("ls", RULES).stdout == "b.toml\n"
        assert host.rules_in_force() == {"first"}
        assert host.read("/run/watchdog.pid") != pid  # the ledger has its size from the start


def rendered(pillar: dict, found: Sequence[str] = ()) -> dict:
    """Return the states of Salt, as its renderers jinja and yaml make them. `found`: files in rules.d."""
    get = {"pillar.get": pillar.get, "file.find": lambda *_, **__: list(found)}
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
    assert options(states, "/etc/bpf-watchdog/secrets/slack", "file.managed")["mode"] == "0640"
    assert "rules.d/site.toml" not in json.dumps(rendered({"bpf_watchdog": {"settings": "x"}}))


def test_the_states_of_salt_require_only_states_that_exist():
    states = rendered(yaml.safe_load((SALT / "pillar.example").read_text()), ["site.toml", "old.toml"])
    assert "file.absent" in states["/etc/bpf-watchdog/rules.d/old.toml"]
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
