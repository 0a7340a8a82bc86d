"""The types of the running kernel, from its own BTF: offsets of members, sizes, enumerators, function ids.

Reads /sys/kernel/btf/vmlinux through libbpf; used by the loader and by `doctor` only.
Format: Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

import ctypes as ct
import struct

from watchdog.errors import KernelUnfit
from watchdog.kernel.libbpf import kernel_btf, library
from watchdog.kernel.programs import MESSAGE_PROBES

_STRUCT, _UNION, _ENUM, _ENUM64 = 4, 5, 6, 19
_MODIFIERS = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag
_TYPEDEF, _FUNCTION = 8, 12
_MAX_MODIFIERS = 32  # of one type
_NEWER_KERNEL = "Linux 5.12 or newer is needed"


def message_probes_warning() -> str:
    """Return the reason why this kernel may not run the message probes, "" if it can. Needs no privilege."""
    try:
        btf = Btf()
    except KernelUnfit as error:
        return str(error)
    missing = [probe.target for probe in MESSAGE_PROBES if not btf.has_tracepoint(probe.target)]
    if not missing:
        return ""
    return f"this kernel has no {' and '.join(missing)} (Linux 6.3), fexit will be tried: run `bpf-watchdog doctor`"


class Btf:
    """The types of the running kernel."""

    def __init__(self) -> None:
        """Read the kernel's BTF.

        Raises:
            KernelUnfit, TemporaryFailure: as `kernel_btf`.
        """
        self._lib = library()
        self._btf = kernel_btf()

    def has_tracepoint(self, name: str) -> bool:
        """Return whether the kernel has the tracepoint `name` for typed raw tracepoint programs."""
        return bool(self._find(f"btf_trace_{name}", _TYPEDEF))

    def function_id(self, name: str) -> int:
        """Return the id of a kernel function, 0 if there is no function of this name."""
        return self._find(name, _FUNCTION)

    def has_struct(self, struct_name: str) -> bool:
        """Return whether the kernel has a struct of this name."""
        return bool(self._find(struct_name, _STRUCT))

    def traces_resets_without_socket(self) -> bool:
        """Return whether tcp_send_reset runs for segments without a socket, too: Linux 6.10, commit 19822a980e19."""
        return bool(self._find("sk_rst_reason", _ENUM))  # an argument of the tracepoint since then

    def struct_size(self, struct_name: str) -> int:
        """Return the size of a struct in bytes."""
        return self._head(self._struct(struct_name))[2]

    def member_offset(self, struct_name: str, member: str) -> int:
        """Return the offset of `member` in bytes, looking through anonymous structs and unions.

        Raises:
            KernelUnfit: the kernel has no such struct or member.
        """
        bits = self._member(self._struct(struct_name), member)
        if bits is None:
            raise KernelUnfit(f"this kernel's struct {struct_name} has no member {member}", remedy=_NEWER_KERNEL)
        return bits // 8

    def enumerator_value(self, enum_name: str, name: str) -> int:
        """Return the value of an enumerator.

        Raises:
            KernelUnfit: the kernel has no such enum or enumerator.
        """
        value = self._enumerator(enum_name, name)
        if value is None:
            raise KernelUnfit(
                f"this kernel has no {name} in enum {enum_name}", remedy="please report it with the kernel's version"
            )
        return value

    def require_helper(self, name: str) -> None:
        """Check that programs of this kernel can call the helper bpf_`name`.

        Raises:
            KernelUnfit: the kernel does not have it.
        """
        if self._enumerator("bpf_func_id", f"BPF_FUNC_{name}") is None:
            raise KernelUnfit(f"this kernel has no BPF helper bpf_{name}", remedy=_NEWER_KERNEL)

    def _enumerator(self, enum_name: str, name: str) -> int | None:
        for kind, size in ((_ENUM, 8), (_ENUM64, 12)):
            type_id = self._find(enum_name, kind)
            if not type_id:
                continue
            for entry in self._entries(type_id, size):
                name_at, value = struct.unpack_from("<II", entry)
                if self._name(name_at) == name:
                    return int(value)
        return None

    def _find(self, name: str, kind: int) -> int:
        return max(0, int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)))

    def _struct(self, name: str) -> int:
        type_id = self._find(name, _STRUCT)
        if not type_id:
            raise KernelUnfit(f"this kernel has no struct {name}", remedy=_NEWER_KERNEL)
        return type_id

    def _head(self, type_id: int) -> tuple[int, int, int]:
        # struct btf_type: name_off, info, size or type
        address = self._lib.btf__type_by_id(self._btf, type_id)
        if not address:
            raise KernelUnfit(f"the kernel's BTF has no type {type_id}, which it refers to")
        _, info, size = struct.unpack("<III", ct.string_at(address, 12))
        return (info >> 24) & 0x1F, info, size

    def _entries(self, type_id: int, size: int) -> list[bytes]:
        count = self._head(type_id)[1] & 0xFFFF
        raw = ct.string_at(self._lib.btf__type_by_id(self._btf, type_id) + 12, count * size)
        return [raw[at : at + size] for at in range(0, len(raw), size)]

    def _name(self, at: int) -> str:
        name: bytes | None = self._lib.btf__name_by_offset(self._btf, at)
        return (name or b"").decode("utf-8", "replace")

    def _skip_modifiers(self, type_id: int) -> int:
        for _ in range(_MAX_MODIFIERS):
            if self._head(type_id)[0] not in _MODIFIERS:
                break
            type_id = self._head(type_id)[2]
        return type_id

    def _member(self, type_id: int, member: str) -> int | None:
        """Return the offset of `member` in bits, None if there is none."""
        pending, seen = [(type_id, 0)], set()
        while pending:
            found_in, start = pending.pop()
            if found_in in seen:
                continue
            seen.add(found_in)
            has_bitfields = self._head(found_in)[1] >> 31
            for entry in self._entries(found_in, 12):
                name_at, member_type, at = struct.unpack("<III", entry)
                if has_bitfields:
                    at &= 0xFFFFFF
                name = self._name(name_at)
                if name == member:
                    return start + int(at)
                if not name and self._head(inner := self._skip_modifiers(member_type))[0] in (_STRUCT, _UNION):
                    pending.append((inner, start + int(at)))
        return None
