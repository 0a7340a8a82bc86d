"""The steps of the system test, in their order: the life of the package on a host, from installation to purge."""

from collections.abc import Callable, Collection, Mapping

from guarding import (
    bad_reload,
    clock_steps,
    confinement,
    good_reload,
    hang,
    host_name,
    install,
    journal,
    kill,
    reboot,
    storm,
    terminate,
)
from host import Host
from role import broken_rule, configure, rotate, second_run
from versions import downgrade, former, purge, remove, upgrade

Step = Callable[[Host], str]
"""Tries one part, and returns the result for people. Raises StepFailure or GuestError."""
STEPS: tuple[Step, ...] = (
    *(install, configure, second_run, storm, confinement, journal, host_name, broken_rule, rotate),
    *(kill, terminate, hang, good_reload, bad_reload, clock_steps, reboot),
    *(remove, former, upgrade, downgrade, purge),
)
# A play takes minutes in the emulated machine: where the releases run side by side, only one of them has these steps.
# Debian 12 also has the kernel tests.
SHARED_OUT: Mapping[Step, str] = {second_run: "trixie", broken_rule: "trixie", rotate: "bookworm"}


def steps_of(suite: str, suites: Collection[str]) -> list[Step]:
    """Return the steps of one of the `suites` that run side by side."""
    return [step for step in STEPS if (only := SHARED_OUT.get(step, suite)) == suite or only not in suites]
