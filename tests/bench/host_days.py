"""Synthetic host days: values of 300 groups at ticks of 10 s for 4 weeks, clean and with injected attacks.

Every group is one (process, unit) of a host; its kind mimics what a host guard sees. Nothing here knows any detector.
Arrays are float32 (ticks, groups), nan where a group is not born yet. Tick 0 is Monday, 00:00 local time.

`hostdays.py SEED OUTDIR` writes clean.npy, many.npy, few.npy (about five and about two attacks a group) and about.json.
"""

import json
import sys
from pathlib import Path

import numpy as np

TICK = 10  # seconds
DAY = 86400 // TICK  # 8640 ticks
HOUR = 3600 // TICK


def ar1(rng, n, g, tau, sd):
    """Log-normal modulation: AR(1) with correlation time tau ticks, made on a coarse grid and interpolated."""
    step = max(1, int(tau // 8))
    m = n // step + 2
    a = np.exp(-step / tau)
    z = np.empty((m, g), np.float32)
    z[0] = rng.normal(size=g)
    e = rng.normal(size=(m, g)).astype(np.float32) * np.sqrt(1 - a * a)
    for i in range(1, m):
        z[i] = a * z[i - 1] + e[i]
    t = np.arange(n) / step
    i = t.astype(int)
    f = (t - i).astype(np.float32)[:, None]
    return (z[i] * (1 - f) + z[i + 1] * f) * sd


def rhythm(n, g, rng, depth, weekend, peak):
    """Daily and weekly factor in (0,1]: depth = night/day ratio."""
    h = (np.arange(n) / HOUR) % 24
    d = (np.arange(n) // DAY) % 7
    phase = np.cos((h[:, None] - peak[None]) / 24 * 2 * np.pi) * 0.5 + 0.5
    f = depth + (1 - depth) * phase**1.5
    f = f * np.where(d[:, None] >= 5, weekend[None], 1.0)
    return f.astype(np.float32)


def nb(rng, lam, k):
    """Negative binomial counts: Poisson with gamma-distributed rate of shape k."""
    return rng.poisson(lam * rng.gamma(k, 1.0 / k, size=lam.shape)).astype(np.float32)


def bursts(rng, n, starts, length, height, shape=None):
    """One series with bursts: starts (ticks), length, height arrays."""
    x = np.zeros(n, np.float32)
    for start, ticks, h in zip(starts, length, height, strict=True):
        s = int(start)
        e = min(n, s + max(1, int(ticks)))
        if s < n:
            x[s:e] += rng.poisson(max(h, 0.0), e - s) if shape is None else rng.gamma(shape, h / shape, e - s)
    return x


def make(days=28, per=25, seed=1):  # noqa: PLR0915 - one kind of group after the other
    rng = np.random.default_rng(seed)
    n = days * DAY
    out, kinds, floors, marks = [], [], [], []

    def add(kind, x, floor, mark=None):
        out.append(x.astype(np.float32))
        kinds.extend([kind] * x.shape[1])
        floors.extend([floor] * x.shape[1])
        marks.extend(mark if mark is not None else [None] * x.shape[1])

    t = np.arange(n)
    # --- connection counts per 10 s; floor: 30 a minute is 5 a tick
    g = per
    lam = np.exp(rng.uniform(np.log(20), np.log(400), g)) * rhythm(
        n, g, rng, rng.uniform(0.08, 0.3, g), rng.uniform(0.3, 1, g), rng.uniform(12, 20, g)
    )
    add("web", nb(rng, lam * np.exp(ar1(rng, n, g, 90, 0.25)), 20.0), 5)
    lam = np.exp(rng.uniform(np.log(1), np.log(20), g)) * rhythm(
        n, g, rng, rng.uniform(0.05, 0.5, g), rng.uniform(0.2, 1, g), rng.uniform(10, 18, g)
    )
    add("api", nb(rng, lam * np.exp(ar1(rng, n, g, 60, 0.4)), 5.0), 5)
    # mostly zero, clustered: burst arrivals, heavy-tailed size, a few ticks long
    x = np.zeros((n, g), np.float32)
    for j in range(g):
        per_day = np.exp(rng.uniform(np.log(3), np.log(300)))
        k = rng.poisson(per_day * days)
        s = rng.uniform(0, n, k)
        size = np.minimum(rng.pareto(1.8, k) + 1, 60) * rng.uniform(1, 6)
        x[:, j] = bursts(rng, n, s, rng.geometric(0.4, k), size)
    add("sparse", x, 5)
    # cron: every 5 min, hourly or daily, fixed minute, jitter up to 30 s
    x = np.zeros((n, g), np.float32)
    for j in range(g):
        every = rng.choice([5 * 6, 15 * 6, HOUR, HOUR, DAY, DAY])
        s = np.arange(rng.integers(0, every), n, every)
        s = s + rng.integers(0, 4, len(s))
        size = rng.uniform(3, 80) * np.exp(rng.normal(0, 0.3, len(s)))
        x[:, j] = bursts(rng, n, s, rng.integers(1, 6, len(s)), size)
    add("cron", x, 5)
    # irregular batch jobs, working hours mostly, Pareto sizes
    x = np.zeros((n, g), np.float32)
    for j in range(g):
        k = rng.poisson(rng.uniform(0.5, 6) * days)
        s = rng.integers(0, days, k) * DAY + np.clip(rng.normal(14, 3.5, k), 0, 23.9) * HOUR
        size = np.minimum((rng.pareto(1.5, k) + 1) * rng.uniform(2, 15), 600)
        x[:, j] = bursts(rng, n, s, np.exp(rng.normal(np.log(30), 1.0, k)), size)
    add("batch", x, 5)
    # a person: sessions in working days, on/off with log-normal durations
    x = np.zeros((n, g), np.float32)
    for j in range(g):
        st, le, he = [], [], []
        for d in range(days):
            if d % 7 >= 5 and rng.random() < 0.85:
                continue
            k = rng.poisson(rng.uniform(20, 120))
            st.append(d * DAY + rng.uniform(8.5, 19, k) * HOUR)
            le.append(np.exp(rng.normal(0.7, 0.8, k)))
            he.append(np.exp(rng.normal(1.2, 0.9, k)))
        if st:
            x[:, j] = bursts(rng, n, np.concatenate(st), np.concatenate(le), np.concatenate(he))
    add("person", x, 5)
    # deploy: like web or api, level shift up or down once between day 12 and 20
    lam = np.exp(rng.uniform(np.log(3), np.log(150), g)) * rhythm(
        n, g, rng, rng.uniform(0.1, 0.4, g), rng.uniform(0.3, 1, g), rng.uniform(10, 20, g)
    )
    when = rng.integers(12 * DAY, 20 * DAY, g)
    factor = rng.choice([0.25, 3.0, 3.0, 5.0], g)
    lam = lam * np.where(t[:, None] >= when[None], factor[None], 1.0)
    add(
        "deploy",
        nb(rng, lam * np.exp(ar1(rng, n, g, 60, 0.3)), 10.0),
        5,
        [("shift", int(w), float(f)) for w, f in zip(when, factor, strict=False)],
    )
    # drift: +60 % over four weeks or -40 %
    lam = np.exp(rng.uniform(np.log(3), np.log(150), g)) * rhythm(
        n, g, rng, rng.uniform(0.1, 0.4, g), rng.uniform(0.3, 1, g), rng.uniform(10, 20, g)
    )
    lam = lam * (1 + rng.choice([-0.4, 0.6, 0.6], g)[None] * (t / n)[:, None])
    add("drift", nb(rng, lam * np.exp(ar1(rng, n, g, 60, 0.3)), 10.0), 5)
    # new: appears between day 8 and 20; before, the group does not exist (nan)
    lam = np.exp(rng.uniform(np.log(1), np.log(60), g)) * rhythm(
        n, g, rng, rng.uniform(0.1, 0.4, g), rng.uniform(0.3, 1, g), rng.uniform(10, 20, g)
    )
    x = nb(rng, lam * np.exp(ar1(rng, n, g, 60, 0.3)), 8.0)
    born = rng.integers(8 * DAY, 20 * DAY, g)
    x[t[:, None] < born[None]] = np.nan
    add("new", x, 5, [("born", int(b), 1.0) for b in born])
    # --- bytes per 10 s (floor 10 MB a minute)
    megabyte = 1e6
    conn = nb(
        rng,
        np.exp(rng.uniform(np.log(2), np.log(80), g))
        * rhythm(n, g, rng, rng.uniform(0.1, 0.4, g), rng.uniform(0.3, 1, g), rng.uniform(10, 20, g)),
        4.0,
    )
    size = np.exp(rng.uniform(np.log(0.01), np.log(0.5), g)) * megabyte
    x = np.where(conn > 0, conn * size * np.exp(rng.normal(0, 1.0, conn.shape) / np.sqrt(np.maximum(conn, 1))), 0)
    big = rng.random(x.shape) < 2e-4  # now and then a large object
    x = x + big * (rng.pareto(1.6, x.shape) + 1) * size * 20
    add("bytes", np.minimum(x, 1.2e10), 10 * megabyte / 6)
    # nightly backup, larger on Sunday; start jitters by 15 min
    x = np.zeros((n, g), np.float32)
    for j in range(g):
        h = rng.uniform(0, 5)
        rate = np.exp(rng.uniform(np.log(5), np.log(200))) * megabyte * 10
        s = np.arange(days) * DAY + h * HOUR + rng.uniform(0, 90, days)
        le = rng.uniform(20, 60) * 6 * np.exp(rng.normal(0, 0.15, days)) * np.where(np.arange(days) % 7 == 6, 2.5, 1)
        x[:, j] = bursts(rng, n, s, le, np.full(days, rate), shape=8.0)
    x += (rng.random(x.shape) < 0.01) * rng.gamma(1.0, 0.05 * megabyte, x.shape)
    add("backup", x, 10 * megabyte / 6)
    # --- distinct peers per window (already a number per tick): floor 20 a minute
    lam = np.exp(rng.uniform(np.log(0.2), np.log(5), g)) * rhythm(
        n, g, rng, rng.uniform(0.1, 0.6, g), rng.uniform(0.4, 1, g), rng.uniform(10, 20, g)
    )
    add("peers", nb(rng, lam * np.exp(ar1(rng, n, g, 90, 0.3)), 6.0), 20 / 6)
    x = np.concatenate(out, 1)
    return x, np.array(kinds), np.array(floors, np.float32), marks


def hour_level(x, floors, q=0.99):
    """(24, groups): the q-quantile of one-minute sums at that hour of day over all clean days, at least the floor."""
    n, g = x.shape
    m = np.nan_to_num(x).reshape(n // 6, 6, g).sum(1)
    h = (np.arange(n // 6) // 60) % 24
    return np.stack([np.maximum(np.quantile(m[h == k], q, axis=0), floors * 6) for k in range(24)])


ATTACKS = {  # name: (times the hour's usual high, seconds)
    "3x short": (3, 30),
    "3x long": (3, 600),
    "10x short": (10, 30),
    "10x long": (10, 600),
    "10x hour": (10, 3600),
}


def inject(x, kinds, floors, marks, days=28, seed=2, every=(3.0, 6.0)):  # noqa: C901 - one attack after the other
    """A copy of x with about one attack a day and a half per group; list of (group, start, stop, name)."""
    rng = np.random.default_rng(seed)
    base = hour_level(x, floors)
    y = x.copy()
    got = []
    for j in range(x.shape[1]):
        born = 0
        if marks[j] and marks[j][0] == "born":
            born = marks[j][1]
        day = 1.5 + born / DAY
        while day < days - 1.5:
            start = int((day + rng.uniform(0, 0.5)) * DAY)
            names = list(ATTACKS)
            if kinds[j] in ("bytes", "backup"):
                names.append("slow 6h")
            if kinds[j] == "peers":
                names += ["slow scan 2h", "fan-out"]
            name = names[rng.integers(len(names))]
            h = (start // HOUR) % 24
            if name == "slow 6h":  # exfiltration: 6 hours at half the usual one-minute high of that hour, on top
                stop = start + 6 * HOUR
                add = 0.5 * base[h, j] / 6
                add = np.full(stop - start, add)
            elif name == "slow scan 2h":  # 6 new peers a minute
                stop = start + 2 * HOUR
                add = rng.poisson(1.0, stop - start)
            elif name == "fan-out":  # 200 peers a minute for a minute
                stop = start + 6
                add = rng.poisson(33, 6)
            else:
                k, sec = ATTACKS[name]
                stop = start + sec // TICK
                add = (k - 1) * base[h, j] / 6 * rng.gamma(20, 1 / 20, stop - start)
                if kinds[j] not in ("bytes", "backup"):
                    add = rng.poisson(add)
            z = y[start:stop, j]
            if not np.isnan(z).any():
                y[start:stop, j] = z + add
                got.append((j, start, stop, name))
            day += rng.uniform(*every)
    return y, got


def attacked(x, kinds, floors, marks, seed):
    """The two attacked copies: name -> (values, attacks)."""
    yield "many", inject(x, kinds, floors, marks, seed=seed + 100)
    yield "few", inject(x, kinds, floors, marks, seed=seed + 774, every=(12.0, 20.0))


def seconds(column, rng, count):
    """A group's ticks of 10 s spread over ticks of 1 s, nan as 0: counts at random, other values evenly."""
    x = np.nan_to_num(column.astype(np.float64))
    if not count:
        return np.repeat(x / 10, 10).astype(np.float32)
    out, left = np.empty((len(x), 10), np.float32), np.rint(x).astype(np.int64)
    for i in range(9):
        part = rng.binomial(left, 1 / (10 - i))
        out[:, i] = part
        left -= part
    out[:, 9] = left
    return out.ravel()


def services(seed, days=28, g=40):
    """Smooth services: the rate of each at each tick, for the scenarios (deploy, storms)."""
    rng, n = np.random.default_rng(seed), days * DAY
    lam = np.exp(rng.uniform(np.log(3), np.log(150), g))
    lam = lam * rhythm(n, g, rng, rng.uniform(0.1, 0.4, g), rng.uniform(0.4, 1, g), rng.uniform(10, 20, g))
    return lam * np.exp(ar1(rng, n, g, 60, 0.3))


if __name__ == "__main__":
    seed, out = int(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    x, kinds, floors, marks = make(seed=seed)
    np.save(out / "clean.npy", x)
    about = {"seed": seed, "kinds": kinds.tolist(), "floors": floors.tolist(), "marks": marks, "attacks": {}}
    for name, (y, attacks) in attacked(x, kinds, floors, marks, seed):
        np.save(out / f"{name}.npy", y)
        about["attacks"][name] = attacks
        del y
    (out / "about.json").write_text(json.dumps(about))
    print(
        f"{x.shape[0]} ticks of {x.shape[1]} groups;",
        ", ".join(f"{name} {len(a)} attacks" for name, a in about["attacks"].items()),
    )
