"""Functions of the kernel that our programs call by BTF id (kfuncs), for which bcc has no form.

The sources call a number that is no helper's; here the call becomes one of the function, before the program is loaded.
Format: Documentation/bpf/standardization/instruction-set.rst and kfuncs.rst of the kernel.
"""

from __future__ import annotations

import os
import struct

from watchdog.kernel.btf import Btf
from watchdog.kernel.kernel_release import kernel_release

_CALL = 0x85  # BPF_JMP | BPF_CALL
_PSEUDO_KFUNC_CALL = 2
_INSTRUCTION = struct.Struct("<BBhi")  # opcode, source and destination register, offset, immediate value
# Macro in bpf/: number, function. Since Linux 6.10; needed where programs on tracepoints can be preempted, since 7.
_PREEMPTION = {
    "KFUNC_PREEMPT_DISABLE": (0x7FFF0001, "bpf_preempt_disable"),
    "KFUNC_PREEMPT_ENABLE": (0x7FFF0002, "bpf_preempt_enable"),
}
_PREEMPTIBLE_SINCE = (7,)


class Kfuncs:
    """Those that the running kernel has and our programs need on it."""

    def __init__(self) -> None:
        """Look for them.

        Raises:
            KernelUnfit: the kernel carries no BTF.
        """
        btf = Btf()
        found = {macro: (number, btf.function_id(name)) for macro, (number, name) in _PREEMPTION.items()}
        # A real-time kernel can sleep where memory is allocated.
        needed = kernel_release() >= _PREEMPTIBLE_SINCE and "PREEMPT_RT" not in os.uname().version
        self._found = found if needed and all(btf_id for _, btf_id in found.values()) else {}

    @property
    def cflags(self) -> list[str]:
        """Return what tells the sources of them."""
        return [f"-D{macro}={number:#x}" for macro, (number, _) in self._found.items()]

    def link_calls(self, code: bytes) -> bytes:
        """Return BPF instructions whose calls of our numbers are calls of the functions."""
        ids = dict(self._found.values())
        linked = bytearray(code)
        for at in range(0, len(code), _INSTRUCTION.size):
            opcode, registers, offset, number = _INSTRUCTION.unpack_from(code, at)
            if opcode == _CALL and registers == 0 and number in ids:
                _INSTRUCTION.pack_into(linked, at, opcode, _PSEUDO_KFUNC_CALL << 4, offset, ids[number])
        return bytes(linked)
