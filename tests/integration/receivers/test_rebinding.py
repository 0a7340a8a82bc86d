"""A name server whose answers change with each query, used through the real resolver (DNS rebinding)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("rebinding.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="making namespaces needs root")
def test_a_name_that_changes_its_address_never_leads_to_a_metadata_service():
    finished = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.stderr, finished.returncode) == ("", 0)
    found = json.loads(finished.stdout)
    one_round = [200, "forbidden_address", "forbidden_address", 200]  # of two addresses, the allowed one is used
    assert found["results"] == one_round * (len(found["results"]) // 4)
    assert (found["accepted"], found["metadata_connections"]) == (len(found["results"]) // 2, 0)
    assert found["queries"] == [len(found["results"])] * 2  # one per attempt: no query between check and use
