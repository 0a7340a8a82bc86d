"""A simulated host with one rule with a baseline: its processes open connections, in hours of 12 ticks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.rule import BaselineSpec, Season, Severity, Thresholds
from watchdog.rules.language.template import parse_summary

STEP = 300  # seconds between two ticks
HOUR = 3600 // STEP
DAY = 24 * HOUR
MONDAY = 1_750_032_000.0  # 2025-06-16 00:00 UTC


def baseline_rule(make_rule, *, floor=10.0, learn_hours=24, season=Season.DAY, above=True, critical=True, **changes):
    rarity = {Severity.WARNING: 720.0, Severity.CRITICAL: 8760.0} if critical else {Severity.WARNING: 720.0}
    limits = dict.fromkeys(rarity, math.inf if above else -math.inf)
    rule = make_rule("busy", stat="sum", window_seconds=2 * STEP, **changes)
    fields = (*rule.by, "value", "usual", "highest", "rarity", "learnt")
    return replace(
        rule,
        summary=parse_summary(" ".join(f"{{{name}}}" for name in fields), rule.by, has_baseline=True),
        thresholds=changes.get("thresholds", Thresholds(above, limits, limits)),
        baseline=BaselineSpec(floor, rarity, learn_hours, season, above),
    )


class Life:
    """A host with processes that open connections, tick by tick."""

    def __init__(self, host, rule, engine=None):
        self.host, self.rule = host, rule
        self.engine, self.lifecycle = engine or Engine([rule]), Lifecycle("web-1")
        self.wall, self.transitions, self.random = MONDAY, [], np.random.default_rng(7)
        self.engine.evaluate(self.snapshot([], 0), [])

    def snapshot(self, rows, seconds):
        taken = self.host.tick(*rows, seconds=seconds) if seconds else self.host.baseline(*rows)
        return replace(taken, wall=self.wall)

    def tick(self, rows=None, seconds=STEP, wall_step=0.0, **quality):
        self.wall += seconds + wall_step
        rows = [{"process": name, "connects": count} for name, count in (rows or {}).items()]
        snapshot = replace(self.host.tick(*rows, seconds=seconds, **quality), wall=self.wall)
        verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys())
        new = self.lifecycle.advance(verdicts, Now(snapshot.at_ns, self.wall))
        assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        self.transitions += new
        return verdicts

    def usual(self, ticks, **levels):
        for _ in range(ticks):
            self.tick({name: int(self.random.integers(level // 2, level + 1)) for name, level in levels.items()})

    @property
    def baseline(self):
        return self.engine.baselines.of(self.rule.id)

    def limits(self, process):
        return self.engine.baselines.describe(self.rule.id, (("process", process),)).limits


def kinds(life):
    return [(one.kind, one.alert.severity) for one in life.transitions]
