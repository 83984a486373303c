"""What autoscalers ask exists, is written down where they read it, and both ways agree."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.calls import exposition
from tests.conftest import RunningServer
from tests.deploy.manifests import KUBERNETES, Document, resource


def adapter_rule() -> Document:
    values = yaml.safe_load((KUBERNETES / "hpa/adapter-values.yaml").read_text("utf-8"))
    (rule,) = values["rules"]["custom"]
    found: Document = rule
    return found


def adapter_query(namespace: str, pod: str) -> str:
    """As the adapter fills it in for one pod."""
    rule = adapter_rule()
    query: str = rule["metricsQuery"]
    filled = {
        "<<.Series>>": re.split("{", rule["seriesQuery"])[0],
        "<<.LabelMatchers>>": f'namespace="{namespace}",pod=~"{pod}"',
        "<<.GroupBy>>": "pod",
    }
    for mark, text in filled.items():
        query = query.replace(mark, text)
    assert "<<" not in query
    return query


def keda_trigger(kind: str) -> Document:
    (trigger,) = (one for one in resource("keda", "ScaledObject")["spec"]["triggers"] if one["type"] == kind)
    found: Document = trigger
    return found


def hpa_metric(kind: str) -> Document:
    (metric,) = (one for one in resource("hpa", "HorizontalPodAutoscaler")["spec"]["metrics"] if one["type"] == kind)
    found: Document = metric
    return found


def hpa_threshold() -> float:
    """Seconds."""
    milli: str = hpa_metric("Pods")["pods"]["target"]["averageValue"]
    return float(milli.removesuffix("m")) / 1000


def test_the_metric_is_one_of_the_server_s(shared_server: RunningServer) -> None:
    served = set(re.findall(r"^# TYPE (\w+) ", exposition(shared_server), re.MULTILINE))
    assert adapter_rule()["seriesQuery"].partition("{")[0] in served
    asked = set(re.findall(r"\blathe_\w+", keda_trigger("prometheus")["metadata"]["query"]))
    assert asked
    assert asked <= served


def test_the_adapter_names_the_metric_that_the_autoscaler_asks_for() -> None:
    rule = adapter_rule()
    assert "name" not in rule  # it keeps the series' own
    assert rule["seriesQuery"].partition("{")[0] == hpa_metric("Pods")["pods"]["metric"]["name"]
    assert {one["resource"] for one in rule["resources"]["overrides"].values()} == {"namespace", "pod"}
    assert all(f'{label}!=""' in rule["seriesQuery"] for label in rule["resources"]["overrides"])


def test_both_ways_scale_at_the_same_figures() -> None:
    autoscaler, scaled = resource("hpa", "HorizontalPodAutoscaler")["spec"], resource("keda", "ScaledObject")["spec"]
    prometheus = keda_trigger("prometheus")
    assert float(prometheus["metadata"]["threshold"]) == pytest.approx(hpa_threshold())
    assert prometheus["metricType"] == "Value"
    cpu = hpa_metric("Resource")["resource"]["target"]
    assert keda_trigger("cpu")["metadata"]["value"] == str(cpu["averageUtilization"])
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (
        autoscaler["minReplicas"],
        autoscaler["maxReplicas"],
    )
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == autoscaler["behavior"]


@pytest.mark.parametrize("folder", ["hpa", "keda"])
def test_replicas_are_the_autoscaler_s_business(folder: str) -> None:
    deployment = resource(folder, "Deployment")
    assert "replicas" not in deployment["spec"]
    kind = "HorizontalPodAutoscaler" if folder == "hpa" else "ScaledObject"
    assert resource(folder, kind)["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_keda_asks_for_the_namespace_that_there_is() -> None:
    query = keda_trigger("prometheus")["metadata"]["query"]
    namespace = resource("keda", "Deployment")["metadata"]["namespace"]
    assert f'{{namespace="{namespace}"}}' in query  # the job is the namespace's: test_each_namespace_is_a_job
