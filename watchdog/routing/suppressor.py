"""The suppressions in force in one tick: silences, inhibition, mute times; and the number of notifications withheld."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from watchdog.alerts.alert import Alert
from watchdog.clock import Now
from watchdog.routing.inhibition import find_inhibited
from watchdog.routing.mute_times import MuteTime
from watchdog.routing.silencing import Silence
from watchdog.routing.suppression import Suppression, SuppressionKind
from watchdog.routing.suppression_rules import SuppressionRules


class Suppressor:
    """Answers for one tick at a time; `update` begins the next one."""

    def __init__(self) -> None:
        """Suppress nothing before `update`."""
        self._silences: Sequence[Silence] = ()
        self._rules = SuppressionRules()
        self._muting: Sequence[MuteTime] = ()
        self._exempt_receivers: frozenset[str] = frozenset()
        self._silent_ends: frozenset[str] = frozenset()
        self._inhibited: Mapping[str, Alert] = {}
        self._compared: frozenset[tuple[object, ...]] | None = None  # alerts for which `_inhibited` was found
        self._found: dict[tuple[str, int], tuple[Suppression, ...]] = {}
        self._withheld: Counter[Suppression] = Counter()

    def configure(
        self, rules: SuppressionRules, exempt_receivers: Collection[str], silent_ends: Collection[str] = ()
    ) -> None:
        """Take a configuration.

        `exempt_receivers`: nothing is suppressed there. `silent_ends`: receivers that get no resolved notification.
        """
        self._rules = rules
        self._silent_ends = frozenset(silent_ends)
        self._compared = None
        self._exempt_receivers = frozenset(exempt_receivers)

    @property
    def is_active(self) -> bool:
        """Return whether any alert can be suppressed now."""
        return bool(self._silences or self._muting or self._inhibited)

    @property
    def muting(self) -> Sequence[MuteTime]:
        """Return the mute times that hold now."""
        return self._muting

    def update(self, silences: Sequence[Silence], firing: Mapping[str, Alert], now: Now) -> None:
        """Take the silences of this tick, acknowledgements included, its alerts, and the mute times that hold at `now`.

        `firing`: all alerts that fire, by fingerprint.
        """
        self._muting = [mute_time for mute_time in self._rules.mute_times if mute_time.holds(now.wall)]
        self._inhibit(firing)
        self._silences = sorted(silences, key=lambda silence: silence.acknowledged is None)
        self._found = {}

    def _inhibit(self, firing: Mapping[str, Alert]) -> None:
        if not self._rules.inhibitions:
            self._inhibited, self._compared = {}, None
            return
        compared = frozenset((key, alert.severity, alert.identity) for key, alert in firing.items())
        if compared != self._compared:
            self._inhibited, self._compared = find_inhibited(self._rules.inhibitions, firing), compared

    def find(self, receiver: str, alert: Alert) -> Suppression | None:
        """Return the first cause that withholds notifications of `alert` to `receiver`, None without one."""
        if receiver in self._exempt_receivers:
            return None
        return next(iter(self.find_all(alert)), None)

    def find_all(self, alert: Alert) -> tuple[Suppression, ...]:
        """Return all causes that suppress `alert`: silences, inhibition, mute times. Exempt receivers get it anyway."""
        key = alert.fingerprint, int(alert.severity)
        if key not in self._found:
            self._found[key] = tuple(self._causes(alert))
        return self._found[key]

    def suppressed(self, firing: Mapping[str, Alert]) -> dict[str, tuple[Suppression, ...]]:
        """Return the causes of each suppressed alert of `firing`, by fingerprint."""
        if not self.is_active:
            return {}
        found = ((fingerprint, self.find_all(alert)) for fingerprint, alert in firing.items())
        return {fingerprint: causes for fingerprint, causes in found if causes}

    def record_withheld(self, suppression: Suppression) -> None:
        """Count one notification that `suppression` withheld."""
        self._withheld[suppression] += 1

    def announces_end(self, receiver: str, alert: Alert) -> bool:
        """Return whether `receiver` gets the resolved notification of `alert`."""
        return alert.send_resolved and receiver not in self._silent_ends

    def take_withheld(self) -> Mapping[Suppression, int]:
        """Return the number of notifications withheld since the last call, by cause."""
        withheld, self._withheld = self._withheld, Counter()
        return withheld

    def _causes(self, alert: Alert) -> Iterator[Suppression]:
        yield from (silence.suppression for silence in self._silences if silence.matches(alert))
        if alert.fingerprint in self._inhibited:
            yield Suppression(SuppressionKind.INHIBITION, self._inhibited[alert.fingerprint].rule)
        yield from (mute_time.suppression for mute_time in self._muting if mute_time.matches(alert))
