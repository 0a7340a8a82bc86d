"""The screen of `top` as lines of texts with their places and styles, for a terminal of any size."""

from __future__ import annotations

import enum
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from watchdog.alerts.masking import mask_secrets
from watchdog.cli.alerts import labels_text
from watchdog.cli.sample_table import cut_endpoint, cut_text, fit_columns, text_width
from watchdog.cli.silence import format_time
from watchdog.cli.terminal import age_text
from watchdog.cli.top_columns import TopColumn, possible_columns, top_columns
from watchdog.cli.top_filter import FilterProblem, quote_matcher
from watchdog.cli.top_model import HISTORY, Key, TopModel
from watchdog.config.counts import format_count
from watchdog.control.traffic_handler import Traffic, WorstAlert
from watchdog.measure.procfs import CommandLine, UnreadReason
from watchdog.measure.traffic_view import VIEWS
from watchdog.rules.language.formats import format_number
from watchdog.sanitize import escape_unprintable

MIN_WIDTH: Final = 40
MIN_HEIGHT: Final = 10

_GAP = 2  # characters between two columns
_HISTORY_FROM = 102  # characters of a terminal with a column for the history: 80 are left for the others
_HISTORY_WIDTHS = (20, HISTORY)
_WIDE = 140
_BARS = " ▁▂▃▄▅▆▇█"
_ALERT_SHARE = 8  # of the lines of a terminal, for alerts
_HELP: Final = (
    ("1 2 3 4, Tab", "connections, processes, units, peers"),
    ("Up Down PgUp PgDn", "select a row; Home, End: the first, the last"),
    ("Enter", "process: its sockets; unit or peer: its connections"),
    ("Left Right", "sort by another column; beside the ends: by bytes"),
    ("r", "reverse the order"),
    ("f", "freeze the order: new rows at the end, ended ones dim"),
    ("Space", "pause: no number changes"),
    ("/", "filter: process=nginx* remote!=10.0.0.0/8"),
    ("Esc", "back; in a list: remove the filter"),
    ("q", "end"),
)
_RATES_NOTE: Final = (
    "Rates are those of the newest tick. The history has the sorted column, else bytes in both directions, each row by"
    " its own maximum."
)
_COMMAND_NOTE: Final = (
    "The last line but one has the command that shows the same rows outside. Columns have their names in rules, which"
    " bpf-watchdog metrics explains."
)
_UNREAD: Final = {
    UnreadReason.HELD: "not read: the process holds it",
    UnreadReason.LATE: "not read in time",
    UnreadReason.PAUSED: "not read: too many processes hold theirs",
}


class Style(enum.Flag):
    """The look of a text; without colours the texts alone have all information."""

    PLAIN = 0
    BOLD = enum.auto()
    DIM = enum.auto()
    REVERSE = enum.auto()
    CRITICAL = enum.auto()
    WARNING = enum.auto()


@dataclass(frozen=True, slots=True)
class Text:
    """A text at a column of a line."""

    column: int
    text: str
    style: Style = Style.PLAIN


Line = list[Text]


