"""The fields of /proc/PID/stat, and the release of the kernel."""

from __future__ import annotations

import os

import pytest

from watchdog.kernel import kernel_release as release_module
from watchdog.kernel.kernel_release import kernel_release
from watchdog.kernel.process_stat import ProcessStat, read_process_stat

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def write_stat(proc, text):
    (proc / "7").mkdir()
    (proc / "7" / "stat").write_bytes(text)


def test_the_name_can_contain_parentheses_and_spaces(tmp_path):
    write_stat(tmp_path, b"7 (a) S 9 (b)) S 3 " + b"0 " * 17 + b"100 0\n")

    assert read_process_stat(7, tmp_path) == ProcessStat("a) S 9 (b)", 3, 100)


@pytest.mark.parametrize("text", [b"", b"7 (a) S 3 0 0\n"])
def test_a_truncated_stat_is_none(tmp_path, text):
    write_stat(tmp_path, text)

    assert read_process_stat(7, tmp_path) is None
    assert read_process_stat(8, tmp_path) is None


def test_the_start_is_compared_within_its_tick():
    stat = ProcessStat("a", 3, 100)

    assert [stat.has_start(number * TICK_NS + 5) for number in (99, 100, 101)] == [False, True, False]


@pytest.mark.parametrize(
    ("release", "numbers"),
    [
        ("6.12.118+deb13-amd64", (6, 12, 118)),
        ("6.1.0-56-amd64", (6, 1, 0)),
        ("7.3", (7, 3, 0)),
        ("6.6.87.2-microsoft-standard-WSL2", (6, 6, 87)),
        ("unknown", (0, 0, 0)),
    ],
)
def test_the_release_is_three_numbers(monkeypatch, release, numbers):
    monkeypatch.setattr(release_module.os, "uname", lambda: type("Uname", (), {"release": release}))

    assert kernel_release() == numbers
