"""Rules on country and autonomous system of peers, which need a file of the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from watchdog.config.location_files import LocationFiles
from watchdog.errors import Problem
from watchdog.measure.catalogue import LOCATION_DIMENSIONS
from watchdog.rules.language.rule import Rule


def check_locations(rules: Iterable[Rule], files: LocationFiles) -> Iterator[Problem]:
    """Yield a problem for each of `rules` that reads a dimension without its file."""
    for rule in rules:
        used = {*rule.by, rule.stat.dimension, *(one.dimension for one in rule.row_conditions)}
        for dimension, key in LOCATION_DIMENSIONS.items():
            if dimension in used and getattr(files, key) is None:
                message = f"{dimension} needs {key} in [networks] of watchdog.toml"
                yield Problem(rule.file, rule.line, "rule", message)
