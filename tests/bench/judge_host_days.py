"""Judge limits on host days: false alarms, attacks caught, delay, deploys. Knows nothing of how the limits are made.

`judge(values, tick_seconds, floor, rarity_hours)` returns (limits (hours, severities, groups), levels adopted); values
are handed over in pieces of some groups. An alarm is told once and ends after an hour without a hit. Three words:
an attack *stands out* if its peak is above 1.25 times all that the group does within an hour of that time of day in 28
clean days, *twice* above 2 times; it is a *record* if that holds (1.25 times) against every hour.
"""

import numpy as np
from host_days import DAY, HOUR, TICK, nb, seconds, services

KEEP = HOUR
RARITY_HOURS = (720, 8760)
WARM = 7  # days before false alarms count as those of a learnt group
NEVER = 10**9


def rolling(x, ticks):
    """Sum of the last ticks; nan stays where the group is not born."""
    if ticks == 1:
        return x
    total = np.cumsum(np.nan_to_num(x), 0, dtype=np.float64)
    total[ticks:] -= total[:-ticks].copy()
    v = total.astype(np.float32)
    v[np.isnan(x)] = np.nan
    return v


def starts(fires, keep):
    """Ticks and groups at which alarms start."""
    group, tick = np.nonzero(fires.T)
    new = np.ones(len(tick), bool)
    new[1:] = (group[1:] != group[:-1]) | (tick[1:] - tick[:-1] > keep)
    return tick[new], group[new]


