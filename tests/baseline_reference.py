"""A slow, plain reference of baselines: one group at a time, one number after the other.

It follows docs/anomalies.md; the daemon's columns must agree with it to the last bit.
"""

from __future__ import annotations

import numpy as np

NO_AMOUNT = np.float32(-np.inf)
F = np.float32
SLOTS = {"day": 24, "week": 168, "none": 0}
DECAY = {"day": F(0.1), "week": F(0.3)}


def vector(function, *values):
    """Return the result of a ufunc for single numbers, computed as for arrays."""
    return function(*(np.array([value], F) for value in values))[0]


class Tail:
    def __init__(self):
        self.hours = self.above = self.excess = self.gap = F(0)
        self.seen = 0

    def learn(self, excess, weight, is_calm):
        if weight > 0:
            forget = F(2 ** (-1 / 672))
            above = weight if excess > 0 else F(0)
            self.hours = self.hours * forget + weight
            self.above = self.above * forget + above
            self.excess = self.excess * forget + above * max(excess, F(0))
        if is_calm:
            self.seen = min(self.seen + 1, 255)
            step = max(F(1 / 168), F(1) / F(self.seen))
            self.gap = self.gap + (max(-excess, F(0)) - self.gap) * step

    def margin(self, log_hours):
        prior = min(max(F(1.2) * self.gap, F(0.06)), F(0.3)) if self.seen >= 12 else F(0.3)
        shape, scale = F(2) + self.above, F(2) * prior + self.excess
        p = (F(1) + self.above) / (F(48) + self.hours)
        return scale * vector(np.expm1, max(vector(np.log, p) + log_hours, F(0)) * (F(1) / shape))


class Group:
    """The baseline of one group, as the documentation has it."""

    def __init__(self, floor, rarity, season, learn, above):
        self.floor, self.c, self.rarity, self.learn, self.is_above = F(floor), F(floor / 2), rarity, learn, above
        self.slots, self.decay = [0] * SLOTS[season], DECAY.get(season, F(0))
        self.all_hours, self.age, self.run, self.quiet, self.shift = 0, 0, 0, 0, F(0)
        self.tails, self.highest, self.limits = (Tail(), Tail()), NO_AMOUNT, [F(np.inf)] * len(rarity)

    def y(self, amount):
        return np.copysign(vector(np.log1p, abs(amount) / self.c), amount)

    def amount(self, y):
        if self.age < self.learn or np.isinf(y):
            return F(np.inf)
        return np.copysign(self.c * vector(np.expm1, min(abs(y), F(60))), y)

    @staticmethod
    def decoded(code):
        return (F(code) - F(32768)) / F(1024)

    def arms(self, slot):
        n = len(self.slots)
        near = max(self.slots[(slot + step) % n] for step in (-1, 0, 1)) if n else 0
        uses = [self.age > 0, self.age >= 2 * n and near > 0]
        if not self.is_above:
            top = int(32768 - np.log1p(2.0) * 1024)
            uses = [uses[0] and self.all_hours <= top, uses[1] and near <= top]
        return list(zip(self.tails, (self.all_hours, near), uses, strict=True))

    def set_limits(self, slot):
        self.record_limit, self.limits = self.limits_of(slot)

    def limits_of(self, slot, rarities=None):
        arms, limits, record_limit = self.arms(slot), [], None
        several = F(np.log(2)) if all(used for _, _, used in arms) else F(0)
        for rarity in rarities or self.rarity:
            log_hours = F(np.log(rarity)) + several
            ys = [self.decoded(code) + tail.margin(log_hours) if used else F(np.inf) for tail, code, used in arms]
            record_limit = self.amount(ys[0]) if record_limit is None else record_limit
            limit = self.amount(min(ys))
            limits.append(max(limit, self.floor) if self.is_above else limit)
        return record_limit, limits

    def close(self, slot):
        highest, self.highest = self.highest, NO_AMOUNT
        ok = np.isfinite(highest)
        if not ok:
            self.quiet = min(self.quiet, 2) + 1
            self.mend(False, F(0))
            return
        record_limit, limits = self.limits_of(slot)
        fired = highest > limits[0]
        record = fired and highest > record_limit
        y = self.y(highest)
        _, [cut] = self.limits_of(slot, [max(self.rarity[0], 72.0)])
        bounded = min(y, self.y(cut)) if fired else y
        for tail, code, used in self.arms(slot):
            weight = (F(0.25) if record else F(1)) if used else F(0)
            tail.learn(bounded - self.decoded(code), weight, used and not fired and highest != 0)
        if not record:
            self.follow(slot, y)
        self.age += 1
        if record:
            self.run, self.quiet = (0 if self.quiet > 2 else self.run) + 1, 0
        else:
            self.run, self.quiet = 0 if self.quiet > 2 else self.run, min(self.quiet, 2) + 1
        self.mend(record, y)

    def follow(self, slot, y):
        code, phase = min(max(F(32768) + y * F(1024), F(1)), F(65535)), F(slot * 0.6180339887498949 % 1)

        def followed(was, decay):
            now = code if code > was or was == 0 else F(was) - decay * (F(was) - code)
            return int(min(now + phase, F(65535)))

        self.all_hours = followed(self.all_hours, F(1 / 168))
        if self.slots:
            self.slots[slot % len(self.slots)] = followed(self.slots[slot % len(self.slots)], self.decay)

    def mend(self, record, y):
        if record:
            self.shift += (F(32768) + y * F(1024) - F(self.all_hours) - self.shift) / F(max(self.run, 1))
        elif self.run == 0:
            self.shift = F(0)
        if self.run >= 24:
            up = int(max(self.shift, F(0)))
            self.slots = [min(code + up, 65535) if code else 0 for code in self.slots]
            self.all_hours, self.run = min(self.all_hours + up, 65535), 0
