"""How a panel looks in Grafana: lines, a big number, a table, or states over time."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from lathe_dashboards.panels import BOUNDS, OBJECTIVE, Panel, Query

Drawn: TypeAlias = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel

DASHED = models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]})
RED = models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"})
NOT_FILLED = (
    models.DynamicConfigValue("custom.fillOpacity", 0),
    models.DynamicConfigValue("custom.stacking", {"mode": "none"}),
)


def drawn(panel: Panel) -> Drawn:
    """All of it but for its place, its title and what it asks."""
    how = {"lines": _lines, "stacked": _lines, "stat": _number, "table": _table, "states": _states}[panel.kind](panel)
    how.unit(panel.unit).no_value(panel.empty)
    if panel.kind == "table":
        return how
    how.thresholds(_thresholds(panel)).mappings(_mappings(panel.words))
    if panel.decimals is not None:
        how.decimals(panel.decimals)
    return how


def _lines(panel: Panel) -> Drawn:
    is_stacked = panel.kind == "stacked"
    how = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if is_stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .override_by_regexp(f"^{OBJECTIVE}", [RED, DASHED, *NOT_FILLED])
        .override_by_regexp(f" ({'|'.join(BOUNDS)})$", [DASHED])
    )
    if is_stacked:
        how.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.thresholds:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        how.thresholds_style(style)
    if panel.low is not None:
        how.min(panel.low)
    if panel.high is not None:
        how.axis_soft_max(panel.high)
    return how


def _number(panel: Panel) -> Drawn:
    return (
        stat.Panel()
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.AUTO)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    )


def _states(panel: Panel) -> Drawn:
    return (
        statetimeline.Panel()
        .merge_values(True)
        .line_width(0)
        .fill_opacity(70)
        .show_value(common.VisibilityMode.AUTO)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    )


def _table(panel: Panel) -> Drawn:
    """One row for each set of labels, one column for each query."""
    names = {f"Value #{letter}": query.legend for letter, query in zip(ascii_uppercase, panel.queries, strict=False)}
    order = [*panel.columns, *names]
    organize = {
        "excludeByName": {"Time": True} | {name: True for name, title in names.items() if not title},
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": {name: title for name, title in names.items() if title},
    }
    how = (
        table.Panel()
        .cell_height(common.TableCellHeight.SM)
        .align(common.FieldTextAlignment.AUTO)
        .with_transformation(models.DataTransformerConfig("merge", options={}))
        .with_transformation(models.DataTransformerConfig("organize", options=organize))
    )
    for query in panel.queries:
        if settings := _of_column(query):
            how.override_by_name(query.legend, settings)
    return how


def _of_column(query: Query) -> list[models.DynamicConfigValue]:
    settings = []
    if query.unit:
        settings.append(models.DynamicConfigValue("unit", query.unit))
    if query.thresholds:
        steps = [{"value": None, "color": "green"}, *({"value": at, "color": color} for at, color in query.thresholds)]
        settings.append(models.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps}))
    if query.words:
        settings.append(models.DynamicConfigValue("mappings", _mappings(query.words)))
    if query.thresholds or query.words:
        settings.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return settings


def _thresholds(panel: Panel) -> builders.ThresholdsConfig:
    base = panel.base or ("green" if panel.thresholds else "blue")
    steps = [models.Threshold(None, base), *(models.Threshold(at, color) for at, color in panel.thresholds)]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(words: tuple[tuple[int, str, str], ...]) -> list[models.ValueMapping]:
    results = {
        str(number): models.ValueMappingResult(text=word, color=color, index=index)
        for index, (number, word, color) in enumerate(words)
    }
    return [models.ValueMap(results)] if results else []
