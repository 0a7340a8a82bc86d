"""The sections of the status page, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from watchdog.alerts.alert import AlertState
from watchdog.alerts.evidence import Evidence
from watchdog.config.counts import format_count
from watchdog.control.alert_handlers import ActiveAlert, AlertDetail, TimerStatus
from watchdog.control.alert_texts import delivery_mark, format_timer
from watchdog.control.rule_handlers import RuleStatus
from watchdog.control.status_handlers import ReceiverStatus
from watchdog.receivers.render.evidence_text import duration_text, evidence_sections, utc_text
from watchdog.rules.language.formats import FORMATS
from watchdog.rules.language.rule_source import origin_text
from watchdog.web.busiest_traffic import BusyTraffic
from watchdog.web.chart import describe_series, draw_chart
from watchdog.web.markup import Child, Markup, element, join, name
from watchdog.web.status_view import ShownRule, ShownSilence, StatusView

_SIGNS: Final = {"critical": "▲", "warning": "◆", "pending": "○"}
_STATES: Final = ("firing", "pending", "unknown", "inactive")  # of rules, in the order of the page
_SHORT_FINGERPRINT = 8
_OPEN_ALERTS = 6  # the first ones, whose evidence is unfolded
_MAX_TEXT = 500  # characters of a text that a person or a receiver wrote


@dataclass(frozen=True, slots=True)
class PageSection:
    """One section: id of its element, heading, and the function that yields its parts."""

    anchor: str
    title: str
    render: Callable[[StatusView], Iterator[Markup]]


# -------------------------------------------------------------------------------------------------------------- alerts


def _alerts(view: StatusView) -> Iterator[Markup]:
    if not view.alerts:
        yield element("p", "No alert is pending or firing.")
        return
    yield element("div", *(_alert(*numbered, view.wall) for numbered in enumerate(view.alerts)), class_="cards wide")
    if view.more_alerts:
        more = f"{format_count(view.more_alerts, 'further alert')}: "
        yield element("p", more, element("code", "bpf-watchdog alerts"))


def _alert(place: int, detail: AlertDetail, wall: float) -> Markup:
    alert = detail.active
    kind = alert.severity if alert.state == AlertState.FIRING else AlertState.PENDING.value
    heading = element("h3", element("span", f"{_SIGNS[kind]} ", aria_hidden="true"), f"{kind}: ", _title(alert))
    return element(
        "article",
        heading,
        _facts(_alert_facts(detail, wall)),
        _evidence(detail, is_open=place < _OPEN_ALERTS),
        class_=kind,
    )


def _title(alert: ActiveAlert) -> Child:
    return _text(alert.summary) if alert.summary else alert.rule


def _alert_facts(detail: AlertDetail, wall: float) -> Iterator[tuple[str, Child]]:
    alert = detail.active
    yield "rule", element("a", alert.rule, href=f"#rule-{alert.rule}") if detail.rule_file else alert.rule
    if alert.labels:
        yield "labels", _labels(alert.labels)
    share = "" if alert.share is None else f", {alert.share:.0%} of it"
    yield "value", f"{alert.value_text}, limit {alert.limit_text}{share}"
    yield "since", f"{utc_text(alert.since)}, for {duration_text(wall - alert.since)}"
    if alert.reason:
        yield "why", _text(alert.reason)
    for timer in alert.timers:
        yield "timer", f"{timer.severity}: {_timer_text(timer)}"
    receivers = ", ".join(one.receiver + delivery_mark(one.notified, one.queued) for one in alert.receivers)
    yield "receivers", _text(receivers or "none yet")
    if alert.suppressed_by:
        yield "withheld", _text(f"by {', '.join(alert.suppressed_by)}")
    if detail.runbook and detail.runbook.startswith(("https://", "http://")):
        yield "runbook", element("a", detail.runbook, href=detail.runbook, rel="noreferrer")
    yield "command", element("code", f"bpf-watchdog alerts show {alert.fingerprint[:_SHORT_FINGERPRINT]}")


def _evidence(detail: AlertDetail, *, is_open: bool) -> Markup | None:
    evidence = Evidence.from_json(detail.evidence)
    if evidence is None:
        return None
    if evidence.missing_reason:
        return element("p", f"Evidence: {evidence.missing_reason}", class_="muted")
    sections = evidence_sections(evidence, tuple(detail.active.labels.items()))
    facts = [(section.replace("_", " "), _text(text)) for section, text in sections.items()]
    if not facts:
        return None
    head = element("summary", f"Evidence of {utc_text(evidence.taken)}")
    return element("details", head, _facts(facts, "lines"), open=is_open)


def _timer_text(timer: TimerStatus) -> str:
    return format_timer(timer.state, timer.hits, timer.elapsed_seconds, timer.duration_seconds)


# --------------------------------------------------------------------------------------------------------------- rules


def _rules(view: StatusView) -> Iterator[Markup]:
    ordered = sorted(view.rules, key=_rule_order)
    numbered = list(enumerate(ordered))
    shown = [(number, rule) for number, rule in numbered if _has_content(rule)]
    idle = [rule for rule in ordered if not _has_content(rule)]
    if shown:
        legend = (
            "Each chart has the worst value of each half minute; ▼ marks a value beyond a limit. Dashes: the limit of a"
        )
        yield element(
            "p", f"{legend} warning; dots: that of a critical alert; area: from usual to learnt limit.", class_="muted"
        )
    yield element("div", *(_rule(rule, number, view.wall) for number, rule in shown), class_="cards")
    if idle:
        head = element("summary", f"{format_count(len(idle), 'rule')} without a value so far")
        entries = [element("li", element("span", rule.status.id, id=f"rule-{rule.status.id}")) for rule in idle]
        yield element("details", head, element("ul", *entries))


def _has_content(rule: ShownRule) -> bool:
    return rule.status.state != "inactive" or rule.series is not None


def _rule_order(rule: ShownRule) -> tuple[int, float, str]:
    worst = rule.status.worst
    share = 0.0 if worst is None or worst.share is None else worst.share
    return _STATES.index(rule.status.state), -share, rule.status.id


def _rule(rule: ShownRule, number: int, wall: float) -> Markup:
    status = rule.status
    kind = "critical" if status.state == "firing" else "warning" if status.state in {"pending", "unknown"} else None
    figure = None
    if rule.series is not None:
        caption = element("figcaption", describe_series(rule.series, rule.format, wall))
        figure = element("figure", draw_chart(rule.series, status.id, number, rule.format), caption)
    return element(
        "article",
        element("h3", status.id),
        element("p", element("span", _rule_state(status), class_="sign")),
        _worst(status),
        figure,
        class_=kind,
        id=f"rule-{status.id}",
    )


def _worst(status: RuleStatus) -> Markup | None:
    worst = status.worst
    if worst is None:
        return None
    share = "" if worst.share is None else f" ({worst.share:.0%})"
    groups = "" if status.groups is None or status.groups <= 1 else f", worst of {format_count(status.groups, 'group')}"
    limit = f"limit {status.limit_text}{share}" if status.limit_text != "-" else "no limit yet"
    value = f"{worst.value_text}, {limit}{groups}"
    labels = join((": ", _labels(worst.labels))) if worst.labels else None
    return element("p", value, labels)


def _rule_state(status: RuleStatus) -> str:
    match status.state:
        case "firing":
            return f"▲ firing: {format_count(status.firing, 'alert')}" + (
                f", {status.pending} pending" if status.pending else ""
            )
        case "pending":
            return f"○ {'pending' if status.timer is None else _timer_text(status.timer)}"
        case "unknown":
            return f"? unknown: {status.reason}"
    if status.learning_seconds:
        return f"learning, {duration_text(status.learning_seconds)} left"
    if status.reason:
        return status.reason
    if 0 < status.filled_seconds < status.window_seconds:
        return f"inactive, window has {duration_text(status.filled_seconds)} of {duration_text(status.window_seconds)}"
    return "inactive" if status.has_matched else "inactive, never matched"


# ------------------------------------------------------------------------------------------------------------- traffic


def _processes(view: StatusView) -> Iterator[Markup]:
    yield from _traffic(view, "Process, unit", () if view.ranking is None else view.ranking.processes)


def _peers(view: StatusView) -> Iterator[Markup]:
    yield from _traffic(view, "Peer, direction", () if view.ranking is None else view.ranking.peers)


def _traffic(view: StatusView, first_column: str, busy: Sequence[BusyTraffic]) -> Iterator[Markup]:
    if view.ranking is None:
        yield element("p", "The first half minute is not over yet.")
        return
    if not busy:
        yield element("p", f"No traffic in {duration_text(view.ranking.seconds)}.")
        return
    columns = (first_column, "Sent", "Received", "Connects", "Accepts", "Failures", "Open")
    caption = f"{duration_text(view.ranking.seconds)} until {utc_text(view.ranking.wall)}, the busiest first"
    yield _table(caption, columns, [_traffic_row(one) for one in busy])


def _traffic_row(busy: BusyTraffic) -> tuple[Child, ...]:
    first, second = busy.names
    rates = (busy.connects, busy.accepts, busy.connect_failures)
    return (
        join((name(first or "-"), " ", element("span", name(second), class_="muted") if second else None)),
        *(FORMATS["bytes/s"](value) if value else "-" for value in (busy.bytes_sent, busy.bytes_received)),
        *(FORMATS["rate"](value) if value else "-" for value in rates),
        f"{busy.open:,}",
    )


# ------------------------------------------------------------------------------------------------------- own condition


def _delivery(view: StatusView) -> Iterator[Markup]:
    receivers = view.status.receivers
    if not receivers:
        yield element("p", "No receiver is configured.")
        return
    columns = ("Receiver", "State", "Queued", "Lost", "Newest answer")
    yield _table(
        "Receivers of notifications", columns, [_receiver_row(one, view.wall) for one in receivers], numbers=(2, 3)
    )


def _receiver_row(receiver: ReceiverStatus, wall: float) -> tuple[Child, ...]:
    kind, sign = ("ok", "●") if receiver.state == "ok" else ("critical", "▲")
    since = "" if receiver.since is None else f" for {duration_text(wall - receiver.since)}"
    oldest = f", oldest {duration_text(receiver.oldest_seconds)}" if receiver.pending else ""
    answered = "" if receiver.answered_at is None else f", {duration_text(wall - receiver.answered_at)} ago"
    lost = ", ".join(f"{cause} {count:,}" for cause, count in sorted(receiver.lost.items()))
    return (
        name(receiver.name),
        element("span", f"{sign} {receiver.state}{since}", class_=f"sign {kind}"),
        f"{receiver.pending:,}{oldest}",
        lost or "0",
        _text((receiver.reason or receiver.answer or "none yet") + answered),
    )


def _quality(view: StatusView) -> Iterator[Markup]:
    status = view.status
    ticks, rules = status.ticks, status.rules
    interval = f"every {ticks.interval_seconds:g} s"
    if ticks.interval_seconds != ticks.configured_seconds:
        interval = f"▲ {interval}, configured: {ticks.configured_seconds:g} s"
    if ticks.duration_seconds is not None:
        interval += f"; the newest took {ticks.duration_seconds * 1000:.0f} ms"
    if ticks.age_seconds is not None:
        interval += f", {ticks.age_seconds:.1f} s ago"
    losses = ", ".join(f"{cause} {count:,}" for cause, count in sorted(status.quality.items()) if count)
    origin = origin_text(rules.origin, rules.count, rules.shipped)
    reload = status.reload
    at = "" if reload.at is None else f", {utc_text(reload.at)}"
    yield _facts(
        [
            ("ticks", interval),
            ("lost data", f"▲ {losses}" if losses else "none since the start"),
            ("unknown", _text(f"▲ {', '.join(rules.unknown)}") if rules.unknown else "no rule"),
            ("rules", f"{rules.count} from {origin}, hash {rules.sha256[:12]}"),
            ("reload", _text(f"{reload.result}{at}" + (f": {reload.problem}" if reload.problem else ""))),
            ("up", duration_text(status.uptime_seconds)),
        ]
    )


def _silences(view: StatusView) -> Iterator[Markup]:
    suppression = view.status.suppression
    alerts = format_count(suppression.suppressed_alerts, "firing alert")
    withheld = format_count(sum(suppression.withheld.values()), "notification")
    mute_times = f"Mute times in force: {', '.join(suppression.mute_times) or 'none'}."
    yield element("p", f"{alerts} suppressed; {withheld} withheld since the start. {mute_times}")
    if not view.silences:
        yield element("p", "No silence or acknowledgement is in force.")
        return
    columns = ("Matches", "Kind", "Ends", "Author", "Comment", "Alerts", "Withheld")
    rows = [_silence_row(one, view.wall) for one in view.silences]
    yield _table("Silences and acknowledgements in force", columns, rows, numbers=(5, 6))
    if view.more_silences:
        more = f"{format_count(view.more_silences, 'further one')}: "
        yield element("p", more, element("code", "bpf-watchdog silence list"))


def _silence_row(silence: ShownSilence, wall: float) -> tuple[Child, ...]:
    end = "when resolved" if silence.kind == "acknowledgement" else "never"
    return (
        _text(silence.matchers),
        f"{silence.kind} {silence.id}",
        end if silence.ends is None else f"in {duration_text(silence.ends - wall)}",
        name(silence.author),
        _text(silence.comment),
        f"{silence.alerts:,}",
        f"{silence.withheld:,}",
    )


# --------------------------------------------------------------------------------------------------------------- parts


def _facts(facts: Iterator[tuple[str, Child]] | Sequence[tuple[str, Child]], class_: str | None = None) -> Markup:
    parts = [part for term, value in facts for part in (element("dt", term), element("dd", value))]
    return element("dl", *parts, class_=class_)


def _labels(labels: Mapping[str, str]) -> Markup:
    return join(
        part for label, value in labels.items() for part in (f"{label} ", element("b", name(value or "-")), " ")
    )


def _text(text: str) -> Markup:
    """Return a text with parts of others: isolated, in our direction, cut where very long."""
    return element("bdi", text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…", dir="ltr")


def _table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[Child]], numbers: Sequence[int] | None = None
) -> Markup:
    """Return a table that scrolls by itself where it is too wide; `numbers`: columns, all but the first by default."""
    right = range(1, len(columns)) if numbers is None else numbers
    classes = ["number" if place in right else None for place in range(len(columns))]
    head = [element("th", column, scope="col", class_=class_) for column, class_ in zip(columns, classes, strict=True)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=class_) for cell, class_ in zip(row[1:], classes[1:], strict=True)),
        )
        for row in rows
    ]
    parts = element("caption", caption), element("thead", element("tr", *head)), element("tbody", *body)
    return element(
        "div",
        element("table", *parts),
        class_="scroll",
        role="region",
        aria_label=f"Table by {columns[0]}: {caption}",
        tabindex=0,
    )


SECTIONS: Final = (
    PageSection("alerts", "Alerts", _alerts),
    PageSection("rules", "Rules", _rules),
    PageSection("processes", "Busiest processes", _processes),
    PageSection("peers", "Busiest peers", _peers),
    PageSection("delivery", "Delivery", _delivery),
    PageSection("quality", "Data quality", _quality),
    PageSection("silences", "Silences and mute times", _silences),
)
