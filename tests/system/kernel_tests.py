"""The tests of the kernel's half on a real host: those that every change runs on other kernels too."""

import shlex
from pathlib import Path

from host import Host, StepFailure

CHECKOUT = Path(__file__).parents[2]
SECONDS = 1200.0
# The checkout is read-only in the guest. Bytecode is cached for the many short-lived processes of the tests.
ENVIRONMENT = (
    "PYTHONPYCACHEPREFIX=/var/tmp/bytecode HYPOTHESIS_STORAGE_DIRECTORY=/var/tmp/hypothesis"
    " WATCHDOG_PATIENCE_SECONDS=300"
)


def kernel_tests(host: Host) -> str:
    """Run the tests marked `everywhere` with the checkout's environment, which fits the guest's Python."""
    path = shlex.quote(str(CHECKOUT))
    host.machine.output(
        f"systemctl stop storm.service webhook.service || true; mkdir -p {path}"
        f" && mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 checkout {path}"
        f" && {path}/packaging/ensure-account"
    )
    done = host.machine.run(
        f"cd {path} && env {ENVIRONMENT} .venv/bin/python -m pytest -q --color=no -p no:cacheprovider --timeout=600"
        " -m everywhere tests/kernel",
        SECONDS,
    )
    lines = done.output.strip().splitlines()
    if done.code:
        raise StepFailure("\n".join(lines[-80:]))
    return lines[-1].strip("= ")
