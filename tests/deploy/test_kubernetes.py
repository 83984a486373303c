"""Kubernetes' manifests build, agree with their schemas, with each other, and with the server."""

from __future__ import annotations

import copy
import re
import urllib.request

import kubernetes_validate
import pytest

from lathe_dashboards.operator_rules import as_resource
from lathe_server.settings import unknown_variables
from tests.calls import SECONDS
from tests.conftest import ROOT, RunningServer
from tests.deploy.manifests import (
    FOLDERS,
    KUBERNETES,
    Document,
    environment_of,
    errors_of,
    kustomized,
    pod_of,
    port_of,
    resource,
    settings_of,
)
from tests.deploy.served import RULES, groups, rules
from tests.dockerfile import read_stages
from tests.project import PROJECT

VERSIONS = ("1.32", "1.37")
"""The oldest Kubernetes that these are for, and the newest whose schemas there are."""
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "ServingRuntime", "InferenceService"}
WITH_PODS = ["server", "object-store", "hpa", "keda", "kserve"]


def check(document: Document) -> None:
    """
    Raises:
        ValidationError: Kubernetes' schema does not let it pass.
    """
    if document["kind"] in CUSTOM:
        assert errors_of(document, document["kind"].lower()) == []
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def test_there_are_the_folders() -> None:
    assert sorted([*WITH_PODS, "volume", "seed", "monitoring"]) == FOLDERS
    unused = [
        path.name
        for path in KUBERNETES.rglob("*.*")
        if path.name not in ("kustomization.yaml", "adapter-values.yaml")
        and path.name not in (path.parent / "kustomization.yaml").read_text("utf-8")
    ]
    assert unused == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_all_of_it_keeps_to_the_schema(folder: str) -> None:
    assert kustomized(folder)
    for document in kustomized(folder):
        check(document)


@pytest.mark.parametrize(
    ("folder", "kind", "path"),
    [
        ("server", "Deployment", ("spec", "template", "spec")),
        ("server", "NetworkPolicy", ("spec",)),
        ("hpa", "HorizontalPodAutoscaler", ("spec", "behavior", "scaleDown")),
        ("monitoring", "ServiceMonitor", ("spec", "endpoints", 0)),
        ("monitoring", "PrometheusRule", ("spec", "groups", 0, "rules", 0)),
        ("keda", "ScaledObject", ("spec", "triggers", 0)),
        ("kserve", "ServingRuntime", ("spec",)),
        ("kserve", "InferenceService", ("spec", "predictor", "model")),
    ],
)
def test_a_schema_finds_what_is_misspelt(folder: str, kind: str, path: tuple[str | int, ...]) -> None:
    document = copy.deepcopy(resource(folder, kind))
    place = document
    for step in path:
        place = place[step]  # type: ignore[index]
    place["mispelt"] = "x"
    with pytest.raises((kubernetes_validate.ValidationError, AssertionError), match="mispelt"):
        check(document)


def test_the_seed_s_pod_may_do_what_the_server_may_and_is_taken_for_none() -> None:
    seed, server = resource("seed", "Pod"), pod_of("server")
    assert seed["spec"]["securityContext"] == server["securityContext"]
    ours, theirs = seed["spec"]["containers"][0], server["containers"][0]
    for field in ("image", "securityContext", "volumeMounts"):
        assert ours[field] == theirs[field], field
    claims = [volume.get("persistentVolumeClaim") for pod in (seed["spec"], server) for volume in pod["volumes"]]
    assert claims == [{"claimName": "lathe-models"}, None] * 2
    for kind in ("Namespace", "PersistentVolumeClaim"):  # applied by both, and nothing moves to and fro
        assert resource("seed", kind) == resource("server", kind)
    selector = resource("server", "Service", "lathe")["spec"]["selector"]
    assert not selector.items() <= seed["metadata"]["labels"].items()


def test_a_runtime_s_containers_are_those_of_a_pod() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"}, "spec": pod_of("kserve")}
    check(pod)


