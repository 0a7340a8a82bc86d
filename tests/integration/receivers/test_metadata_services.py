"""No transport contacts a metadata service: neither by its address or a name, nor behind a proxy or a redirect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("metadata_services.py")
TESTS = Path(__file__).parents[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="making namespaces needs root")
def test_no_transport_connects_to_a_metadata_service_and_every_one_to_its_neighbours():
    finished = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert (finished.stderr, finished.returncode) == ("", 0)
    found = json.loads(finished.stdout)
    assert found["connections"] == 0
    assert set(found["results"].values()) == {"forbidden_address"}
    assert len(found["results"]) == 5 * 8
    assert found["apprise"] == ["server_error"] * 3  # the child process cannot name the cause
    assert "forbidden_address" not in found["ordinary"].values()
    assert found["ordinary connections"] >= 2 * 5  # one transport each; an UDP datagram counts too
