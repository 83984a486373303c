"""What deploy/ runs, run without containers: the server, a real Prometheus with the mounted configuration, cameras."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from lathe import Client
from lathe.client import AsyncClient, ServerError
from lathe.connection import Connection
from lathe.housekeeping import problems
from lathe.repository import Repository, VariantRef
from lathe.v1 import control_pb2
from lathe_loadtest.camera import Camera, Tally
from tests.calls import SECONDS, until
from tests.conftest import ROOT
from tests.deploy.manifests import DEPLOY, Document, compose, environment_of, pod_of
from tests.deploy.natively import Serving, on_read_only_root, rewritten, running, serving
from tests.deploy.test_scaling import adapter_query, hpa_threshold, keda_trigger
from tests.dockerfile import read_stages
from tests.prometheus import PrometheusApi, free_port

IMAGE = read_stages(ROOT / "Dockerfile")[-1]
SCRAPE_SECONDS = 0.25
"""Instead of 5, which the tests would have to wait for."""
FPS = 30
NAMESPACE, POD = "lathe", "lathe-0"
"""Labels that the Prometheus operator gives."""

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("promtool"), reason="Debian's package prometheus is missing"
)


@dataclass(frozen=True)
class Stack:
    """The services of compose.yaml, each as a process.

    Attributes:
        rules: files that Prometheus' configuration names and that there are.
    """

    lathe: Serving
    prometheus: PrometheusApi
    cameras: Document
    folder: Path
    rules: list[Path]


def targets_here(configuration: Document, addresses: dict[str, str]) -> Document:
    """Prometheus' configuration with other addresses, the operator's labels, and less time between scrapes."""
    configuration["global"] = {"scrape_interval": f"{SCRAPE_SECONDS * 1000:.0f}ms", "evaluation_interval": "1s"}
    for job in configuration["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [addresses[target] for target in group["targets"]]
            group["labels"] = {"namespace": NAMESPACE, "pod": POD}
    return configuration


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of grey at 20 frames a second, in a folder of its own."""
    folder = tmp_path_factory.mktemp("footage")
    with av.open(str(folder / "grey.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for _ in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((128, 160, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder


def seeded(models: Path, folder: Path, seed: Path) -> str:
    """What compose's service `models` says, having filled a volume."""
    service = compose()["services"]["models"]
    words = rewritten([*service["entrypoint"], *service["command"]], {"/seed": str(seed), "/models": str(models)})
    with running(words, {}, folder, "seed") as copy:
        code = copy.wait(30)
    said = (folder / "seed.log").read_text()
    assert code == 0, said
    return said


def test_the_volume_gets_whole_versions_and_keeps_its_routes(tmp_path: Path) -> None:
    """A seed with a route of its own, over a volume with another one and with what an interrupted copy has left."""
    source, models = tmp_path / "seed", tmp_path / "models"
    shutil.copytree(ROOT / "models/face", source / "face")
    models.mkdir()
    live = Repository(models)
    assert seeded(models, tmp_path, source).count(": copied\n") == 3
    weights = [{"variant": "int8", "version": 1, "weight": 1}]
    live.add_route(control_pb2.Route(model="face", revision=1, weights=weights))
    Repository(source).publish(Repository(source).card(VariantRef("face", "int8", 1)), b"newer")
    (source / "face/routes").mkdir()
    (source / "face/routes/7.json").write_text("{}")
    network = models / "face/pruned-int8/1/model.onnx"
    network.write_bytes(network.read_bytes()[:1000])
    (models / "face/student-int8/1/card.json").unlink()
    said = seeded(models, tmp_path, source).splitlines()
    assert said == [
        "face/int8/1: there already",
        "face/int8/2: copied",
        "face/pruned-int8/1: copied again: the one there is damaged",
        "face/student-int8/1: copied again: the one there is damaged",
    ]
    assert list(problems(live)) == []
    assert live.revisions("face") == [1]
    assert network.read_bytes() == (source / "face/pruned-int8/1/model.onnx").read_bytes()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    services = compose()["services"]
    models = folder / "models"
    models.mkdir()
    seeded(models, folder, DEPLOY / services["models"]["volumes"][0]["source"])
    words = rewritten([*IMAGE.words("ENTRYPOINT"), *IMAGE.words("CMD")], {"/models": str(models)})
    environment = services["lathe"]["environment"] | {"LATHE_WORKERS": "1"}  # the tests' cameras need the other core
    with serving(words, environment, folder) as lathe:
        prometheus = f"127.0.0.1:{free_port()}"
        mounted = folder / "prometheus"
        shutil.copytree(DEPLOY / "prometheus", mounted)
        configuration = yaml.safe_load((mounted / "prometheus.yml").read_text("utf-8"))
        rules = [path for pattern in configuration["rule_files"] for path in mounted.glob(pattern)]
        for path in rules:  # each group would wait for its own interval's turn
            path.write_text(re.sub(r"^(\s+interval:) \S+", r"\1 1s", path.read_text("utf-8"), flags=re.MULTILINE))
        changed = targets_here(configuration, {"lathe:8501": lathe.http, "localhost:9090": prometheus})
        (mounted / "prometheus.yml").write_text(yaml.safe_dump(changed), "utf-8")
        places = {"/etc/prometheus": str(mounted), "/prometheus": str(folder / "data")}
        words = ["prometheus", *rewritten(services["prometheus"]["command"], places)]
        with running([*words, f"--web.listen-address={prometheus}"], {}, folder, "prometheus") as process:
            asked = PrometheusApi(prometheus)

            def is_ready() -> bool:
                assert process.poll() is None, (folder / "prometheus.log").read_text()
                return asked.is_ready()

            until(is_ready, 30)
            yield Stack(lathe, asked, services["cameras"], folder, rules)


@needs_prometheus
def test_prometheus_scrapes_the_server_and_itself(stack: Stack) -> None:
    until(lambda: stack.prometheus.up() == {"lathe": "up", "prometheus": "up"}, 30)
    job = 'job="lathe"'
    until(lambda: stack.prometheus.value(f"count(lathe_variant_info{{{job}}})"), 30)
    assert stack.prometheus.value(f"lathe_objective_seconds{{{job}}}") == 0.1


@needs_prometheus
def test_all_rules_are_loaded_and_none_of_them_fails(stack: Stack) -> None:
    wanted = [
        rule.get("record") or rule["alert"]
        for path in stack.rules
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]

    def loaded() -> list[Document]:
        return [rule for group in stack.prometheus.get("rules")["groups"] for rule in group["rules"]]

    assert wanted
    assert sorted(rule["name"] for rule in loaded()) == sorted(wanted)
    until(lambda: all(rule["health"] == "ok" for rule in loaded()), 30)


@needs_prometheus
def test_the_cameras_of_the_profile_play_for_ever_and_each_is_seen(stack: Stack, film: Path) -> None:
    words = [*stack.cameras["entrypoint"], *rewritten(stack.cameras["command"], {"/footage": str(film)})]
    words[words.index("lathe:8500")] = stack.lathe.grpc
    with running(words, {}, stack.folder, "cameras") as process:

        def answered(camera: int) -> float:
            assert process.poll() is None, (stack.folder / "cameras.log").read_text()[-2000:]
            query = f'sum(lathe_stream_frames_total{{stream="camera-{camera}",outcome="answered"}})'
            return stack.prometheus.value(query)

        until(lambda: all(answered(camera) > 45 for camera in (1, 2, 3, 4)), 60)  # of a film of 20
        assert stack.prometheus.value("lathe_streams") == 4
        # They play at the film's pace: what they sent is no more than it has frames in that time.
        begun = time.monotonic(), sum(map(answered, (1, 2, 3, 4)))
        until(lambda: sum(map(answered, (1, 2, 3, 4))) > begun[1] + 40)
        assert (sum(map(answered, (1, 2, 3, 4))) - begun[1]) / (time.monotonic() - begun[0] + 1) < 4 * 20


async def load(address: str, jpeg: bytes, cameras: int, stop: asyncio.Event) -> None:
    """Cameras until they are stopped."""
    async with AsyncClient(address, connection=Connection()) as client:
        await asyncio.gather(
            *(
                Camera(f"load-{number}", "face", [jpeg], 30, phase=number / cameras).play(
                    client, 60, Tally(), stop=stop
                )
                for number in range(cameras)
            )
        )


@needs_prometheus
def test_autoscalers_see_overload_and_only_overload(stack: Stack, spot_jpeg: bytes) -> None:
    """The adapter's query and KEDA's, filled in and asked of a real Prometheus that scraped a real server."""
    queries = [adapter_query(NAMESPACE, POD), keda_trigger("prometheus")["metadata"]["query"]]
    threshold = hpa_threshold()

    def values() -> list[float]:
        return [float(one["value"][1]) for query in queries for one in stack.prometheus.query(query)]

    async def under(cameras: int, until_all: bool) -> list[float]:
        stop = asyncio.Event()
        playing = asyncio.create_task(load(stack.lathe.grpc, spot_jpeg, cameras, stop))
        end = time.monotonic() + (30 if until_all else 4)
        seen: list[float] = []
        while time.monotonic() < end and not (until_all and len(seen) == 2 and min(seen) > threshold):
            assert not playing.done() or playing.exception() is None
            await asyncio.sleep(SCRAPE_SECONDS)
            seen = await asyncio.to_thread(values)
        stop.set()
        await playing
        return seen

    quiet = asyncio.run(under(1, until_all=False))
    assert len(quiet) == 2
    assert max(quiet) < threshold / 2
    loud = asyncio.run(under(40, until_all=True))
    assert len(loud) == 2
    assert min(loud) > threshold


def can_mount() -> bool:
    command = ["unshare", "--mount", "mount", "-o", "remount,bind,ro", "/"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="file systems may not be mounted here")
def test_the_server_swaps_on_a_read_only_root(tmp_path: Path, spot_jpeg: bytes) -> None:
    """What compose's `read_only` and a pod's `readOnlyRootFilesystem` leave: the volume, and /tmp in memory."""
    models, memory = tmp_path / "models", tmp_path / "memory"
    shutil.copytree(ROOT / "models", models)
    memory.mkdir()
    words = rewritten([*IMAGE.words("ENTRYPOINT"), *IMAGE.words("CMD")], {"/models": str(models)})
    environment = {"TMPDIR": str(memory), "LATHE_CACHE": str(memory / "lathe"), "HOME": "/nonexistent"}
    with serving(on_read_only_root(words, models, memory), environment, tmp_path) as lathe:
        with Client(lathe.grpc, lathe.control, Connection()) as client:
            before = client.detect("face", spot_jpeg).variant
            other = next(variant for variant in Repository(models).variants("face") if variant != before)
            client.set_route("face", {other: 1})
            assert client.detect("face", spot_jpeg).variant == other
        assert lathe.stop() == 0
    assert Repository(models).revisions("face") == [1]
    assert not any(word in lathe.log.read_text() for word in ("Read-only", "Traceback", "not written"))


@pytest.fixture
def readable(tmp_path: Path) -> Iterator[Path]:
    """The models that ship, as KServe mounts them: to be read, not written."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models", models)
    for path in (models, *models.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield models
    for path in (models, *models.rglob("*")):
        path.chmod(0o755)


def test_kserve_s_command_serves_a_repository_that_it_may_not_write(
    readable: Path, tmp_path: Path, spot_jpeg: bytes
) -> None:
    container = pod_of("kserve")["containers"][0]
    words = [*IMAGE.words("ENTRYPOINT"), *rewritten(container["args"], {"/mnt/models": str(readable)})]
    with serving(words, environment_of("kserve"), tmp_path) as lathe:
        with Client(lathe.grpc, lathe.control, Connection()) as client:
            variant = client.detect("face", spot_jpeg).variant
            with pytest.raises(ServerError, match="cannot be written"):
                client.set_route("face", {variant: 1})
            assert client.detect("face", spot_jpeg).variant == variant
        with urllib.request.urlopen(f"http://{lathe.http}/v2/models/face", timeout=SECONDS) as response:
            metadata = json.load(response)
        assert metadata["name"] == "face"
        assert "image" in [one["name"] for one in metadata["inputs"]]
        assert lathe.stop() == 0
    assert "Traceback" not in lathe.log.read_text()


@pytest.mark.parametrize("folder", ["server", "hpa", "keda"])
def test_a_pod_s_command_serves_and_ends_within_its_grace(folder: str, tmp_path: Path, spot_jpeg: bytes) -> None:
    pod = pod_of(folder)
    container = pod["containers"][0]
    shutil.copytree(ROOT / "models", tmp_path / "models")
    words = [*IMAGE.words("ENTRYPOINT"), *rewritten(container["args"], {"/models": str(tmp_path / "models")})]
    with serving(words, environment_of(folder), tmp_path) as lathe:
        with Client(lathe.grpc, connection=Connection()) as client:
            assert client.detect("face", spot_jpeg).variant
        began = time.monotonic()
        assert lathe.stop() == 0
        left = pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert time.monotonic() - began < left
