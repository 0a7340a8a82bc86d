"""Standard input, output and error that are usable in any environment: closed by the caller, or not in UTF-8."""

from __future__ import annotations

import codecs
import os
import sys
from typing import Final

_ERRORS = "bpf-watchdog"  # name of the error handler
_TO_ASCII: Final = str.maketrans("…▁▂▃▄▅▆▇█", "~.,:-=+*#")


def to_ascii(text: str) -> str:
    """Return `text` in ASCII: signs of tables and charts by similar ones, other characters as escapes."""
    return text.translate(_TO_ASCII).encode("ascii", "backslashreplace").decode()


def prepare_standard_streams() -> None:
    """Open closed standard descriptors on /dev/null, and let no character fail that the locale's encoding lacks.

    Without it, files and sockets get the number of a closed descriptor, and Python prints on standard output what is
    meant for a closed standard error.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is `descriptor`
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - for the whole process
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # tests have streams of their own
            stream.reconfigure(errors=_ERRORS)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return to_ascii(error.object[error.start : error.end]), error.end
