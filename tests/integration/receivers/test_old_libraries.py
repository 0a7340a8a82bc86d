"""The guards of the HTTP transport hold with the oldest supported requests and urllib3, those of Debian 12."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
OLD = Path(sys.prefix) / "old-http"
GUARDS = (
    "deadline or link_local or proxy or tls or certificate or interim or 64_kib or address or cut_short or redirect"
)


@pytest.mark.timeout(400)
def test_the_guards_hold_with_the_oldest_libraries():
    environment = os.environ | {"PYTHONPATH": str(OLD)}
    versions = [sys.executable, "-c", "import requests, urllib3; print(requests.__version__, urllib3.__version__)"]
    found = subprocess.run(versions, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert found == "2.28.1 1.26.12\n"

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", GUARDS, HERE / "test_http.py"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-5_000:]
