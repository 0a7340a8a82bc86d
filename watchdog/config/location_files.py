"""Files of the user's own that know country and operator of an address: MaxMind DB, such as GeoLite2 or DB-IP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocationFiles:
    """Paths, None for a dimension without one."""

    country_file: str | None = None
    asn_file: str | None = None


NO_LOCATION_FILES = LocationFiles()
