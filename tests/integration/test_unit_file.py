"""The systemd unit and its account, checked with systemd's own tools."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "packaging/systemd"
UNIT = FOLDER / "bpf-watchdog.service"


@pytest.fixture(scope="module")
def service():
    """Return the unit's settings, each with all its values in their order."""
    settings = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings[key].append(value)
    return settings


def verify(*unit: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FOLDER / "verify", *unit], capture_output=True, text=True, timeout=170, check=False)


def test_systemd_understands_the_unit_and_finds_it_confined():
    done = verify()

    assert (done.returncode, done.stderr) == (0, "")
    score = re.search(r"exposure level for bpf-watchdog\.service: ([\d.]+)", done.stdout)
    assert float(score[1]) <= 2.0


@pytest.mark.parametrize(
    ("line", "instead", "complaint"),
    [
        ("WatchdogSec=30", "WatchdogSecs=30", "Unknown key"),
        ("ProtectSystem=strict", "ProtectSystem=very", "Failed to parse"),
        ("CapabilityBoundingSet=CAP_BPF CAP_PERFMON", "", "exposure level"),
        ("LimitCORE=0", "LimitCORE=infinity", "missing line: LimitCORE=0"),
        ("Restart=always", "Restart=on-failure", "missing line: Restart=always"),
        ("StartLimitIntervalSec=0", "", "missing line: StartLimitIntervalSec=0"),
        ("ExecReload=/usr/bin/bpf-watchdog reload", "ExecReload=kill -HUP $MAINPID", "missing line: ExecReload="),
        ("UMask=0077", "ConfigurationDirectory=bpf-watchdog", "ConfigurationDirectory=bpf-watchdog"),
        ("RestartSec=2", "RestartSec=2\nRestartSteps=8", "RestartSteps=8"),
    ],
)
def test_an_error_in_the_unit_is_reported(tmp_path, line, instead, complaint):
    text = UNIT.read_text()
    assert line in text.splitlines()
    unit = tmp_path / "bpf-watchdog.service"
    unit.write_text(text.replace(line, instead))
    done = verify(unit)

    assert done.returncode == 1
    assert complaint in done.stderr


def test_the_service_has_two_capabilities_and_an_account_of_its_own(service):
    assert service["CapabilityBoundingSet"] == ["CAP_BPF CAP_PERFMON"]
    assert service["AmbientCapabilities"] == ["CAP_BPF CAP_PERFMON"]
    assert service["User"] == ["bpf-watchdog"]


def test_no_end_of_the_daemon_is_final(service):
    # Any user can use up memory, processes or disk space for a while. Python itself ends with 2 without descriptors.
    assert service["Restart"] == ["always"]
    assert service["StartLimitIntervalSec"] == ["0"]
    assert 1 <= int(service["RestartSec"][0]) <= 2
    assert not {"RestartPreventExitStatus", "SuccessExitStatus", "StartLimitBurst", "StartLimitAction"} & set(service)


def test_the_account_owns_no_folder_of_settings(service):
    # systemd would give a ConfigurationDirectory= to the account of the service, and leave it writable for it.
    owned = {key for key in service if key.endswith("Directory")}
    assert owned == {"StateDirectory", "RuntimeDirectory"}
    assert service["ProtectSystem"] == ["strict"]
    assert not [key for key in service if key.startswith("ReadWrite")]


def test_it_starts_after_the_name_of_the_host_is_set(service):
    assert {"cloud-init-local.service", "cloud-init.service", "cloud-init-network.service"} <= set(
        service["After"][0].split()
    )


def test_a_command_that_the_kernel_kills_for_memory_does_not_stop_the_daemon(service):
    assert service["OOMPolicy"] == ["continue"]
    assert int(service["OOMScoreAdjust"][0]) < 0


def test_bpf_is_allowed_after_the_privileged_calls_are_taken_away(service):
    filters = service["SystemCallFilter"]

    assert filters.index("~@privileged @resources") < filters.index("bpf capset")


def test_the_processes_whose_connections_it_names_are_not_hidden_from_it(service):
    assert not {"ProtectProc", "ProcSubset", "PrivateUsers", "PrivateNetwork"} & set(service)


def test_sysusers_makes_the_account_that_the_unit_names(tmp_path, service):
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", FOLDER / "bpf-watchdog.sysusers"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    account = (tmp_path / "etc/passwd").read_text().split(":")

    assert [account[0]] == service["User"]
    assert account[6].strip() == "/usr/sbin/nologin"
