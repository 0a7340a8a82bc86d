"""The loader: a short-lived child with CAP_BPF and CAP_PERFMON, the only one that ever maps LLVM.

It compiles bpf/ with bcc against headers made from the running kernel's BTF, loads every program without attaching it,
passes the descriptors to its parent, and exits. bcc has no name for tp_btf programs: their bytecode is compiled as
bcc's "kfunc" and loaded through libbpf with the attach type and BTF id of the tracepoint.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchdog.errors import KernelUnfit, WatchdogError
from watchdog.kernel import handover, layout, libbpf, privileges
from watchdog.kernel.headers import TRACEPOINTS, write_header_tree
from watchdog.resources import bpf_folder

if TYPE_CHECKING:
    import types

_SOURCES = ("connection.h", "connection.bpf.c")
_BCC_MISSING = (
    "iovisor's bcc is missing for {python}: install Debian's package python3-bpfcc and make the environment with"
    " /usr/bin/python3 -m venv --system-site-packages"
)
_BCC_WRONG = (
    "the module bcc at {path} is not iovisor's (PyPI's bcc is an unrelated package): pip uninstall bcc, and install"
    " Debian's package python3-bpfcc"
)


def import_bcc() -> types.ModuleType:
    """Return iovisor's bcc module.

    Raises:
        KernelUnfit: it is missing, or another package has its name; names the remedy.
    """
    try:
        import bcc
    except ImportError as error:
        raise KernelUnfit(_BCC_MISSING.format(python=sys.executable)) from error
    if not hasattr(bcc, "BPF"):
        raise KernelUnfit(_BCC_WRONG.format(path=getattr(bcc, "__file__", "?")))
    return bcc


def compile_and_load(folder: Path, ledger_capacity: int) -> dict[str, int]:
    """Compile the sources in `folder`, load all programs, and return descriptors by manifest name.

    `folder` must be private and is the current folder after this: bcc puts it on its include path.

    Raises:
        KernelUnfit: the kernel or bcc lacks something.
    """
    write_header_tree(folder / "kernel")
    (folder / "layout_assertions.h").write_text(layout.assertions(), encoding="ascii")
    os.chdir(folder)
    os.environ["BCC_KERNEL_SOURCE"] = str(folder / "kernel")
    bcc = import_bcc()
    bcc.BPF._trace_autoload = lambda _self: None  # noqa: SLF001 - it would attach by function name
    source = (folder / "connection.bpf.c").read_text(encoding="ascii") + '#include "layout_assertions.h"\n'
    cflags = [f"-I{folder}", f"-DLEDGER_CAPACITY={ledger_capacity}"]
    try:
        module = bcc.BPF(text=source, cflags=cflags)
        iterator = module.load_func(f"bpf_iter__{handover.LINK}", libbpf.BPF_PROG_TYPE_TRACING)
    except Exception as error:  # bcc raises Exception itself
        raise KernelUnfit(f"bcc cannot compile or load the programs: {error}") from error
    fds = {f"program:{name}": _load_tracepoint(bcc.lib, module.module, name) for name in TRACEPOINTS}
    fds[f"link:{handover.LINK}"] = libbpf.checked(
        bcc.lib.bcc_iter_attach(iterator.fd, None, 0), "attaching the iterator"
    )
    fds.update({f"map:{name}": module[name].map_fd for name in handover.MAPS})
    return fds


def _load_tracepoint(lib: Any, module: Any, tracepoint: str) -> int:
    # The symbol is kfunc__NAME up to bcc 0.26, kfunc__vmlinux__NAME later.
    names = [lib.bpf_function_name(module, number) for number in range(lib.bpf_num_functions(module))]
    for symbol in names:
        if symbol.startswith(b"kfunc__") and symbol.endswith(b"__" + tracepoint.encode()):
            start, size = lib.bpf_function_start(module, symbol), lib.bpf_function_size(module, symbol)
            return libbpf.load_tp_btf(tracepoint, start, size)
    raise KernelUnfit(f"this bcc names the program on {tracepoint} in a way not known: {names}")


def main(channel_fd: int, ledger_capacity: int) -> int:
    """Load and hand over through the socket `channel_fd`; return the exit code."""
    with socket.socket(fileno=channel_fd) as channel:
        try:
            # Read before privileges go: the service's account may not reach into a checkout.
            sources = {name: (bpf_folder() / name).read_text(encoding="ascii") for name in _SOURCES}
            wanted = {privileges.CAP_BPF, privileges.CAP_PERFMON}
            privileges.require(wanted)
            privileges.keep_only(wanted)
            folder = Path(tempfile.mkdtemp(prefix="bpf-watchdog-"))
            try:
                for name, text in sources.items():
                    (folder / name).write_text(text, encoding="ascii")
                handover.send(channel, compile_and_load(folder, ledger_capacity))
            finally:
                os.chdir("/")
                shutil.rmtree(folder, ignore_errors=True)
        except WatchdogError as error:
            handover.send_error(channel, error)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
