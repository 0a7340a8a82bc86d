"""`hits` of a rule: `"3 of 5"`, in place of `for`."""

from __future__ import annotations

import re

from watchdog.config.document import Table
from watchdog.config.suggestions import quote_value
from watchdog.rules.language.rule import MAX_HIT_TICKS, Hits

_HITS = re.compile(r"(\d{1,9}) of (\d{1,9})", re.ASCII)


def read_hits(table: Table) -> Hits | None:
    """Return `hits` of the rule in `table`, None without the key or with a problem, which is noted."""
    if table.value("hits", None) is None:
        return None
    text = table.text("hits")
    if table.has_problem("hits"):
        return None
    match = _HITS.fullmatch(text)
    if match is None:
        table.add_problem("hits", f'not a number of ticks: {quote_value(text)}; write it like "3 of 5"')
        return None
    hits = Hits(int(match[1]), int(match[2]))
    if message := _fault(hits):
        table.add_problem("hits", message)
    if "for" in table:
        table.add_problem("hits", "cannot be combined with for: both are the condition to fire; use one of them")
    return hits


def _fault(hits: Hits) -> str:
    """Return the reason why `hits` can never do as it reads, "" without one."""
    if hits.ticks > MAX_HIT_TICKS:
        return f"must be of at most {MAX_HIT_TICKS} ticks, not {hits.ticks}: use for"
    if hits.count > hits.ticks:
        return f"never fires: {hits.ticks} ticks cannot have {hits.count} hits"
    if hits.count < 1:
        return "must be at least 1 hit, or the rule would fire always"
    return ""
