"""The dashboards: their JSON is what is built, Grafana's own SDK can read it, and all that they ask exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from lathe_dashboards.__main__ import main
from lathe_dashboards.catalogue import DASHBOARDS, queries, substitute
from lathe_dashboards.grafana import VARIABLES, as_json
from lathe_dashboards.marks import MARKS
from lathe_dashboards.panels import COLUMNS, Dashboard, Panel
from lathe_server.lifecycle import STATES
from tests.conftest import ROOT
from tests.deploy.served import names_in, rules, served
from tests.deploy.test_rules import promtool

GRAFANA = ROOT / "deploy/grafana"
EXPRESSIONS = {query.expr: f"{query.dashboard}, {query.panel}" for query in queries()} | {
    mark.expr: mark.title for mark in MARKS
}


def built(dashboard: Dashboard) -> Any:
    return json.loads(as_json(dashboard))


def test_the_json_is_what_make_dashboards_writes(tmp_path: Path) -> None:
    main(tmp_path / "dashboards", tmp_path / "rules.yaml")
    assert (tmp_path / "rules.yaml").read_bytes() == (ROOT / "deploy/kubernetes/monitoring/rules.yaml").read_bytes()
    written, committed = (
        {path.name: path.read_text("utf-8") for path in folder.iterdir()}
        for folder in (tmp_path / "dashboards", GRAFANA / "dashboards")
    )
    assert written.keys() == committed.keys() == {f"{one.uid}.json" for one in DASHBOARDS}
    assert [name for name in written if written[name] != committed[name]] == [], "run `make dashboards`"


def test_what_is_asked_can_be_had_without_grafanas_types_or_a_server() -> None:
    script = "import json, sys, lathe_dashboards.catalogue as c; c.queries(); print(json.dumps(list(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "deploy"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert {"grafana_foundation_sdk", "lathe_server", "torch"} & set(json.loads(done.stdout)) == set()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_grafanas_own_types_read_it_and_write_it_again(dashboard: Dashboard) -> None:
    register_default_plugins()
    written = built(dashboard)
    again = json.loads(json.dumps(GrafanaDashboard.from_json(written), cls=JSONEncoder))
    for annotation in written["annotations"]["list"]:
        # Prometheus' own fields, which these types do not know.
        for field in ("titleFormat", "tagKeys", "step", "useValueForTime"):
            del annotation[field]
    assert again == written


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_panels_fill_the_grid_without_overlap(dashboard: Dashboard) -> None:
    cells = Counter(
        (x, y)
        for panel in built(dashboard)["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert set(cells.values()) == {1}
    assert {x for x, _ in cells} == set(range(COLUMNS))
    for row in dashboard.rows:
        assert sum(panel.width for panel in row.panels) % COLUMNS == 0, row.title


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_numbers_names_and_letters_are_unique(dashboard: Dashboard) -> None:
    written = built(dashboard)
    assert len({panel["id"] for panel in written["panels"]}) == len(written["panels"])
    assert len({row.title for row in dashboard.rows}) == len(dashboard.rows)
    for row in dashboard.rows:
        assert len({panel.title for panel in row.panels}) == len(row.panels)
    for panel in written["panels"]:
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)
    for panel in dashboard.panels():
        assert len(panel.queries) == len({query.legend for query in panel.queries})


PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard.panels()]


@pytest.mark.parametrize("panel", PANELS, ids=lambda one: one.title)
def test_each_panel_says_how_to_read_it_in_sentences(panel: Panel) -> None:
    assert len(panel.says.split()) >= 5
    assert panel.says.endswith(".")
    assert panel.unit
    assert panel.queries
    values = [at for at, _ in panel.thresholds]
    assert values == sorted(values)


def test_uids_are_known_elsewhere_and_never_change() -> None:
    assert [one.uid for one in DASHBOARDS] == [
        "lathe-overview",
        "lathe-variants",
        "lathe-experiment",
        "lathe-capacity",
        "lathe-streams",
    ]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_all_have_the_same_variables_links_and_marks_and_the_chosen_source(dashboard: Dashboard) -> None:
    written = built(dashboard)
    names = [variable["name"] for variable in written["templating"]["list"]]
    assert names[:4] == ["datasource", "job", "instance", "model"]
    (link,) = written["links"]
    assert (link["type"], link["tags"], link["includeVars"], link["keepTime"]) == ("dashboards", ["lathe"], True, True)
    assert written["tags"] == link["tags"]
    assert [one["name"] for one in written["annotations"]["list"]] == [mark.title for mark in MARKS]
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(written))
    assert set(sources) == {"${datasource}", dashboard.uid}


def test_whatever_is_asked_for_is_told_by_a_server_or_recorded() -> None:
    known = served() | rules("record").keys()
    asked = {where: names_in(expr) for expr, where in EXPRESSIONS.items()}
    assert {where: unknown for where, names in asked.items() if (unknown := names - known)} == {}
    assert all(asked.values())


def test_a_metric_that_is_renamed_would_be_missed() -> None:
    assert names_in("rate(lathe_frame_total[5m])") - served() == {"lathe_frame_total"}


def test_choices_are_asked_of_metrics_that_are_told() -> None:
    choices = [*VARIABLES, *(variable for dashboard in DASHBOARDS for variable in dashboard.variables)]
    assert [choice.name for choice in choices if not names_in(choice.values) & served()] == []


def test_every_query_is_promql(tmp_path: Path) -> None:
    recorded = [{"record": f"q{number}", "expr": substitute(expr)} for number, expr in enumerate(EXPRESSIONS)]
    assert not any("$" in rule["expr"] for rule in recorded)
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "q", "rules": recorded}]}), "utf-8")
    promtool("check", "rules", tmp_path / "rules.yml")


def asked(dashboard: str, panel: str, legend: str) -> str:
    """A query as Prometheus takes it."""
    (expr,) = (one.expr for one in queries() if (one.dashboard, one.panel, one.legend) == (dashboard, panel, legend))
    return substitute(expr)


def answers(folder: Path, expr: str, given: dict[str, str], expected: dict[str, float], minute: int = 15) -> None:
    """Asks promtool whether series make an expression have those values, by their labels."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [
            {
                "expr": f"round({expr}, 1e-3)",
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()],
            }
        ],
    }
    (folder / "test.yml").write_text(json.dumps({"rule_files": [], "tests": [test]}), "utf-8")
    promtool("test", "rules", folder / "test.yml")


