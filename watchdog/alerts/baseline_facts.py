"""The facts of a baseline about one alert, in the state file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchdog.alerts.evidence import number_to_json
from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.language.rule import Severity


def facts_to_json(facts: BaselineFacts) -> dict[str, Any]:
    """Return a document for `json` and `facts_from_json`."""
    return {
        "limits": {severity.label: number_to_json(limit) for severity, limit in facts.limits.items()},
        "usual": facts.usual,
        "highest": facts.highest,
        "rarity_hours": facts.rarity_hours,
        "learnt_hours": facts.learnt_hours,
        "is_new": facts.is_new,
    }


def facts_from_json(document: Mapping[str, Any]) -> BaselineFacts:
    """Return the facts that `facts_to_json` wrote; errors as `document_errors` catches them."""
    usual, highest = (None if document[name] is None else float(document[name]) for name in ("usual", "highest"))
    return BaselineFacts(
        limits={Severity[label.upper()]: float(limit) for label, limit in document["limits"].items()},
        usual=usual,
        highest=highest,
        rarity_hours=float(document["rarity_hours"]),
        learnt_hours=int(document["learnt_hours"]),
        is_new=bool(document["is_new"]),
    )
