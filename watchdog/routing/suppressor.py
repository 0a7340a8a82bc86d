"""The suppressions in force in one tick: which alerts are silenced or acknowledged, and the notifications withheld."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from watchdog.alerts.alert import Alert
from watchdog.routing.silencing import Silence
from watchdog.routing.suppression import Suppression


class Suppressor:
    """Answers for one tick at a time; `update` begins the next one."""

    def __init__(self, exempt_receivers: Collection[str] = ()) -> None:
        """Suppress nothing at `exempt_receivers`, and nothing at all before `update`."""
        self.exempt_receivers = frozenset(exempt_receivers)
        self._silences: Sequence[Silence] = ()
        self._found: dict[tuple[str, int], tuple[Suppression, ...]] = {}
        self._withheld: Counter[Suppression] = Counter()

    @property
    def is_active(self) -> bool:
        """Return whether any alert can be suppressed now."""
        return bool(self._silences)

    def update(self, silences: Sequence[Silence]) -> None:
        """Take the silences of this tick, acknowledgements included."""
        self._silences = sorted(silences, key=lambda silence: silence.acknowledged is None)
        self._found = {}

    def find(self, receiver: str, alert: Alert) -> Suppression | None:
        """Return the first cause that withholds notifications of `alert` to `receiver`, None without one."""
        if receiver in self.exempt_receivers:
            return None
        return next(iter(self.find_all(alert)), None)

    def find_all(self, alert: Alert) -> tuple[Suppression, ...]:
        """Return all causes that suppress `alert` at receivers that are not exempt, acknowledgements first."""
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

    def take_withheld(self) -> Mapping[Suppression, int]:
        """Return the number of notifications withheld since the last call, by cause."""
        withheld, self._withheld = self._withheld, Counter()
        return withheld

    def _causes(self, alert: Alert) -> Iterator[Suppression]:
        yield from (silence.suppression for silence in self._silences if silence.matches(alert))