def counted(name: str, instance: str, by_step: float, more: str = "") -> dict[str, str]:
    of = f'job="lathe",instance="{instance}",model="face",variant="int8",version="1"'
    return {f"{name}{{{of}{more}}}": f"0+{by_step}x80"}


ONE_VARIANT = 'model="face", variant="int8", version="1"'


@pytest.mark.parametrize(
    ("dashboard", "panel", "legend", "labels"),
    [
        ("lathe-variants", "Variants", "cost/million", ONE_VARIANT),
        (
            "lathe-capacity",
            "Cost of a million predictions",
            "{{model}} usage {{currency}}",
            'model="face"',
        ),
    ],
)
def test_each_currency_s_cost_is_of_the_frames_that_were_counted_in_it(
    tmp_path: Path, dashboard: str, panel: str, legend: str, labels: str
) -> None:
    """0.01 a frame in either; a third server has no price."""
    given = {}
    for instance, frames, currency in (("us", 100, "USD"), ("eu", 300, "EUR"), ("free", 500, "")):
        given |= counted("lathe_stage_seconds_count", instance, frames, ',stage="infer"')
        if currency:
            given |= counted("lathe_cost_usage_total", instance, frames / 100, f',currency="{currency}"')
    expected = {f'{{{labels}, currency="{currency}"}}': 10_000.0 for currency in ("USD", "EUR")}
    answers(tmp_path, asked(dashboard, panel, legend), given, expected)


