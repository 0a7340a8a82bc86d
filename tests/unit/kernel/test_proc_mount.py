"""The note of `doctor` on a /proc that hides processes."""

from __future__ import annotations

import pytest

from watchdog.kernel.kernel_support import _proc_mount

LINE = "22 28 0:21 / {} rw,nosuid shared:14 - {} {}\n"


@pytest.mark.parametrize(
    ("mounts", "verdict", "words"),
    [
        ([("/proc", "proc proc", "rw")], "ok", ""),
        ([("/proc", "proc proc", "rw,hidepid=invisible")], "note", "hidepid=invisible"),
        ([("/proc", "proc proc", "rw,gid=110,hidepid=2")], "note", "SupplementaryGroups= with group 110"),
        ([("/proc", "proc proc", "rw,hidepid=noaccess")], "note", "gid= of a group"),
        ([("/proc", "proc proc", "rw,hidepid=2"), ("/proc", "proc proc", "rw")], "ok", ""),
        ([("/proc", "proc proc", "rw"), ("/srv/proc", "proc proc", "rw,hidepid=2")], "ok", ""),
        ([("/proc", "proc proc", "rw"), ("/proc/sys", "proc proc", "ro")], "ok", ""),
        ([("/proc", "proc proc", "rw,hidepid=off")], "ok", ""),
        ([("/proc", "proc proc", "rw"), ("/srv/a\rb\fc\x85d", "fuse x", "rw,user_id=1000")], "ok", ""),
        ([("/proc", "proc proc", "rw"), ("/srv/a\f1 2 0:3 / /proc rw - proc proc hidepid=2\f", "x x", "rw")], "ok", ""),
    ],
)
def test_a_mount_that_hides_processes_is_noted_with_the_remedy(tmp_path, mounts, verdict, words):
    file = tmp_path / "mountinfo"
    file.write_bytes("".join(LINE.format(*mount) for mount in mounts).encode())
    finding = _proc_mount(file)

    assert finding.verdict == verdict
    assert words in f"{finding.detail} {finding.remedy}"