@pytest.mark.parametrize("folder", WITH_PODS)
def test_the_server_knows_its_settings_and_drains_in_time(folder: str) -> None:
    pod, environment = pod_of(folder), environment_of(folder)
    assert environment
    assert unknown_variables(environment) == []
    container = pod["containers"][0]
    settings = settings_of(container["args"], environment)
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + settings.drain_seconds + 2
    # Two failed probes, or a cached answer of DNS, and the pod is out of everybody's list before it says no.
    probe = container["readinessProbe"]
    assert pause > probe["periodSeconds"] * probe["failureThreshold"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert ports == {port_of(settings.grpc), port_of(settings.http)}
    assert settings.control.startswith("127.0.0.1:")


def test_kserve_s_own_grace_is_enough_for_a_service_that_says_nothing() -> None:
    drain = float(environment_of("kserve")["LATHE_DRAIN_SECONDS"])
    pause = pod_of("kserve")["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause + drain + 2 < 30


@pytest.mark.parametrize("folder", WITH_PODS)
def test_a_container_is_locked_down(folder: str) -> None:
    container = pod_of(folder)["containers"][0]
    own = container["securityContext"]
    assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
    assert own["capabilities"] == {"drop": ["ALL"]}
    merged = pod_of(folder).get("securityContext", {}) | own
    user = int(read_stages(ROOT / "Dockerfile")[-1].value("USER").partition(":")[0])
    assert (merged["runAsNonRoot"], merged["runAsUser"]) == (True, user)
    assert merged["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("folder", WITH_PODS)
def test_workers_have_whole_cores_of_their_own(folder: str) -> None:
    resources = pod_of(folder)["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"].isdecimal()


@pytest.mark.parametrize("folder", WITH_PODS)
def test_the_image_is_pinned_to_this_version(folder: str) -> None:
    image = pod_of(folder)["containers"][0]["image"]
    assert image == f"registry.example.com/lathe:{PROJECT['project']['version']}"


@pytest.mark.parametrize("folder", WITH_PODS)
def test_what_is_mounted_is_there(folder: str) -> None:
    pod = pod_of(folder)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    assert "emptyDir" in volumes[mounts["/tmp"]]  # the root is read-only
    repository = pod["containers"][0]["args"][0]
    if folder == "object-store":
        assert repository.startswith("s3://")
        assert not any(document["kind"] == "PersistentVolumeClaim" for document in kustomized(folder))
    elif folder == "kserve":
        assert repository == "/mnt/models"  # where KServe puts what storageUri names
    else:
        claim = volumes[mounts[repository]]["persistentVolumeClaim"]["claimName"]
        assert resource(folder, "PersistentVolumeClaim")["metadata"]["name"] == claim


@pytest.mark.parametrize("folder", WITH_PODS)
def test_probes_ask_pages_that_there_are(folder: str, shared_server: RunningServer) -> None:
    container = pod_of(folder)["containers"][0]
    http = port_of(settings_of(container["args"], {}).http)
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[kind]["httpGet"]
        assert numbers.get(probe["port"], probe["port"]) == http
        with urllib.request.urlopen(f"http://{shared_server.http}{probe['path']}", timeout=SECONDS) as response:
            assert response.status == 200


def test_whoever_selects_pods_finds_them() -> None:
    template = resource("server", "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    names = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    selectors = [
        resource("server", "Deployment")["spec"]["selector"]["matchLabels"],
        resource("server", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        resource("server", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for service in ("lathe", "lathe-grpc"):
        spec = resource("server", "Service", service)["spec"]
        selectors.append(spec["selector"])
        assert {port["targetPort"] for port in spec["ports"]} <= names
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    assert resource("server", "Service", "lathe-grpc")["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("folder", ["server", "object-store"])
def test_the_network_policy_lets_in_clients_and_prometheus_and_out_what_is_needed(folder: str) -> None:
    spec = resource(folder, "NetworkPolicy")["spec"]
    clients, prometheus = spec["ingress"]
    assert clients["from"][0]["podSelector"] == {"matchLabels": {"lathe-client": "true"}}
    assert [port["port"] for port in clients["ports"]] == ["grpc", "http"]
    assert [port["port"] for port in prometheus["ports"]] == ["http"]
    names, *others = spec["egress"]
    assert names["to"][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    roles = [{"ipBlock": {"cidr": f"169.254.{address}/32"}} for address in ("169.254", "170.23")]
    of_the_store = [{"ports": [{"port": 443}]}, {"to": roles, "ports": [{"port": 80}]}]
    assert others == (of_the_store if folder == "object-store" else [])


def test_prometheus_finds_each_pod_once() -> None:
    monitor = resource("monitoring", "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (
        document
        for document in kustomized("server")
        if document["kind"] == "Service" and wanted <= document["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = (port for port in service["spec"]["ports"] if port["name"] == endpoint["port"])
    assert port["port"] == port_of(settings_of(pod_of("server")["containers"][0]["args"], {}).http)
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]


def test_each_namespace_is_a_job_of_its_own_that_the_rules_know() -> None:
    (endpoint,) = resource("monitoring", "ServiceMonitor")["spec"]["endpoints"]
    (rule,) = endpoint["relabelings"]
    assert (rule["sourceLabels"], rule["targetLabel"]) == (["__meta_kubernetes_namespace"], "job")
    jobs = {rule["replacement"].replace("$1", namespace) for namespace in ("lathe", "shop")}
    assert len(jobs) == 2
    (known,) = set(re.findall(r'up\{job=~"([^"]*)"', rules("alert")["LatheNoServer"]["expr"]))
    assert all(re.fullmatch(known, job) for job in jobs)


def test_the_operator_gets_the_rules_that_prometheus_has() -> None:
    resource_text = (KUBERNETES / "monitoring/rules.yaml").read_text("utf-8")
    assert resource_text == as_resource(RULES.read_text("utf-8")), "run `make dashboards`"
    rule = resource("monitoring", "PrometheusRule")
    assert rule["spec"]["groups"] == groups()
    assert rule["metadata"]["labels"] == resource("monitoring", "ServiceMonitor")["metadata"]["labels"]


def test_a_rollout_takes_no_replica_away_before_another_is_ready() -> None:
    spec = resource("server", "Deployment")["spec"]
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert resource("server", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_service_of_kserve_chooses_the_runtime() -> None:
    runtime, service = resource("kserve", "ServingRuntime"), resource("kserve", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    container = runtime["spec"]["containers"][0]
    assert container["name"] == "kserve-container"
    http = port_of(settings_of(container["args"], {}).http)
    assert (
        container["ports"][0]["containerPort"] == http
    )  # the first is the service's own, by port 80 where it is not headless
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(http)
    assert re.fullmatch(r"(pvc|s3)://.+", model["storageUri"])
