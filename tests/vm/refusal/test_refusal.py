"""On a kernel that is too old, every command that needs the kernel fails and names the missing feature."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("bpf-watchdog")


@pytest.mark.everywhere
@pytest.mark.parametrize("arguments", [("doctor",), ("run", "--state-dir", "/tmp/state"), ("sample", "--for", "1s")])
def test_the_kernel_is_refused_with_the_missing_feature(arguments):
    done = subprocess.run([COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr

    assert done.returncode == 4, output
    assert "Linux 5.12 or newer is needed" in output, output
    assert "Traceback" not in output
