"""Numbers in the compiled programs that the loader replaces before the load.

A call of a number that no helper has becomes the call of a function of the kernel by its BTF id (kfunc), which bcc does
not support. The value `VARIANT` becomes the variant of the program (`programs.Probe`).
Format: Documentation/bpf/standardization/instruction-set.rst and kfuncs.rst of the kernel.
"""

from __future__ import annotations

import os
import struct

from watchdog.kernel.btf import Btf
from watchdog.kernel.kernel_release import kernel_release

_CALL = 0x85  # BPF_JMP | BPF_CALL
_MOVE = (0xB7, 0xB4)  # BPF_ALU64 | BPF_MOV | BPF_K, BPF_ALU | BPF_MOV | BPF_K
_PSEUDO_KFUNC_CALL = 2
_INSTRUCTION = struct.Struct("<BBhi")  # opcode, source and destination register, offset, immediate value
# Macro in bpf/: number, function. Since Linux 6.10. Needed since 7, where programs on tracepoints can be preempted.
_PREEMPTION = {
    "KFUNC_PREEMPT_DISABLE": (0x7FFF0001, "bpf_preempt_disable"),
    "KFUNC_PREEMPT_ENABLE": (0x7FFF0002, "bpf_preempt_enable"),
}
_PREEMPTIBLE_SINCE = (7,)
VARIANT = 0x7FFF0003
"""The value that get_variant() in bpf/ has in the compiled code."""


class Kfuncs:
    """The kfuncs that the programs need on the running kernel."""

    def __init__(self) -> None:
        """Look up the kfuncs in the kernel's BTF.

        Raises:
            KernelUnfit: the kernel has no BTF.
        """
        btf = Btf()
        found = {macro: (number, btf.function_id(name)) for macro, (number, name) in _PREEMPTION.items()}
        # A real-time kernel can sleep where memory is allocated.
        needed = kernel_release() >= _PREEMPTIBLE_SINCE and "PREEMPT_RT" not in os.uname().version
        self._found = found if needed and all(btf_id for _, btf_id in found.values()) else {}

    @property
    def cflags(self) -> list[str]:
        """Return the compiler flags that define the numbers of the kfuncs."""
        return [f"-D{macro}={number:#x}" for macro, (number, _) in self._found.items()]

    def link_calls(self, code: bytes) -> bytes:
        """Return the BPF instructions of `code`, with calls of these numbers replaced by calls of the functions."""
        ids = dict(self._found.values())
        code_with_ids = bytearray(code)
        for at in range(0, len(code), _INSTRUCTION.size):
            opcode, registers, offset, number = _INSTRUCTION.unpack_from(code, at)
            if opcode == _CALL and registers == 0 and number in ids:
                _INSTRUCTION.pack_into(code_with_ids, at, opcode, _PSEUDO_KFUNC_CALL << 4, offset, ids[number])
        return bytes(code_with_ids)


def set_variant(code: bytes, variant: int) -> bytes:
    """Return the BPF instructions of `code` with `variant` in the place of `VARIANT`."""
    code_of_variant = bytearray(code)
    for at in range(0, len(code), _INSTRUCTION.size):
        opcode, registers, offset, value = _INSTRUCTION.unpack_from(code, at)
        if opcode in _MOVE and value == VARIANT:
            _INSTRUCTION.pack_into(code_of_variant, at, opcode, registers, offset, variant)
    return bytes(code_of_variant)