@dataclass(slots=True)
class Screen:
    """What the screen shows beside the model. `editor`: text and cursor of the filter while it is edited."""

    model: TopModel
    is_alone: bool
    has_help: bool = False
    editor: tuple[str, int] | None = None
    problem: FilterProblem | None = None
    notice: str = ""
    command: CommandLine | UnreadReason | None = None
    is_command_known: bool = False
    first_row: int = 0
    page: int = 1  # rows of a page, of the newest layout
    widths: dict[str, int] = field(default_factory=dict)  # of columns: they do not get narrower
    widths_of: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines from the top; `cursor`: line and column of the visible cursor, None for none."""

    lines: list[Line]
    cursor: tuple[int, int] | None = None


def draw(screen: Screen, width: int, height: int, plain: Callable[[str], str]) -> Frame:
    """Return the frame of a terminal; `plain`: turns a text into one that the terminal's encoding has."""
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        return Frame([[Text(0, cut_text(f"at least {MIN_WIDTH} x {MIN_HEIGHT}", max(1, width)))]])
    if screen.has_help:
        return Frame(_help(width, height))
    model = screen.model
    top = [_title(screen), *_head(screen, width, plain)]
    alerts = [] if model.traffic is None else list(_alerts(model.traffic, height // _ALERT_SHARE, plain))
    top += alerts if model.process is None else _process(screen, plain)
    top.append(_tabs(screen, plain))
    bottom, cursor = _bottom(screen, width, plain)
    rows = _table(screen, width, max(0, height - len(top) - len(bottom)), plain)
    lines = [*top, *rows]
    lines += [[] for _ in range(height - len(lines) - len(bottom))]
    fitted = [list(_fit(line, width)) for line in (*lines, *bottom)][:height]
    return Frame(fitted, None if cursor is None else (len(fitted) - len(bottom) + cursor[0], cursor[1]))


def _fit(line: Line, width: int) -> Iterator[Text]:
    for one in line:
        if one.column < width:
            yield Text(one.column, cut_text(one.text, width - one.column), one.style)


def _title(screen: Screen) -> Line:
    model, traffic = screen.model, screen.model.traffic
    name = "bpf-watchdog top"
    line = [Text(0, name, Style.BOLD)]
    column = len(name) + _GAP
    if traffic is not None:
        source = " (no daemon)" if screen.is_alone else ""
        text = (
            f"{escape_unprintable(traffic.host)}{source}  {format_time(traffic.wall, '-')} UTC"
            f"  every {traffic.interval_seconds:g} s"
        )
        line.append(Text(column, text))
        column += text_width(text) + _GAP
    marks = [name for name, is_set in (("PAUSED", model.is_paused), ("FROZEN", model.is_frozen)) if is_set]
    for mark in marks:
        line.append(Text(column, f" {mark} ", Style.REVERSE))
        column += len(mark) + 2 + 1
    return line


def _head(screen: Screen, width: int, plain: Callable[[str], str]) -> Iterator[Line]:
    """Yield the line of totals, and one for losses."""
    traffic = screen.model.traffic
    if traffic is None:
        yield [Text(0, plain(screen.notice or "waiting for the next tick …"))]
        return
    totals = traffic.totals
    items = [
        f"{format_number('count', totals['open'])} open",
        f"sent {format_number('bytes/s', totals['bytes_sent'])}",
        f"received {format_number('bytes/s', totals['bytes_received'])}",
        f"connects {format_number('rate', totals['connects'])}",
        f"accepts {format_number('rate', totals['accepts'])}",
        f"failed {format_number('rate', totals['connect_failures'])}",
        f"closes {format_number('rate', totals['closes'])}",
        f"retransmits {format_number('rate', totals['retransmits'])}",
    ]
    while len(items) > 1 and len("  ".join(items)) > width:
        items.pop()
    yield [Text(0, "  ".join(items))]
    if traffic.losses:
        losses = ", ".join(f"{count} {cause}" for cause, count in sorted(traffic.losses.items()))
        yield [Text(0, f"incomplete: {losses}", Style.WARNING)]


def _alerts(traffic: Traffic, most: int, plain: Callable[[str], str]) -> Iterator[Line]:
    alerts = traffic.alerts
    if alerts is None:
        return
    if not alerts.critical + alerts.warning + alerts.pending:
        yield [Text(0, "no alert is pending or firing")]
        return
    firing = f"{alerts.critical} critical, {format_count(alerts.warning, 'warning')} firing"
    style = Style.CRITICAL if alerts.critical else Style.WARNING if alerts.warning else Style.PLAIN
    yield [Text(0, f"alerts: {firing}; {alerts.pending} pending", style | Style.BOLD)]
    for one in alerts.worst[:most]:
        yield [Text(2, plain(_alert_text(one)), _alert_style(one))]


def _alert_style(alert: WorstAlert) -> Style:
    if alert.state != "firing":
        return Style.PLAIN
    return Style.CRITICAL if alert.severity == "critical" else Style.WARNING


def _alert_text(alert: WorstAlert) -> str:
    state = alert.severity if alert.state == "firing" else alert.state
    age = age_text(time.time() - alert.since)
    labels = labels_text(alert.labels)
    value = f"{alert.value_text}, limit {alert.limit_text}, for {age}"
    return escape_unprintable("  ".join(filter(None, (f"{state:<8} {alert.rule}", labels, value))))


def _process(screen: Screen, plain: Callable[[str], str]) -> list[Line]:
    """Return the facts of the process in detail."""
    model = screen.model
    pid, name = model.process or (0, "")
    row = next(iter(model.rows.values()), {})
    owner = "  ".join(
        f"{key} {escape_unprintable(str(row[key]))}" for key in ("user", "unit", "container") if row.get(key)
    )
    command, exe = "reading …", str(row.get("exe") or "-")
    match screen.command:
        case CommandLine() as found:
            command = mask_secrets(found.arguments) or "none (kernel thread, or a zombie)"
            exe = found.exe or exe
        case UnreadReason() as reason:
            command = _UNREAD[reason]
        case None if screen.is_command_known:
            command = "unknown: the process has ended, or is not of this pid namespace"
    return [
        [Text(0, plain(f"process {escape_unprintable(name)}  pid {pid}  {owner}"), Style.BOLD)],
        [Text(0, plain(f"program {escape_unprintable(exe)}"))],
        [Text(0, plain(f"command {escape_unprintable(command)}"))],
    ]


def _tabs(screen: Screen, plain: Callable[[str], str]) -> Line:
    model, column = screen.model, 0
    line: Line = []
    if model.process is None:
        for number, view in enumerate(VIEWS, 1):
            text = f"{number} {view}"
            line.append(Text(column, text, Style.REVERSE if view is model.view else Style.PLAIN))
            column += len(text) + _GAP
    traffic = model.traffic
    order = f"by {model.sort or 'bytes'}{', reversed' if model.is_reverse else ''}"
    texts = ["" if traffic is None else format_count(traffic.row_count, "row"), order]
    if model.where and model.process is None:
        texts.append("filter " + " ".join(quote_matcher(one) for one in model.where))
    line.append(Text(column, plain(escape_unprintable("  ".join(filter(None, texts)))), Style.BOLD))
    return line


def _bottom(screen: Screen, width: int, plain: Callable[[str], str]) -> tuple[list[Line], tuple[int, int] | None]:
    """Return the last lines, and the cursor as line among them and column."""
    if screen.editor is None:
        first, last_key = ("/ filter", "Enter detail") if screen.model.process is None else ("Esc back", "")
        keys = ("? help", first, "< > sort", "f freeze", "Space pause", last_key, "q end")
        hint = "  ".join(filter(None, keys))
        notice = screen.notice if screen.model.traffic is not None else ""
        last = [Text(0, plain(notice), Style.WARNING)] if notice else [Text(0, hint, Style.DIM)]
        return [[Text(0, plain(escape_unprintable(screen.model.command())))], last], None
    text, position = screen.editor
    shown, prompt = plain(escape_unprintable(text)), "filter: "
    at = len(prompt) + text_width(plain(escape_unprintable(text[:position])))
    start = max(0, at - width + 1)  # the line moves to the left under a long filter
    if screen.problem is None:
        help_line = [
            Text(0, "NAME=PATTERN or NAME!=PATTERN, separated by spaces; Enter applies, Esc leaves", Style.DIM)
        ]
        return [help_line, [Text(0, (prompt + shown)[start:])]], (1, at - start)
    problem = screen.problem
    before = len(prompt) + text_width(plain(escape_unprintable(text[: problem.position])))
    marks = "^" * max(1, min(problem.length, width))
    lines = [
        [Text(0, plain(escape_unprintable(problem.text)), Style.CRITICAL)],
        [Text(0, (prompt + shown)[start:])],
        [Text(max(0, before - start), marks, Style.CRITICAL)],
    ]
    return lines, (1, at - start)


def _table(screen: Screen, width: int, height: int, plain: Callable[[str], str]) -> list[Line]:
    model = screen.model
    keys = list(model.rows)
    screen.page = page = max(1, height - 1)
    if model.selected in model.rows:
        index = keys.index(model.selected)
        screen.first_row = max(min(screen.first_row, index), index - page + 1)
    screen.first_row = max(0, min(screen.first_row, len(keys) - page))
    shown = keys[screen.first_row : screen.first_row + page]
    history = 0 if width < _HISTORY_FROM else _HISTORY_WIDTHS[width >= _WIDE]
    cells = _Cells(screen, width, width - (history + _GAP if history else 0), shown, plain)
    lines = [_table_head(cells.shown, model.sort, history)]
    for key in shown:
        style = Style.REVERSE if key == model.selected else Style.DIM if key in model.gone else Style.PLAIN
        lines.append(list(_row(model, key, cells.row(key), style, history)))
    if not keys and model.traffic is not None:
        lines.append([Text(0, "no row meets the filter" if model.where else "no row")])
    return lines[:height]


class _Cells:
    """The cells of a page. `shown`: its columns with their widths."""

    def __init__(self, screen: Screen, width: int, room: int, keys: Sequence[Key], plain: Callable[[str], str]) -> None:
        model = screen.model
        columns = top_columns(model.view, model.sort)
        indices = possible_columns(columns, room)
        self._texts = {
            key: {index: plain(columns.columns[index].text(model.rows[key])) for index in indices} for key in keys
        }
        layout = (model.view, model.sort, width)
        if screen.widths_of != layout:
            screen.widths_of, screen.widths = layout, {}
        for index in indices:
            column = columns.columns[index]
            needed = [column.start_width, *(text_width(cells[index]) for cells in self._texts.values())]
            screen.widths[column.key] = max(screen.widths.get(column.key, 0), *needed)
        widths = [screen.widths.get(column.key, 0) for column in columns.columns]
        least = [column.least_width(size) for column, size in zip(columns.columns, widths, strict=True)]
        importance = [index for index in columns.importance if index in indices]
        limits = sorted(fit_columns(widths, least, importance, room).items())
        self._limits = limits
        self.shown = [(columns.columns[index], limit) for index, limit in limits]

    def row(self, key: Key) -> list[tuple[TopColumn, str, int]]:
        """Return columns, texts and widths of a row."""
        texts = self._texts[key]
        return [
            (column, texts[index], limit) for (index, limit), (column, _) in zip(self._limits, self.shown, strict=True)
        ]


def _table_head(shown: Sequence[tuple[TopColumn, int]], sort: str, history: int) -> Line:
    line: Line = []
    at = 0
    for column, limit in shown:
        title = cut_text(column.key, limit)
        style = Style.BOLD | (Style.REVERSE if column.key == sort else Style.PLAIN)
        line.append(Text(at, title.rjust(limit) if column.is_number else title.ljust(limit), style))
        at += limit + _GAP
    if history:
        line.append(Text(at, "history".ljust(history), Style.BOLD))
    return line


def _row(
    model: TopModel, key: Key, cells: Sequence[tuple[TopColumn, str, int]], style: Style, history: int
) -> Iterator[Text]:
    at = 0
    for column, text, limit in cells:
        cut = cut_endpoint(text, limit) if column.is_endpoint else cut_text(text, limit)
        padding = " " * (limit - text_width(cut))
        if at and style is Style.REVERSE:
            yield Text(at - _GAP, " " * _GAP, style)
        yield Text(at, padding + cut if column.is_number else cut + padding, style)
        at += limit + _GAP
    if history:
        yield Text(at, sparkline(model.history(key), history), style)


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return the newest `width` values as bars up to their maximum; values above 0 have a bar, None has a space."""
    shown = list(values[-width:])
    top = max((value for value in shown if value is not None), default=0.0)
    bars = [
        _BARS[0] if not value or top <= 0 else _BARS[max(1, round(value / top * (len(_BARS) - 1)))] for value in shown
    ]
    return "".join(bars).rjust(width)


def _help(width: int, height: int) -> list[Line]:
    lines: list[Line] = [[Text(0, "bpf-watchdog top: keys", Style.BOLD)], []]
    for keys, text in _HELP:
        lines.append([Text(0, keys, Style.BOLD), Text(20, text)])
    lines.append([])
    for note in (_RATES_NOTE, _COMMAND_NOTE):
        lines += [[Text(0, part)] for part in textwrap.wrap(note, width)]
    lines += [[], [Text(0, "any key: back", Style.DIM)]]
    return [list(_fit(line, width)) for line in lines[:height]]
