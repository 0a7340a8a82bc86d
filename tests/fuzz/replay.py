"""Run a target on kept inputs and those in a folder, in a process of its own: `replay.py TARGET FOLDER SECONDS`.

Prints one JSON object: the number of `inputs` and `runs`, the `defects`, and the `growth` of the memory in bytes: peak
at the end, less the memory after the kept inputs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from execution import TARGETS, defect_key, kept_inputs, resident_bytes, run_checked


def main() -> None:
    name, found, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    kept = list(kept_inputs(name))
    inputs = [*kept, *(file.read_bytes() for file in sorted(found.glob("*")))]
    defects: dict[str, str] = {}
    runs = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, TARGETS[name].open(Path(folder)) as function:

        def run(data: bytes) -> None:
            try:
                run_checked(function, data)
            except Exception as error:  # noqa: BLE001 - every error is a defect
                defects[defect_key(error)] = str(error)[:200]

        for data in kept:
            run(data)
        before, end = resident_bytes()[0], time.monotonic() + seconds
        while runs < len(inputs) or time.monotonic() < end:
            run(inputs[runs % len(inputs)])
            runs += 1
        growth = resident_bytes()[1] - before
    print(json.dumps({"inputs": len(inputs), "runs": runs, "defects": defects, "growth": growth}))


if __name__ == "__main__":
    main()
