"""Panels for the dashboard, one function per form. Each panel has its data source from the variable `datasource`."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    GridPos,
    Panel,
    Threshold,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef("prometheus", "${datasource}")
GRID_WIDTH = 24
_HEIGHT, _STAT_HEIGHT = 8, 4
Query = tuple[str, str]
"""Expression and legend."""


def _targets(queries: Iterable[Query], form: PromQueryFormat, *, instant: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for number, (expression, legend) in enumerate(queries):
        target = prometheus.Dataquery().expr(expression).ref_id(chr(ord("A") + number)).format(form)
        if legend:
            target = target.legend_format(legend)
        targets.append(target.instant() if instant else target.range())
    return targets


def graph(
    title: str, unit: str, *queries: Query, about: str = "", width: int = 8, stacked: bool = False, limit: float = 0
) -> Builder[Panel]:
    """Return a panel with lines over time; `limit`: from this value on a line is drawn over a red area, 0 for none."""
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(SOURCE)
        .grid_pos(GridPos(h=_HEIGHT, w=width))
        .unit(unit)
        .min(0)
        .fill_opacity(30 if stacked else 8)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .targets(_targets(queries, PromQueryFormat.TIME_SERIES))
    )
    if about:
        panel = panel.description(about)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if limit:
        style = common.GraphThresholdsStyleConfig().mode("area")
        panel = panel.thresholds(_thresholds(red=limit)).thresholds_style(style)
    return panel


def number(
    title: str,
    unit: str,
    *queries: Query,
    red: float = 0,
    red_below: float = 0,
    names: dict[str, str] | None = None,
    about: str = "",
) -> Builder[Panel]:
    """Return a panel with the newest value in large digits.

    `red`, `red_below`: values from which, or below which, it is red; 0 for none. `names`: texts for values.
    """
    panel = (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .grid_pos(GridPos(h=_STAT_HEIGHT, w=3))
        .unit(unit)
        .graph_mode(BigValueGraphMode.AREA if not names else BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(red=red, red_below=red_below))
        .targets(_targets(queries, PromQueryFormat.TIME_SERIES))
    )
    if about:
        panel = panel.description(about)
    if names:
        texts = {value: ValueMappingResult(text=text, index=at) for at, (value, text) in enumerate(names.items())}
        panel = panel.mappings([ValueMap(texts)])
    return panel


def listing(title: str, labels: Iterable[str], *columns: tuple[str, str, str], about: str = "") -> Builder[Panel]:
    """Return a table with one row per set of `labels`; `columns`: (heading, unit, expression), sorted by the first."""
    keep = {f"Value #{chr(ord('A') + at)}": heading for at, (heading, _, _) in enumerate(columns)}
    order = {name: at for at, name in enumerate((*labels, *keep))}
    panel = (
        table.Panel()
        .title(title)
        .datasource(SOURCE)
        .grid_pos(GridPos(h=_HEIGHT + 2, w=GRID_WIDTH))
        .targets(_targets([(expression, "") for _, _, expression in columns], PromQueryFormat.TABLE, instant=True))
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": keep},
            )
        )
        .sort_by([common.TableSortByFieldState().display_name(columns[0][0]).desc(True)])
    )
    for heading, unit, _ in columns:
        panel = panel.override_by_name(heading, [DynamicConfigValue("unit", unit)])
    return panel.description(about) if about else panel


def spread(title: str, unit: str, expression: str, about: str = "") -> Builder[Panel]:
    """Return a heat map of a classic histogram; `expression`: its buckets by `le`."""
    return (
        heatmap.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .grid_pos(GridPos(h=_HEIGHT, w=8))
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").exponent(0.5).steps(64))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .targets(_targets([(expression, "{{le}}")], PromQueryFormat.HEATMAP))
    )


def _thresholds(*, red: float = 0, red_below: float = 0) -> dashboard.ThresholdsConfig:
    steps = [Threshold(None, "red" if red_below else "green")]
    if red_below:
        steps.append(Threshold(red_below, "green"))
    if red:
        steps.append(Threshold(red, "red"))
    return dashboard.ThresholdsConfig().steps(steps)
