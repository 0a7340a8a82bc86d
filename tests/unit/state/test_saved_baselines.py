"""Baselines in the state file: written part by part, read after a crash, bounded, and in files of former versions."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

import factories
from watchdog.rules.engine.baseline_blobs import BaselinePart, dump_part, load_parts, part_count
from watchdog.rules.engine.rule_baseline import RuleBaseline
from watchdog.rules.language.rule import BaselineSpec, Season, Severity
from watchdog.state import saved_baselines
from watchdog.state.saved_baselines import SavedBaselines
from watchdog.state.store import Store
from watchdog.storage.salvage import salvage
from watchdog.storage.schema import APPLICATION_ID, SCHEMA_STEPS, apply_step

SECRET = b"0123456789abcdef"


@pytest.fixture
def saved(tmp_path, clock):
    store = Store(tmp_path, clock, "boot-1")
    yield SavedBaselines(store.database, clock)
    store.close()


def part(rule="busy", number=0, parts=1, content=b"x"):
    return BaselinePart(rule, "digest", number, parts, content)


def learnt(groups, hours=60, season=Season.DAY, seed=1):
    """Return the baseline of a rule, with groups that had values of all sizes for some days."""
    spec = BaselineSpec(30.0, {Severity.WARNING: 720.0, Severity.CRITICAL: 8760.0}, 24, season, above=True)
    baseline = RuleBaseline(factories.make_rule("busy", baseline=spec), SECRET, 131_072)
    random = np.random.default_rng(seed)
    baseline.groups.add(random.integers(0, 2**64, groups, np.uint64), np.zeros(groups, np.int32))
    baseline.columns.add(groups)
    level = random.poisson(random.uniform(0, 20, groups))
    for hour in range(hours):
        baseline.end_hours(hour * 3600.0, 0, is_measured=True)
        baseline.columns.tick((level * random.uniform(0.5, 1.5)).astype(np.float32))
        for second in range(60, 3600, 60):
            baseline.end_hours(hour * 3600.0 + second, 0, is_measured=True)
    return baseline


def reloaded(before, parts, groups=None):
    after = learnt(0, 0, before.columns.season)
    assert load_parts(after, parts) == 0
    return after


def test_parts_come_back_as_they_were_saved(saved):
    parts = [part(number=0, parts=2, content=b"one"), part(number=1, parts=2, content=b"\0two")]
    assert saved.save(SECRET, parts) == 0
    assert saved.load() == (SECRET, parts)
    saved.save(SECRET, [part(number=0, parts=1, content=b"new")])
    assert saved.load() == (SECRET, [part(content=b"new")])


def test_limits_after_a_restart_are_those_before_bit_by_bit(saved):
    before = learnt(20_000)
    saved.save(SECRET, [dump_part("busy", before, number) for number in range(part_count(before))])
    after = reloaded(before, saved.load()[1])
    assert part_count(before) == 3
    assert np.array_equal(after.groups.keys, before.groups.keys)
    assert np.array_equal(after.columns.limit[:20_000], before.columns.limit[:20_000])
    assert np.isfinite(after.columns.limit[:20_000]).all()
    for name in ("_newcomer_limits", "learnt_hours"):
        assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize(("season", "most"), [(Season.DAY, 40), (Season.WEEK, 160)])
def test_a_saved_group_takes_few_bytes(season, most):
    # Of groups that follow one rhythm; noise of each group's own costs more, 76 bytes on a busy host.
    baseline = learnt(8_192, 24 * 8 if season is Season.WEEK else 60, season)
    assert len(dump_part("busy", baseline, 0).content) / 8_192 <= most


def test_parts_of_two_hours_after_a_crash_make_one_baseline():
    former, newer = learnt(10_000, 60), learnt(10_000, 61)
    after = reloaded(newer, [dump_part("busy", newer, 0), dump_part("busy", former, 1)])
    assert len(after.groups) == 10_000
    assert after.hour.number == newer.hour.number
    assert after.columns.age[0] == newer.columns.age[0]
    assert after.columns.age[9_999] == former.columns.age[9_999]


def test_a_damaged_part_costs_its_groups_only(saved):
    before = learnt(10_000)
    parts = [dump_part("busy", before, number) for number in range(2)]
    saved.save(SECRET, parts)
    with saved._database.transaction() as connection:
        connection.execute("UPDATE baselines SET content = x'00' WHERE part = 0")
    assert saved.load()[1] == parts[1:]
    for content in (b"", b"no zlib", parts[0].content[:-20], dump_part("x", learnt(5, season=Season.WEEK), 0).content):
        assert load_parts(learnt(0, 0), [part(content=content)]) == 1


def test_the_room_of_baselines_is_bounded_and_old_ones_are_deleted(saved, clock, monkeypatch):
    monkeypatch.setattr(saved_baselines, "MAX_BYTES", 100)
    assert saved.save(SECRET, [part("a", content=b"a" * 60), part("b", content=b"b" * 60)]) == 1
    assert [one.rule for one in saved.load()[1]] == ["a"]
    clock.advance(29 * 86_400)
    assert saved.save(SECRET, [part("b", content=b"b" * 60)]) == 0
    assert [one.rule for one in saved.load()[1]] == ["b"]


def test_a_file_of_version_8_gets_the_tables_and_keeps_its_rows(tmp_path, clock):
    connection = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    for step in SCHEMA_STEPS[:8]:
        apply_step(connection, step)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 8")
    connection.execute("INSERT INTO alerts (fingerprint, kind, document) VALUES ('f1', 'rule', '{\"n\":1}')")
    connection.close()
    store = Store(tmp_path, clock, "boot-1")
    baselines = SavedBaselines(store.database, clock)
    assert baselines.load() == (None, [])
    baselines.save(SECRET, [part()])
    assert baselines.load() == (SECRET, [part()])
    assert store.load().alerts == ({"n": 1},)
    store.close()


def test_baselines_are_salvaged_from_a_damaged_file(saved, tmp_path):
    saved.save(SECRET, [part()])
    salvage(tmp_path / "state.sqlite3", tmp_path / "fresh.sqlite3")
    connection = sqlite3.connect(tmp_path / "fresh.sqlite3")
    assert connection.execute("SELECT rule, content FROM baselines").fetchall() == [("busy", b"x")]
    assert connection.execute("SELECT secret FROM baseline_secret").fetchall() == [(SECRET,)]
    connection.close()
