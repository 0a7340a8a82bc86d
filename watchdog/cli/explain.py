"""`bpf-watchdog explain`: why a rule fires, or why not, for one group: the numbers of the running daemon."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from watchdog.cli.alerts import delivery_text, labels_text, timer_text
from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.group_labels import add_group_arguments, parse_labels
from watchdog.cli.readable_numbers import hours_text, learning_text, metric_text, newest_text
from watchdog.cli.terminal import duration_text, print_facts
from watchdog.rules.language.condition_text import matchers_text
from watchdog.rules.language.formats import format_number

_DESCRIPTION = """\
Show why a rule fires or does not fire for one group: rows, metrics, window, only_if, limits, timers, receivers.

Without labels, the group with the worst value is shown; with some of its labels, the worst of the groups that have
them. All numbers are those by which the daemon judged the newest tick."""

_NAME_WIDTH = 10
_WHOLE_FROM_SECONDS = 10  # a time is shown without decimals


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("explain", description=_DESCRIPTION)
    add_group_arguments(parser)
    add_daemon_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the explanation.

    Raises:
        UsageError: a label has no value, or the daemon knows no such rule or label.
    """
    explanation = ask_daemon(args, "explain", rule=args.rule, labels=parse_labels(args.labels))
    if args.json:
        print(json.dumps(explanation, indent=2))
    else:
        print_facts(_lines(explanation), _NAME_WIDTH)
    return 0


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "rule", f"{found['rule']} ({found['file']}:{found['line']})"
    yield "group", _group_text(found)
    yield "state", f"{found['state']}: {found['conclusion']}"
    yield (
        "rows",
        f"{found['rows_host']} of the host, {found['rows_selected']} meet where, {found['rows_group']} in the group",
    )
    for metric in found["metrics"]:
        yield "metric", _metric_text(metric["metric"], metric["statistic"], metric["window"], metric["newest"])
    yield "value", _value_text(found)
    filled = found["filled_seconds"]
    filled_text = duration_text(filled if filled < _WHOLE_FROM_SECONDS else round(filled))
    yield "window", f"{filled_text} of {duration_text(found['window_seconds'])} have data"
    if found["only_if_text"]:
        yield "only_if", _only_if_text(found)
    if found["baseline"]:
        yield "baseline", _baseline_text(found["baseline"])
    for limit in found["thresholds"]:
        yield limit["severity"], _limit_text(found, limit)
    keep = f"keep_firing_for {duration_text(found['keep_firing_for_seconds'])}"
    if found["hits"] is None:
        yield "for", f"{duration_text(found['for_seconds'])}, {keep}"
    else:
        yield "hits", f"{found['hits']} ticks, {keep}"
    for timer in found["timers"]:
        yield "timer", f"{timer['severity']}: {timer_text(timer)}"
    for exception in found["exceptions"]:
        yield "exception", _exception_text(exception)
    for cause in found["suppressed_by"]:
        yield "withheld", f"by {cause}"
    yield from _destinations(found["destinations"])


def _group_text(found: Mapping[str, Any]) -> str:
    group = labels_text(found["labels"])
    if not group and found["by"]:
        return "none: no group has rows now"
    group = group or "the host"
    return group if found["has_group"] else f"{group}: it has no rows now"


def _exception_text(exception: Mapping[str, Any]) -> str:
    where = matchers_text(exception["where"])
    until = f", until {exception['until']}" if exception["until"] else ""
    unused = "" if exception["has_excluded"] else "; has excluded nothing so far"
    return f"{where} ({exception['owner']}: {exception['reason']}{until}){unused}"


def _metric_text(metric: str, statistic: str, window: float | None, newest: float | None) -> str:
    in_tick = newest_text(metric, statistic, newest)
    return f"{metric}: {statistic} {metric_text(metric, statistic, window)}, in the newest tick {in_tick}"


def _value_text(found: Mapping[str, Any]) -> str:
    text = f"{found['value_text']} ({found['stat']} of {found['metric']})"
    if (found["low"], found["high"]) == (found["value"], found["value"]):
        return text
    low, high = (("unbounded" if found[end] is None else found[f"{end}_text"]) for end in ("low", "high"))
    return f"{text}, with losses between {low} and {high}"


def _only_if_text(found: Mapping[str, Any]) -> str:
    verdict = {True: "holds", False: "does not hold", None: "unknown: losses decide it"}[found["only_if"]]
    value = "-" if found["only_if_value"] is None else format_number("count", found["only_if_value"])
    return f"{found['only_if_text']}: {verdict}, left side {value}"


def _baseline_text(baseline: Mapping[str, Any]) -> str:
    if baseline["is_learning"]:
        return learning_text(baseline)
    if not baseline["is_known"]:
        return f"{learning_text(baseline)}; it knows no such group"
    if baseline["is_new"]:
        top = baseline["highest_text"]
        return f"{learning_text(baseline)}; too new for limits of its own, the highest limit of others is {top}"
    usual = f"usual {baseline['usual_text']} in this hour, highest {baseline['highest_text']}"
    hours = baseline["rarity_hours"]
    rarity = f"this value less than once in {hours_text(hours)}" if hours >= 1 else "this value is usual"
    return f"{usual}; {rarity}; learnt {hours_text(baseline['learnt_hours'])}"


def _limit_text(found: Mapping[str, Any], limit: Mapping[str, Any]) -> str:
    if found.get("has_novelty"):
        return "fires when a group is seen for the first time, at any value"
    if limit["fire"] is None:
        return "not learnt yet"
    above, below = ("above", "below") if found["above"] else ("below", "above")
    state = "breached" if limit["breached"] else "cleared" if limit["cleared"] else "not cleared"
    is_sure = found["complete"] or limit["breached"]  # a breach counts what is known
    unsure = "" if is_sure else ", not sure: input incomplete or window not filled"
    return f"fires {above} {limit['fire_text']}, clears {below} {limit['clear_text']}: {state}{unsure}"


def _destinations(destinations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    if not destinations:
        yield "receivers", "-"
    for one in destinations:
        known = f", {delivered}" if (delivered := delivery_text(one)) else ""
        waits = f"group_wait {one['group_wait_seconds']:g}s, group_interval {one['group_interval_seconds']:g}s"
        yield "receiver", f"{one['receiver']} (group {one['group_key']}, {waits}){known}"
