"""`absent` and `absent_for` of a rule: the effect of a group that has no rows any more."""

from __future__ import annotations

from watchdog.clock import SECOND_NS
from watchdog.config.document import Table
from watchdog.config.durations import format_duration
from watchdog.rules.language.expression import COMPARE, value_without_rows
from watchdog.rules.language.rule import Absent, Rule

_DEFAULT_NEWS_NS = 120 * SECOND_NS  # for which an alert about a group that vanished fires by default


def read_absence(table: Table, silent_ns: int) -> tuple[Absent, int]:
    """Return `absent` and `absent_for` in ns of the rule in `table`.

    `silent_ns`: window and `for` (or `hits`) together, after which a group without rows fires if its value then does.
    """
    absent = Absent(table.text("absent", Absent.RESOLVE.value, choices=[one.value for one in Absent]))
    given_ns = table.duration("absent_for", "2m", maximum="7d")
    if "absent_for" in table:
        return absent, given_ns
    return absent, silent_ns if absent is Absent.FIRE else silent_ns + _DEFAULT_NEWS_NS


def check_absence(table: Table, rule: Rule, pending_ns: int) -> None:
    """Note keys of the rule in `table` that contradict `absent`, `absent_for` or a rule about silence.

    `pending_ns`: the time of `for`, or of the ticks of `hits`.
    """
    if not rule.by:
        for key in {"absent", "absent_for"} & set(table):
            table.add_note(key, "has no effect without by: the host is always judged")
        return
    if "absent_for" in table and (message := _contradiction(rule, rule.window_ns + pending_ns)):
        table.add_note("absent_for", message)
    gate = rule.only_if
    if gate is not None and rule.fires_without_rows and rule.absent is Absent.RESOLVE:
        holds = COMPARE[gate.operator](value_without_rows(gate.left), gate.right)
        if not holds:
            table.add_note("only_if", "does not hold without rows: the rule does not fire for a group that vanishes")


def _contradiction(rule: Rule, silent_ns: int) -> str:
    """Return the reason why `absent_for` cannot do as it reads, "" without one."""
    if rule.absent is Absent.KEEP:
        return 'has no effect with absent = "keep"'
    if rule.absent is Absent.FIRE:
        return ""
    if not rule.fires_without_rows:
        return "has no effect: without rows, the value of a group does not fire"
    if rule.absent_for_ns < silent_ns:
        key = "for" if rule.hits is None else "hits"
        return f"a group that vanishes may end before it fires: window and {key} take {format_duration(silent_ns)}"
    return ""
