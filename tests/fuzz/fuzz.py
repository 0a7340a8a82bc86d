"""Fuzz all targets, or one, for a total time: `fuzz.py [--seconds N] [--target NAME]`.

Two steps for each target: mutations guided by coverage (Atheris), then all inputs that it kept are run again in a plain
process; its memory may grow by 20 MB. Inputs that fail are written to tests/fuzz/corpus/, which a test replays; the
inputs that reach new code stay in build/fuzz/ for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from execution import CORPUS, TARGETS

_HERE = Path(__file__).parent
_WORK = _HERE.parents[1] / "build" / "fuzz"
_MAX_GROWTH = 20_000_000
_REPLAY_SHARE = 0.1
_MAX_RESTARTS = 10  # after a crash of the process itself, such as one in a library


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=3_600.0, help="for all targets together")
    arguments.add_argument("--target", choices=[*TARGETS, ""], default="")
    given = arguments.parse_args()
    names = [given.target] if given.target else list(TARGETS)
    results = [_fuzz(name, given.seconds / len(names)) for name in names]
    return 0 if all(results) else 1


def _fuzz(name: str, seconds: float) -> bool:
    """Fuzz one target; print a line about it, and return whether it has no defect."""
    work = _WORK / name
    work.mkdir(parents=True, exist_ok=True)
    before = _corpus(name)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (work / f"seed-{number:03}").write_bytes(seed)
    problems = _run_guided(name, work, seconds * (1 - _REPLAY_SHARE))
    replay = subprocess.run(
        [sys.executable, _HERE / "replay.py", name, work, str(seconds * _REPLAY_SHARE)],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    found = json.loads(replay.stdout) if replay.returncode == 0 else {"defects": {}, "inputs": 0, "growth": 0}
    if replay.returncode:
        problems.append(f"the replay ended with {replay.returncode}: {replay.stderr[-500:]}")
    problems += [f"{key}: {text}" for key, text in found["defects"].items()]
    if found["growth"] > _MAX_GROWTH:
        problems.append(f"memory grew by {found['growth'] / 1e6:.1f} MB")
    problems += [f"new file {file}" for file in sorted(_corpus(name) - before)]
    print(
        f"{name}: {_executions(name):,} runs, {found['inputs']:,} inputs kept, "
        f"growth {found['growth'] / 1e6:.1f} MB, {len(problems)} problems",
        flush=True,
    )
    for problem in problems:
        print(f"  {problem}", flush=True)
    return not problems


def _run_guided(name: str, work: Path, seconds: float) -> list[str]:
    """Run the target under Atheris; return its crashes."""
    dictionary = _WORK / f"{name}.dict"
    dictionary.write_text("".join(f'"{_escape(token)}"\n' for token in TARGETS[name].tokens))
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    end, problems = time.monotonic() + seconds, []
    with _log(name).open("w") as log:
        while (left := end - time.monotonic()) > 1 and len(problems) < _MAX_RESTARTS:
            options = (
                f"-max_total_time={int(left)}",
                "-timeout=20",  # the target itself reports more than 1 s; this ends a run that never returns
                "-rss_limit_mb=1024",
                f"-artifact_prefix={CORPUS / name}/",
                *([f"-dict={dictionary}"] if TARGETS[name].tokens else []),  # an empty one is an error
                "-print_final_stats=1",
            )
            command = [sys.executable, _HERE / "guided.py", name, work, *options]
            done = subprocess.run(command, stdout=log, stderr=log, check=False, env=_environment())
            if done.returncode:
                problems.append(f"the process ended with {done.returncode}: see {_log(name)}")
    return problems


def _executions(name: str) -> int:
    lines = _log(name).read_text(errors="replace").splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith("stat::number_of_executed_units"))


def _log(name: str) -> Path:
    return _WORK / f"{name}.log"


def _corpus(name: str) -> set[Path]:
    return set((CORPUS / name).glob("*"))


def _escape(token: str) -> str:
    # The form of libFuzzer's dictionaries.
    return "".join(f"\\x{byte:02x}" for byte in token.encode())


def _environment() -> dict[str, str]:
    paths = os.pathsep.join(str(path) for path in (_HERE, _HERE.parent, _HERE.parents[1]))
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    sys.exit(main())
