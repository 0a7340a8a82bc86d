"""The loader as a child process: its failures reach the caller with their remedy."""

import pytest

from watchdog.config.map_sizes import DEFAULT_MAP_SIZES
from watchdog.errors import KernelUnfit
from watchdog.kernel import handover


def test_a_failed_load_keeps_its_remedy(monkeypatch):
    def fail(_channel):
        raise KernelUnfit("no BTF", remedy="boot another kernel")

    monkeypatch.setattr(handover, "receive", fail)
    with pytest.raises(KernelUnfit) as caught:
        handover.run_loader(DEFAULT_MAP_SIZES)

    assert caught.value.text.startswith("no BTF")
    assert caught.value.remedy == "boot another kernel"
