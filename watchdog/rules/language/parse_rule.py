"""One `[[rule]]` table → one `Rule`; every problem is noted in the table."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.config.durations import format_duration, parse_duration
from watchdog.config.labels import read_labels
from watchdog.config.settings import is_web_address
from watchdog.measure.catalogue import DIMENSIONS, LISTENING, METRICS, MetricKind
from watchdog.rules.language import expression, template
from watchdog.rules.language.absent_keys import check_absence, read_absence
from watchdog.rules.language.baseline_table import read_baseline
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.exceptions import read_exceptions
from watchdog.rules.language.expression import Comparison, Constant, Expression, ExpressionError, MetricReference
from watchdog.rules.language.formats import natural_format
from watchdog.rules.language.long_windows import MAX_LONG_WINDOW, check_long_window
from watchdog.rules.language.named_lists import NamedLists
from watchdog.rules.language.novelty_table import check_novelty, novelty_thresholds, read_novelty
from watchdog.rules.language.overrides import Overrides
from watchdog.rules.language.possible_values import check_possible_values
from watchdog.rules.language.read_hits import read_hits
from watchdog.rules.language.rule import MAX_DISTINCT, Rule, Stat, StatKind
from watchdog.rules.language.rule_source import RuleSource
from watchdog.rules.language.template import Template, TemplateError
from watchdog.rules.language.thresholds import ValueDomain, read_thresholds

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_PERCENTILE = re.compile(r"p(\d\d|9\d\d)", re.ASCII)
_DEFAULT_WINDOW = "1m"  # of a rule with novelty: of the value that its alert shows
_STATS = ("rate", "sum", "max", "min", "mean", "last", "count")
_DISTINCT = "distinct:"
_ACCEPT_QUEUE = MetricReference("accept_queue")  # a share of the listener's limit
_LATENCIES = frozenset(("connect_latency", "response_latency", "rtt"))
_FALLBACK = Constant(0.0)  # in place of an expression with a problem
_ALLOWED = {
    MetricKind.COUNTER: frozenset(StatKind) - {StatKind.PERCENTILE, StatKind.COUNT},
    MetricKind.GAUGE: frozenset((StatKind.MAX, StatKind.MIN, StatKind.MEAN, StatKind.LAST, StatKind.DISTINCT)),
    MetricKind.DISTRIBUTION: frozenset(StatKind) - {StatKind.RATE, StatKind.LAST},
}


@dataclass(slots=True)
class RuleEnvironment:
    """Facts from outside the rule that its check needs.

    `receivers`: the names of all receivers, None if unknown here. `rule_locations`: file:line of each rule id so far.
    `overrides`: the overrides of shipped rules so far. `lists`: those of all files. `rule_count`: rules and overrides
    in the files so far. `sources`: of the rules so far, by id. `texts`: of the files so far, by name.
    """

    receivers: Collection[str] | None
    interval_ns: int
    rule_locations: dict[str, str]
    overrides: Overrides = field(default_factory=Overrides)
    lists: NamedLists = field(default_factory=NamedLists)
    rule_count: int = 0
    sources: dict[str, RuleSource] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def count_rules(self, count: int) -> int:
        """Add the rules of one file; return the number of all so far."""
        self.rule_count += count
        return self.rule_count


def read_rule(table: Table, environment: RuleEnvironment) -> Rule:
    """Return the rule in `table`; it must not be used if a problem was noted."""
    metric = _read_metric(table)
    novelty = read_novelty(table)
    stat = _read_stat(table, metric, is_required=novelty is None)
    by = _read_by(table, metric)
    domain = _value_domain(metric, stat)
    window_ns = _read_window(table, environment.interval_ns, is_required=novelty is None)
    for_ns = table.duration("for", "0s", maximum="7d")
    hits = read_hits(table)
    pending_ns = for_ns if hits is None else hits.ticks * environment.interval_ns
    absent, absent_for_ns = read_absence(table, window_ns + pending_ns)
    baseline = read_baseline(table, domain) if novelty is None else None
    rule = Rule(
        id=_read_id(table, environment.rule_locations),
        summary=_read_summary(table, by, domain, has_baseline=baseline is not None or table.has_problem("baseline")),
        metric=metric,
        stat=stat,
        window_ns=window_ns,
        by=by,
        where=read_where(table, lists=environment.lists),
        only_if=_read_only_if(table, metric),
        thresholds=read_thresholds(table, domain, baseline) if novelty is None else novelty_thresholds(novelty),
        for_ns=for_ns,
        keep_firing_for_ns=table.duration("keep_firing_for", "1h" if novelty or baseline else "0s", maximum="7d"),
        receivers=_read_receivers(table, environment.receivers),
        runbook=_read_runbook(table),
        labels=read_labels(table.table("labels")),
        file=table.document.file,
        line=table.line,
        absent=absent,
        absent_for_ns=absent_for_ns,
        hits=hits,
        novelty=novelty,
        inhibits=_read_inhibits(table),
        is_enabled=table.boolean("enabled", default=True),
        baseline=baseline,
        exceptions=read_exceptions(table, environment.lists),
        send_resolved=table.boolean("send_resolved", default=True),
        unless_firing=table.names("unless_firing", (), kind="rule", known=None),
    )
    if novelty is not None:
        check_novelty(table, metric, by)
    _refuse_missing_dimensions(table, rule)
    _check_distinct(table, rule)
    check_long_window(table, rule)
    check_possible_values(table, rule)
    check_absence(table, rule, pending_ns)
    table.reject_unknown_keys()
    return rule


def _refuse_missing_dimensions(table: Table, rule: Rule) -> None:
    """Note each dimension of `by` and `where` that a metric of the rule does not have."""
    metrics = expression.metrics_of(rule.metric)
    if rule.only_if is not None:
        metrics |= expression.metrics_of(rule.only_if.left)
    for metric in sorted(metrics):
        for name in sorted(set(rule.by).intersection(METRICS[metric].missing_dimensions)):
            table.add_problem("by", f"{metric} has no {name}", index=rule.by.index(name))
        for name in sorted({one.dimension for one in rule.where}.intersection(METRICS[metric].missing_dimensions)):
            table.table("where").add_problem(name, f"{metric} has no {name}")
        for one, exception in zip(table.tables("except"), rule.exceptions, strict=False):
            named = {condition.dimension for condition in exception.where}
            for name in sorted(named.intersection(METRICS[metric].missing_dimensions)):
                one.table("where").add_problem(name, f"{metric} has no {name}")


def _check_distinct(table: Table, rule: Rule) -> None:
    """Note problems of the stat `distinct:<dimension>`."""
    dimension = rule.stat.dimension
    if not dimension or table.has_problem("stat"):
        return
    if not isinstance(rule.metric, MetricReference):
        if not table.has_problem("metric"):
            table.add_problem("stat", f'"{rule.stat.text}" needs one metric, not arithmetic')
    elif dimension in METRICS[rule.metric.metric].missing_dimensions:
        table.add_problem("stat", f"{rule.metric.metric} has no {dimension}")
    elif dimension in rule.by:
        table.add_problem("stat", f"is always 1: each alert has one {dimension}, which is in by")


def _read_id(table: Table, ids: dict[str, str]) -> str:
    identity = table.text("id")
    if table.has_problem("id"):
        return identity
    if not _ID.fullmatch(identity):
        table.add_problem(
            "id", f"{suggestions.quote_value(identity)}: use a to z, 0 to 9 and -, with a letter or digit first"
        )
    elif identity in ids:
        table.add_problem("id", f'duplicate rule id "{identity}": already used at {ids[identity]}')
    ids.setdefault(identity, f"{table.document.file}:{table.line}")
    return identity


def _read_metric(table: Table) -> Expression:
    text = table.text("metric")
    if table.has_problem("metric"):
        return _FALLBACK
    try:
        metric = expression.parse_expression(text)
    except ExpressionError as error:
        table.add_problem("metric", str(error))
        return _FALLBACK
    mixed = sorted(name for name in expression.metrics_of(metric) if METRICS[name].kind is MetricKind.DISTRIBUTION)
    if mixed and not isinstance(metric, MetricReference):
        table.add_problem("metric", f"{mixed[0]} has one value per connection: it cannot be part of arithmetic")
        return _FALLBACK
    return metric


def _read_stat(table: Table, metric: Expression, *, is_required: bool) -> Stat:
    if "stat" not in table and not is_required:
        return _amount(metric)
    text = table.text("stat")
    if table.has_problem("stat"):
        return Stat(text, StatKind.MAX)
    stat = _parse_stat(text)
    if text.startswith(_DISTINCT) and stat is None:
        table.add_problem("stat", suggestions.unknown_name("dimension", text.removeprefix(_DISTINCT), DIMENSIONS))
        return Stat(text, StatKind.MAX)
    if stat is None:
        known = (*_STATS, "p50", "p90", "p95", "p99", "p999", "distinct:remote", "distinct:remote_port")
        table.add_problem("stat", suggestions.unknown_name("stat", text, known))
        return Stat(text, StatKind.MAX)
    for name in sorted(expression.metrics_of(metric)):
        kind = METRICS[name].kind
        if stat.kind not in _ALLOWED[kind]:
            listed = _ALLOWED[kind] - {StatKind.PERCENTILE, StatKind.DISTINCT}
            allowed = ", ".join([*sorted(one.value for one in listed), "distinct:DIMENSION"])
            percentiles = ", p50 to p999" if kind is MetricKind.DISTRIBUTION else ""
            table.add_problem("stat", f'"{text}" does not apply to a {kind} ({name}); use {allowed}{percentiles}')
    return stat


def _amount(metric: Expression) -> Stat:
    """Return the stat for the amount of `metric` in a window: its sum, its present value, or its number of values."""
    kinds = {METRICS[name].kind for name in expression.metrics_of(metric)}
    if MetricKind.DISTRIBUTION in kinds:
        return Stat("count", StatKind.COUNT)
    return Stat("last", StatKind.LAST) if MetricKind.GAUGE in kinds else Stat("sum", StatKind.SUM)


def _parse_stat(text: str) -> Stat | None:
    if text in _STATS:
        return Stat(text, StatKind(text))
    dimension = text.removeprefix(_DISTINCT)
    if dimension != text:
        return Stat(text, StatKind.DISTINCT, dimension=dimension) if dimension in DIMENSIONS else None
    match = _PERCENTILE.fullmatch(text)
    if match is None or match[1] == "00":
        return None
    return Stat(text, StatKind.PERCENTILE, int(match[1]) / 10 ** (len(match[1]) - 2))


def _value_domain(metric: Expression, stat: Stat) -> ValueDomain | None:
    """Return the domain of the values that thresholds are compared with; None if the metric has a problem."""
    if metric is _FALLBACK:
        return None
    if stat.kind.is_number:
        values = len(DIMENSIONS[stat.dimension].choices) if stat.dimension else 0
        maximum = math.inf if stat.kind is StatKind.COUNT else values or MAX_DISTINCT
        return ValueDomain(None, per_second=False, minimum=0.0, maximum=maximum)
    unit = expression.unit_of(metric)
    # Every stat of a counter but its sum is per second (see StatKind); a ratio is independent of time.
    per_second = (
        stat.kind is not StatKind.SUM
        and expression.is_linear(metric)
        and all(METRICS[name].kind is MetricKind.COUNTER for name in expression.metrics_of(metric))
    )
    is_share = expression.is_share(metric) or (metric == _ACCEPT_QUEUE and stat.kind is not StatKind.SUM)
    return ValueDomain(
        unit,
        per_second,
        minimum=0.0 if expression.never_negative(metric) else -math.inf,
        maximum=1.0 if is_share else math.inf,
        is_latency=bool(_LATENCIES & expression.metrics_of(metric)) and stat.kind is not StatKind.SUM,
    )


def _read_window(table: Table, interval_ns: int, *, is_required: bool) -> int:
    if "window" not in table and not is_required:
        return max(parse_duration(_DEFAULT_WINDOW), 2 * interval_ns)
    window_ns = table.duration("window", maximum=MAX_LONG_WINDOW)
    if not table.has_problem("window") and window_ns < 2 * interval_ns:
        minimum, interval = format_duration(2 * interval_ns), format_duration(interval_ns)
        table.add_problem(
            "window", f"must hold two samples, so at least {minimum} with a sampling interval of {interval}"
        )
    return window_ns


def _read_by(table: Table, metric: Expression) -> tuple[str, ...]:
    is_of_listeners = all(METRICS[name].states == LISTENING for name in expression.metrics_of(metric))
    by = table.names("by", (), kind="dimension", known=DIMENSIONS)
    for index, name in enumerate(by):
        if name == "local_port" and is_of_listeners:
            continue  # a server has one for long
        if name in DIMENSIONS and name not in by[:index] and DIMENSIONS[name].volatile:
            table.add_note("by", f'"{name}" has ever new values: each value is an alert of its own', index=index)
    return by


def _read_summary(table: Table, by: tuple[str, ...], domain: ValueDomain | None, *, has_baseline: bool) -> Template:
    text = table.text("summary")
    default_format = natural_format(domain.unit, per_second=domain.per_second) if domain else "count"
    for doubt in template.foreign_placeholders(text):
        table.add_note("summary", doubt)
    if not table.has_problem("summary"):
        try:
            return template.parse_summary(text, by, default_format, has_baseline=has_baseline)
        except TemplateError as error:
            for index, message in enumerate(error.messages):
                table.add_problem("summary", message, index=index)
    return Template(text, ())


def _read_only_if(table: Table, metric: Expression) -> Comparison | None:
    if table.value("only_if", None) is None:
        return None
    text = table.text("only_if")
    if table.has_problem("only_if"):
        return None
    try:
        comparison = expression.parse_comparison(text, _distribution_of(metric))
    except ExpressionError as error:
        table.add_problem("only_if", str(error))
        return None
    if expression.never_negative(comparison.left) and (fault := _constant_gate(comparison)):
        table.add_problem("only_if", f"{fault}: no value is below 0")
    for name in sorted(expression.distributions_in(comparison.left)):
        table.add_problem("only_if", f"{name} has one value per connection: use counters, gauges or count")
    return comparison


def _distribution_of(metric: Expression) -> str | None:
    """Return the distribution that `metric` is, None if it is another metric or arithmetic."""
    match metric:
        case MetricReference(name) if METRICS[name].kind is MetricKind.DISTRIBUTION:
            return name
        case _:
            return None


def _constant_gate(comparison: Comparison) -> str:
    """Return the fault of a comparison whose result is the same for every value from 0 up, "" without one."""
    operator, right = comparison.operator, comparison.right
    if (operator == "<" and right <= 0) or (operator == "<=" and right < 0):
        return "never holds"
    if (operator == ">=" and right <= 0) or (operator == ">" and right < 0):
        return "holds always"
    return ""


def _read_receivers(table: Table, known: Collection[str] | None) -> tuple[str, ...] | None:
    if table.value("receivers", None) is None:
        return None
    names = table.names("receivers", kind="receiver", known=known)
    if not names and not table.has_problem("receivers"):
        table.add_problem(
            "receivers", "must name at least one receiver, or leave the key out to use the default of [routing]"
        )
    for index, name in enumerate(names if known is None else ()):
        message = f"not checked: {suggestions.quote_value(name)} is defined in another file"
        if all(note.message != message for note in table.document.notes):  # once a file is enough
            table.add_note("receivers", message, index=index)
    return names


def _read_inhibits(table: Table) -> tuple[str, ...]:
    names = table.names("inhibits", (), kind="rule", known=None)
    for index, name in enumerate(names):
        if name == table.data.get("id"):
            table.add_problem("inhibits", "a rule cannot inhibit itself", index=index)
    return names


def _read_runbook(table: Table) -> str | None:
    if table.value("runbook", None) is None:
        return None
    url = table.text("runbook")
    if not table.has_problem("runbook") and not is_web_address(url):
        table.add_problem("runbook", f"must be an http or https address, not {suggestions.quote_value(url)}")
    return url
