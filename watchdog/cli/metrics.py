"""`bpf-watchdog metrics`: the catalogue of metrics and dimensions."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from watchdog.cli.terminal import print_wrapped
from watchdog.measure.catalogue import DIMENSIONS, METRICS, Metric


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "metrics",
        description="Print the catalogue: each metric with meaning, unit, kernel source and cost; each dimension.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    if args.json:
        catalogue = {
            "metrics": [asdict(metric) for metric in METRICS.values()],
            "dimensions": [asdict(dimension) for dimension in DIMENSIONS.values()],
        }
        print(json.dumps(catalogue, indent=2))
        return 0
    for metric in METRICS.values():
        print(f"{metric.name}  ({metric.kind}, {metric.unit})")
        dimensions = _dimensions_text(metric)
        for line in (
            metric.meaning,
            f"kernel: {metric.source}",
            f"cost: {metric.cost}",
            f"dimensions: {dimensions}",
        ):
            print_wrapped(" " * 4, line, 6)
    print()
    print("Dimensions, for `by`, `where` and `sample --by`:")
    rows = [
        [dimension.name, dimension.kind, dimension.meaning, ", ".join(filter(None, dimension.choices))]
        for dimension in DIMENSIONS.values()
    ]
    for name, values, meaning, choices in rows:
        print_wrapped(f"  {name:<14} {values:<8} ", f"{meaning}{': ' if choices else ''}{choices}")
    return 0


def _dimensions_text(metric: Metric) -> str:
    """Return the dimensions of `metric`: by name, or the missing ones if these are fewer."""
    missing = [name for name in DIMENSIONS if name in metric.missing_dimensions]
    present = [name for name in DIMENSIONS if name not in missing]
    if not missing:
        return "all"
    return ", ".join(present) if len(present) < len(missing) else f"all but {', '.join(missing)}"
