"""Run one target under Atheris, guided by coverage: `guided.py TARGET WORK_FOLDER [option of libFuzzer …]`.

Each defect is written once, as a file of the corpus, and the run goes on.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["watchdog", "smtplib", "http.client", "urllib3", "email", "json"]):
    from execution import CORPUS, TARGETS, defect_key, run_checked

_MAX_DEFECTS = 20


class DefectRecorder:
    """Writes an input for each place of an error, and its traceback to the log."""

    def __init__(self, name: str) -> None:
        self._folder = CORPUS / name
        self._keys: set[str] = set()

    def record(self, data: bytes, error: Exception) -> None:
        key = defect_key(error)
        if key in self._keys or len(self._keys) >= _MAX_DEFECTS:
            return
        self._keys.add(key)
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{type(error).__name__}-{hashlib.sha256(data).hexdigest()[:12]}"
        file.write_bytes(data)
        print(f"DEFECT {key}: {file}", flush=True)
        traceback.print_exception(error)


def main() -> None:
    name, work, *options = sys.argv[1:]
    target, recorder = TARGETS[name], DefectRecorder(name)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, target.open(Path(folder)) as function:

        def run(data: bytes) -> None:
            try:
                run_checked(function, data)
            except Exception as error:  # noqa: BLE001 - every error is a defect, and the run goes on
                recorder.record(data, error)

        atheris.Setup([sys.argv[0], work, f"-max_len={target.max_bytes}", *options], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