def fire(values, limits, floor, hour):
    """Where values are above the limit of their hour, a group's own floor at least."""
    ticks, groups = values.shape
    least = np.maximum(limits, floor)
    return (values.reshape(ticks // hour, hour, groups) > least[:, None, :]).reshape(ticks, groups)


def window_floor(floors, window):
    """The rule's floor for a window: in proportion, half of that above a minute."""
    return (floors * window * (1 if window <= 6 else 0.5)).astype(np.float32)


def host(clean, about, attacked, window, judge, piece=100):
    """Figures of one window (in ticks): by rarity, and by rarity and set of attacks.

    `attacked` is name -> values; the attacks themselves are in `about`.
    """
    kinds, marks = np.array(about["kinds"]), about["marks"]
    floor = window_floor(np.array(about["floors"], np.float32), window)
    ticks, groups = clean.shape
    born = np.array([m[1] if m and m[0] == "born" else 0 for m in marks])
    shifted = np.array([m[1] if m and m[0] == "shift" else NEVER for m in marks])
    alarms = {r: [] for r in RARITY_HOURS}
    found = {name: [] for name in attacked}
    for first in range(0, groups, piece):
        part = slice(first, min(groups, first + piece))
        width = part.stop - part.start
        v = np.concatenate([rolling(np.asarray(x[:, part]), window) for x in (clean, *attacked.values())], 1)
        fl = np.tile(floor[part], 1 + len(attacked))
        limits, _ = judge(v, TICK, fl, RARITY_HOURS)
        calm = v[:, :width]
        by_day = np.nan_to_num(np.fmax.reduce(calm.reshape(-1, HOUR, width), 1)).reshape(-1, 24, width).max(0)
        near = np.maximum(np.maximum(np.roll(by_day, 1, 0), np.roll(by_day, -1, 0)), by_day)
        for i, r in enumerate(RARITY_HOURS):
            t, j = starts(fire(calm, limits[:, i, :width], floor[part], HOUR), KEEP)
            alarms[r].append(np.stack([t, j + first]))
        for k, name in enumerate(attacked, 1):
            columns = slice(k * width, (k + 1) * width)
            values = v[:, columns]
            fires = [fire(values, limits[:, i, columns], floor[part], HOUR) for i in range(len(RARITY_HOURS))]
            for g, start, stop, _ in about["attacks"][name]:
                if not part.start <= g < part.stop:
                    continue
                j, end, of_day = g - first, min(ticks, stop + max(window, 6)), (start // HOUR) % 24
                peak = np.nanmax(values[start:end, j])
                hits = [np.flatnonzero(f[start:end, j]) for f in fires]
                learnt = start >= (born[g] + 2 * DAY if born[g] else WARM * DAY)
                out, record = peak / max(near[of_day, j], fl[j]), peak / max(by_day[:, j].max(), fl[j])
                delay = [h[0] * TICK if len(h) else np.inf for h in hits]
                found[name].append((g, start, learnt, out, record, *delay))
        del v, limits
    result = {"false": {}, "first week": {}, "caught": {}, "delays": {}}
    lives = ticks / DAY - np.maximum(WARM, np.where(born > 0, born / DAY + 2, 0))
    for r in RARITY_HOURS:
        t, j = np.concatenate(alarms[r], 1)
        counts = (t >= WARM * DAY) & (t < shifted[j]) & (t >= born[j] + 2 * DAY)
        result["false"][r] = counts.sum() / lives.sum()
        young = (t < WARM * DAY) & (kinds[j] != "new")
        result["first week"][r] = young.sum() / (WARM * (kinds != "new").sum())
    for name, rows in found.items():
        table = np.array(sorted(rows))
        result["delays"][name] = table
        for i, r in enumerate(RARITY_HOURS):
            result["caught"][name, r] = shares(table, table[:, 5 + i])
    return result


def shares(table, delay):
    """Of the attacks on learnt groups: what share of those that are a record, stand out, or are twice the normal."""
    learnt, caught = table[:, 2] > 0, np.isfinite(delay)

    def share(which):
        return float(caught[learnt & which].mean())

    return {
        "record": share(table[:, 4] > 1.25),
        "stands out": share(table[:, 3] > 1.25),
        "twice": share(table[:, 3] > 2),
    }


def together(results, name, which=0):
    """Several windows of one host: an attack is caught if any catches it. `results` is window -> host(...)."""
    tables = {window: result["delays"][name] for window, result in results.items()}
    return shares(tables[6], np.min([t[:, 5 + which] for t in tables.values()], 0))


def one_second(clean, about, few, seed, judge, each=6, piece=24):
    """Ticks of 1 s, window 10 s, some groups of each kind: false alarms a group-day, and delays of what stands out."""
    kinds, marks, rng = np.array(about["kinds"]), about["marks"], np.random.default_rng(seed)
    floors = np.array(about["floors"], np.float32)
    chosen = np.concatenate([np.flatnonzero(kinds == k)[:each] for k in dict.fromkeys(kinds)])
    second_day, hour, window = 86400, 3600, 10
    false, days, delays = 0, 0.0, []
    for first in range(0, len(chosen), piece):
        part = chosen[first : first + piece]
        v = np.empty((len(clean) * 10, 2 * len(part)), np.float32)
        for i, (x, g) in enumerate([(x, g) for x in (clean, few) for g in part]):
            column = np.asarray(x[:, g])
            v[:, i] = rolling(seconds(column, rng, kinds[g] not in ("bytes", "backup")), window)
            v[np.repeat(np.isnan(column), 10), i] = np.nan
        limits, _ = judge(v, 1, np.tile(floors[part], 2), RARITY_HOURS)
        fires = fire(v, limits[:, 0], np.tile(floors[part], 2), hour)
        for i, g in enumerate(part):
            mark, at = marks[g] or (None, 0, 0), 10 * (marks[g] or (None, 0, 0))[1]
            begin = max(WARM * second_day, at + 2 * second_day if mark[0] == "born" else 0)
            end = at if mark[0] == "shift" else len(v)
            t, _ = starts(fires[:, i : i + 1], hour)
            false += int(((t >= begin) & (t < end)).sum())
            days += max(0, end - begin) / second_day
            highest = np.nan_to_num(np.fmax.reduce(v[:, i].reshape(-1, 24, hour), 2)).max(0)
            for group, start, stop, _ in about["attacks"]["few"]:
                if group != g or start * 10 < (begin if mark[0] == "born" else WARM * second_day):
                    continue
                a, b, of_day = start * 10, stop * 10 + window, (start // HOUR) % 24
                usual = max(highest[[(of_day - 1) % 24, of_day, (of_day + 1) % 24]].max(), floors[g])
                if v[a:b, len(part) + i].max() > 1.25 * usual:
                    hits = np.flatnonzero(fires[a:b, len(part) + i])
                    delays.append(hits[0] if len(hits) else np.inf)
        del v, limits, fires
    delays = np.array(delays)
    caught = delays[np.isfinite(delays)]
    return {
        "false": false / days,
        "stands out": len(caught) / len(delays),
        "attacks": len(delays),
        "delay median": float(np.median(caught)),
        "delay 90 %": float(np.quantile(caught, 0.9)),
    }


def scenarios(seed, judge, factors=(3, 5, 10, 30)):
    """Smooth services, window 60 s, 30 d: deploys on day 14, a moved job, a storm on seven nights, a storm of 30 h."""
    lam = services(seed)
    ticks, g = lam.shape
    rng = np.random.default_rng(seed + 1)
    floor = np.full(g, 30.0, np.float32)

    def alarms(x):
        v = rolling(x.astype(np.float32), 6)
        limits, adopted = judge(v, TICK, floor, RARITY_HOURS)
        fires = fire(v, limits[:, 0], floor, HOUR)
        return fires, starts(fires, KEEP)[0], adopted

    result, day14 = {"deploy": {}}, 14 * DAY
    for factor in factors:
        shifted = lam.copy()
        shifted[day14:] *= factor
        fires, t, adopted = alarms(nb(np.random.default_rng(seed + 1), shifted, 10.0))
        three_days = fires[day14 : day14 + 3 * DAY]
        last = [np.flatnonzero(three_days[:, i]).max() / HOUR if three_days[:, i].any() else 0.0 for i in range(g)]
        told = float(fires[day14 : day14 + DAY].any(0).mean())
        result["deploy"][factor] = {
            "told": told,
            "alarms": float((t >= day14).sum() / g),
            "silent after": max(last),
            "adopted": adopted,
        }
    base = nb(rng, lam, 10.0)
    highs = np.quantile(rolling(base, 6).reshape(-1, 24, HOUR, g).max(2), 0.9, 0)  # of each hour of day
    peak = highs.max(0)
    nights, three = range(12, 19), 3 * HOUR
    x = base.copy()
    for d in nights:
        x[d * DAY + three : d * DAY + three + 60] += rng.poisson(4 * peak / 6, (60, g))
    fires, _, _ = alarms(x)
    result["nights"] = [float(fires[d * DAY + three : d * DAY + three + 66].any(0).mean()) for d in nights]
    x = base.copy()
    x[12 * DAY : 12 * DAY + 30 * HOUR] += rng.poisson(9 * peak / 6, (30 * HOUR, g))
    fires, t, _ = alarms(x)
    storm = fires[12 * DAY : 12 * DAY + 34 * HOUR].reshape(34, HOUR, g).any(1)
    result["storm"] = {
        "alarms": float(((t >= 12 * DAY) & (t < 14 * DAY)).sum() / g),
        "hours": float(storm.sum(0).mean()),
    }
    x = rng.poisson(0.05, (ticks, g)).astype(np.float32)
    for d in range(28):
        start = d * DAY + (2 if d < 14 else 5) * HOUR + 60
        x[start : start + 90] += rng.poisson(80, (90, g))
    _, t, _ = alarms(x)
    result["job"] = {"on the day": float((t // DAY == 14).sum() / g), "after": float((t // DAY > 14).sum() / g)}
    return result