def test_energy_and_carbon_of_a_frame_are_of_those_servers_that_tell_them(tmp_path: Path) -> None:
    given = {}
    for instance, frames, source in (("metered", 100, "rapl"), ("guessed", 300, "estimate"), ("dark", 500, "")):
        given |= counted("lathe_stage_seconds_count", instance, frames, ',stage="infer"')
        if source:
            given |= counted("lathe_energy_joules_total", instance, 2 * frames, f',source="{source}"')
    given |= counted("lathe_carbon_grams_total", "metered", 1)
    by_source = {f'{{model="face", source="{source}"}}': 2.0 for source in ("rapl", "estimate")}
    answers(tmp_path, asked("lathe-capacity", "Energy of a prediction", "{{model}} {{source}}"), given, by_source)
    one = f"{{{ONE_VARIANT}}}"
    answers(tmp_path, asked("lathe-variants", "Variants", "energy/frame"), given, {one: 2.0})
    answers(tmp_path, asked("lathe-variants", "Variants", "carbon/million"), given, {one: 10_000.0})


def test_one_row_a_variant_whatever_engines_it_is_served_by(tmp_path: Path) -> None:
    given = {}
    for engine in ("onnxruntime", "openvino"):
        given |= counted("lathe_variant_info", engine, 0, f',engine="{engine}",precision="int8",sparsity="0.5"')
    (info,) = (
        query.expr for panel in PANELS if panel.title == "Variants" for query in panel.queries if not query.legend
    )
    row = f'{{{ONE_VARIANT}, precision="int8", sparsity="0.5"}}'
    answers(tmp_path, substitute(info), given, {row: 0.0})


def test_the_strictest_server_s_seconds_are_the_objective(tmp_path: Path) -> None:
    given = {f'lathe_objective_seconds{{job="lathe",instance="{one}"}}': f"{one}x80" for one in ("0.1", "0.5")}
    answers(tmp_path, asked("lathe-overview", "From arrival to answer", "objective"), given, {"{}": 0.1})


def test_silent_cameras_are_those_that_the_alert_tells(tmp_path: Path) -> None:
    """At 25 hours one sends, one has sent nothing for an hour, one for more than a day, and one's server is new."""
    last = "lathe_stream_last_frame_timestamp_seconds"
    of = 'job="lathe",instance="a",stream='
    given = {
        f'{last}{{{of}"speaks"}}': "90000x6001",
        f'{last}{{{of}"silent"}}': "86400x6001",
        f'{last}{{{of}"removed"}}': "3000x6001",
        f'job_stream:{last}:max1d{{job="lathe",stream="speaks"}}': "89900x6001",
        f'job_stream:{last}:max1d{{job="lathe",stream="lost"}}': "80000x6001",
        f'job_stream:{last}:max1d{{job="lathe",stream="removed"}}': "3000x6001",
    }
    answers(tmp_path, asked("lathe-streams", "Silent cameras", "silent"), given, {"{}": 2.0}, minute=1500)


def test_queries_follow_the_choices_and_the_step() -> None:
    for expr, where in EXPRESSIONS.items():
        assert set(re.findall(r"\[([^]]+)\]", expr)) <= {"$__rate_interval"}, where
        assert 'job=~"$job"' in expr, where
        assert "or vector" not in expr, where
        counters = re.findall(r"(\w+)\((\w+(?:_total|_bucket|_sum|_count))\b", expr)
        assert all(function in ("rate", "increase") or name == "lathe_experiments_total" for function, name in counters)


def test_states_of_variants_have_the_words_of_the_server() -> None:
    (panel,) = (panel for panel in PANELS if panel.kind == "states")
    (column,) = (query for panel in PANELS for query in panel.queries if query.words)
    assert column.words == panel.words
    assert [word for _, word, _ in panel.words] == ["away", *STATES]
    found = re.findall(r'(\d) \* lathe_variant_state\{[^}]*state="(\w+)"', panel.queries[0].expr)
    assert [(int(number), word) for number, word in found] == [(n, word) for n, word, _ in panel.words[1:]]


def test_grafana_is_led_to_prometheus_and_to_the_dashboards() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/lathe.yaml").read_text("utf-8"))["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/var/lib/grafana/dashboards")
