"""Schema step 5: rows of versions 1 to 4 get the names of the glossary, in columns and in JSON documents.

A row is converted by `convert_row`, both in the step itself and when a damaged file of an older version is salvaged.
A document whose checksum does not match is left as it is, with its checksum, so that it stays recognisable as damaged;
the same holds for a document that has not the expected shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from sqlite3 import Connection
from typing import Any, Final

from watchdog.storage.checksum import checksum, is_intact

TableRow = Mapping[str, Any]
_Document = dict[str, Any]

OLD_TABLES: Final = {"notifications": "notices", "receiver_state": "memories", "notified": "told"}
"""Old names of renamed tables, by new name; tables that are not listed keep their name."""

OLD_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "clocks": {"part": "part", "boot_id": "boot_id", "boot_ns": "boottime_ns", "wall": "wall"},
    "alerts": {"fingerprint": "fingerprint", "state": "document", "checksum": "checksum"},
    "groups": {"receiver": "receiver", "rule": "group_key", "state": "document", "checksum": "checksum"},
    "receiver_state": {"receiver": "receiver", "key": "key", "value": "value", "at": "updated"},
    "notified": {"receiver": "receiver", "rule": "rule", "fingerprint": "fingerprint", "alert": "alert"},
    "losses": {"receiver": "receiver", "cause": "cause", "count": "count"},
    "notifications": {
        "place": "sequence",
        "id": "id",
        "receiver": "receiver",
        "rule": "group_key",
        "status": "status",
        "state": "state",
        "attempts": "attempts",
        "created_ns": "created_ns",
        "due_ns": "due_ns",
        "last_error": "last_error",
        "ended": "ended",
        "checksum": "checksum",
        "body": "body",
    },
}
"""Columns of each table, by its new name: old name to new name."""

_ESCALATION_PREFIX = ">"  # began the group key of an escalation, and was the whole key of its progress
_STATES = {"done": "delivered", "dead": "failed"}
_LOSS_CAUSES = {
    "dropped: no room": "capacity",
    "expired": "expired",
    "receiver removed": "receiver_removed",
    "damaged in the state file": "damaged",
}
_MERGED_INTO = "merged into "

_NOTIFICATION = {"group": "group_key", "test": "is_test", "by": "group_labels"}
_ALERT = {"lasted": "duration_seconds"}
_EVIDENCE = {"seconds": "tick_seconds", "culprit": "top_process", "missing": "missing_reason"}
_TOP_PROCESS = {"others": "other_process_count", "gone": "has_exited"}
_INSTANCE = {"stages": "severity_timers"}
_TIMER = {"since_ns": "breached_since_ns", "active": "is_active"}
_RECEIVER_DOWN = {"path": "down_receiver"}
_GROUP = {
    "rule": "group_key",
    "by": "group_labels",
    "news_since_ns": "unsent_since_ns",
    "last_notice_ns": "last_notification_ns",
    "waits": "group_timing",
}
_MEMBER = {"told": "notified_severity", "believed": "is_notified_firing", "ended": "is_end_notified"}
_PROGRESS = {"places": "read_sequences", "known": "escalated_alerts"}
_RATE_LIMIT = {"at_ns": "updated_ns"}
_OUTAGE = {"boot": "boot_id"}
_SLACK_MESSAGE = {
    "notice": "notification_id",
    "wanted": "configured_channel",
    "channel": "channel_id",
    "over": "is_resolved",
    "edited": "is_edited",
    "at": "posted_at",
}
_SLACK_STEPS = {"told": "replied"}


def convert_documents(connection: Connection) -> None:
    """Move the rows of `old_alerts`, `old_groups` and `notices` to their new tables; convert the others in place.

    Row by row, each deleted once it is copied, so that the file does not grow by a second copy of all notifications.
    """
    for table, source in (("alerts", "old_alerts"), ("groups", "old_groups"), ("notifications", "notices")):
        columns = OLD_COLUMNS[table]
        select = f"SELECT {', '.join(columns)} FROM {source} WHERE rowid = ?"  # noqa: S608 - names of our own
        for (rowid,) in connection.execute(f"SELECT rowid FROM {source} ORDER BY rowid").fetchall():  # noqa: S608
            values = connection.execute(select, (rowid,)).fetchone()
            row = convert_row(table, dict(zip(columns, values, strict=True)))
            connection.execute(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608
                tuple(row.values()),
            )
            connection.execute(f"DELETE FROM {source} WHERE rowid = ?", (rowid,))  # noqa: S608 - as above
    for rowid, key, value in connection.execute("SELECT rowid, key, value FROM receiver_state").fetchall():
        new = _receiver_state({"key": key, "value": value})
        connection.execute(
            "UPDATE receiver_state SET key = ?, value = ? WHERE rowid = ?", (new["key"], new["value"], rowid)
        )
    for rowid, text in connection.execute("SELECT rowid, alert FROM notified").fetchall():
        connection.execute("UPDATE notified SET alert = ? WHERE rowid = ?", (_rewritten(text, _alert), rowid))


def convert_row(table: str, row: TableRow) -> dict[str, Any]:
    """Return `row`, read under its old column names, as a row of the new `table`."""
    new = {OLD_COLUMNS[table][name]: value for name, value in row.items()}
    return _CONVERSIONS.get(table, dict)(new)


def _clock(row: TableRow) -> dict[str, Any]:
    return {**row, "part": "notifications" if row.get("part") == "notices" else row.get("part")}


def _saved_alert(row: TableRow) -> dict[str, Any]:
    document = _loaded(row.get("document"))
    if "path" in document:
        return {**_checked(row, "document", _receiver_down), "kind": "receiver_down"}
    return {**_checked(row, "document", _instance), "kind": "rule"}


def _saved_group(row: TableRow) -> dict[str, Any]:
    key = str(row.get("group_key", ""))
    if not key.startswith(_ESCALATION_PREFIX):
        return {**_checked(row, "document", _group), "kind": "routed"}
    kind, convert = ("escalation", _group) if key != _ESCALATION_PREFIX else ("escalation_progress", _progress)
    return {**_checked(row, "document", convert), "group_key": key.removeprefix(_ESCALATION_PREFIX), "kind": kind}


def _receiver_state(row: TableRow) -> dict[str, Any]:
    key, value = str(row.get("key")), row.get("value")
    if key == "budget":
        return {**row, "key": "rate_limit", "value": _rewritten(value, lambda old: _renamed(old, _RATE_LIMIT))}
    if key == "failing":
        return {**row, "key": "outage", "value": _rewritten(value, lambda old: _renamed(old, _OUTAGE))}
    if key.startswith("message:"):
        return {**row, "value": _rewritten(value, _slack_message)}
    return dict(row)


def _notified(row: TableRow) -> dict[str, Any]:
    return {**row, "alert": _rewritten(row.get("alert"), _alert)}


def _notification(row: TableRow) -> dict[str, Any]:
    error = row.get("last_error")
    merged_into = error.removeprefix(_MERGED_INTO) if isinstance(error, str) and row.get("state") == "merged" else None
    cause = _LOSS_CAUSES.get(str(error), "refused") if row.get("state") == "dead" else None
    new = _checked(row, "body", _body)
    document = _loaded(new.get("body"))
    return {
        **new,
        "state": _STATES.get(str(row.get("state")), row.get("state")),
        "last_error": None if merged_into is not None else error,
        "merged_into": merged_into,
        "loss_cause": cause,
        "reason": str(document.get("reason", "")),
        "has_evidence": _has_evidence(document.get("alerts")),
    }


def _has_evidence(alerts: Any) -> bool:
    return isinstance(alerts, list) and any(isinstance(one, dict) and bool(one.get("evidence")) for one in alerts)


_CONVERSIONS: Mapping[str, Callable[[TableRow], dict[str, Any]]] = {
    "clocks": _clock,
    "alerts": _saved_alert,
    "groups": _saved_group,
    "receiver_state": _receiver_state,
    "notified": _notified,
    "notifications": _notification,
}


def _checked(row: TableRow, column: str, convert: Callable[[_Document], _Document]) -> dict[str, Any]:
    """Return `row` with the document in `column` converted, and a checksum of it if there was a right one."""
    text, expected = row.get(column), row.get("checksum")
    if not isinstance(text, str) or not is_intact(text, expected):
        return dict(row)
    new = _rewritten(text, convert)
    return {**row, column: new} if expected is None else {**row, column: new, "checksum": checksum(new)}


def _rewritten(text: Any, convert: Callable[[_Document], _Document]) -> Any:
    try:
        return json.dumps(convert(json.loads(text)), separators=(",", ":"))
    except (AttributeError, LookupError, TypeError, ValueError):
        return text


def _loaded(text: Any) -> _Document:
    try:
        document = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _renamed(document: _Document, names: Mapping[str, str]) -> _Document:
    return {names.get(name, name): value for name, value in document.items()}


def _alert(document: _Document) -> _Document:
    new = _renamed(document, _ALERT)
    if new.get("evidence") is not None:
        new["evidence"] = _evidence(new["evidence"])
    return new


def _evidence(document: _Document) -> _Document:
    new = _renamed(document, _EVIDENCE)
    if new.get("top_process") is not None:
        new["top_process"] = _renamed(new["top_process"], _TOP_PROCESS)
    return new


def _instance(document: _Document) -> _Document:
    new = _renamed(document, _INSTANCE)
    new["severity_timers"] = {label: _renamed(timer, _TIMER) for label, timer in new["severity_timers"].items()}
    if new.get("alert") is not None:
        new["alert"] = _alert(new["alert"])
    if new.get("evidence") is not None:
        new["evidence"] = _evidence(new["evidence"])
    return new


def _receiver_down(document: _Document) -> _Document:
    new = _renamed(document, _RECEIVER_DOWN)
    return {**new, "alert": _alert(new["alert"])}


def _group(document: _Document) -> _Document:
    new = _renamed(document, _GROUP)
    new.pop("standby", None)
    members = [_renamed(member, _MEMBER) for member in new["members"]]
    return {**new, "members": [{**member, "alert": _alert(member["alert"])} for member in members]}


def _progress(document: _Document) -> _Document:
    new = _renamed(document, _PROGRESS)
    new.pop("standby", None)
    return new


def _body(document: _Document) -> _Document:
    new = _renamed(document, _NOTIFICATION)
    reason, detail = _reason(str(new["reason"]))
    alerts = [_alert(alert) for alert in new["alerts"]]
    return {**new, "reason": reason, "alerts": alerts, "reason_detail": detail}


def _reason(text: str) -> tuple[str, str]:
    # "escalated: oncall does not answer since …", "severity changed; escalated while oncall did not answer"
    if text.startswith("escalated: "):
        return "escalated", text.removeprefix("escalated: ")
    reason, _, detail = text.partition("; ")
    return reason, detail


def _slack_message(document: _Document) -> _Document:
    new = _renamed(document, _SLACK_MESSAGE)
    return {**new, "step": _SLACK_STEPS.get(new["step"], new["step"])}
