"""The files for Prometheus, checked by its own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
FILES = CHECKOUT / "packaging/prometheus"
CASES = Path(__file__).with_name("alerting_rules.yml")


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, cwd=FILES)
    return done.returncode, done.stdout + done.stderr


def test_the_example_of_a_configuration_is_right_with_its_rules():
    code, output = promtool("check", "config", "prometheus.yml")
    assert code == 0, output
    assert "rules found" in output


def test_each_alert_fires_in_its_case_only():
    code, output = promtool("test", "rules", CASES)
    assert code == 0, output


def test_each_alert_has_a_case_and_a_line_in_the_docs():
    alerts = re.findall(r"- alert: (\w+)", (FILES / "bpf-watchdog.rules.yml").read_text())
    fired = re.findall(r"alertname: (\w+)\n *exp_alerts:\n *- exp_labels", CASES.read_text())
    documented = re.findall(r"\| `(BpfWatchdog\w+)` \|", (CHECKOUT / "docs/prometheus.md").read_text())
    assert len(alerts) == len(set(alerts))
    assert set(alerts) == set(fired)
    assert alerts == documented
