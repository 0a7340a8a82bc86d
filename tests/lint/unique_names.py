"""Check that no class name and no file name of `watchdog/` stands for two things; `make lint` runs it.

Exit code 0 where every name is unique, else 1 with one line for each name. `__init__` and `__main__` do not count.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "watchdog"


def names(package: Path) -> dict[str, list[str]]:
    """Return the places of each class name and each file name below `package`."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        where = str(path.relative_to(package.parent))
        if not path.stem.startswith("__"):
            places[f"file {path.name}"].append(where)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[f"class {node.name}"].append(f"{where}:{node.lineno}")
    return places


def main() -> int:
    """Print each name that stands twice; return the exit code."""
    twice = {name: found for name, found in names(PACKAGE).items() if len(found) > 1}
    for name, found in twice.items():
        print(f"{name} stands for {len(found)} things: {', '.join(found)}; rename all but one")
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
