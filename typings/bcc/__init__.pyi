"""What the loader uses of bcc (python3-bpfcc 0.26 to 0.31)."""

from collections.abc import Sequence
from typing import Any

class BPFTable:
    map_fd: int

class BPFFunction:
    fd: int
    name: bytes

class BPF:
    RAW_TRACEPOINT: int
    TRACING: int
    module: Any
    _trace_autoload: Any
    tables: dict[bytes, BPFTable]
    def __init__(
        self,
        src_file: bytes | str = ...,
        hdr_file: bytes | str = ...,
        text: bytes | str | None = ...,
        debug: int = ...,
        cflags: Sequence[str] = ...,
        usdt_contexts: Sequence[object] = ...,
        allow_rlimit: bool = ...,
        device: bytes | None = ...,
        attach_usdt_ignore_pid: bool = ...,
    ) -> None: ...
    def __getitem__(self, key: bytes | str) -> BPFTable: ...
    def get_table(self, name: bytes | str) -> BPFTable: ...
    def load_func(self, func_name: bytes | str, prog_type: int, device: bytes | None = ..., attach_type: int = ...) -> BPFFunction: ...
    def cleanup(self) -> None: ...
    @staticmethod
    def support_kfunc() -> bool: ...

# ctypes.CDLL of libbcc, its functions declared in bcc/libbcc.py
lib: Any
