"""Whether the kernel runs the programs that see connects fail before their first packet, tried without bcc."""

from __future__ import annotations

import os

from watchdog.errors import KernelUnfit, WatchdogError
from watchdog.kernel import libbpf, privileges
from watchdog.kernel.btf import Btf
from watchdog.kernel.programs import CONNECT_ERROR_PROBES, AttachType

_NOTHING = bytes([0xB7, *bytes(7), 0x95, *bytes(7)])  # return 0
_MEANING = "connects that fail before their first packet are not all counted"


def connect_errors_warning() -> str:
    """Return the reason why connects that fail before their first packet are not all counted here; "" if none is known.

    With CAP_BPF and CAP_PERFMON it is tried: a program that does nothing is attached for a moment. Without them, a
    kernel that has the functions is taken for one that allows programs on them.
    """
    if not privileges.effective_capabilities() >= privileges.LOADER_CAPABILITIES:
        return _missing_functions()
    for probe in CONNECT_ERROR_PROBES:
        try:
            program = libbpf.load_program(probe.name, probe.target, AttachType.FEXIT.value[0], _NOTHING)
        except (WatchdogError, OSError) as error:
            return f"{_MEANING}: {str(error).splitlines()[0]}"
        try:
            os.close(libbpf.attach(program))
        except (WatchdogError, OSError) as error:
            return f"{_MEANING}: {str(error).splitlines()[0]}"
        finally:
            os.close(program)
    return ""


def _missing_functions() -> str:
    try:
        btf = Btf()
    except KernelUnfit as error:
        return f"{_MEANING}: {error.text}"
    missing = [probe.target for probe in CONNECT_ERROR_PROBES if not btf.function_id(probe.target)]
    return f"{_MEANING}: this kernel has no {', '.join(missing)} to attach to" if missing else ""
