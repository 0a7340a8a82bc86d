from __future__ import annotations

from pathlib import Path

import pytest

from watchdog.control.socket_path import control_socket_path, socket_address

SERVICE = {"STATE_DIRECTORY": "/var/lib/private/bpf-watchdog", "RUNTIME_DIRECTORY": "/run/own"}


@pytest.mark.parametrize(
    ("state", "environment", "socket"),
    [
        ("/var/lib/bpf-watchdog", {}, "/run/bpf-watchdog/control.sock"),
        ("/var/lib//bpf-watchdog/", {}, "/run/bpf-watchdog/control.sock"),
        ("/srv/other", {}, "/srv/other/control.sock"),
        ("/var/lib/private/bpf-watchdog", SERVICE, "/run/own/control.sock"),
        ("/srv/other", SERVICE, "/srv/other/control.sock"),
    ],
)
def test_the_usual_state_has_the_usual_socket_and_any_other_has_it_beside(state, environment, socket):
    assert control_socket_path(state, environment) == Path(socket)


def test_a_path_that_is_too_long_for_an_address_is_named_by_its_open_folder():
    assert socket_address(Path("/run/bpf-watchdog/control.sock"), 7) == "/run/bpf-watchdog/control.sock"
    assert socket_address(Path("/" + "x" * 120, "control.sock"), 7) == "/proc/self/fd/7/control.sock"
