"""The user namespace of a process: only capabilities of the first one permit to load programs."""

from __future__ import annotations

import pytest

from watchdog.kernel.privileges import _is_host_user_namespace


@pytest.mark.parametrize(
    ("target", "is_host"),
    [("user:[4026531837]", True), ("user:[4026532291]", False), (None, True)],
    ids=["host", "container", "kernel without user namespaces"],
)
def test_a_kernel_without_user_namespaces_has_that_of_the_host_alone(tmp_path, target, is_host):
    if target is not None:
        (tmp_path / "user").symlink_to(target)

    assert _is_host_user_namespace(str(tmp_path / "user")) is is_host
