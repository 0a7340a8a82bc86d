"""Quality and cost of learnt limits, by the daemon's own code.

bench_baseline.py judge IN.npz OUT.npz    limits for given values
bench_baseline.py nab DIR                 NAB's series: threshold tuned and fixed by the promise (seconds)
bench_baseline.py hostdays SEED WORKDIR   synthetic host days, scenarios (ten minutes, 1 GB in WORKDIR)
bench_baseline.py seeds FIRST LAST WORKDIR   means over the seeds FIRST to LAST
bench_baseline.py cost [GROUPS]           time and memory of a tick and of an hour

IN.npz has `values` (ticks, groups), NaN before a group is born; `tick_seconds`; `floor`, one or (groups,);
`rarity_hours`; `season`; `hour0`, hour of the first tick; `learn_hours`. OUT.npz has `limits` (hours, severities,
groups), those in force in each hour, and `adopted`, the number of new normals.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import judge_host_days
import nab_score

from watchdog.rules.engine.baseline_columns import NO_AMOUNT, BaselineColumns
from watchdog.rules.language.rule import Season

SCALE_SHARE = 0.06  # of the median of the first 15 %: stands for the floor, which a public series has not
PUBLIC_MIN_EXCESS = 0.001  # public series are smoother than counts of a host
PUBLIC_SEASONS = 1  # and shorter: most have two weeks
NEVER_HOURS = 1e12  # nothing fires, so that every hour is learnt


def judge(values, tick_seconds, floor, rarity_hours, season="day", hour0=0, learn_hours=24):
    """Return the limits in force in each hour, (hours, severities, groups), and the number of new normals.

    Only an hour's highest value is learnt, so that the ticks of an hour are taken at once. Amounts are in floors.
    """
    per_hour = 3600 // int(tick_seconds)
    hours, groups = len(values) // per_hour, values.shape[1]
    floor = np.broadcast_to(np.asarray(floor, np.float32), (groups,))
    columns = BaselineColumns(1.0, tuple(rarity_hours), Season(season), int(learn_hours))
    columns.add(groups)
    rows, adopted = slice(0, groups), 0
    limits = np.full((hours, len(rarity_hours), groups), np.inf, np.float32)
    for hour in range(hours):
        highest = np.fmax.reduce(values[hour * per_hour : (hour + 1) * per_hour]) / floor
        columns.tick(highest.astype(np.float32))
        adopted += int(columns.close(rows, columns.end_hour(), hour0 + hour).sum())
        if hour + 1 < hours:
            limits[hour + 1] = np.stack(columns.set_limits(rows, hour0 + hour + 1)) * floor
    return limits, adopted


def judge_file(source, target):
    with np.load(source) as given:
        limits, adopted = judge(
            given["values"],
            float(given["tick_seconds"]),
            given["floor"],
            given["rarity_hours"].tolist(),
            str(given["season"]),
            int(given["hour0"]),
            float(given["learn_hours"]),
        )
    np.savez(target, limits=limits, adopted=adopted)


def rarity_of_records(all_times, all_values):
    """Return for each series log10 of the hours in which each value is expected once, in either direction.

    As the text of an alert has it, but not multiplied by the arms in use. All series go on together, each in its own
    hours: they begin in the same hour of a day.
    """
    count = len(all_values)
    columns = BaselineColumns(
        2.0, (NEVER_HOURS,), Season.DAY, 24, min_excess=PUBLIC_MIN_EXCESS, seasons_before_use=PUBLIC_SEASONS
    )
    columns.add(2 * count)
    rows = slice(0, 2 * count)
    hours = [times // 3600 for times in all_times]
    hour = np.concatenate([one - one[0] + one[0] % 24 for one in hours])
    owner = np.repeat(np.arange(count), [len(values) for values in all_values])
    value = np.concatenate([values / _scale(values) for values in all_values]).astype(np.float32)
    order = np.argsort(hour, kind="stable")
    edges = np.searchsorted(hour[order], np.arange(hour.max() + 2))
    found = np.full(len(value), -1e9)
    for number in range(int(hour.max()) + 1):
        part = order[edges[number] : edges[number + 1]]
        for side, sign in ((0, 1), (1, -1)):
            row, amount = 2 * owner[part] + side, np.float32(sign) * value[part]
            known = columns.age[row] >= columns.learn_hours
            rate = columns.rates(row[known], amount[known], number)[0]
            found[part[known]] = np.fmax(found[part[known]], -np.log10(rate))
            np.fmax.at(columns.highest, row, amount)
        columns.close(rows, columns.end_hour(), number)
        columns.set_limits(rows, number + 1)
    return np.split(found, np.flatnonzero(np.diff(owner)) + 1)


def _scale(values):
    first = np.abs(values[: min(int(0.15 * len(values)), 750)])
    return SCALE_SHARE * (np.median(first) or np.mean(first) or 1.0)


def nab(folder):
    corpus = nab_score.Corpus(folder)
    began = time.perf_counter()
    series = [(corpus.times[name], corpus.values[name]) for name in corpus.files]
    rarity = dict(zip(corpus.files, rarity_of_records(*zip(*series, strict=True)), strict=True))
    took = time.perf_counter() - began
    scores = {name: nab_score.starts(one) for name, one in rarity.items()}
    print(f"{len(corpus.files)} series, {corpus.days:.0f} days, {corpus.windows} windows; scored in {took:.1f} s")
    for profile in nab_score.PROFILES:
        score, threshold, found, false = corpus.tuned(scores, profile)
        days = 10**threshold / 24
        print(f"best, {profile:11s} {score:6.2f}  windows {found}, false points {false}, threshold {days:.1f} days")
    for days in (14, 30, 90, 365):
        score, found, false = corpus.fixed(scores, "standard", np.log10(24 * days))
        low = corpus.fixed(scores, "low FP", np.log10(24 * days))[0]
        each = corpus.days / false
        print(
            f"rarity {days:3d} d        {score:6.2f}  windows {found}, false points {false}: one in {each:.1f} days, "
            f"promise x {days / each:.2f}; low FP {low:.2f}"
        )


def figures(seed, folder):
    """Return the figures of one seed of host days, by name."""
    folder = Path(folder)
    about_file = folder / "about.json"
    if not about_file.exists() or json.loads(about_file.read_text())["seed"] != int(seed):
        generator = Path(__file__).with_name("host_days.py")
        subprocess.run([sys.executable, generator, str(seed), folder], check=True, stdout=subprocess.DEVNULL)
    about = json.loads(about_file.read_text())
    clean, many, few = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("clean", "many", "few"))
    attacked, found, results = {"many": many, "few": few}, {}, {}
    for window in (1, 6, 360):
        result = results[window] = judge_host_days.host(clean, about, attacked, window, judge)
        name = f"{window * judge_host_days.TICK} s"
        for rarity in judge_host_days.RARITY_HOURS:
            found[f"{name}, {rarity // 24} d: false alarms"] = result["false"][rarity]
            found[f"{name}, {rarity // 24} d: first week"] = result["first week"][rarity]
            for attacks in attacked:
                for kind, share in result["caught"][attacks, rarity].items():
                    found[f"{name}, {rarity // 24} d: {attacks} attacks, {kind}"] = share
    for kind, share in judge_host_days.together(results, "few").items():
        found[f"three windows, 30 d: few attacks, {kind}"] = share
    for kind, value in judge_host_days.one_second(clean, about, few, int(seed), judge).items():
        found[f"ticks of 1 s, window 10 s, 30 d: {kind}"] = float(value)
    scenes = judge_host_days.scenarios(int(seed) + 6, judge)
    for factor, scene in scenes["deploy"].items():
        found |= {f"deploy x {factor}: {kind}": float(value) for kind, value in scene.items()}
    found["storm of 5 x at 03:00: nights caught of 7"] = float(np.sum(scenes["nights"]))
    found |= {f"storm of 30 h: {kind}": value for kind, value in scenes["storm"].items()}
    found |= {f"job moved by 3 h: alarms {kind}": value for kind, value in scenes["job"].items()}
    return found


def seeds(first, last, folder):
    tables = [figures(seed, folder) for seed in range(int(first), int(last) + 1)]
    for name in tables[0]:
        values = [table[name] for table in tables]
        print(f"{name:60s} {np.mean(values):8.4f}   {min(values):.4f} to {max(values):.4f}")


def cost(groups=100_000):
    groups = int(groups)
    columns, random = BaselineColumns(10.0, (720.0, 8760.0)), np.random.default_rng(1)
    columns.add(groups)
    columns.keep(np.arange(groups))
    rows = slice(0, groups)
    value = random.poisson(random.uniform(0, 20, groups)).astype(np.float32)
    for hour in range(60):
        columns.tick(value * np.float32(random.uniform(0.5, 1.5)))
        columns.close(rows, columns.end_hour(), hour)
        columns.set_limits(rows, hour + 1)
    ticks = []
    for _ in range(200):
        began = time.process_time()
        columns.tick(value)
        ticks.append(time.process_time() - began)
    began = time.process_time()
    ended, part = columns.end_hour(), 8_192  # rows in one tick
    for start in range(0, groups, part):
        chunk = slice(start, min(start + part, groups))
        columns.close(chunk, ended[chunk], 60)
        columns.set_limits(chunk, 61)
    hour = time.process_time() - began
    size = sum(getattr(owner, name).nbytes for owner, name in columns.columns()) + columns.limit.nbytes
    assert columns.highest[0] == NO_AMOUNT
    tick, each = np.median(ticks) / groups * 1e9, hour / groups * 1e9
    print(
        f"{groups} groups: tick {tick:.2f} ns, hour {each:.0f} ns, columns {size / groups:.0f} bytes a group (CPU time)"
    )


def hostdays(seed, folder):
    for name, value in figures(seed, folder).items():
        print(f"{name:60s} {value:8.4f}")


if __name__ == "__main__":
    commands = {"judge": judge_file, "nab": nab, "hostdays": hostdays, "seeds": seeds, "cost": cost}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
