"""Dashboards as Grafana's JSON, by its own SDK."""

from __future__ import annotations

import json
from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from lathe_dashboards.drawn import drawn
from lathe_dashboards.marks import MARKS, Mark
from lathe_dashboards.panels import Dashboard, Panel, Query, Row, Variable
from lathe_dashboards.promql import SERVER

TAG = "lathe"
"""By which the dashboards link to each other."""
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
ROUTES = "lathe_route_weight"
"""Has a series for each server and each model that it serves, from the start."""

VARIABLES = (
    Variable("job", "Job", f"label_values({ROUTES}, job)"),
    Variable("instance", "Server", f'label_values({ROUTES}{{job=~"$job"}}, instance)'),
    Variable("model", "Model", f"label_values({ROUTES}{{{SERVER}}}, model)"),
)


def as_json(dashboard: Dashboard) -> str:
    """What Grafana reads, with a line's end; the same for the same dashboard."""
    return json.dumps(_built(dashboard), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _built(dashboard: Dashboard) -> models.Dashboard:
    links = builders.DashboardLink("Lathe").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    built = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.says)
        .tags([TAG])
        .link(links.include_vars(True).keep_time(True))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in (*VARIABLES, *dashboard.variables):
        built.with_variable(_choice(variable))
    for mark in MARKS:
        built.annotation(_annotation(mark))
    numbers = count(1)
    for row in dashboard.rows:
        _add(built, row, numbers)
    return built.build()


def _add(built: builders.Dashboard, row: Row, numbers: count[int]) -> None:
    built.with_row(builders.Row(row.title).id(next(numbers)))
    for panel in row.panels:
        own = drawn(panel).title(panel.title).description(panel.says).datasource(SOURCE)
        own.id(next(numbers)).span(panel.width).height(panel.height)
        own.targets(
            [_target(panel, query, letter) for query, letter in zip(panel.queries, ascii_uppercase, strict=False)]
        )
        built.with_panel(own)


def _target(panel: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE)
    target = target.instant() if panel.is_instant else target.range()
    if panel.kind == "table":
        return target.format(PromQueryFormat.TABLE)
    return target.legend_format(query.legend).exemplar(query.has_exemplars)


def _choice(variable: Variable) -> builders.QueryVariable:
    built = builders.QueryVariable(variable.name).label(variable.label).query(variable.values).datasource(SOURCE)
    built.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    if variable.is_many:
        everything = models.VariableOption(selected=True, text="All", value="$__all")
        built.multi(True).include_all(True).all_value(".*").current(everything)
    return built


class _Annotation(models.AnnotationQuery):
    """With the fields of Prometheus' annotations, which the SDK does not know."""

    def to_json(self) -> dict[str, object]:
        own = {"titleFormat": "{{model}}: {{kind}}", "tagKeys": "model,kind", "step": "15s", "useValueForTime": True}
        return {**super().to_json(), **own}


class _Built(builders.AnnotationQuery):
    def __init__(self, annotation: models.AnnotationQuery) -> None:
        super().__init__()
        self._internal = annotation


def _annotation(mark: Mark) -> builders.AnnotationQuery:
    own = _Annotation(name=mark.title, datasource=SOURCE, icon_color=mark.color, expr=mark.expr)
    return _Built(own)
