"""Every seed and every input that once failed, against the targets of `make fuzz`."""

from __future__ import annotations

import time

import pytest

from execution import MAX_SECONDS, TARGETS, kept_inputs


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_cause_no_error_and_take_no_long_time(name, tmp_path):
    with TARGETS[name].open(tmp_path) as function:
        for data in kept_inputs(name):
            began = time.process_time()
            function(data)
            assert time.process_time() - began <= MAX_SECONDS
